// SPDX-License-Identifier: Apache-2.0
// timeout: 120
/* What happens to a job when something is wrong. */
#include <signal.h>

#include "comm/comm.h"
#include "comm/parts.h"

enum { N_ELEMS = 1 << 20, N_SHARDS = 8 };

/* ---- the parts, played under mpirun ---- */

/* Two ranks wait for one that ends the job. */
static sh_status play_abort(sh_comm *comm)
{
    if (sh_comm_rank(comm) == 1) sh_comm_abort(comm, 3, "crop 17 of koi.h5 is damaged");
    return sh_comm_barrier(comm);
}

/* The way of a step: everyone agrees after each part, and the failing rank's message arrives. */
static sh_status play_agree(sh_comm *comm)
{
    sh_status st = SH_OK, mine = SH_OK;

    if (sh_comm_rank(comm) == 2) mine = sh_error_set(SH_ERR_IO, "disk of rank 2 is full");
    SH_TRY(sh_comm_agree_ok(comm, mine));
out:
    return st;
}

/* Rank 1 is killed while its last bucket is being exchanged. */
static sh_status play_kill(sh_comm *comm)
{
    static const int64_t bounds[] = {0, N_ELEMS / 2, N_ELEMS};
    sh_status st = SH_OK;
    sh_reducer *reducer = NULL;
    const float *total = NULL;
    int begin, end;

    SH_TRY(sh_reducer_create(comm, NULL, SH_REDUCE_EXACT, N_SHARDS, N_ELEMS, bounds, 2, &reducer));
    sh_shards_of_rank(N_SHARDS, sh_comm_size(comm), sh_comm_rank(comm), &begin, &end);
    SH_TRY(sh_reducer_begin(reducer));
    for (int s = begin; s < end; s++) {
        memset(sh_reducer_leaf(reducer), 0, N_ELEMS * sizeof(float));
        if (s == end - 1) SH_TRY(sh_reducer_bucket_done(reducer, 1));
        if (s == end - 1 && sh_comm_rank(comm) == 1) kill(getpid(), SIGKILL);
        SH_TRY(sh_reducer_leaf_done(reducer));
    }
    SH_TRY(sh_reducer_finish(reducer, &total));
out:
    sh_reducer_destroy(&reducer);
    return st;
}

static sh_status play_nothing(sh_comm *comm)
{
    printf("rank %d of %d\n", sh_comm_rank(comm), sh_comm_size(comm));
    return SH_OK;
}

static const struct {
    const char *name;
    int expect_ranks;
    sh_status (*play)(sh_comm *comm);
} parts[] = {
    {"abort", 0, play_abort},     {"agree", 0, play_agree},     {"kill", 0, play_kill},
    {"nothing", 0, play_nothing}, {"expect1", 1, play_nothing}, {"expect5", 5, play_nothing},
};

static int play_part(const char *name)
{
    sh_comm *comm = NULL;
    sh_status st = SH_ERR_USAGE;

    for (size_t i = 0; i < SH_COUNT(parts); i++) {
        if (strcmp(parts[i].name, name) != 0) continue;
        st = sh_comm_create(parts[i].expect_ranks, &comm);
        if (st == SH_OK) st = parts[i].play(comm);
    }
    if (st != SH_OK) {
        fprintf(stderr, "played: %s\n", sh_error_message());
        fflush(stderr);
    }
    sh_comm_destroy(&comm);
    return st == SH_OK ? 0 : 10 + (int)st;
}

/* ---- the tests ---- */

static void abort__ends_all_ranks_with_message_and_code(void **state)
{
    static char text[OUTPUT_BYTES];
    double seconds;
    int rc = run_part(mpirun3, "abort", text, &seconds);

    (void)state;
    assert_int_equal(rc, 3);
    assert_int_equal(n_lines_with(text, "shoal: error: rank 1 on "), 1);
    assert_int_equal(n_lines_with(text, ": crop 17 of koi.h5 is damaged\n"), 1);
}

