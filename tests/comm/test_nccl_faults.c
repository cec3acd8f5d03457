// SPDX-License-Identifier: Apache-2.0
// prefix: nccl
// library: sh_comm_nccl_host
// timeout: 120
/* What happens to a job when NCCL, or a rank that it waits for, fails: always an end, with a
 * message that names rank and collective. */
#include <signal.h>

#include "comm/nccl/host/host.h"
#include "comm/parts.h"
#include "comm/watchdog.h"

enum { N_ELEMS = 1000, N_SHARDS = 3, ENDED = 9, BY_THE_WATCHDOG = 76 };

/* ---- the parts, played under mpirun by three ranks ---- */

static const sh_device *device = &sh_device_lazy;

static sh_status join(sh_comm *comm, sh_transport transport, double patience_s)
{
    const sh_device_group_config config = {
        .transport = transport, .connect_seconds = 1, .patience_seconds = patience_s};

    return sh_comm_connect_devices(comm, device, &config);
}

/* A sum of ones; `before` is done by rank 1 when its last bucket is half of its work away. */
static sh_status sum(sh_comm *comm, void (*before)(void))
{
    static const int64_t bounds[] = {0, N_ELEMS / 2, N_ELEMS};
    const sh_device *where = sh_comm_sums_in(comm, device) ? device : NULL;
    static float ones[N_ELEMS];
    sh_status st = SH_OK;
    sh_reducer *reducer = NULL;
    const float *total = NULL;

    for (int i = 0; i < N_ELEMS; i++) ones[i] = 1;
    SH_TRY(sh_reducer_create(comm, where, SH_REDUCE_EXACT, N_SHARDS, N_ELEMS, bounds, 2, &reducer));
    SH_TRY(sh_reducer_begin(reducer));
    if (where != NULL)
        SH_TRY(where->copy(SH_QUEUE_COMPUTE, sh_reducer_leaf(reducer), ones, N_ELEMS));
    else
        memcpy(sh_reducer_leaf(reducer), ones, sizeof(ones));
    SH_TRY(sh_reducer_bucket_done(reducer, 1));
    if (before != NULL && sh_comm_rank(comm) == 1) before();
    SH_TRY(sh_reducer_leaf_done(reducer));
    SH_TRY(sh_reducer_finish(reducer, &total));
    SH_CHECK(total[0] == N_SHARDS && total[N_ELEMS - 1] == N_SHARDS, SH_ERR_INTERNAL,
             "the sum is wrong");
    printf("rank %d has the sum, %s\n", sh_comm_rank(comm), where != NULL ? "by NCCL" : "by MPI");
out:
    sh_reducer_destroy(&reducer);
    return st;
}

static sh_status join_and_sum(sh_comm *comm, double patience_s, void (*before)(void))
{
    sh_status st = SH_OK;

    SH_TRY(join(comm, SH_TRANSPORT_AUTO, patience_s));
    SH_TRY(sum(comm, before));
out:
    return st;
}

static sh_status play_no_connection(sh_comm *comm)
{
    sh_nccl_set_faults(&(sh_nccl_faults){.never_connects = sh_comm_rank(comm) == 1});
    return join(comm, SH_TRANSPORT_NCCL, 0);
}

static void come_late(void)
{
    sh_clock_sleep(1.2);
}

static sh_status play_late(sh_comm *comm)
{
    if (sh_comm_rank(comm) == 1) come_late(); /* what connecting may take counts from here */
    return join_and_sum(comm, 30, come_late);
}

static void never_come(void)
{
    sh_clock_sleep(100);
}

static sh_status play_missing(sh_comm *comm)
{
    return join_and_sum(comm, 2, never_come);
}

static void stop(void)
{
    kill(getpid(), SIGSTOP);
}

static sh_status play_stopped(sh_comm *comm)
{
    const sh_watchdog_config config = {
        .lost_seconds = 2.5, .collective_seconds = 60, .exit_code = BY_THE_WATCHDOG};
    sh_status st = SH_OK;

    SH_TRY(sh_watchdog_start(comm, &config));
    SH_TRY(join_and_sum(comm, 1, stop));
out:
    return st;
}

static void die(void)
{
    kill(getpid(), SIGKILL);
}

static sh_status play_dead(sh_comm *comm)
{
    return join_and_sum(comm, 30, die);
}

static sh_status play_error(sh_comm *comm)
{
    sh_status st = SH_OK;

    SH_TRY(join(comm, SH_TRANSPORT_AUTO, 30));
    sh_nccl_set_faults(&(sh_nccl_faults){.error_after = sh_comm_rank(comm) == 0 ? 2 : 0});
    SH_TRY(sum(comm, NULL));
out:
    return st;
}

static void let_one_lack_it(sh_comm *comm)
{
    sh_nccl_set_faults(&(sh_nccl_faults){.is_missing = sh_comm_rank(comm) == 2});
}

static sh_status play_lacking(sh_comm *comm)
{
    let_one_lack_it(comm);
    return join_and_sum(comm, 30, NULL);
}

static sh_status play_named_lacking(sh_comm *comm)
{
    let_one_lack_it(comm);
    return join(comm, SH_TRANSPORT_NCCL, 30);
}

static sh_status play_versions(sh_comm *comm)
{
    sh_nccl_set_faults(&(sh_nccl_faults){.version = sh_comm_rank(comm) == 1 ? 22005 : 22809});
    return join_and_sum(comm, 30, NULL);
}

static sh_status play_auto(sh_comm *comm)
{
    return join_and_sum(comm, 30, NULL);
}

static sh_status play_named(sh_comm *comm)
{
    return join(comm, SH_TRANSPORT_NCCL, 30);
}

