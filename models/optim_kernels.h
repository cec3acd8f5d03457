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

typedef struct sh_sgd {
    float scale; /* of the gradient */
    float decay, momentum, learning_rate;
} sh_sgd;

typedef struct sh_adam {
    float scale, l2, shrink, beta1, beta2, step_size, root_correction, eps;
} sh_adam;

typedef struct sh_optim_kernels {
    /** g = scale grad + decay p; where m is not NULL g = m = momentum m + g; p -= learning_rate g.
     */
    void (*sgd)(float *p, float *m, const float *grad, int64_t n, const sh_sgd *constants);

    /** g = scale grad + l2 p; m and v move by 1 - beta towards g and g^2; p = shrink p - step_size
     * m / (sqrt(v) / root_correction + eps). */
    void (*adam)(float *p, float *m, float *v, const float *grad, int64_t n,
                 const sh_adam *constants);

    /** x = (1 - share) x + share y. */
    void (*blend)(float *x, const float *y, int64_t n, float share);

    /** x += share (y - x): an average that has reached its value stays there to the last bit. */
    void (*approach)(float *x, const float *y, int64_t n, float share);

    void (*copy)(float *to, const float *from, int64_t n);

    /** sums[b]: of the squares of elements [b SH_NORM_BLOCK, ...), in f64 and in an order that
     *  depends on nothing but n. sums lie where the elements lie. */
    void (*squares)(const float *x, int64_t n, double *sums);
} sh_optim_kernels;

extern const sh_optim_kernels sh_optim_host;

SH_C_END

#endif
