/* An intercommunicator of two halves, its collectives, and the merge of both. */
#include "common.h"

int main(int argc, char **argv) {
    begin(&argc, &argv);
    CHECK(size >= 2);
    int low = rank < size / 2;
    MPI_Comm half, inter, both;
    MPI_Comm_split(MPI_COMM_WORLD, low, rank, &half);
    MPI_Intercomm_create(half, 0, MPI_COMM_WORLD, low ? size / 2 : 0, 5, &inter);
    int of, one = 1, sum = 0, at;
    MPI_Comm_remote_size(inter, &of);
    CHECK(of == (low ? size - size / 2 : size / 2));
    MPI_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, inter);
    CHECK(sum == of);
    MPI_Intercomm_merge(inter, !low, &both);
    MPI_Comm_rank(both, &at);
    CHECK(at == rank);
    MPI_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, both);
    CHECK(sum == size);
    MPI_Comm_free(&both);
    MPI_Comm_free(&inter);
    MPI_Comm_free(&half);
    return end("merge");
}
