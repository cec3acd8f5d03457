// SPDX-License-Identifier: Apache-2.0
#include "models/host_memory.h"
#include "models/ref/kernels.h"
#include "models/ref/ref.h"

/* Each op and its loops: sh_ref_<loops>. */
#define REF_OPS(X)                                                                                 \
    X(CONV, conv)                                                                                  \
    X(CONV_GRAD_X, conv_grad_x)                                                                    \
    X(CONV_GRAD_W, conv_grad_w)                                                                    \
    X(CONV_GRAD, conv_grad)                                                                        \
    X(BN_STATS, bn_stats)                                                                          \
    X(BN_APPLY, bn_apply)                                                                          \
    X(BN_GRAD_REDUCE, bn_grad_reduce)                                                              \
    X(BN_GRAD_APPLY, bn_grad_apply)                                                                \
    X(BN_EXPORT, bn_export)                                                                        \
    X(FOLD_BN, fold_bn)                                                                            \
    X(ACT, act)                                                                                    \
    X(ACT_GRAD, act_grad)                                                                          \
    X(ADD, add)                                                                                    \
    X(AVG_POOL, avg_pool)                                                                          \
    X(AVG_POOL_GRAD, avg_pool_grad)                                                                \
    X(LINEAR, linear)                                                                              \
    X(LINEAR_GRAD_X, linear_grad_x)                                                                \
    X(LINEAR_GRAD_W, linear_grad_w)                                                                \
    X(FLATTEN, copy)                                                                               \
    X(FLATTEN_GRAD, copy)                                                                          \
    X(DROPOUT, dropout)                                                                            \
    X(REFLECT_PAD, reflect_pad)                                                                    \
    X(REFLECT_PAD_GRAD, reflect_pad_grad)                                                          \
    X(L2_NORM, l2_norm)                                                                            \
    X(L2_NORM_GRAD, l2_norm_grad)                                                                  \
    X(CAST, copy)                                                                                  \
    X(MAX_POOL, max_pool)                                                                          \
    X(MAX_POOL_GRAD, max_pool_grad)                                                                \
    X(MEAN_POOL, mean_pool)                                                                        \
    X(MEAN_POOL_GRAD, mean_pool_grad)                                                              \
    X(ADAPTIVE_POOL, mean_pool)                                                                    \
    X(ADAPTIVE_POOL_GRAD, mean_pool_grad)                                                          \
    X(GEM_POOL, gem_pool)                                                                          \
    X(GEM_POOL_GRAD, gem_pool_grad)                                                                \
    X(CONCAT, concat)                                                                              \
    X(CONCAT_GRAD, concat_grad)                                                                    \
    X(MUL_CHANNELS, mul_channels)                                                                  \
    X(MUL_CHANNELS_GRAD, mul_channels_grad)                                                        \
    X(SE_SQUEEZE, se_squeeze)                                                                      \
    X(SE_EXCITE, se_excite)                                                                        \
    X(SE_FACTOR_GRAD, se_factor_grad)                                                              \
    X(SE_GRAD, se_grad)                                                                            \
    X(SCALE, scale)                                                                                \
    X(SCALE_GRAD, scale_grad)                                                                      \
    X(ADD_SCALED, add_scaled)                                                                      \
    X(PATH_DROP, path_drop)                                                                        \
    X(LAYER_NORM, layer_norm)                                                                      \
    X(LAYER_NORM_GRAD, layer_norm_grad)                                                            \
    X(ATTENTION, attention)                                                                        \
    X(ATTENTION_GRAD, attention_grad)                                                              \
    X(TOKENS, tokens)                                                                              \
    X(TOKENS_GRAD, tokens_grad)                                                                    \
    X(TAKE_TOKEN, take_token)                                                                      \
    X(TAKE_TOKEN_GRAD, take_token_grad)

static const char *why_not(const sh_node_desc *desc)
{
    (void)desc;
    return NULL;
}

#define RUN(op, loops)                                                                             \
    static sh_status run_##op(const sh_node_desc *desc, void *state, const sh_kernel_args *args)   \
    {                                                                                              \
        sh_ref_view view;                                                                          \
        (void)state;                                                                               \
        sh_ref_open(desc, args, &view);                                                            \
        sh_ref_##loops(desc, &view, args->scalars);                                                \
        sh_ref_close(desc, args, &view);                                                           \
        return SH_OK;                                                                              \
    }
REF_OPS(RUN)

#define ROW(op_name, loops)                                                                        \
    [SH_OP_##op_name] = {.name = "ref:" #loops,                                                    \
                         .op = SH_OP_##op_name,                                                    \
                         .why_not = why_not,                                                       \
                         .prepare = sh_ref_prepare,                                                \
                         .run = run_##op_name},
static const sh_kernel kernels[SH_OP_COUNT] = {REF_OPS(ROW)};

const sh_kernel *sh_ref_kernel(sh_op op)
{
    return &kernels[op];
}

/** A NULL-terminated list of one kernel per op. */
static const sh_kernel *const *kernels_of(sh_op op)
{
#define LIST(name, loops) [SH_OP_##name] = {&kernels[SH_OP_##name], NULL},
    static const sh_kernel *const lists[SH_OP_COUNT][2] = {REF_OPS(LIST)};

    return lists[op];
}

static sh_layout layout_of(sh_dtype dtype, const int64_t dims[4], bool is_image_input)
{
    (void)dtype;
    (void)dims;
    (void)is_image_input;
    return SH_NCHW;
}

const sh_backend sh_backend_ref = {
    .name = "ref",
    .layout_of = layout_of,
    .kernels_of = kernels_of,
    .alloc = sh_host_memory_alloc,
    .free = sh_host_memory_free,
    .bytes = sh_host_memory_bytes,
    .device_ptr = sh_host_memory_device_ptr,
    .copy_in = sh_host_memory_copy_in,
    .copy_out = sh_host_memory_copy_out,
    .host_view = sh_host_memory_view,
};
