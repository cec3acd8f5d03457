// SPDX-License-Identifier: Apache-2.0
/**
 * Which crop fills which slot of which step: a pure function of (seed, step), the same on every
 * rank, needing no state, so that a run may be cut and continued anywhere.
 */
#ifndef SH_DATAIO_SAMPLER_H
#define SH_DATAIO_SAMPLER_H

#include "dataio/split.h"

SH_C_BEGIN

typedef struct sh_sampler sh_sampler;

typedef enum sh_sampling {
    SH_SAMPLING_PK, /* P individuals x K images; every sample at least once per epoch. A class with
                       fewer than K images gives all it has and further classes fill the batch.
                       At most K slots of a class per
                          batch; slots are shuffled. Rules: sampler_pk.c */
    SH_SAMPLING_EPOCH, /* every sample once per epoch; batches cross epoch borders */
    SH_SAMPLING_PAIRS, /* rows 2i, 2i+1: the first is any image; by a fair coin the second is any of
                          its class (itself too), or any of another fish (contrastive) */
} sh_sampling;

typedef struct sh_sampler_config {
    sh_sampling sampling;
    int64_t batch;             /* slots per step; PK: P * K */
    int images_per_individual; /* K */
    bool side_is_class;        /* PK: left and right of one fish are two classes of the loss */
    uint64_t seed;
} sh_sampler_config;

/** One slot of a batch. */
typedef struct sh_slot_plan {
    int64_t crop;  /* dataset index */
    int32_t label; /* class of the loss: dense, from 0 */
    int32_t fish;  /* individual: dense, from 0 */
    uint64_t draw; /* key of this slot's augmentation: step * 2^24 + slot */
} sh_slot_plan;

/** Over the crops of one part; nothing of dataset and split is kept. The caller owns *out.
 *  PK and PAIRS refuse, naming the numbers, a part with fewer than two individuals, and leave crops
 *  without an individual out; EPOCH gives those label and fish SH_NO_LABEL and refuses only an
 * empty part. PK needs a batch of P * K with P >= 2 and at least P classes, PAIRS an even batch. */
SH_MUST_CHECK sh_status sh_sampler_create(const sh_sampler_config *config,
                                          const sh_dataset *dataset, const sh_split *split,
                                          sh_part part, sh_sampler **out);
void sh_sampler_destroy(sh_sampler **sampler);

/** Steps per epoch: for PK the number after which every sample was drawn at least once; for EPOCH
 *  samples / batch, rounded up; for PAIRS as many pairs as there are samples, rounded up. */
int64_t sh_sampler_steps_per_epoch(const sh_sampler *sampler);

/** PK: draws of an epoch beyond the first of a sample. 0 for EPOCH (there are none) and PAIRS
 * (where every draw is independent). */
int64_t sh_sampler_repeats_per_epoch(const sh_sampler *sampler);

/** Crops that it draws from. */
int64_t sh_sampler_n_samples(const sh_sampler *sampler);
int sh_sampler_n_classes(const sh_sampler *sampler);

/** How many samples a class (from 0) has, the fish that it is of (as in sh_slot_plan), and its
 * first crop, which tells what the class is. */
int64_t sh_sampler_class_size(const sh_sampler *sampler, int label);
int32_t sh_sampler_class_fish(const sh_sampler *sampler, int label);
int64_t sh_sampler_class_crop(const sh_sampler *sampler, int label);
bool sh_sampler_sides_are_classes(const sh_sampler *sampler);

/** Fill slots[batch] of `step` (from 0, below 2^39). Pure; thread-safe. The plans of the two epochs
 *  asked for last are kept, so steps in order, near an epoch's border too, cost a copy each. */
void sh_sampler_plan(const sh_sampler *sampler, int64_t step, sh_slot_plan *slots);

SH_C_END

#endif
