/* Halves of the world find each other by a published name and a port. */
#include "common.h"

int main(int argc, char **argv) {
    begin(&argc, &argv);
    CHECK(size >= 2);
    int server = rank < size / 2, leader = rank == 0 || rank == size / 2;
    MPI_Comm half, other, both;
    MPI_Comm_split(MPI_COMM_WORLD, server, rank, &half);
    char port[MPI_MAX_PORT_NAME] = "";
    if (server) {
        if (leader) {
            MPI_Open_port(MPI_INFO_NULL, port);
            MPI_Publish_name("rmpi-test", MPI_INFO_NULL, port);
        }
        MPI_Barrier(MPI_COMM_WORLD);
        MPI_Comm_accept(port, MPI_INFO_NULL, 0, half, &other);
    } else {
        MPI_Barrier(MPI_COMM_WORLD);
        if (leader) {
            MPI_Lookup_name("rmpi-test", MPI_INFO_NULL, port);
            CHECK(port[0]);
        }
        MPI_Comm_connect(port, MPI_INFO_NULL, 0, half, &other);
    }
    int of, one = 1, sum;
    MPI_Comm_remote_size(other, &of);
    MPI_Intercomm_merge(other, server, &both);
    MPI_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, both);
    CHECK(sum == size);
    MPI_Comm_free(&both);
    MPI_Comm_disconnect(&other);
    if (server && leader) {
        MPI_Unpublish_name("rmpi-test", MPI_INFO_NULL, port);
        MPI_Close_port(port);
    }
    MPI_Comm_free(&half);
    return end("ports");
}
