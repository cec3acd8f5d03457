// SPDX-License-Identifier: Apache-2.0
/* Starting, ending and waiting for MPI. Everything that differs between launchers is here. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/position.h"
#include "comm/group.h"

enum {
    YIELDS_BEFORE_SLEEP = 200, /* short waits end within these; the core is offered to others */
    DOUBLE_SLEEP_EVERY = 8,
    MIN_SLEEP_US = 20,
    MAX_SLEEP_US = 500,
};

sh_status sh_mpi_status(int code, const char *what)
{
    char text[MPI_MAX_ERROR_STRING] = "unknown MPI error";
    int length = 0;

    if (code == MPI_SUCCESS) return SH_OK;
    MPI_Error_string(code, text, &length);
    return sh_error_set(SH_ERR_COMM, "MPI failed: %s (in %s)", text, what);
}

void sh_backoff_pause(sh_backoff *backoff)
{
    int sleeps = backoff->n_pauses++ - YIELDS_BEFORE_SLEEP;

    if (sleeps < 0) {
        sched_yield();
        return;
    }
    int doublings = sleeps / DOUBLE_SLEEP_EVERY;
    double us = doublings > 4 ? MAX_SLEEP_US : MIN_SLEEP_US * (1 << doublings);

    sh_clock_sleep(1e-6 * us);
}

sh_status sh_mpi_wait(sh_comm *comm, const char *what, MPI_Request *request)
{
    sh_status st = SH_OK;
    sh_backoff backoff = {0};
    int done = 0;

    sh_position_enter(SH_AT_COLLECTIVE, "%s %lld", what, (long long)++comm->n_collectives);
    for (;;) {
        SH_MPI(MPI_Test(request, &done, MPI_STATUS_IGNORE));
        if (done) break;
        sh_backoff_pause(&backoff);
    }
out:
    sh_position_leave();
    return st;
}

static int env_int(const char *name)
{
    const char *text = getenv(name);

    return text != NULL ? atoi(text) : 0;
}

/* How many processes the launcher says it started for this program; 1 without a launcher. Inside a
 * batch script no step is set: a command started there by hand is alone, whatever was allocated. */
static int promised_ranks(const char **launcher)
{
    static const struct {
        const char *marker, *count, *launcher;
    } launchers[] = {
        {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "mpirun"},
        {"PMI_SIZE", "PMI_SIZE", "the launcher"},
        {"SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS", "srun"},
        {"SLURM_STEP_ID", "SLURM_NTASKS", "srun"},
    };

    for (size_t i = 0; i < SH_COUNT(launchers); i++) {
        if (getenv(launchers[i].marker) == NULL || env_int(launchers[i].count) < 1) continue;
        *launcher = launchers[i].launcher;
        return env_int(launchers[i].count);
    }
    *launcher = "nobody";
    return 1;
}

/* Did the launcher start all ranks on this host? */
static bool on_one_host(void)
{
    int n = env_int("OMPI_COMM_WORLD_SIZE");

    return n > 0 ? env_int("OMPI_COMM_WORLD_LOCAL_SIZE") == n
                 : env_int("SLURM_STEP_NUM_NODES") == 1;
}

/* Can MPI_Init find its peers? Asked first, since it may end a process that has none. */
static bool peers_reachable(void)
{
    return getenv("OMPI_COMM_WORLD_SIZE") != NULL || getenv("PMIX_RANK") != NULL;
}

/* Which ranks are on this host, and how many cores they have: a launcher may have bound each rank
 * to cores of its own (as mpirun does), or left all cores to all. */
static sh_status look_around(sh_comm *comm)
{
    sh_status st = SH_OK;
    MPI_Comm host = MPI_COMM_NULL;
    cpu_set_t cores;

    CPU_ZERO(&cores);
    sched_getaffinity(0, sizeof(cores), &cores);
    SH_MPI(
        MPI_Comm_split_type(comm->group, MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL, &host));
    SH_MPI(MPI_Comm_rank(host, &comm->local_rank));
    SH_MPI(MPI_Comm_size(host, &comm->local_size));
    SH_MPI(MPI_Allreduce(MPI_IN_PLACE, &cores, sizeof(cores), MPI_BYTE, MPI_BOR, host));
    int granted = CPU_COUNT(&cores), quota = sh_cpu_cores_quota();

    if (granted > quota) granted = quota;
    comm->cores_per_rank = granted / comm->local_size > 1 ? granted / comm->local_size : 1;
    SH_MPI(MPI_Comm_free(&host));
out:
    return st;
}

static sh_status start_mpi(sh_comm *comm)
{
    sh_status st = SH_OK;
    int started = 0, ended = 0, provided = 0;

    SH_MPI(MPI_Finalized(&ended));
    SH_CHECK(!ended, SH_ERR_INTERNAL, "MPI was already ended in this process");
    SH_MPI(MPI_Initialized(&started));
    if (!started) {
        /* Ranks that share cores must not spin inside MPI either. */
        setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
        /* Its TCP ports believe whoever connects: none where memory is shared. */
        if (on_one_host()) setenv("OMPI_MCA_btl", "self,vader", 0);
        SH_MPI(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided));
        comm->owns_mpi = true;
        SH_CHECK(provided >= MPI_THREAD_FUNNELED, SH_ERR_UNSUPPORTED,
                 "this MPI does not allow threads beside the one that communicates");
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    SH_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &comm->group));
    comm->over_mpi = true;
    SH_MPI(MPI_Comm_set_errhandler(comm->group, MPI_ERRORS_RETURN));
    SH_MPI(MPI_Comm_rank(comm->group, &comm->rank));
    SH_MPI(MPI_Comm_size(comm->group, &comm->size));
    SH_TRY(look_around(comm));
out:
    return st;
}

sh_status sh_mpi_join(int expect_ranks, sh_comm *comm)
{
    sh_status st = SH_OK;
    const char *launcher = NULL;
    int promised = promised_ranks(&launcher);

    if (peers_reachable()) SH_TRY(start_mpi(comm));
    SH_CHECK(comm->size > 1 || promised == 1 || expect_ranks == 1, SH_ERR_USAGE,
             "%s started %d processes that cannot see each other: each would train alone. Start "
             "them with 'mpirun -n %d shoal ...' or 'srun --mpi=pmix shoal ...'; if every process "
             "shall be a run of its own, say ranks=1",
             launcher, promised, promised);
    SH_CHECK(expect_ranks < 1 || comm->size == expect_ranks, SH_ERR_USAGE,
             "ranks=%d was asked for, but this job has %d: start it with 'mpirun -n %d'",
             expect_ranks, comm->size, expect_ranks);
out:
    return st;
}

void sh_mpi_leave(sh_comm *comm)
{
    if (comm->over_mpi) MPI_Comm_free(&comm->group);
    if (comm->owns_mpi) MPI_Finalize();
}
