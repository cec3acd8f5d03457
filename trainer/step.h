// SPDX-License-Identifier: Apache-2.0
/**
 * One training step over all ranks, as a list of programs over one parameter store:
 * forward per shard, gather, mine, loss, backward per shard, reduce, update. The loss is one over
 * embeddings, a classification, or both. docs/step.md follows
 * one batch through it. `shoal train` and `shoal bench step` run this same code.
 */
#ifndef SH_TRAINER_STEP_H
#define SH_TRAINER_STEP_H

#include "comm/comm.h"
#include "dataio/sampler.h"
#include "models/loss/classes.h"
#include "models/loss/loss.h"
#include "models/optim.h"
#include "models/program.h"
#include "models/zoo/zoo.h"
#include "trainer/config.h"
#include "trainer/feed.h"

typedef struct sh_step sh_step;

typedef struct sh_step_config {
    const sh_net *net;
    const sh_backend *backend;
    sh_dtype dtype;
    int height, width;
    int64_t batch; /* images over all ranks */
    int n_shards;
    sh_head head;            /* its tap must outlive the step */
    sh_loss_config loss;     /* over embeddings; unless only_classes */
    sh_class_config classes; /* kind SH_CLASS_NONE: no classification */
    bool only_classes;
    float classification; /* weight of the classification in the whole loss */
    /* [n_classes], or NULL: all 1, all different; needed while the step is created */
    const float *class_weights;
    const int32_t *class_fish;
    sh_optim_config optim;
    sh_reduce_mode reduce;
    sh_passes passes;
    bool repeatable; /* a device's kernels give the same bytes each time */
    bool graphs;     /* programs are run by recordings of them where the backend can */
    uint64_t seed;
    const char *freeze;   /* patterns of what is not trained (trainer/patterns.h), or NULL */
    const char *lr_scale; /* PATTERN=FACTOR lines, or NULL; both must outlive the step */
    bool shallow;         /* the programs begin at the network's features (sh_net_features), which
                             the caller keeps; all that makes them must be frozen */
} sh_step_config;

/** From a run's configuration. The number of classes and their weights are the sampler's to tell.
 */
SH_MUST_CHECK sh_status sh_step_configure(const sh_config *config, sh_step_config *out);

/** What one step did; the same on every rank but for the seconds. */
typedef struct sh_step_stats {
    sh_loss_stats loss;     /* loss.loss is the whole loss, classification included */
    sh_class_stats classes; /* 0 where there is no classification */
    double grad_norm;       /* before clipping */
    bool bad;               /* the step failed over its numbers; nothing was written */
    int64_t bad_slot;       /* the first slot whose embedding is not finite; -1: not known */
    double seconds_forward, seconds_loss, seconds_backward, seconds_reduce, seconds_update;
} sh_step_stats;

/** Plan the programs of a whole training step, nothing frozen, for shards of every size, and drop
 *  them: for what planning measures. Not collective. */
SH_MUST_CHECK sh_status sh_step_survey(const sh_step_config *config);

/** Build programs, reserve all memory. Weights are zero until sh_store_init or a load. Collective.
 *  The caller owns *out; it keeps pointers to comm and net. */
SH_MUST_CHECK sh_status sh_step_create(const sh_step_config *config, sh_comm *comm, sh_step **out);
void sh_step_destroy(sh_step **step);

sh_store *sh_step_store(sh_step *step);
sh_optim *sh_step_optim(sh_step *step);
const sh_step_config *sh_step_get_config(const sh_step *step);

/** From now on other parameters are frozen: programs, buckets and arenas are made anew, weights and
 *  moments stay. Collective.
 *
 *  freeze, shallow  as in sh_step_config; freeze must outlive its use
 *  optimizer_begin  the step that the optimizer's bias corrections count from */
SH_MUST_CHECK sh_status sh_step_freeze(sh_step *step, const char *freeze, bool shallow,
                                       int64_t optimizer_begin);

/** Slots [0, n) of the store are what makes the network's features. */
int sh_step_n_feature_slots(const sh_step *step);

/** Images that went through the network in this rank's steps so far; of a step in two passes,
 *  twice. Shallow steps have none. */
int64_t sh_step_n_images(const sh_step *step);

/** What a step sums over the ranks: floats - gradients and statistics - and the buckets in which
 *  they are exchanged. */
void sh_step_exchanged(const sh_step *step, int64_t *n_elems, int *n_buckets);

/** The shards of this rank: [*begin, *end). */
void sh_step_own_shards(const sh_step *step, int *begin, int *end);

/** Slots of a shard within the global batch: [*begin, *end). */
void sh_step_slots_of_shard(const sh_step *step, int shard, int64_t *begin, int64_t *end);

/** How the images of a shard, or their features, must be laid out in memory. */
sh_tensor_desc sh_step_input_desc(const sh_step *step, int shard);

/** The program that runs a shard, for printing and benches. */
sh_program *sh_step_program(sh_step *step, int shard);

/**
 * Run one step. Collective.
 *
 * slots   [batch] the whole plan: labels of all images
 * input   per own shard its images or features, as sh_step_input_desc says; called for with
 *         `shard` when needed, so that loading may go on meanwhile. They stay as they are until the
 *         step has ended
 * Weights, moments and running statistics are updated once. A bad step - loss, embeddings or
 * gradient are not finite, or the norm is too large - is SH_ERR_MISMATCH with stats->bad, on every
 * rank with the same message, which says in which shard, and on which rank, it began; before
 * anything was written, so that the next step may follow.
 */
typedef sh_status (*sh_step_input)(void *context, int shard, sh_input *input);

SH_MUST_CHECK sh_status sh_step_run(sh_step *step, int64_t number, double learning_rate,
                                    const sh_slot_plan *slots, sh_step_input input, void *context,
                                    sh_step_stats *stats);

/** What a shard's program is run on. */
sh_run_args sh_step_run_args(sh_step *step, int shard);

#endif
