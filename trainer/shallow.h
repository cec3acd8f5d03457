// SPDX-License-Identifier: Apache-2.0
/**
 * Shallow training: a stage in which all that makes the network's features is frozen, so that they
 * are computed once (trainer/features.h, in RUN/features), and steps and validation run the head
 * alone.
 *
 * Of each training crop shallow.views views are kept: the first as evaluation sees it, the others
 * drawn from augment.* under (seed, crop, view). They are what a training program computes whose
 * trunk is frozen, so that with one view the head is trained to the same bytes as without keeping
 * anything. Of each validation crop the views of evaluation are kept, as the inference program
 * computes them.
 */
#ifndef SH_TRAINER_SHALLOW_H
#define SH_TRAINER_SHALLOW_H

#include "trainer/features.h"

struct sh_session;

typedef struct sh_shallow {
    sh_features *train;
    sh_features *val; /* NULL where the result's network is another one: a moving average that has
                         not come to rest, or where nothing validates */
    sh_infer *head;   /* features to embeddings; with val */
    int64_t
        n_images; /* that went through the network for features, on this rank: of all openings */
} sh_shallow;

/** For the stage that the session's step program is built for, with the weights as they stand.
 *  Collective. `stop` and SH_ERR_STOPPED as in sh_features_open. *out is zero or cleared; the
 *  caller clears it, also after a failure. */
SH_MUST_CHECK sh_status sh_shallow_open(const struct sh_session *session, bool (*stop)(void),
                                        sh_shallow *out);
void sh_shallow_clear(sh_shallow *shallow);

/** Embed validation crops[n] into out [n, dim]; shallow->val must be there. Not collective. */
SH_MUST_CHECK sh_status sh_shallow_embed(const sh_shallow *shallow, const int64_t *crops, int64_t n,
                                         float *out);

#endif
