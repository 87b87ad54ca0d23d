/* Put, get and accumulate under fences, locks and in shared memory. */
#include "common.h"

int main(int argc, char **argv) {
    begin(&argc, &argv);
    int *mine, next = (rank + 1) % size, got = -1;
    MPI_Win win;
    /* Whole cache lines: MPICH 4.0.2 puts windows of 12 bytes in the wrong places, under its own mpiexec too. */
    MPI_Win_allocate(16 * size * sizeof(int), sizeof(int), MPI_INFO_NULL, MPI_COMM_WORLD, &mine, &win);
    memset(mine, 0, size * sizeof(int));
    MPI_Win_fence(0, win);
    MPI_Put(&rank, 1, MPI_INT, next, rank, 1, MPI_INT, win);
    MPI_Win_fence(0, win);
    int before = (rank + size - 1) % size;
    CHECK(mine[before] == before);
    MPI_Get(&got, 1, MPI_INT, next, rank, 1, MPI_INT, win);
    MPI_Win_fence(0, win);
    CHECK(got == rank);
    if (rank == 0) mine[0] = 0;
    MPI_Win_fence(0, win);
    int one = 1, old;
    for (int i = 0; i < 20; i++) {
        MPI_Win_lock(MPI_LOCK_SHARED, 0, 0, win);
        MPI_Fetch_and_op(&one, &old, MPI_INT, 0, 0, MPI_SUM, win);
        MPI_Win_unlock(0, win);
    }
    MPI_Win_fence(0, win);
    if (rank == 0) CHECK(mine[0] == 20 * size);
    MPI_Win_free(&win);

    MPI_Comm node;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
    int local, here, unit, *base;
    MPI_Aint bytes;
    MPI_Comm_rank(node, &local);
    MPI_Comm_size(node, &here);
    MPI_Win_allocate_shared(sizeof(int), sizeof(int), MPI_INFO_NULL, node, &base, &win);
    MPI_Win_lock_all(0, win);
    *base = 1000 + local;
    MPI_Win_sync(win);
    MPI_Barrier(node);
    MPI_Win_sync(win);
    int *other;
    MPI_Win_shared_query(win, (local + 1) % here, &bytes, &unit, &other);
    CHECK(*other == 1000 + (local + 1) % here);
    MPI_Win_unlock_all(win);
    MPI_Win_free(&win);
    MPI_Comm_free(&node);
    return end("onesided");
}
