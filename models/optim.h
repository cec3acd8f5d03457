// SPDX-License-Identifier: Apache-2.0
/**
 * The optimizer: from the sum of gradients over the global batch to the next weights, over the flat
 * arenas of a parameter store. Element by element, so every rank computes the same bits.
 */
#ifndef SH_MODELS_OPTIM_H
#define SH_MODELS_OPTIM_H

#include "models/optim_kernels.h"
#include "models/store.h"

SH_C_BEGIN

typedef enum sh_optim_kind { SH_OPTIM_SGD, SH_OPTIM_ADAM, SH_OPTIM_ADAMW } sh_optim_kind;

typedef struct sh_optim_config {
    sh_optim_kind kind;
    float momentum;          /* sgd */
    float beta1, beta2, eps; /* adam, adamw */
    float weight_decay; /* adam, sgd: added to the gradient; adamw: decoupled. Only slots with decay
                         */
    float clip_norm;    /* 0: off */
    double bad_norm; /* a gradient with a larger norm changes nothing; 0: any finite one is good */
    bool recorded;   /* launched by recordings where the backend can (models/replay.h) */
    float ema;       /* decay of the moving average of params and states; 0: off */
} sh_optim_config;

typedef struct sh_optim sh_optim; /* moments and moving average, in the backend's memory */

/** Arenas that an optimizer owns, by name, for checkpoints. NULL buffer: this optimizer has none.
 */
typedef enum sh_optim_arena {
    SH_OPTIM_FIRST,      /* [n_params] momentum, or Adam's first moment */
    SH_OPTIM_SECOND,     /* [n_params] Adam's second moment */
    SH_OPTIM_EMA_PARAMS, /* [n_params] */
    SH_OPTIM_EMA_STATES, /* [n_states] */
    SH_OPTIM_ARENA_COUNT
} sh_optim_arena;

const char *sh_optim_arena_name(sh_optim_arena arena); /* "first", "second", "ema", "ema_states" */

/** For an allocated store, which must outlive it. Moments start at 0. The caller owns *out. */
SH_MUST_CHECK sh_status sh_optim_create(const sh_optim_config *config, sh_store *store,
                                        sh_optim **out);
void sh_optim_destroy(sh_optim **optim);

/** Start the moving average at the store's present values: after loading or initialising weights.
 */
SH_MUST_CHECK sh_status sh_optim_start_average(sh_optim *optim);

/** The buffer of an arena and its elements; NULL and 0 where this optimizer has none. */
sh_buffer *sh_optim_arena_buffer(sh_optim *optim, sh_optim_arena arena, int64_t *n_elems);

/** Read the slots' trainable and lr_scale flags anew, after they have changed: what is frozen now
 *  keeps its moments, which rest until it is trained again. */
SH_MUST_CHECK sh_status sh_optim_refresh(sh_optim *optim);

/** Set the moments to 0, as for a fresh optimizer; the moving average goes on. */
SH_MUST_CHECK sh_status sh_optim_reset(sh_optim *optim);

/**
 * One update: the gradient's norm, gradients scaled by min(1, clip_norm / norm), then running
 * statistics: new = (1 - momentum) old + momentum delta. Does not wait for the backend. A bad step
 * - the norm or the loss are not finite, or the norm is above bad_norm - changes nothing;
 * sh_optim_read tells.
 *
 * reduce the packed vector of models/trained.h, as the reducer gives it: in the backend's memory
 *        where the backend has kernels of its own (sh_backend.optim), otherwise in the host's
 * loss   where the gradient's loss is, in the same memory; NULL: it is known to be finite
 * step   counts from 0, at the last reset (bias corrections use step + 1)
 * Norm: L2, f64 sums of blocks of SH_NORM_BLOCK added by the tree of base/tree.h. Formulas: Kingma
 * and Ba 2015 with PyTorch's placement of eps; Loshchilov and Hutter 2019.
 */
SH_MUST_CHECK sh_status sh_optim_update(sh_optim *optim, const float *reduce,
                                        const sh_optim_loss *loss, double learning_rate,
                                        int64_t step);

/** The gradient's norm in the last update, before clipping, and whether the step was good. Waits
 *  for the backend: what was fetched from it before is there. */
SH_MUST_CHECK sh_status sh_optim_read(sh_optim *optim, double *norm, bool *good);

SH_C_END

#endif
