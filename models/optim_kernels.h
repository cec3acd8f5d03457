// SPDX-License-Identifier: Apache-2.0
/**
 * The optimizer's arithmetic: updates of runs of f32 elements in a backend's memory. The host's
 * loops (sh_optim_host) work wherever kernels may touch memory between enter and leave; a backend
 * whose memory they cannot reach brings its own.
 *
 * Each element is computed alone, so results do not depend on how a run is cut.
 */
#ifndef SH_MODELS_OPTIM_KERNELS_H
#define SH_MODELS_OPTIM_KERNELS_H

#include <stdint.h>

#include "base/status.h"

SH_C_BEGIN

enum { SH_NORM_BLOCK = 4096 }; /* fixed, so that a norm does not depend on threads */

/** What a segment is updated with, whatever the step is. */
typedef struct sh_sgd {
    float decay, momentum, lr_scale;
} sh_sgd;

typedef struct sh_adam {
    float l2;    /* weight decay that is added to the gradient */
    float decay; /* that which shrinks the weights */
    float beta1, beta2, lr_scale, eps;
} sh_adam;

/** What changes from step to step. */
typedef struct sh_optim_rates {
    float learning_rate;
    float step_size;       /* adam: learning_rate / (1 - beta1^t) */
    float root_correction; /* adam: sqrt(1 - beta2^t) */
} sh_optim_rates;

/** What kernels read of the step, where the elements lie. Where it is not `good` they write
 *  nothing. */
typedef struct sh_optim_now {
    sh_optim_rates rates; /* by the host, before the update */
    float scale;          /* of the gradient; this and what follows by `judge` */
    double norm;          /* of the gradient as it came */
    int32_t good;
} sh_optim_now;

typedef struct sh_optim_limits {
    double clip_norm, bad_norm; /* 0: none */
} sh_optim_limits;

/** The loss that a gradient is of: terms[0] + weight terms[1], where the elements lie; a term may
 * be NULL. Without gaps: it is part of a key. */
typedef struct sh_optim_loss {
    const double *terms[2];
    double weight;
} sh_optim_loss;

typedef struct sh_optim_kernels {
    /** sums[b]: of the squares of elements [b SH_NORM_BLOCK, ...), in f64 and in an order that
     *  depends on nothing but n. sums lie where the elements lie. */
    void (*squares)(const float *x, int64_t n, double *sums);

    /** The norm from n such sums, which may be overwritten, by the tree of base/tree.h; scale =
     *  min(1, clip_norm / norm). Good: the norm is finite and at most bad_norm, and the loss is
     *  finite. */
    void (*judge)(double *sums, int64_t n, const sh_optim_limits *limits, const sh_optim_loss *loss,
                  sh_optim_now *now);

    /** g = scale grad + decay p; where m is not NULL g = m = momentum m + g;
     *  p -= learning_rate lr_scale g. */
    void (*sgd)(float *p, float *m, const float *grad, int64_t n, const sh_sgd *constants,
                const sh_optim_now *now);

    /** g = scale grad + l2 p; m and v move by 1 - beta towards g and g^2;
     *  p = (1 - learning_rate lr_scale decay) p
     *      - step_size lr_scale m / (sqrt(v) / root_correction + eps). */
    void (*adam)(float *p, float *m, float *v, const float *grad, int64_t n,
                 const sh_adam *constants, const sh_optim_now *now);

    /** x = (1 - share) x + share y. */
    void (*blend)(float *x, const float *y, int64_t n, float share, const sh_optim_now *now);

    /** x += share (y - x): an average that has reached its value stays there to the last bit. */
    void (*approach)(float *x, const float *y, int64_t n, float share, const sh_optim_now *now);

    void (*copy)(float *to, const float *from, int64_t n);
} sh_optim_kernels;

extern const sh_optim_kernels sh_optim_host;

SH_C_END

#endif
