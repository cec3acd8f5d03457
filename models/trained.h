// SPDX-License-Identifier: Apache-2.0
/**
 * What of a store is trained: the part of the reduce arena that is summed over shards and ranks.
 *
 * The reduce arena has room for the gradient of every parameter and the delta of every running
 * statistic. Frozen slots contribute nothing, so only ranges of trained slots are exchanged,
 * packed one after another: first gradients, then statistics. With nothing frozen the packed vector
 * is the arena itself.
 */
#ifndef SH_MODELS_TRAINED_H
#define SH_MODELS_TRAINED_H

#include "models/store.h"

SH_C_BEGIN

typedef struct sh_trained_range {
    int64_t offset; /* elements, in the reduce arena */
    int64_t packed; /* elements, in the packed vector */
    int64_t n;      /* elements, padding between slots included */
} sh_trained_range;

typedef struct sh_trained {
    sh_trained_range *ranges;
    int n_ranges;
    int64_t n_params; /* elements of the packed vector that are gradients */
    int64_t n;        /* all its elements */
} sh_trained;

/** By the slots' `trainable` flags as they stand. The caller clears *out. */
SH_MUST_CHECK sh_status sh_trained_collect(const sh_store *store, sh_trained *out);
void sh_trained_clear(sh_trained *trained);

/** Place of a trained slot in the packed vector; -1 for a frozen one. */
int64_t sh_trained_place(const sh_trained *trained, const sh_store *store, int slot);

SH_C_END

#endif
