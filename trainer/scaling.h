// SPDX-License-Identifier: Apache-2.0
/**
 * How long a training step takes on how many ranks: a model of few constants, each of which
 * `shoal bench comm --predict` measures. docs/scaling.md derives it and compares it with runs.
 */
#ifndef SH_TRAINER_SCALING_H
#define SH_TRAINER_SCALING_H

#include <stdint.h>

#include "base/status.h"

SH_C_BEGIN

/** A job and the machine that it runs on. Every rank has the same threads, every host the same
 *  number of ranks and one link to a network that no other host's traffic slows down. */
typedef struct sh_scaling {
    int64_t batch;   /* images over all ranks */
    int n_shards;    /* at least the number of ranks */
    int64_t dim;     /* floats of an embedding */
    int64_t n_elems; /* floats of the vector that is summed: gradients and statistics */
    int n_buckets;   /* parts of it that are exchanged one by one, while the rest is computed */
    int ranks_per_host;

    double image_seconds;    /* forward and backward of one image on a rank */
    double backward_share;   /* the backward part of it, 0 .. 1 */
    double update_seconds;   /* of the weights: the same on every rank */
    double pair_seconds;     /* mining, loss and gradient: one row with one column */
    double load_seconds;     /* of one image by a rank's loader, beside the step; 0: not modelled */
    double link_bytes_per_s; /* of a host, each way at the same time */
    double latency_seconds;  /* of a round of messages, besides their bytes: ranks that wait look
                              * for them now and then */
    double memory_bytes_per_s; /* of the summed vector, being added to or copied */
} sh_scaling;

/** Seconds of the parts of one step, for the rank with most to do. */
typedef struct sh_scaling_step {
    double compute, update, gather, mining;
    double sum_exact, sum_fast;   /* from the first bucket to the total */
    double wait_exact, wait_fast; /* what of it the last shard's backward pass does not hide */
    double input;
    double exact, fast; /* the whole step, with either sum */
} sh_scaling_step;

/** Predict a step on n_ranks, 1 .. n_shards. Pure. */
void sh_scaling_predict(const sh_scaling *s, int n_ranks, sh_scaling_step *out);

SH_C_END

#endif
