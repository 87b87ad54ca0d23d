/* The last rank dies of a signal in the middle of everything. */
#include "common.h"
#include <signal.h>

int main(int argc, char **argv) {
    begin(&argc, &argv);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == size - 1) {
        /* Open MPI catches this signal to print a trace. */
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    return end("die");
}
