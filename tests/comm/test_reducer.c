// SPDX-License-Identifier: Apache-2.0
// ranks: 1 2 3 4 8
// timeout: 120
/* The sum over shards in host memory, by MPI. */
#include "comm/reducer_suite.h"

static int join(void **state)
{
    (void)state;
    return sh_comm_create(0, &comm) == SH_OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {REDUCER_SUITE};

    return cmocka_run_group_tests(tests, join, leave);
}
