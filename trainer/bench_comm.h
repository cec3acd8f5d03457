// SPDX-License-Identifier: Apache-2.0
/** Inside of `shoal bench comm`: whole training steps over the ranks of a job, and their
 *  prediction for other numbers of ranks. */
#ifndef SH_TRAINER_BENCH_COMM_H
#define SH_TRAINER_BENCH_COMM_H

#include "comm/comm.h"
#include "trainer/bench_batch.h"

typedef struct sh_bench_ranks {
    sh_bench_options options; /* batch: of all ranks; threads 0: cores per rank */
    int64_t shards, repeats;
    int64_t predict;              /* up to so many ranks; 0: only measured */
    double link_gbit, latency_us; /* the network to predict for; 0: as measured */
    int64_t load_rate;            /* images/s of a rank's loader; 0: not predicted */
    bool json;
} sh_bench_ranks;

/** Medians over the steps, seconds; forward to update with the exact sum. */
typedef struct sh_bench_ranks_result {
    double exact, fast;     /* steps of the slowest rank */
    double exact_over_fast; /* of pairs */
    double forward, backward, reduce, update;
    int64_t n_elems; /* what a step sums over the ranks, floats */
    int n_buckets;
} sh_bench_ranks_result;

/** Time steps with the exact and with the fast sum in alternation. Collective. Fills in the
 *  threads where they are 0. */
SH_MUST_CHECK sh_status sh_bench_comm_step(sh_comm *comm, sh_bench_ranks *config,
                                           sh_bench_ranks_result *out);
void sh_bench_comm_print_step(int n_ranks, const sh_bench_ranks *config,
                              const sh_bench_ranks_result *result);

/** Measure what the model of trainer/scaling.h needs besides, and print what it predicts.
 *  Collective. */
SH_MUST_CHECK sh_status sh_bench_comm_predict(sh_comm *comm, const sh_bench_ranks *config,
                                              const sh_bench_ranks_result *steps);

/** Seconds of the exact sum of a vector over all ranks, one shard each, and how many bytes of it
 *  each of them copies in a second meanwhile. Collective. */
SH_MUST_CHECK sh_status sh_bench_comm_sum(sh_comm *comm, int64_t n_elems, int64_t repeats,
                                          double *seconds, double *copied_bytes_per_s);

/** Seconds of mining, semi-hard loss and gradient for n_fish x n_images embeddings, on all threads
 *  of this rank, or on a device, by its clock (trainer/bench_mining.c). device: NULL: none */
SH_MUST_CHECK sh_status sh_bench_mining_seconds(const sh_backend *device, int64_t n_fish,
                                                int64_t n_images, int64_t threads, int64_t dim,
                                                double *seconds);

/** Seconds of the slowest rank, in place. Collective. */
SH_MUST_CHECK sh_status sh_bench_comm_slowest(sh_comm *comm, double *seconds);

#endif
