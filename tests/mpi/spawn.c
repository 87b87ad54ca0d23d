/* Two children are spawned; parents and children merge, sum up and part. */
#include "common.h"

int main(int argc, char **argv) {
    begin(&argc, &argv);
    MPI_Comm parent, children, both;
    MPI_Comm_get_parent(&parent);
    int child = parent != MPI_COMM_NULL, codes[2], of, one = 1, sum;
    if (child) {
        CHECK(argc == 2 && strcmp(argv[1], "--child") == 0 && size == 2);
        children = parent;
    } else {
        char *args[] = {"--child", NULL};
        MPI_Comm_spawn(argv[0], args, 2, MPI_INFO_NULL, 0, MPI_COMM_WORLD, &children, codes);
        CHECK(codes[0] == MPI_SUCCESS && codes[1] == MPI_SUCCESS);
    }
    MPI_Comm_remote_size(children, &of);
    CHECK(child || of == 2);
    MPI_Intercomm_merge(children, child, &both);
    MPI_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, both);
    CHECK(sum == size + of);
    MPI_Comm_free(&both);
    MPI_Comm_disconnect(&children);
    if (child) {
        MPI_Finalize();
        return 0;
    }
    return end("spawn");
}
