/* Four threads of every rank talk at once. */
#include "common.h"
#include <pthread.h>

#define THREADS 4

static void *talk(void *arg) {
    int t = (int)(long)arg, next = (rank + 1) % size, before = (rank + size - 1) % size;
    for (int i = 0; i < 50; i++) {
        int out = 1000 * rank + i, in;
        MPI_Sendrecv(&out, 1, MPI_INT, next, t, &in, 1, MPI_INT, before, t, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        CHECK(in == 1000 * before + i);
    }
    return NULL;
}

int main(int argc, char **argv) {
    int level;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    CHECK(level == MPI_THREAD_MULTIPLE);
    pthread_t threads[THREADS];
    for (long t = 0; t < THREADS; t++) pthread_create(&threads[t], NULL, talk, (void *)t);
    for (int t = 0; t < THREADS; t++) pthread_join(threads[t], NULL);
    return end("threads");
}
