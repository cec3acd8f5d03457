// SPDX-License-Identifier: Apache-2.0
/**
 * The ops: what a node can compute. models/ops.c has one table row per op with its shape check and
 * its derivative; each backend has kernels for it.
 *
 * Notation: x [N,C,H,W] activation in the program's dtype and the backend's layout; w parameter,
 * f32, row-major in PyTorch's shape; vectors [C] are f32. "?" marks an optional operand.
 */
#ifndef SH_MODELS_OPS_H
#define SH_MODELS_OPS_H

#include <stdint.h>

#include "base/status.h"

SH_C_BEGIN

typedef enum sh_op {
    /* Cross-correlation. in: x, w [O, C/groups, kh, kw], ?bias [O]; out: y [N,O,H',W'],
     * H' = floor((H + top + bottom - dilation (kh - 1) - 1) / stride) + 1 */
    SH_OP_CONV,
    SH_OP_CONV_GRAD_X, /* in: dy, w; out: dx */
    SH_OP_CONV_GRAD_W, /* in: x, dy; out: dw f32, ?dbias f32 */

    /* Batch statistics over N, H, W. in: x; out: mean [C], var [C] (biased). */
    SH_OP_BN_STATS,
    /* y = act((x - mean) / sqrt(var + eps) * gamma + beta + ?residual).
     * in: x, mean, var, gamma, beta, ?residual; out: y */
    SH_OP_BN_APPLY,
    /* With g = dy where act' = 1, else 0: dbeta = sum g, dgamma = sum g (x - mean) / sqrt(var +
     * eps). The mask is recomputed from x (and y where there is a residual). in: dy, x, mean, var,
     * gamma, beta, ?y; out: dgamma [C], dbeta [C] */
    SH_OP_BN_GRAD_REDUCE,
    /* Batch statistics: dx = gamma rstd (g - dbeta/m - xhat dgamma/m), m = N H W.
     * Frozen statistics (attrs.frozen): dx = gamma rstd g.
     * in: dy, x, mean, var, gamma, beta, dgamma, dbeta, ?y; out: dx, ?dresidual (= g) */
    SH_OP_BN_GRAD_APPLY,
    /* What this shard adds to the step's new running statistics: share * mean and
     * share * var * m / (m - 1), attrs.share = images of the shard / images of the batch.
     * in: mean, var; out: delta_mean [C], delta_var [C] */
    SH_OP_BN_EXPORT,

    SH_OP_ACT,      /* in: x; out: y */
    SH_OP_ACT_GRAD, /* in: dy, y (the activation's output); out: dx */
    SH_OP_ADD,      /* in: a, b of one shape; out: a + b */

    SH_OP_AVG_POOL,      /* global: in: x; out: [N,C,1,1] */
    SH_OP_AVG_POOL_GRAD, /* in: dy [N,C,1,1]; out: dx */

    SH_OP_LINEAR,        /* in: x [N,I,1,1], w [O,I], ?bias [O]; out: [N,O,1,1] */
    SH_OP_LINEAR_GRAD_X, /* in: dy, w; out: dx */
    SH_OP_LINEAR_GRAD_W, /* in: x, dy; out: dw, ?dbias */

    SH_OP_FLATTEN,      /* in: x; out: [N, C H W, 1, 1] in the order (c, h, w) */
    SH_OP_FLATTEN_GRAD, /* in: dy; out: dx */

    /* Inverted dropout: y = x mask / (1 - rate); the mask is keyed by (seed, SH_RNG_DROPOUT +
     * attrs.stream, step, first_slot + n, element), so its own derivative is itself.
     * in: x; out: y */
    SH_OP_DROPOUT,

    SH_OP_REFLECT_PAD,      /* in: x; out: padded by attrs.pad without repeating the edge */
    SH_OP_REFLECT_PAD_GRAD, /* in: dy; out: dx */

    SH_OP_L2_NORM,      /* y = x / max(|x|, eps) per row. in: x [N,D,1,1]; out: y */
    SH_OP_L2_NORM_GRAD, /* in: dy, x, y; out: dx */

    SH_OP_CAST, /* f32 <-> bf16 and layout; in: x; out: y of the same shape. Derivative: cast back.
                 */

    SH_OP_COUNT
} sh_op;

typedef enum sh_act { SH_ACT_NONE, SH_ACT_RELU, SH_ACT_RELU6, SH_ACT_SIGMOID, SH_ACT_TANH } sh_act;

/** Attributes of a node; each op reads the ones that its comment names. */
typedef struct sh_op_attrs {
    int stride[2];   /* vertical, horizontal */
    int dilation[2]; /* 1 = dense */
    int pad[4];      /* top, left, bottom, right */
    int groups;
    sh_act act;
    float eps;
    float rate;        /* dropout */
    int stream;        /* dropout: index of the layer in the program */
    float share;       /* BN_EXPORT */
    int frozen;        /* BN_APPLY, BN_GRAD_APPLY: statistics are constants */
    int64_t n_reduced; /* BN_EXPORT: m = N H W that the statistics were taken over */
} sh_op_attrs;

const char *sh_op_name(sh_op op);
const char *sh_act_name(sh_act act);

SH_C_END

#endif
