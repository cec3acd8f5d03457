// SPDX-License-Identifier: Apache-2.0
/** What benches of whole steps share: the step that they run and a batch for it. */
#ifndef SH_TRAINER_BENCH_BATCH_H
#define SH_TRAINER_BENCH_BATCH_H

#include "trainer/step.h"

enum { SH_BENCH_PER_FISH = 4 }; /* images of an individual */

/** The step as training runs it: 128 numbers of length 1, semi-hard triplets at margin 0.2, Adam.
 *  dtype is "f32" or "bf16"; size 0: the network's own. SH_ERR_USAGE names an option that cannot
 *  be; backend, shards and reduction are left to the caller. */
SH_MUST_CHECK sh_status sh_bench_step_config(const char *net, const char *dtype, int64_t size,
                                             int64_t batch, sh_step_config *out);

typedef struct sh_bench_batch {
    sh_slot_plan *slots; /* [batch], SH_BENCH_PER_FISH of an individual */
    void *pixels;        /* random images of one shard: only time is looked at */
} sh_bench_batch;

/** For shards as large as the step's first. The caller clears *out. */
SH_MUST_CHECK sh_status sh_bench_batch_make(const sh_step *step, sh_bench_batch *out);
void sh_bench_batch_clear(sh_bench_batch *batch);

/** sh_step_input with a sh_bench_batch as its context: every shard sees the same images. */
sh_status sh_bench_batch_pixels(void *batch, int shard, const void **pixels);

#endif
