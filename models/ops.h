// SPDX-License-Identifier: Apache-2.0
/**
 * The ops: what a node can compute. models/ops.c has one table row per op with its shape check and
 * its derivative; each backend has kernels for it.
 *
 * Notation: x [N,C,H,W] activation in the program's dtype and the backend's layout; w parameter,
 * f32, row-major in PyTorch's shape; vectors [C] are f32. "?" marks an optional operand; trailing
 * absent ones may lie beyond n_inputs or n_outputs.
 *
 * In place: output 0 may lie on input 0, same dtype and layout, in BN_APPLY, BN_GRAD_APPLY, ACT,
 * ACT_GRAD, ADD, DROPOUT, ADD_SCALED, MUL_CHANNELS, MUL_CHANNELS_GRAD, SE_GRAD, SCALE,
 * SCALE_GRAD and PATH_DROP. No other operands overlap.
 */
#ifndef SH_MODELS_OPS_H
#define SH_MODELS_OPS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

SH_C_BEGIN

typedef enum sh_op {
    /* Cross-correlation, y = y_act(conv(a, w) + bias + residual) with a = x, or with the prologue a
     * batch norm of x on the fly, a = act((x - mean) / sqrt(var + eps) * gamma + beta); zero
     * padding is of a. H' = floor((H + top + bottom - dilation (kh - 1) - 1) / stride) + 1.
     * Operands: sh_conv_in, sh_conv_out. The prologue's four operands come together, and so do the
     * two statistics; attrs.y_act and the residual, which only fusion sets, do not stand with the
     * statistics. */
    SH_OP_CONV,
    SH_OP_CONV_GRAD_X, /* in: dy, w; out: dx */
    SH_OP_CONV_GRAD_W, /* in: x, dy; out: dw f32, ?dbias f32 */
    /* The derivative of CONV in one node: dx, dw, dbias, with what stands around it.
     * - Prologue (mean, var, gamma, beta of x; attrs.act, attrs.eps) as in CONV: dw is of a.
     * - y operands: dy is the gradient g of a batch norm of y, the convolution's own output, and
     * the gradient of y is made on the fly: gamma rstd (g - dbeta/m - yhat dgamma/m), rstd from
     *   attrs.y_eps; without y_dgamma and y_dbeta (constant statistics) gamma rstd g.
     * - Epilogue (outputs dgamma, dbeta; only with the prologue): dx is the gradient times act'
     *   (recomputed from x), and dgamma, dbeta are the sums that BN_GRAD_REDUCE would give for it,
     *   of dx as stored. Without these outputs dx is the gradient of a.
     * Operands: sh_conv_grad_in, sh_conv_grad_out. Only fusion makes this op. */
    SH_OP_CONV_GRAD,

    /* Batch statistics over N, H, W. in: x; out: mean [C], var [C] (biased). */
    SH_OP_BN_STATS,
    /* y = act((x - mean) / sqrt(var + eps) * gamma + beta + ?residual).
     * in: x, mean, var, gamma, beta, ?residual; out: y */
    SH_OP_BN_APPLY,
    /* With g = dy where act' = 1, else 0: dbeta = sum g, dgamma = sum g (x - mean) / sqrt(var +
     * eps). The mask is recomputed from x, or taken from y (the op's output) where it is given.
     * in: dy, x, mean, var, gamma, beta, ?y; out: dgamma [C], dbeta [C] */
    SH_OP_BN_GRAD_REDUCE,
    /* Batch statistics: dx = gamma rstd (g - dbeta/m - xhat dgamma/m), m = N H W.
     * Frozen statistics (attrs.frozen): dx = gamma rstd g.
     * in: dy, x, mean, var, gamma, beta, ?dgamma, ?dbeta (absent when frozen), ?y;
     * out: dx, ?dresidual (= g) */
    SH_OP_BN_GRAD_APPLY,
    /* What this shard adds to the step's new running statistics: share * mean and
     * share * var * m / (m - 1), attrs.share = images of the shard / images of the batch.
     * in: mean, var; out: delta_mean [C], delta_var [C] */
    SH_OP_BN_EXPORT,

    /* A convolution's weight and bias with the batch norm of its result in them: f = gamma /
     * sqrt(var
     * + eps) per output channel, w' = w f, bias' = (bias - mean) f + beta. Only fusion makes this
     * op. in: w, mean, var, gamma, beta, ?bias; out: w', bias' [O] */
    SH_OP_FOLD_BN,

    SH_OP_ACT,      /* in: x; out: y */
    SH_OP_ACT_GRAD, /* in: dy, y (the activation's output; where sh_act_needs_input: its input x);
                     * out: dx */
    SH_OP_ADD,      /* in: a, b of one shape; out: a + b */

    SH_OP_AVG_POOL,      /* global: in: x; out: [N,C,1,1] */
    SH_OP_AVG_POOL_GRAD, /* in: dy [N,C,1,1]; out: dx */

    /* Windows of attrs.kernel, stride, pad (smaller than the kernel); output side = floor((side +
     * before + after - kernel) / stride) + 1. */
    SH_OP_MAX_POOL, /* in: x; out: y, the largest element inside the image, and of the padding's
                     * zeros where attrs.count_padding */
    SH_OP_MAX_POOL_GRAD, /* to the first largest in row-major order, found in x again, to none where
                          * the padding is as large;
                          * in: dy, x; out: dx */
    SH_OP_MEAN_POOL, /* in: x; out: y = sum / (attrs.count_padding ? kernel area : elements inside)
                      */
    SH_OP_MEAN_POOL_GRAD, /* in: dy; out: dx */
    /* To attrs.kernel rows and columns whatever the image's side is: output i is the mean of
     * [floor(i side / n), ceil((i + 1) side / n)). in: x; out: y */
    SH_OP_ADAPTIVE_POOL,
    SH_OP_ADAPTIVE_POOL_GRAD, /* in: dy; out: dx */
    /* Generalised mean over H, W: y = (mean max(x, eps)^p)^(1/p). in: x, p [1]; out: [N,C,1,1] */
    SH_OP_GEM_POOL,
    /* With m = H W, c = max(x, eps), S = mean c^p: dx = dy S^(1/p - 1) c^(p-1) / m where x >= eps;
     * dp = sum dy S^(1/p) / p (mean(c^p ln c) / S - ln(S) / p). in: dy, x, p; out: dx, ?dp [1] */
    SH_OP_GEM_POOL_GRAD,

    SH_OP_CONCAT,      /* in: 1 to 8 x of equal N, H, W; out: y, their channels one after another */
    SH_OP_CONCAT_GRAD, /* in: dy; out: the dx, all of them */

    SH_OP_MUL_CHANNELS,      /* in: x [N,C,H,W], s [N,C,1,1]; out: y = x s */
    SH_OP_MUL_CHANNELS_GRAD, /* in: dy, x, s; out: dx = dy s, ?ds = sum of dy x over H, W */
    /* Squeeze and excitation of a = act((x - mean) / sqrt(var + eps) * gamma + beta), which is
     * never stored. Only fusion makes these. */
    SH_OP_SE_SQUEEZE,     /* in: x, mean, var, gamma, beta; out: mean of a over H, W [N,C,1,1] */
    SH_OP_SE_EXCITE,      /* in: x, s [N,C,1,1], mean, var, gamma, beta; out: y = a s */
    SH_OP_SE_FACTOR_GRAD, /* in: dy, x, mean, var, gamma, beta; out: ds = sum of dy a over H, W */
    /* With dp the gradient of what SE_SQUEEZE gave, m = H W: g = (dy s + dp / m) act', and what
     * BN_GRAD_REDUCE gives for it, of g as stored.
     * in: dy, x, mean, var, gamma, beta, s, dp; out: g, dgamma [C], dbeta [C] */
    SH_OP_SE_GRAD,
    SH_OP_SCALE,      /* in: x, gamma [C]; out: y = x gamma */
    SH_OP_SCALE_GRAD, /* in: dy, x, gamma; out: dx = dy gamma, ?dgamma = sum of dy x over N, H, W */
    SH_OP_ADD_SCALED, /* in: b, ?a; out: attrs.scale b + a */

    /* Stochastic depth: the whole image n is x / (1 - rate), or 0 where sh_rng_uniform(key, 0) <
     * rate, with the key of DROPOUT. Its own derivative. in: x; out: y */
    SH_OP_PATH_DROP,

    /* Over the channels of each pixel: y = (x - mean) / sqrt(var + eps) * gamma + beta, var biased.
     * in: x, gamma, beta; out: y */
    SH_OP_LAYER_NORM,
    /* Mean and rstd are taken from x again; g = dy gamma: dx = rstd (g - mean(g) - xhat mean(g
     * xhat)), dgamma = sum dy xhat, dbeta = sum dy over N, H, W. in: dy, x, gamma; out: dx,
     * ?dgamma, ?dbeta (together) */
    SH_OP_LAYER_NORM_GRAD,

    /* Tokens are [N,C,T,1]. Of 3 C channels the first C are q, then k, then v; each is attrs.heads
     * runs of d = C / heads channels. Per image and head: s = q k^T / sqrt(d), y = softmax(s) v.
     * in: qkv [N,3C,T,1]; out: y [N,C,T,1], lse [N,heads,T,1] f32 row-major: ln sum_j exp(s_ij) */
    SH_OP_ATTENTION,
    /* P_ij = exp(s_ij - lse_i), D_i = dy_i . y_i: dv = P^T dy, ds = P (dy v^T - D), dq = ds k /
     * sqrt(d), dk = ds^T q / sqrt(d). in: dy, qkv, y, lse; out: dqkv */
    SH_OP_ATTENTION_GRAD,

    /* Patches become tokens 1 to h w, row-major, cls token 0; pos is added to each.
     * in: x [N,C,h,w], cls [1,1,C], pos [1,1 + h w,C]; out: [N,C,1 + h w,1] */
    SH_OP_TOKENS,
    SH_OP_TOKENS_GRAD,     /* sums over N; in: dy; out: dx, ?dcls, ?dpos */
    SH_OP_TAKE_TOKEN,      /* in: x [N,C,T,1]; out: token attrs.index, [N,C,1,1] */
    SH_OP_TAKE_TOKEN_GRAD, /* in: dy; out: dx, zero elsewhere */

    SH_OP_LINEAR,        /* in: x [N,I,1,1], w [O,I], ?bias [O]; out: [N,O,1,1] */
    SH_OP_LINEAR_GRAD_X, /* in: dy, w; out: dx */
    SH_OP_LINEAR_GRAD_W, /* in: x, dy; out: dw, ?dbias */

    SH_OP_FLATTEN,      /* in: x; out: [N, C H W, 1, 1] in the order (c, h, w) */
    SH_OP_FLATTEN_GRAD, /* in: dy; out: dx */

    /* Inverted dropout: y = x / (1 - rate), or 0 where sh_rng_uniform(key, (c H + h) W + w) < rate,
     * key = sh_rng_make(seed + attrs.stream, SH_RNG_DROPOUT, step, first_slot + n). Its own
     * derivative is itself. in: x; out: y */
    SH_OP_DROPOUT,

    SH_OP_REFLECT_PAD,      /* in: x; out: padded by attrs.pad without repeating the edge */
    SH_OP_REFLECT_PAD_GRAD, /* in: dy; out: dx */

    SH_OP_L2_NORM,      /* y = x / max(|x|, attrs.eps) per row. in: x [N,D,1,1]; out: y */
    SH_OP_L2_NORM_GRAD, /* in: dy, x, y; out: dx */

    /* f32 <-> bf16 and layout; in: x; out: y of the same shape. Derivative: cast back. */
    SH_OP_CAST,

    SH_OP_COUNT
} sh_op;

