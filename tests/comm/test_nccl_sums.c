// SPDX-License-Identifier: Apache-2.0
// prefix: nccl
// library: sh_comm_nccl_host
// ranks: 1 2 3 4
// timeout: 120
/* The sum over shards in the memory of devices, by comm/nccl with NCCL's calls on the host: on a
 * device that does everything as late as it may, while NCCL takes its time. */
#include "comm/nccl/host/host.h"
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

int main(void)
{
    const struct CMUnitTest tests[] = {REDUCER_SUITE};

    return cmocka_run_group_tests(tests, join, leave);
}
