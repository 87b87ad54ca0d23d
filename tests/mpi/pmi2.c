/* Every call of PMI-2 as a library of another launcher makes it (Slurm's libpmi2), without any MPI: identity, values
 * through two fences, attributes of the node (waited for) and the job, names, more ranks, connection; `abort` ends the
 * job with a code. */
#include <slurm/pmi2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int rank, size;

#define CHECK(what)                                                                  \
    do {                                                                             \
        if (!(what)) {                                                               \
            fprintf(stderr, "rank %d: %s:%d: %s\n", rank, __FILE__, __LINE__, #what); \
            exit(99);                                                                \
        }                                                                            \
    } while (0)
#define GOOD(call) CHECK((call) == PMI2_SUCCESS)

/* Everybody puts a value with what the protocol must quote and reads everybody's. */
static void exchange(const char *job, int round) {
    char key[PMI2_MAX_KEYLEN], value[PMI2_MAX_VALLEN], found[PMI2_MAX_VALLEN];
    int length;
    snprintf(key, sizeof key, "key-%d-%d", round, rank);
    snprintf(value, sizeof value, "a;b=c;;%d.%d", round, rank);
    GOOD(PMI2_KVS_Put(key, value));
    GOOD(PMI2_KVS_Fence());
    for (int other = 0; other < size; other++) {
        snprintf(key, sizeof key, "key-%d-%d", round, other);
        snprintf(value, sizeof value, "a;b=c;;%d.%d", round, other);
        GOOD(PMI2_KVS_Get(job, PMI2_ID_NULL, key, found, sizeof found, &length));
        CHECK(strcmp(found, value) == 0);
    }
    CHECK(PMI2_KVS_Get(job, PMI2_ID_NULL, "nobody put this", found, sizeof found, &length) != PMI2_SUCCESS);
}

/* The node's first rank says something that its others wait for. */
static void attributes(void) {
    const char *local = getenv("MPI_LOCALRANKID");
    char value[PMI2_MAX_ATTRVALUE];
    int found = 0;
    CHECK(local != NULL);
    if (strcmp(local, "0") == 0)
        GOOD(PMI2_Info_PutNodeAttr("greeting", "hello; all"));
    GOOD(PMI2_Info_GetNodeAttr("greeting", value, sizeof value, &found, 1));
    CHECK(found && strcmp(value, "hello; all") == 0);
    GOOD(PMI2_Info_GetNodeAttr("silence", value, sizeof value, &found, 0));
    CHECK(!found);
    GOOD(PMI2_Info_GetJobAttr("PMI_process_mapping", value, sizeof value, &found));
    CHECK(found && strncmp(value, "(vector,(", 9) == 0);
    GOOD(PMI2_Info_GetJobAttr("universeSize", value, sizeof value, &found));
    CHECK(found && atoi(value) >= size);
}

static void names(void) {
    char port[PMI2_MAX_VALLEN];
    if (rank == 0)
        GOOD(PMI2_Nameserv_publish("service", NULL, "port#1$of;0"));
    GOOD(PMI2_KVS_Fence());
    GOOD(PMI2_Nameserv_lookup("service", NULL, port, sizeof port));
    CHECK(strcmp(port, "port#1$of;0") == 0);
    GOOD(PMI2_KVS_Fence());
    if (rank == 0)
        GOOD(PMI2_Nameserv_unpublish("service", NULL));
    GOOD(PMI2_KVS_Fence());
    CHECK(PMI2_Nameserv_lookup("service", NULL, port, sizeof port) != PMI2_SUCCESS);
}

/* Rank 0 has two more ranks started, which read what it put for them. */
static void more(const char *program) {
    char child[PMI2_MAX_VALLEN];
    const char *command[] = {program}, *words[] = {"child", NULL}, **arguments[] = {words};
    int counts[] = {1}, most[] = {2}, infos[] = {0}, errors[2] = {0};
    const struct MPID_Info *none[] = {NULL};
    struct MPID_Info put = {0};
    const struct MPID_Info *before[] = {&put};
    put.key = "errand", put.value = "for the children";
    if (rank == 0) {
        GOOD(PMI2_Job_Spawn(1, command, counts, arguments, most, infos, none, 1, before, child,
                            sizeof child, errors));
        CHECK(child[0] != 0);
    }
    GOOD(PMI2_KVS_Fence());
}

int main(int argc, char **argv) {
    int spawned, app;
    char job[PMI2_MAX_VALLEN], value[PMI2_MAX_ATTRVALUE];
    CHECK(!PMI2_Initialized());
    GOOD(PMI2_Init(&spawned, &size, &rank, &app));
    CHECK(PMI2_Initialized() && app == 0 && rank >= 0 && rank < size);
    GOOD(PMI2_Job_GetId(job, sizeof job));
    if (argc > 1 && strcmp(argv[1], "child") == 0) {
        int found = 0;
        CHECK(spawned && size == 2);
        GOOD(PMI2_Info_GetJobAttr("errand", value, sizeof value, &found));
        CHECK(found && strcmp(value, "for the children") == 0);
        exchange(job, 0);
        GOOD(PMI2_Finalize());
        return 0;
    }
    CHECK(!spawned);
    exchange(job, 0);
    if (argc > 1 && strcmp(argv[1], "abort") == 0) {
        if (rank == size - 1)
            PMI2_Abort(1, "MPI_Abort(MPI_COMM_WORLD, 42)");
        GOOD(PMI2_KVS_Fence());
        GOOD(PMI2_KVS_Fence());
        return 0;
    }
    exchange(job, 1);
    attributes();
    names();
    more(argv[0]);
    if (rank == 0) {
        printf("pmi2 ok %d\n", size);
        fflush(stdout);
    }
    GOOD(PMI2_Finalize());
    return 0;
}
