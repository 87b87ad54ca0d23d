/* Ranks, sizes, names and what the launcher says of the world. */
#include "common.h"

int main(int argc, char **argv) {
    begin(&argc, &argv);
    char name[MPI_MAX_PROCESSOR_NAME];
    int length, flag, *value;
    MPI_Get_processor_name(name, &length);
    CHECK(length > 0);
    CHECK(atoi(getenv("RMPIRUN_RANK")) == rank && atoi(getenv("RMPIRUN_SIZE")) == size);
    MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_UNIVERSE_SIZE, &value, &flag);
    CHECK(!flag || *value >= size);
    MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_APPNUM, &value, &flag);
    CHECK(!flag || *value == 0);
    MPI_Comm node;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
    int local, here;
    MPI_Comm_rank(node, &local);
    MPI_Comm_size(node, &here);
    CHECK(local == atoi(getenv("RMPIRUN_LOCAL_RANK")));
    CHECK(here == atoi(getenv("OMPI_COMM_WORLD_LOCAL_SIZE")));
    MPI_Comm_free(&node);
    return end("hello");
}
