// SPDX-License-Identifier: Apache-2.0
/** Inside of a training step: what trainer/step_build.c makes and trainer/step.c runs. */
#ifndef SH_TRAINER_STEP_STATE_H
#define SH_TRAINER_STEP_STATE_H

#include "models/replay.h"
#include "models/trained.h"
#include "trainer/step.h"
#include "trainer/step_loss.h"

enum {
    SH_STEP_MAX_SIZES = 2, /* shards differ by at most one image */
    SH_STEP_MAX_BUCKETS = 4096,
};

/* The training program for shards of one size. */
typedef struct sh_sized_program {
    int64_t n_images;
    sh_program *program;
    sh_value input; /* images, or the network's features */
    sh_step_outputs outputs;
    int ready[SH_STEP_MAX_BUCKETS]; /* node after which each bucket is complete */
    int stops[SH_STEP_MAX_BUCKETS]; /* nodes after which some bucket can be handed over */
    int n_stops;
} sh_sized_program;

struct sh_step {
    sh_step_config config;
    sh_comm *comm;
    sh_store *store;
    sh_optim *optim;
    int64_t optimizer_begin;
    sh_step_loss *loss;
    const sh_device *device; /* whose memory the shards are summed in; NULL: the host's */
    sh_reducer *reducer;
    sh_sized_program sizes[SH_STEP_MAX_SIZES];
    int n_sizes;
    sh_replays replays; /* of the sections of a step that are launched together */
    int n_feature_slots;
    int64_t n_images; /* through the network */

    int shard_begin, shard_end; /* own */
    bool two_passes;
    sh_run_scalars *next_scalars; /* [own shards] of the step that begins; page-locked where the
                                     backend has a device, which fetches them into: */
    sh_buffer *scalars;           /* the same, where kernels read them */
    sh_buffer **arenas; /* [n_arenas]: one per own shard, or one for all with two passes */
    int n_arenas;
    sh_buffer *reduce;  /* what one shard contributes, in the backend's memory */
    sh_buffer *sums;    /* the total, where the optimizer reads it there but shards are summed in
                           the host's memory; otherwise NULL */
    sh_trained trained; /* what of it is exchanged; buckets are parts of the packed vector */
    int64_t bucket_bounds[SH_STEP_MAX_BUCKETS + 1];
    int n_buckets;
};

/** The program that runs a shard. */
sh_sized_program *sh_step_program_of(sh_step *step, int shard);

#endif
