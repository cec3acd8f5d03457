// SPDX-License-Identifier: Apache-2.0
/** Inside the sampler: one epoch of P x K batches. See sampler_pk.c for the rules. */
#ifndef SH_DATAIO_SAMPLER_PK_H
#define SH_DATAIO_SAMPLER_PK_H

#include "base/rng.h"

/** The samples as the planner sees them: sorted by class, within a class by recording. */
typedef struct pk_samples {
    int32_t n, n_classes;
    const int32_t *class_of;    /* [n] class of a sample */
    const int32_t *class_start; /* [n_classes + 1] into the samples */
    const int32_t *class_group; /* [n_classes + 1] into group_start */
    const int32_t *group_start; /* [groups + 1] runs of one class and one recording */
} pk_samples;

typedef struct pk_planner pk_planner;

/** Allocates all that planning needs, so that pk_plan_epoch cannot fail. Keeps a pointer to
 * samples. */
SH_MUST_CHECK sh_status pk_planner_create(const pk_samples *samples, int64_t batch, int per_class,
                                          pk_planner **out);
void pk_planner_destroy(pk_planner **planner);

/** Batches of one epoch: the same for every epoch. */
int64_t pk_planner_steps(const pk_planner *planner);

/** Plan epoch `epoch` into order [steps * batch], sample indices. Uses the planner's scratch: not
 *  thread-safe. */
void pk_plan_epoch(pk_planner *planner, uint64_t seed, uint64_t epoch, int32_t *order);

#endif
