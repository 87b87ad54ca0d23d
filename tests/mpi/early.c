/* The last rank exits with 0 and without MPI_Finalize: a failure of the job. */
#include "common.h"
#include <unistd.h>

int main(int argc, char **argv) {
    begin(&argc, &argv);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == size - 1) _exit(0);
    MPI_Barrier(MPI_COMM_WORLD);
    return end("early");
}