enum sh_conv_in {
    SH_CONV_X,
    SH_CONV_W,
    SH_CONV_BIAS,     /* ? */
    SH_CONV_MEAN,     /* ? [C] of x, with the next three */
    SH_CONV_VAR,      /* ? */
    SH_CONV_GAMMA,    /* ? */
    SH_CONV_BETA,     /* ? */
    SH_CONV_RESIDUAL, /* ? shaped as y */
    SH_CONV_INPUTS
};

enum sh_conv_out {
    SH_CONV_Y,
    SH_CONV_Y_MEAN, /* ? [O] statistics of y as stored, as BN_STATS gives them */
    SH_CONV_Y_VAR,  /* ? */
    SH_CONV_OUTPUTS
};

enum sh_conv_grad_in {
    SH_CONV_GRAD_X_IN,   /* x; ? when neither dw nor a prologue needs it */
    SH_CONV_GRAD_DY,     /* gradient of y, or of the batch norm of y where y is given */
    SH_CONV_GRAD_W_IN,   /* w; its shape also when dx is absent */
    SH_CONV_GRAD_MEAN,   /* ? [C] of x, with the next three */
    SH_CONV_GRAD_VAR,    /* ? */
    SH_CONV_GRAD_GAMMA,  /* ? */
    SH_CONV_GRAD_BETA,   /* ? */
    SH_CONV_GRAD_Y,      /* ? what CONV wrote, with the next three */
    SH_CONV_GRAD_Y_MEAN, /* ? [O] */
    SH_CONV_GRAD_Y_VAR,
    SH_CONV_GRAD_Y_GAMMA,
    SH_CONV_GRAD_Y_DGAMMA, /* ? absent: the statistics of y are constants */
    SH_CONV_GRAD_Y_DBETA,  /* ? */
    SH_CONV_GRAD_INPUTS
};