static void agree_ok__ends_all_ranks_with_the_failing_ones_message(void **state)
{
    static char text[OUTPUT_BYTES];
    double seconds;
    int rc = run_part(mpirun3, "agree", text, &seconds);

    (void)state;
    assert_true(rc == 10 + SH_ERR_IO || rc == 10 + SH_ERR_COMM); /* that of the first to end */
    assert_int_equal(n_lines_with(text, "played: rank 2 on "), 2);
    assert_int_equal(n_lines_with(text, "disk of rank 2 is full"), 3);
}

static void killed_rank__ends_the_job_soon(void **state)
{
    static char text[OUTPUT_BYTES];
    double seconds;
    int rc = run_part(mpirun3, "kill", text, &seconds);

    (void)state;
    assert_int_not_equal(rc, 0);
    assert_int_not_equal(rc, 124); /* the time limit of 40 s: a hang */
    assert_non_null(strstr(text, "signal 9"));
    print_message("the job ended %.1f s after its start\n", seconds);
}

static void singletons__are_refused_with_the_remedy(void **state)
{
    /* srun without PMIx, and the mpiexec of another MPI: every process sees only itself. */
    static const char *const launchers[] = {
        "env SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=4 SLURM_NTASKS=4 SLURM_PROCID=2",
        "env SLURM_STEP_ID=0 SLURM_NTASKS=4",
        "env PMI_SIZE=4 PMI_RANK=1",
    };
    static char text[OUTPUT_BYTES];
    double seconds;

    (void)state;
    for (size_t i = 0; i < SH_COUNT(launchers); i++) {
        int rc = run_part(launchers[i], "nothing", text, &seconds);

        assert_int_equal(rc, 10 + SH_ERR_USAGE);
        assert_non_null(strstr(text, "4 processes that cannot see each other"));
        assert_non_null(strstr(text, "srun --mpi=pmix"));
        assert_non_null(strstr(text, "ranks=1"));
        assert_null(strstr(text, "rank 0 of 1"));
        rc = run_part(launchers[i], "expect1", text, &seconds); /* a sweep's trials: meant so */
        assert_int_equal(rc, 0);
        assert_non_null(strstr(text, "rank 0 of 1"));
    }
}

static void batch_script__without_a_step_is_one_rank(void **state)
{
    static char text[OUTPUT_BYTES];
    double seconds;
    int rc =
        run_part("env SLURM_JOB_ID=7 SLURM_NTASKS=4 SLURM_PROCID=0", "nothing", text, &seconds);

    (void)state;
    assert_int_equal(rc, 0);
    assert_non_null(strstr(text, "rank 0 of 1"));
}

static void expected_ranks__are_compared_with_the_job(void **state)
{
    static char text[OUTPUT_BYTES];
    double seconds;
    int rc = run_part(mpirun3, "expect5", text, &seconds);

    (void)state;
    assert_int_equal(rc, 10 + SH_ERR_USAGE);
    assert_non_null(strstr(text, "ranks=5 was asked for, but this job has 3"));
    rc = run_part(mpirun3, "expect1", text, &seconds);
    assert_int_equal(rc, 10 + SH_ERR_USAGE);
    rc = run_part("env", "expect5", text, &seconds);
    assert_int_equal(rc, 10 + SH_ERR_USAGE);
    assert_non_null(strstr(text, "mpirun -n 5"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(abort__ends_all_ranks_with_message_and_code),
        cmocka_unit_test(agree_ok__ends_all_ranks_with_the_failing_ones_message),
        cmocka_unit_test(killed_rank__ends_the_job_soon),
        cmocka_unit_test(singletons__are_refused_with_the_remedy),
        cmocka_unit_test(batch_script__without_a_step_is_one_rank),
        cmocka_unit_test(expected_ranks__are_compared_with_the_job),
    };

    if (argc > 1) return play_part(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
