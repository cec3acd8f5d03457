// SPDX-License-Identifier: Apache-2.0
/**
 * How reference kernels see their operands: always as dense f32 NCHW.
 *
 * An operand that is stored so is used where it lies; any other is unpacked into scratch before the
 * loops and packed after them (padding channels as zero). Output 0 may lie on an input: elementwise
 * kernels read an element before they write it.
 */
#ifndef SH_MODELS_REF_KERNELS_H
#define SH_MODELS_REF_KERNELS_H

#include "models/backend.h"

enum { SH_REF_OPERANDS = 16 };

typedef struct sh_ref_view {
    const float *in[SH_REF_OPERANDS]; /* NULL: absent */
    float *out[SH_REF_OPERANDS];
    double *work; /* sums of the ops that need them: see n_sums in view.c */
    float *a;     /* convolutions with a prologue: what they really take in */
    float *dy;    /* CONV_GRAD with y: the gradient of y */
} sh_ref_view;

/** Scratch of a node: dense copies of operands, and what the loops of its op need. */
sh_status sh_ref_prepare(const sh_node_desc *desc, void **state, size_t *scratch_bytes);

/** Unpack inputs. */
void sh_ref_open(const sh_node_desc *desc, const sh_kernel_args *args, sh_ref_view *view);

/** Pack outputs. */
void sh_ref_close(const sh_node_desc *desc, const sh_kernel_args *args, const sh_ref_view *view);

typedef void sh_ref_loops(const sh_node_desc *desc, const sh_ref_view *v,
                          const sh_run_scalars *scalars);

sh_ref_loops sh_ref_conv, sh_ref_conv_grad_x, sh_ref_conv_grad_w, sh_ref_conv_grad;
sh_ref_loops sh_ref_linear, sh_ref_linear_grad_x, sh_ref_linear_grad_w;
sh_ref_loops sh_ref_bn_stats, sh_ref_bn_apply, sh_ref_bn_grad_reduce, sh_ref_bn_grad_apply;
sh_ref_loops sh_ref_bn_export, sh_ref_fold_bn;
sh_ref_loops sh_ref_act, sh_ref_act_grad, sh_ref_add, sh_ref_copy, sh_ref_dropout;
sh_ref_loops sh_ref_avg_pool, sh_ref_avg_pool_grad, sh_ref_reflect_pad, sh_ref_reflect_pad_grad;
sh_ref_loops sh_ref_l2_norm, sh_ref_l2_norm_grad;
sh_ref_loops sh_ref_max_pool, sh_ref_max_pool_grad, sh_ref_mean_pool, sh_ref_mean_pool_grad;
sh_ref_loops sh_ref_gem_pool, sh_ref_gem_pool_grad;
sh_ref_loops sh_ref_se_squeeze, sh_ref_se_excite, sh_ref_se_factor_grad, sh_ref_se_grad;
sh_ref_loops sh_ref_concat, sh_ref_concat_grad, sh_ref_mul_channels, sh_ref_mul_channels_grad;
sh_ref_loops sh_ref_scale, sh_ref_scale_grad, sh_ref_add_scaled, sh_ref_path_drop;
sh_ref_loops sh_ref_layer_norm, sh_ref_layer_norm_grad, sh_ref_attention, sh_ref_attention_grad;
sh_ref_loops sh_ref_tokens, sh_ref_tokens_grad, sh_ref_take_token, sh_ref_take_token_grad;

/** act(z), and its slope there; y = act(z). Only z is used where sh_act_needs_input, else only y.
 */
double sh_ref_act_value(sh_act act, double z);
double sh_ref_act_slope(sh_act act, double z, double y);

/** Batch norm's constants of one channel. */
typedef struct sh_ref_channel {
    double mean, rstd, gamma, beta;
} sh_ref_channel;

/** From the operands mean, var, gamma, beta that begin at `first`. */
sh_ref_channel sh_ref_channel_of(const sh_ref_view *v, int first, int64_t c, float eps);

static inline double sh_ref_bn_value(const sh_ref_channel *ch, double x)
{
    return (x - ch->mean) * ch->rstd * ch->gamma + ch->beta;
}

/** Mean and biased variance over N, H, W. */
void sh_ref_moments(const sh_tensor_desc *d, const float *x, float *mean, float *var);

/** Sum over N, H, W. */
void sh_ref_sum_channels(const sh_tensor_desc *d, const float *dy, float *sums);

/** x as it will be read back from memory of this type. */
static inline float sh_ref_stored(sh_dtype dtype, double x)
{
    return dtype == SH_BF16 ? sh_bf16_to_f32(sh_bf16_from_f32((float)x)) : (float)x;
}

static inline bool sh_ref_has_input(const sh_node_desc *desc, int i)
{
    return i < desc->n_inputs && desc->in[i] != NULL;
}

static inline bool sh_ref_has_output(const sh_node_desc *desc, int i)
{
    return i < desc->n_outputs && desc->out[i] != NULL;
}

static inline int64_t sh_ref_elems(const sh_tensor_desc *d)
{
    return d->dims[0] * d->dims[1] * d->dims[2] * d->dims[3];
}

#endif