enum sh_conv_grad_out {
    SH_CONV_GRAD_DX,     /* ? */
    SH_CONV_GRAD_DW,     /* ? f32 */
    SH_CONV_GRAD_DBIAS,  /* ? f32 */
    SH_CONV_GRAD_DGAMMA, /* ? f32 [C], with dbeta: the epilogue */
    SH_CONV_GRAD_DBETA,  /* ? */
    SH_CONV_GRAD_OUTPUTS
};

typedef enum sh_act {
    SH_ACT_NONE,
    SH_ACT_RELU,
    SH_ACT_RELU6,
    SH_ACT_SIGMOID,
    SH_ACT_TANH,
    SH_ACT_SILU,         /* x / (1 + exp(-x)) */
    SH_ACT_GELU,         /* x (1 + erf(x / sqrt(2))) / 2 */
    SH_ACT_HARD_SIGMOID, /* min(max(x / 6 + 1 / 2, 0), 1) */
    SH_ACT_HARD_SWISH,   /* x times that */
} sh_act;

/** Attributes of a node; each op reads the ones that its comment names. */
typedef struct sh_op_attrs {
    int stride[2];   /* vertical, horizontal */
    int dilation[2]; /* 1 = dense */
    int pad[4];      /* top, left, bottom, right */
    int groups;
    int kernel[2];     /* of pools; ADAPTIVE_POOL: height and width of the output */
    int count_padding; /* MEAN_POOL, MAX_POOL */
    int heads;         /* ATTENTION */
    int index;         /* TAKE_TOKEN */
    float scale;       /* ADD_SCALED */
    sh_act act;
    float eps;
    sh_act y_act;      /* CONV: of its result */
    float y_eps;       /* CONV_GRAD: of the batch norm of y */
    float rate;        /* DROPOUT, PATH_DROP */
    int stream;        /* DROPOUT, PATH_DROP: index of the layer in the program */
    float share;       /* BN_EXPORT */
    int frozen;        /* BN_APPLY, BN_GRAD_APPLY: statistics are constants */
    int64_t n_reduced; /* BN_EXPORT: m = N H W that the statistics were taken over */
} sh_op_attrs;

/** eps of L2_NORM, as in F.normalize: only a row of zeros meets it, and stays zero instead of
 *  becoming NaN. */
#define SH_L2_NORM_EPS 1e-12

const char *sh_op_name(sh_op op);
const char *sh_act_name(sh_act act);

/** Is the activation's slope a function of its input, not of its output alone? */
bool sh_act_needs_input(sh_act act);

SH_C_END

#endif
