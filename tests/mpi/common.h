/* What the programs share: a check that ends the job with its line, and the last word of a good run. */
#ifndef COMMON_H
#define COMMON_H
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int rank, size;

#define CHECK(what)                                                                  \
    do {                                                                             \
        if (!(what)) {                                                               \
            fprintf(stderr, "rank %d: %s:%d: %s\n", rank, __FILE__, __LINE__, #what); \
            MPI_Abort(MPI_COMM_WORLD, 99);                                           \
        }                                                                            \
    } while (0)

static inline void begin(int *argc, char ***argv) {
    MPI_Init(argc, argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
}

/* Rank 0 says it when all have come so far. */
static inline int end(const char *name) {
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) {
        printf("%s ok %d\n", name, size);
        fflush(stdout);
    }
    MPI_Finalize();
    return 0;
}
#endif
