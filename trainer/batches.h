// SPDX-License-Identifier: Apache-2.0
/**
 * What the steps of a stage read, ahead of them: plans of slots, and either images on their way in
 * (trainer/feed.h) or, in shallow training, rows of stored features. Which of a crop's stored
 * views a slot takes is drawn under (seed, SH_RNG_AUGMENT, slot's draw, 1), beside the distortions
 * of a loaded image, which have 0 there.
 */
#ifndef SH_TRAINER_BATCHES_H
#define SH_TRAINER_BATCHES_H

#include "trainer/features.h"
#include "trainer/feed.h"
#include "trainer/step.h"

enum { SH_BATCHES_AHEAD = 2 }; /* batches in memory: one computed, one loading */

typedef struct sh_batches sh_batches;

typedef struct sh_batches_config {
    const sh_step *step;
    const sh_sampler *sampler;
    const sh_dataset *dataset;
    sh_loader_config loader;     /* what of it the step decides is set here */
    const sh_features *features; /* NULL: images */
    int n_views;                 /* of the features */
} sh_batches_config;

/** Ask for the batches of `step` and the next. Keeps the pointers of config. The caller owns *out.
 *  Not collective. */
SH_MUST_CHECK sh_status sh_batches_create(const sh_batches_config *config, int64_t step,
                                          sh_batches **out);
void sh_batches_destroy(sh_batches **batches);

/** Turn to the batch of `step`, which is the oldest one in memory: its plan, [batch]. */
const sh_slot_plan *sh_batches_begin(sh_batches *batches, int64_t step);

/** sh_step_input, with the batches as its context, for the batch that was begun last. */
sh_status sh_batches_input(void *batches, int shard, sh_input *input);

/** The batch of `step` is done: ask for the one that takes its place. */
SH_MUST_CHECK sh_status sh_batches_end(sh_batches *batches, int64_t step);

/** Wait for all batches that were asked for. SH_ERR_USAGE where features are read and nothing is
 *  loaded. */
SH_MUST_CHECK sh_status sh_batches_settle(sh_batches *batches);

/** What loading has cost so far; all 0 where features are read. */
void sh_batches_get_stats(const sh_batches *batches, sh_loader_stats *out);

#endif
