// SPDX-License-Identifier: Apache-2.0
/* What the kernels of this folder share. */
#ifndef SH_MODELS_CPU_KERNELS_H
#define SH_MODELS_CPU_KERNELS_H

#include "models/backend.h"
#include "models/cpu/simd/simd.h"

/* ---- the kernels, by file ---- */
extern const sh_kernel sh_cpu_conv_pointwise, sh_cpu_conv_grad_x_pointwise,
    sh_cpu_conv_grad_w_pointwise, sh_cpu_conv_grad_pointwise;
extern const sh_kernel sh_cpu_conv_depthwise, sh_cpu_conv_grad_x_depthwise,
    sh_cpu_conv_grad_w_depthwise, sh_cpu_conv_grad_depthwise;
extern const sh_kernel sh_cpu_conv_patches, sh_cpu_conv_grad_w_patches;
extern const sh_kernel sh_cpu_conv_winograd, sh_cpu_conv_grad_x_winograd,
    sh_cpu_conv_grad_w_winograd;
extern const sh_kernel sh_cpu_conv_onednn, sh_cpu_conv_grad_x_onednn, sh_cpu_conv_grad_w_onednn;
extern const sh_kernel sh_cpu_conv_onednn_any, sh_cpu_conv_grad_x_onednn_any,
    sh_cpu_conv_grad_w_onednn_any;
extern const sh_kernel sh_cpu_bn_stats, sh_cpu_bn_apply, sh_cpu_bn_grad_reduce,
    sh_cpu_bn_grad_apply;
extern const sh_kernel sh_cpu_fold_bn;
extern const sh_kernel sh_cpu_act, sh_cpu_act_grad, sh_cpu_add, sh_cpu_cast;
extern const sh_kernel sh_cpu_avg_pool, sh_cpu_avg_pool_grad;
extern const sh_kernel sh_cpu_linear_pointwise, sh_cpu_linear_grad_x_pointwise,
    sh_cpu_linear_grad_w_pointwise;
extern const sh_kernel sh_cpu_linear, sh_cpu_linear_grad_x, sh_cpu_linear_grad_w;

extern const sh_kernel sh_cpu_flatten, sh_cpu_flatten_grad, sh_cpu_cast_layout;
extern const sh_kernel sh_cpu_reflect_pad, sh_cpu_reflect_pad_grad, sh_cpu_dropout,
    sh_cpu_path_drop;
extern const sh_kernel sh_cpu_max_pool, sh_cpu_max_pool_grad, sh_cpu_mean_pool,
    sh_cpu_mean_pool_grad, sh_cpu_gem_pool, sh_cpu_gem_pool_grad;
extern const sh_kernel sh_cpu_concat, sh_cpu_concat_grad;
extern const sh_kernel sh_cpu_se_squeeze, sh_cpu_se_excite, sh_cpu_se_factor_grad, sh_cpu_se_grad;
extern const sh_kernel sh_cpu_mul_channels, sh_cpu_mul_channels_grad, sh_cpu_scale,
    sh_cpu_scale_grad, sh_cpu_add_scaled;
extern const sh_kernel sh_cpu_layer_norm_kernel, sh_cpu_layer_norm_grad_kernel;
extern const sh_kernel sh_cpu_attention, sh_cpu_attention_grad;
extern const sh_kernel sh_cpu_tokens, sh_cpu_tokens_grad, sh_cpu_take_token, sh_cpu_take_token_grad;

/* ---- operands ---- */

/** Operand k, or NULL where it is absent. */
static inline const sh_tensor_desc *sh_cpu_in(const sh_node_desc *d, int k)
{
    return k < d->n_inputs ? d->in[k] : NULL;
}

static inline const sh_tensor_desc *sh_cpu_out(const sh_node_desc *d, int k)
{
    return k < d->n_outputs ? d->out[k] : NULL;
}

static inline const void *sh_cpu_arg(const sh_node_desc *d, const sh_kernel_args *args, int k)
{
    return sh_cpu_in(d, k) ? args->in[k] : NULL;
}

static inline void *sh_cpu_result(const sh_node_desc *d, const sh_kernel_args *args, int k)
{
    return sh_cpu_out(d, k) ? args->out[k] : NULL;
}

static inline int64_t sh_cpu_blocks(int64_t n_channels)
{
    return (n_channels + 15) / 16;
}

static inline size_t sh_cpu_align(size_t n_bytes)
{
    return (n_bytes + 63) / 64 * 64;
}

/** Where n_bytes of scratch begin that is laid out piece by piece; *at goes on behind them. */
static inline size_t sh_cpu_take(size_t *at, size_t n_bytes)
{
    size_t here = *at;

    *at += sh_cpu_align(n_bytes);
    return here;
}

/** Is this an activation in 16-channel blocks, f32 or bf16? */
bool sh_cpu_is_blocked(const sh_tensor_desc *d);

/** Threads that kernels planned now will use. */
int sh_cpu_threads(void);

/** Is a result of so many bytes better written past the caches? */
bool sh_cpu_is_large(size_t n_bytes);

/* ---- batch norm ---- */

/** Activations that are clamps: their bounds. False for the others. */
bool sh_cpu_act_bounds(sh_act act, float *lo, float *hi);

/** Activations that batch norms have also where they are fused: clamps and SiLU. */
bool sh_cpu_norm_has_act(sh_act act);

/** Per-channel vectors of one batch norm, each padded to whole blocks with zeros. */
typedef struct sh_cpu_norm {
    float *scale, *shift, *mean, *a, *b, *c; /* a, b, c: gradient, see sh_cpu_bn_grad */
    float lo, hi;
    sh_act curve; /* as in sh_cpu_affine */
} sh_cpu_norm;

/** Bytes of scratch that a norm of so many channels takes. */
size_t sh_cpu_norm_bytes(int64_t n_channels);

/** Fill scale, shift, mean and bounds into scratch. */
sh_cpu_norm sh_cpu_norm_make(void *scratch, int64_t n_channels, const float *mean, const float *var,
                             const float *gamma, const float *beta, float eps, sh_act act);

/** Fill a, b, c: n_reduced = N H W; frozen or without sums: dx = gamma rstd g. */
void sh_cpu_norm_make_grad(sh_cpu_norm *norm, int64_t n_channels, const float *mean,
                           const float *var, const float *gamma, float eps, const float *dgamma,
                           const float *dbeta, double n_reduced, bool frozen);

/** The norm's vectors at one block; a norm without scale (zeroed) stays the identity. */
sh_cpu_affine sh_cpu_norm_block(const sh_cpu_norm *norm, int64_t block);
sh_cpu_bn_grad sh_cpu_grad_block(const sh_cpu_norm *norm, int64_t block);

/** Combine records[item * n_blocks + block] over items, in f64: mean and biased variance. */
void sh_cpu_finish_moments(const sh_cpu_moments *records, int64_t n_items, int64_t n_channels,
                           float *mean, float *var);

/** Combine sums over items, in f64: dgamma and dbeta. */
void sh_cpu_finish_sums(const sh_cpu_grad_sums *records, int64_t n_items, int64_t n_channels,
                        const float *var, float eps, float *dgamma, float *dbeta);

#endif
