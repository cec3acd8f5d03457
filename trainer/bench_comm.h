// SPDX-License-Identifier: Apache-2.0
/** Inside of `shoal bench comm`: whole training steps over the ranks of a job. */
#ifndef SH_TRAINER_BENCH_COMM_H
#define SH_TRAINER_BENCH_COMM_H

#include "comm/comm.h"
#include "trainer/bench_batch.h"

typedef struct sh_bench_ranks {
    sh_bench_options options; /* batch: of all ranks; threads 0: cores per rank */
    int64_t shards, repeats;
    bool json;
} sh_bench_ranks;

/** Time steps with the exact and with the fast sum in alternation and print. Collective. */
SH_MUST_CHECK sh_status sh_bench_comm_step(sh_comm *comm, const sh_bench_ranks *config);

/** Seconds of the slowest rank, in place. Collective. */
SH_MUST_CHECK sh_status sh_bench_comm_slowest(sh_comm *comm, double *seconds);

#endif
