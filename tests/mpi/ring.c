/* Messages of many sizes round a ring, with wildcards and with requests. */
#include "common.h"

int main(int argc, char **argv) {
    begin(&argc, &argv);
    int next = (rank + 1) % size, before = (rank + size - 1) % size;
    for (int bytes = 1; bytes <= 4 << 20; bytes *= 8) {
        char *out = malloc(bytes), *in = malloc(bytes);
        memset(out, rank + bytes, bytes);
        memset(in, 0, bytes);
        MPI_Request requests[2];
        MPI_Irecv(in, bytes, MPI_CHAR, before, 7, MPI_COMM_WORLD, &requests[0]);
        MPI_Isend(out, bytes, MPI_CHAR, next, 7, MPI_COMM_WORLD, &requests[1]);
        MPI_Waitall(2, requests, MPI_STATUSES_IGNORE);
        for (int i = 0; i < bytes; i++) CHECK(in[i] == (char)(before + bytes));
        free(out);
        free(in);
    }
    if (rank == 0) {
        int sum = 0;
        for (int i = 1; i < size; i++) {
            int got;
            MPI_Status status;
            MPI_Recv(&got, 1, MPI_INT, MPI_ANY_SOURCE, MPI_ANY_TAG, MPI_COMM_WORLD, &status);
            CHECK(got == status.MPI_SOURCE && status.MPI_TAG == got + 100);
            sum += got;
        }
        CHECK(sum == size * (size - 1) / 2);
    } else {
        MPI_Send(&rank, 1, MPI_INT, 0, rank + 100, MPI_COMM_WORLD);
    }
    return end("ring");
}
