// SPDX-License-Identifier: Apache-2.0
// prefix: nccl
// library: sh_comm_nccl_host
// ranks: 1 2 3 4
// timeout: 120
/* The sum over shards in the memory of devices, by comm/nccl with NCCL's calls on the host: on a
 * device that does everything as late as it may, while NCCL takes its time. */
#include "base/clock.h"
#include "comm/nccl/host/host.h"
#include "comm/reducer.h"
#include "comm/reducer_suite.h"

static int join(void **state)
{
    static const sh_device_group_config config = {
        .transport = SH_TRANSPORT_NCCL, .connect_seconds = 30, .patience_seconds = 60};

    (void)state;
    device = &sh_device_lazy;
    settle = sh_lazy_settle;
    shards_step = 3; /* NCCL's slowness takes its time */
    if (sh_comm_create(0, &comm) != SH_OK) return -1;
    sh_nccl_set_faults(&(sh_nccl_faults){.slowness = sh_comm_rank(comm)});
    return sh_comm_connect_devices(comm, device, &config) == SH_OK ? 0 : -1;
}

static bool gate_is_open;

static bool gate(void *context)
{
    (void)context;
    return gate_is_open;
}

/* The host is ahead of the device: when the second bucket gets its turn, more has been queued than
 * its gradients. */
static void buckets__wait_for_no_more_than_their_own_gradients(void **state)
{
    enum { N_BUCKETS = 3, N_EACH = 10, N = N_BUCKETS * N_EACH };
    static const int64_t bounds[N_BUCKETS + 1] = {0, N_EACH, 2 * N_EACH, N};
    const int rank = sh_comm_rank(comm), size = sh_comm_size(comm);
    const double deadline = sh_clock_seconds() + 30;
    sh_reducer *r = NULL;
    const float *total = NULL;

    (void)state;
    bool ok =
        sh_reducer_create(comm, device, SH_REDUCE_EXACT, size, N, bounds, N_BUCKETS, &r) == SH_OK &&
        sh_reducer_begin(r) == SH_OK && fill_leaf(r, small_integer_leaf, 0, rank, 0, N) == SH_OK &&
        sh_reducer_bucket_done(r, 2) == SH_OK && sh_reducer_bucket_done(r, 1) == SH_OK;

    assert_true(all_ranks_agree(ok));
    gate_is_open = false;
    sh_lazy_push(device->stream(SH_QUEUE_COMPUTE), gate, NULL);
    while (ok && r->n_done < 2 && sh_clock_seconds() < deadline) ok = sh_reducer_poll(r) == SH_OK;
    ok = ok && r->n_done == 2;
    gate_is_open = true;
    assert_true(all_ranks_agree(ok));
    ok = sh_reducer_leaf_done(r) == SH_OK && sh_reducer_finish(r, &total) == SH_OK;
    settle();
    for (int64_t i = 0; ok && i < N; i++)
        ok = total[i] == reference_sum(small_integer_leaf, 0, i, 0, size);
    assert_true(all_ranks_agree(ok));
    sh_reducer_destroy(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        REDUCER_SUITE, cmocka_unit_test(buckets__wait_for_no_more_than_their_own_gradients)};

    return cmocka_run_group_tests(tests, join, leave);
}
