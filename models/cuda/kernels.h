// SPDX-License-Identifier: Apache-2.0
/** What the kernel files (C++, *.cu) give to the table of the backend (C). */
#ifndef SH_MODELS_CUDA_KERNELS_H
#define SH_MODELS_CUDA_KERNELS_H

#include "models/backend.h"

SH_C_BEGIN

/** A kernel of one op. Activations are rows of channels (SH_NHWC, or of one pixel), f32 or bf16. */
typedef struct sh_cuda_op {
    const char *(*why_not)(const sh_node_desc *desc);
    size_t (*scratch_bytes)(const sh_node_desc *desc); /* NULL: none */
    void (*launch)(const sh_node_desc *desc, const sh_kernel_args *args);
} sh_cuda_op;

/** Kernels, those of one op in the order in which they are tried: X(op, sh_cuda_<name>). */
#define SH_CUDA_KERNELS(X)                                                                         \
    X(CONV, conv_depthwise)                                                                        \
    X(CONV, conv)                                                                                  \
    X(CONV_GRAD_X, conv_grad_x_depthwise)                                                          \
    X(CONV_GRAD_X, conv_grad_x)                                                                    \
    X(CONV_GRAD_W, conv_grad_w_depthwise)                                                          \
    X(CONV_GRAD_W, conv_grad_w)                                                                    \
    X(CONV_GRAD, conv_grad_depthwise)                                                              \
    X(BN_STATS, bn_stats)                                                                          \
    X(BN_APPLY, bn_apply)                                                                          \
    X(BN_GRAD_REDUCE, bn_grad_reduce)                                                              \
    X(BN_GRAD_APPLY, bn_grad_apply)                                                                \
    X(BN_EXPORT, bn_export)                                                                        \
    X(FOLD_BN, fold_bn)                                                                            \
    X(ACT, act)                                                                                    \
    X(ACT_GRAD, act_grad)                                                                          \
    X(ADD, add)                                                                                    \
    X(ADD_SCALED, add_scaled)                                                                      \
    X(DROPOUT, dropout)                                                                            \
    X(PATH_DROP, path_drop)                                                                        \
    X(CAST, cast)                                                                                  \
    X(FLATTEN, flatten)                                                                            \
    X(FLATTEN_GRAD, flatten_grad)                                                                  \
    X(AVG_POOL, avg_pool)                                                                          \
    X(AVG_POOL_GRAD, avg_pool_grad)                                                                \
    X(MUL_CHANNELS, mul_channels)                                                                  \
    X(MUL_CHANNELS_GRAD, mul_channels_grad)                                                        \
    X(SE_SQUEEZE, se_squeeze)                                                                      \
    X(SE_EXCITE, se_excite)                                                                        \
    X(SE_FACTOR_GRAD, se_factor_grad)                                                              \
    X(SE_GRAD, se_grad)                                                                            \
    X(SCALE, scale)                                                                                \
    X(SCALE_GRAD, scale_grad)                                                                      \
    X(MAX_POOL, max_pool)                                                                          \
    X(MAX_POOL_GRAD, max_pool_grad)                                                                \
    X(MEAN_POOL, mean_pool)                                                                        \
    X(MEAN_POOL_GRAD, mean_pool_grad)                                                              \
    X(ADAPTIVE_POOL, adaptive_pool)                                                                \
    X(ADAPTIVE_POOL_GRAD, adaptive_pool_grad)                                                      \
    X(GEM_POOL, gem_pool)                                                                          \
    X(GEM_POOL_GRAD, gem_pool_grad)                                                                \
    X(CONCAT, concat)                                                                              \
    X(CONCAT_GRAD, concat_grad)                                                                    \
    X(REFLECT_PAD, reflect_pad)                                                                    \
    X(REFLECT_PAD_GRAD, reflect_pad_grad)                                                          \
    X(LINEAR, linear)                                                                              \
    X(LINEAR_GRAD_X, linear_grad_x)                                                                \
    X(LINEAR_GRAD_W, linear_grad_w)                                                                \
    X(L2_NORM, l2_norm)                                                                            \
    X(L2_NORM_GRAD, l2_norm_grad)                                                                  \
    X(LAYER_NORM, layer_norm)                                                                      \
    X(LAYER_NORM_GRAD, layer_norm_grad)                                                            \
    X(ATTENTION, attention)                                                                        \
    X(ATTENTION_GRAD, attention_grad)                                                              \
    X(TOKENS, tokens)                                                                              \
    X(TOKENS_GRAD, tokens_grad)                                                                    \
    X(TAKE_TOKEN, take_token)                                                                      \
    X(TAKE_TOKEN_GRAD, take_token_grad)

/** The optimizer over the flat arenas: see models/optim_kernels.h. */
extern const struct sh_optim_kernels sh_cuda_optim;

/** Losses over embeddings: see models/loss/kernels.h. */
extern const struct sh_loss_kernels sh_cuda_loss;

/** Losses of classification: see models/loss/class_kernels.h. */
extern const struct sh_class_kernels sh_cuda_classes;

#define SH_CUDA_DECLARE(op, name) extern const sh_cuda_op sh_cuda_##name;
SH_CUDA_KERNELS(SH_CUDA_DECLARE)

SH_C_END

#endif