static const struct {
    const char *name;
    sh_status (*play)(sh_comm *comm);
} parts[] = {
    {"no connection", play_no_connection},
    {"late", play_late},
    {"missing", play_missing},
    {"stopped", play_stopped},
    {"dead", play_dead},
    {"error", play_error},
    {"auto", play_auto},
    {"named", play_named},
    {"lacking", play_lacking},
    {"named_lacking", play_named_lacking},
    {"versions", play_versions},
};

/* As a training does: a failing rank ends the others. */
static int play_part(const char *name)
{
    sh_comm *comm = NULL;
    sh_status st = SH_ERR_USAGE;

    for (size_t i = 0; i < SH_COUNT(parts); i++) {
        if (strcmp(parts[i].name, name) != 0) continue;
        st = sh_comm_create(0, &comm);
        if (st == SH_OK) st = parts[i].play(comm);
    }
    if (st == SH_ERR_COMM) sh_watchdog_await_verdict(comm);
    if (st != SH_OK) sh_comm_abort(comm, ENDED, sh_error_message());
    sh_comm_destroy(&comm);
    return 0;
}

/* ---- the tests ---- */

static char text[OUTPUT_BYTES];

static void expect(const char *prefix, const char *part, int expected)
{
    char command[256], quoted[64];
    double seconds;

    snprintf(command, sizeof(command), "%s%s", prefix, mpirun3);
    snprintf(quoted, sizeof(quoted), "'%s'", part);
    int rc = run_part(command, quoted, text, &seconds);

    if (rc != expected) print_error("exit code %d instead of %d:\n%s\n", rc, expected, text);
    assert_int_equal(rc, expected);
    print_message("%s: %.1f s\n", part, seconds);
}

static void expect_text(const char *wanted)
{
    if (strstr(text, wanted) == NULL) print_error("no '%s' in:\n%s\n", wanted, text);
    assert_non_null(strstr(text, wanted));
}

static void no_connection__ends_when_its_time_is_over(void **state)
{
    (void)state;
    expect("", "no connection", ENDED);
    expect_text("NCCL, rank 1 on ");
    expect_text(", connecting the devices: all 3 ranks are there, but they were not connected "
                "within 1 s");
    expect_text("transport=mpi does without");
}

static void late_rank__is_waited_for(void **state)
{
    (void)state;
    expect("", "late", 0);
    assert_int_equal(n_lines_with(text, "has the sum, by NCCL"), 3);
}

static void missing_rank__is_named_when_patience_ends(void **state)
{
    (void)state;
    expect("", "missing", ENDED);
    expect_text(
        ", in the sum over shards, bucket 2 of 2 (on the device): nothing has got on for 2");
    expect_text("did not come to it: rank 1;");
    assert_null(strstr(text, "did not come to it: rank 1,"));
    expect_text("at sum over shards ");
}

static void stopped_rank__is_named_by_the_watchdog(void **state)
{
    (void)state;
    expect("", "stopped", BY_THE_WATCHDOG);
    expect_text("watchdog: rank 1 on ");
    expect_text("sum over shards ");
}

static void dead_rank__ends_the_job_soon(void **state)
{
    double seconds;
    int rc = run_part(mpirun3, "dead", text, &seconds);

    (void)state;
    assert_int_not_equal(rc, 0);
    assert_int_not_equal(rc, 124); /* a hang */
    assert_non_null(strstr(text, "rank 1"));
    assert_null(strstr(text, "has the sum"));
}

static void asynchronous_error__ends_with_rank_phase_and_collective(void **state)
{
    (void)state;
    expect("", "error", ENDED);
    expect_text("NCCL, rank 0 on ");
    expect_text(", in the sum over shards, bucket ");
    expect_text("remote process exited or there was a network error: as the test wanted");
}

static void shared_device__is_refused_or_summed_through_the_hosts(void **state)
{
    (void)state;
    expect("env SHOAL_LAZY_DEVICE=same ", "auto", 0);
    expect_text("gradients travel through the hosts: ranks 0 and 1 share a device");
    assert_int_equal(n_lines_with(text, "has the sum, by MPI"), 3);
    expect("env SHOAL_LAZY_DEVICE=same ", "named", ENDED);
    expect_text("transport=nccl: ranks 0 and 1 share a device (a lazy device on ");
}

static void missing_library__is_refused_or_done_without_by_all(void **state)
{
    (void)state;
    expect("", "lacking", 0);
    expect_text("gradients travel through the hosts: rank 2 on ");
    expect_text("no library, as the test wanted");
    assert_int_equal(n_lines_with(text, "has the sum, by MPI"), 3);
    expect("", "named_lacking", ENDED);
    expect_text("transport=nccl: rank 2 on ");
}

static void different_versions__are_not_connected(void **state)
{
    (void)state;
    expect("", "versions", 0);
    expect_text("gradients travel through the hosts: rank 0 has NCCL 2.28.9, and rank 1 on ");
    expect_text(" has NCCL 2.20.5");
    assert_int_equal(n_lines_with(text, "has the sum, by MPI"), 3);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_connection__ends_when_its_time_is_over),
        cmocka_unit_test(late_rank__is_waited_for),
        cmocka_unit_test(missing_rank__is_named_when_patience_ends),
        cmocka_unit_test(stopped_rank__is_named_by_the_watchdog),
        cmocka_unit_test(dead_rank__ends_the_job_soon),
        cmocka_unit_test(asynchronous_error__ends_with_rank_phase_and_collective),
        cmocka_unit_test(shared_device__is_refused_or_summed_through_the_hosts),
        cmocka_unit_test(missing_library__is_refused_or_done_without_by_all),
        cmocka_unit_test(different_versions__are_not_connected),
    };

    if (argc > 1) return play_part(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
