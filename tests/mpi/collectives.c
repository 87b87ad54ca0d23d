/* Every collective once, blocking, with its result checked; some in their non-blocking form. */
#include "common.h"

#define N 1000

static long sum_of_ranks(void) { return (long)size * (size - 1) / 2; }

static void reductions(void) {
    double mine[N], all[N];
    for (int i = 0; i < N; i++) mine[i] = rank + i;
    MPI_Allreduce(mine, all, N, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    for (int i = 0; i < N; i++) CHECK(all[i] == sum_of_ranks() + (double)size * i);
    MPI_Reduce(mine, all, N, MPI_DOUBLE, MPI_MAX, size - 1, MPI_COMM_WORLD);
    if (rank == size - 1) CHECK(all[3] == size - 1 + 3);
    MPI_Scan(mine, all, N, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    CHECK(all[0] == (double)rank * (rank + 1) / 2);
    all[0] = -1;
    MPI_Exscan(mine, all, N, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    if (rank > 0) CHECK(all[0] == (double)rank * (rank - 1) / 2);
    int *each = malloc(size * sizeof(int)), *ones = malloc(size * sizeof(int)), one;
    for (int i = 0; i < size; i++) each[i] = rank + i, ones[i] = 1;
    MPI_Reduce_scatter(each, &one, ones, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    CHECK(one == sum_of_ranks() + size * rank);
    MPI_Reduce_scatter_block(each, &one, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    CHECK(one == sum_of_ranks() + size * rank);
    MPI_Request request;
    MPI_Iallreduce(mine, all, N, MPI_DOUBLE, MPI_MIN, MPI_COMM_WORLD, &request);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    CHECK(all[5] == 5);
    free(each);
    free(ones);
}

static void movements(void) {
    int *all = malloc(size * sizeof(int)), *counts = malloc(size * sizeof(int)), *at = malloc(size * sizeof(int)), one;
    one = rank == 0 ? 4711 : 0;
    MPI_Bcast(&one, 1, MPI_INT, 0, MPI_COMM_WORLD);
    CHECK(one == 4711);
    MPI_Gather(&rank, 1, MPI_INT, all, 1, MPI_INT, 0, MPI_COMM_WORLD);
    if (rank == 0)
        for (int i = 0; i < size; i++) {
            CHECK(all[i] == i);
            all[i] = 10 * i;
        }
    MPI_Scatter(all, 1, MPI_INT, &one, 1, MPI_INT, 0, MPI_COMM_WORLD);
    CHECK(one == 10 * rank);
    MPI_Allgather(&rank, 1, MPI_INT, all, 1, MPI_INT, MPI_COMM_WORLD);
    for (int i = 0; i < size; i++) CHECK(all[i] == i);
    int *many = malloc(size * (size + 1) / 2 * sizeof(int)), *own = malloc((rank + 1) * sizeof(int));
    for (int i = 0; i <= rank; i++) own[i] = rank;
    for (int i = 0, sum = 0; i < size; i++) counts[i] = i + 1, at[i] = sum, sum += i + 1;
    MPI_Allgatherv(own, rank + 1, MPI_INT, many, counts, at, MPI_INT, MPI_COMM_WORLD);
    for (int i = 0; i < size; i++) CHECK(many[at[i]] == i && many[at[i] + i] == i);
    memset(many, 0, size * (size + 1) / 2 * sizeof(int));
    MPI_Gatherv(own, rank + 1, MPI_INT, many, counts, at, MPI_INT, 0, MPI_COMM_WORLD);
    if (rank == 0) CHECK(many[at[size - 1]] == size - 1);
    MPI_Scatterv(many, counts, at, MPI_INT, own, rank + 1, MPI_INT, 0, MPI_COMM_WORLD);
    CHECK(own[rank] == rank);
    free(many);
    free(own);
    free(all);
    free(counts);
    free(at);
}

static void alltoalls(void) {
    int *out = malloc(size * sizeof(int)), *in = malloc(size * sizeof(int));
    int *ones = malloc(size * sizeof(int)), *at = malloc(size * sizeof(int)), *bytes = malloc(size * sizeof(int));
    MPI_Datatype *types = malloc(size * sizeof(MPI_Datatype));
    for (int i = 0; i < size; i++) {
        out[i] = 100 * rank + i, ones[i] = 1, at[i] = i, bytes[i] = i * (int)sizeof(int), types[i] = MPI_INT;
    }
    MPI_Alltoall(out, 1, MPI_INT, in, 1, MPI_INT, MPI_COMM_WORLD);
    for (int i = 0; i < size; i++) {
        CHECK(in[i] == 100 * i + rank);
        in[i] = 0;
    }
    MPI_Alltoallv(out, ones, at, MPI_INT, in, ones, at, MPI_INT, MPI_COMM_WORLD);
    for (int i = 0; i < size; i++) {
        CHECK(in[i] == 100 * i + rank);
        in[i] = 0;
    }
    MPI_Alltoallw(out, ones, bytes, types, in, ones, bytes, types, MPI_COMM_WORLD);
    for (int i = 0; i < size; i++) CHECK(in[i] == 100 * i + rank);
    free(out);
    free(in);
    free(ones);
    free(at);
    free(bytes);
    free(types);
}

int main(int argc, char **argv) {
    begin(&argc, &argv);
    MPI_Barrier(MPI_COMM_WORLD);
    reductions();
    movements();
    alltoalls();
    MPI_Comm odd;
    MPI_Comm_split(MPI_COMM_WORLD, rank % 2, -rank, &odd);
    int of, sum, one = 1;
    MPI_Comm_size(odd, &of);
    MPI_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, odd);
    CHECK(sum == of);
    MPI_Comm_free(&odd);
    return end("collectives");
}
