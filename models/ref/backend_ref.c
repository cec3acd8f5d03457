// SPDX-License-Identifier: Apache-2.0
#include "models/host_memory.h"
#include "models/ref/kernels.h"
#include "models/ref/ref.h"

static const char *why_not(const sh_node_desc *desc)
{
    (void)desc;
    return NULL;
}

/* One run function per op, so that a kernel is a plain table row. */
#define REF_RUN(loops)                                                                             \
    static sh_status run_##loops(const sh_node_desc *desc, void *state,                            \
                                 const sh_kernel_args *args)                                       \
    {                                                                                              \
        sh_ref_view view;                                                                          \
        (void)state;                                                                               \
        sh_ref_open(desc, args, &view);                                                            \
        sh_ref_##loops(desc, &view, args->scalars);                                                \
        sh_ref_close(desc, args, &view);                                                           \
        return SH_OK;                                                                              \
    }

REF_RUN(conv)
REF_RUN(conv_grad_x)
REF_RUN(conv_grad_w)
REF_RUN(conv_grad)
REF_RUN(bn_stats)
REF_RUN(bn_apply)
REF_RUN(bn_grad_reduce)
REF_RUN(bn_grad_apply)
REF_RUN(bn_export)
REF_RUN(act)
REF_RUN(act_grad)
REF_RUN(add)
REF_RUN(avg_pool)
REF_RUN(avg_pool_grad)
REF_RUN(linear)
REF_RUN(linear_grad_x)
REF_RUN(linear_grad_w)
REF_RUN(copy)
REF_RUN(dropout)
REF_RUN(reflect_pad)
REF_RUN(reflect_pad_grad)
REF_RUN(l2_norm)
REF_RUN(l2_norm_grad)

#define ROW(op_name, loops)                                                                        \
    [SH_OP_##op_name] = {.name = "ref:" #loops,                                                    \
                         .op = SH_OP_##op_name,                                                    \
                         .why_not = why_not,                                                       \
                         .prepare = sh_ref_prepare,                                                \
                         .run = run_##loops}

static const sh_kernel kernels[SH_OP_COUNT] = {
    ROW(CONV, conv),
    ROW(CONV_GRAD_X, conv_grad_x),
    ROW(CONV_GRAD_W, conv_grad_w),
    ROW(CONV_GRAD, conv_grad),
    ROW(BN_STATS, bn_stats),
    ROW(BN_APPLY, bn_apply),
    ROW(BN_GRAD_REDUCE, bn_grad_reduce),
    ROW(BN_GRAD_APPLY, bn_grad_apply),
    ROW(BN_EXPORT, bn_export),
    ROW(ACT, act),
    ROW(ACT_GRAD, act_grad),
    ROW(ADD, add),
    ROW(AVG_POOL, avg_pool),
    ROW(AVG_POOL_GRAD, avg_pool_grad),
    ROW(LINEAR, linear),
    ROW(LINEAR_GRAD_X, linear_grad_x),
    ROW(LINEAR_GRAD_W, linear_grad_w),
    ROW(FLATTEN, copy),
    ROW(FLATTEN_GRAD, copy),
    ROW(DROPOUT, dropout),
    ROW(REFLECT_PAD, reflect_pad),
    ROW(REFLECT_PAD_GRAD, reflect_pad_grad),
    ROW(L2_NORM, l2_norm),
    ROW(L2_NORM_GRAD, l2_norm_grad),
    ROW(CAST, copy),
};

const sh_kernel *sh_ref_kernel(sh_op op)
{
    return &kernels[op];
}

/** A NULL-terminated list of one kernel per op. */
static const sh_kernel *const *kernels_of(sh_op op)
{
#define LIST(name) [SH_OP_##name] = { &kernels[SH_OP_##name], NULL }
    static const sh_kernel *const lists[SH_OP_COUNT][2] = {
        LIST(CONV),           LIST(CONV_GRAD_X),
        LIST(CONV_GRAD_W),    LIST(CONV_GRAD),
        LIST(BN_STATS),       LIST(BN_APPLY),
        LIST(BN_GRAD_REDUCE), LIST(BN_GRAD_APPLY),
        LIST(BN_EXPORT),      LIST(ACT),
        LIST(ACT_GRAD),       LIST(ADD),
        LIST(AVG_POOL),       LIST(AVG_POOL_GRAD),
        LIST(LINEAR),         LIST(LINEAR_GRAD_X),
        LIST(LINEAR_GRAD_W),  LIST(FLATTEN),
        LIST(FLATTEN_GRAD),   LIST(DROPOUT),
        LIST(REFLECT_PAD),    LIST(REFLECT_PAD_GRAD),
        LIST(L2_NORM),        LIST(L2_NORM_GRAD),
        LIST(CAST),
    };

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
