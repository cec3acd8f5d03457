// SPDX-License-Identifier: Apache-2.0
#include "models/ops.h"

#include "models/graph.h"

const char *sh_op_name(sh_op op)
{
    return op < SH_OP_COUNT ? sh_op_table[op].name : "removed";
}

const char *sh_act_name(sh_act act)
{
    static const char *const names[] = {
        [SH_ACT_NONE] = "none",       [SH_ACT_RELU] = "relu", [SH_ACT_RELU6] = "relu6",
        [SH_ACT_SIGMOID] = "sigmoid", [SH_ACT_TANH] = "tanh", [SH_ACT_SILU] = "silu",
        [SH_ACT_GELU] = "gelu"};

    return names[act];
}

bool sh_act_needs_input(sh_act act)
{
    return act == SH_ACT_SILU || act == SH_ACT_GELU;
}

static int64_t elems(const sh_tensor_desc *d)
{
    return d->dims[0] * d->dims[1] * d->dims[2] * d->dims[3];
}

static void set_dims(int64_t dims[4], int64_t n, int64_t c, int64_t h, int64_t w)
{
    dims[0] = n;
    dims[1] = c;
    dims[2] = h;
    dims[3] = w;
}

/* ---- shapes ---- */

static sh_status infer_conv(const sh_op_attrs *attrs, const sh_tensor_desc *const *in,
                            int64_t dims[4])
{
    sh_status st = SH_OK;
    const int64_t *x = in[0]->dims, *w = in[1]->dims;

    SH_CHECK(attrs->groups > 0 && x[1] % attrs->groups == 0 && w[0] % attrs->groups == 0,
             SH_ERR_USAGE,
             "convolution: %lld input and %lld output channels do not split into %d "
             "groups",
             (long long)x[1], (long long)w[0], attrs->groups);
    SH_CHECK(w[1] == x[1] / attrs->groups, SH_ERR_MISMATCH,
             "convolution: the weight has %lld channels per group, the input %lld", (long long)w[1],
             (long long)(x[1] / attrs->groups));
    set_dims(dims, x[0], w[0], 0, 0);
    for (int i = 0; i < 2; i++) {
        int64_t padded = x[2 + i] + attrs->pad[i] + attrs->pad[2 + i];
        int64_t extent = attrs->dilation[i] * (w[2 + i] - 1) + 1;
        SH_CHECK(padded >= extent, SH_ERR_USAGE,
                 "convolution: an input of %lld with padding is smaller than the kernel's %lld",
                 (long long)padded, (long long)extent);
        dims[2 + i] = (padded - extent) / attrs->stride[i] + 1;
    }
out:
    return st;
}

static sh_status infer_same(const sh_op_attrs *attrs, const sh_tensor_desc *const *in,
                            int64_t dims[4])
{
    (void)attrs;
    memcpy(dims, in[0]->dims, sizeof(in[0]->dims));
    return SH_OK;
}

static sh_status infer_add(const sh_op_attrs *attrs, const sh_tensor_desc *const *in,
                           int64_t dims[4])
{
    sh_status st = SH_OK;

    (void)attrs;
    SH_CHECK(memcmp(in[0]->dims, in[1]->dims, sizeof(in[0]->dims)) == 0, SH_ERR_MISMATCH,
             "add: shapes differ, [%lld,%lld,%lld,%lld] and [%lld,%lld,%lld,%lld]",
             (long long)in[0]->dims[0], (long long)in[0]->dims[1], (long long)in[0]->dims[2],
             (long long)in[0]->dims[3], (long long)in[1]->dims[0], (long long)in[1]->dims[1],
             (long long)in[1]->dims[2], (long long)in[1]->dims[3]);
    memcpy(dims, in[0]->dims, sizeof(in[0]->dims));
out:
    return st;
}

static sh_status infer_vector(const sh_op_attrs *attrs, const sh_tensor_desc *const *in,
                              int64_t dims[4])
{
    (void)attrs;
    set_dims(dims, in[0]->dims[1], 1, 1, 1);
    return SH_OK;
}

static sh_status infer_avg_pool(const sh_op_attrs *attrs, const sh_tensor_desc *const *in,
                                int64_t dims[4])
{
    (void)attrs;
    set_dims(dims, in[0]->dims[0], in[0]->dims[1], 1, 1);
    return SH_OK;
}

static sh_status infer_linear(const sh_op_attrs *attrs, const sh_tensor_desc *const *in,
                              int64_t dims[4])
{
    sh_status st = SH_OK;
    const int64_t *x = in[0]->dims, *w = in[1]->dims;

    (void)attrs;
    SH_CHECK(x[2] == 1 && x[3] == 1, SH_ERR_USAGE,
             "linear: the input is %lld x %lld pixels; pool or flatten it first", (long long)x[2],
             (long long)x[3]);
    SH_CHECK(x[1] == w[1], SH_ERR_MISMATCH, "linear: the weight takes %lld features, got %lld",
             (long long)w[1], (long long)x[1]);
    set_dims(dims, x[0], w[0], 1, 1);
out:
    return st;
}

static sh_status infer_flatten(const sh_op_attrs *attrs, const sh_tensor_desc *const *in,
                               int64_t dims[4])
{
    (void)attrs;
    set_dims(dims, in[0]->dims[0], elems(in[0]) / in[0]->dims[0], 1, 1);
    return SH_OK;
}

static sh_status infer_reflect_pad(const sh_op_attrs *attrs, const sh_tensor_desc *const *in,
                                   int64_t dims[4])
{
    sh_status st = SH_OK;
    const int64_t *x = in[0]->dims;

    for (int i = 0; i < 4; i++) {
        SH_CHECK(attrs->pad[i] >= 0 && attrs->pad[i] < x[2 + i % 2], SH_ERR_USAGE,
                 "reflection padding of %d needs a side above that; it is %lld", attrs->pad[i],
                 (long long)x[2 + i % 2]);
    }
    set_dims(dims, x[0], x[1], x[2] + attrs->pad[0] + attrs->pad[2],
             x[3] + attrs->pad[1] + attrs->pad[3]);
out:
    return st;
}

static sh_status infer_matrix(const sh_op_attrs *attrs, const sh_tensor_desc *const *in,
                              int64_t dims[4])
{
    sh_status st = SH_OK;

    SH_CHECK(in[0]->dims[2] == 1 && in[0]->dims[3] == 1, SH_ERR_USAGE,
             "row normalisation needs [N, D], got %lld x %lld pixels", (long long)in[0]->dims[2],
             (long long)in[0]->dims[3]);
    SH_TRY(infer_same(attrs, in, dims));
out:
    return st;
}

/* ---- work ---- */

static double flops_conv(const sh_tensor_desc *y, const sh_tensor_desc *w)
{
    return 2.0 * (double)elems(y) * (double)(w->dims[1] * w->dims[2] * w->dims[3]);
}

static double flops_of_conv(const sh_node_desc *d)
{
    return flops_conv(d->out[0], d->in[1]);
}

static double flops_of_conv_grad_x(const sh_node_desc *d)
{
    return flops_conv(d->in[0], d->in[1]);
}

static double flops_of_conv_grad_w(const sh_node_desc *d)
{
    return flops_conv(d->in[1], d->out[0]);
}

static double flops_of_conv_grad(const sh_node_desc *d)
{
    double one = flops_conv(d->in[SH_CONV_GRAD_DY], d->in[SH_CONV_GRAD_W_IN]);
    bool has_dx = d->out[SH_CONV_GRAD_DX] != NULL;
    bool has_dw = d->n_outputs > SH_CONV_GRAD_DW && d->out[SH_CONV_GRAD_DW] != NULL;

    return (has_dx + has_dw) * one;
}

static double flops_per_input(const sh_node_desc *d)
{
    return (double)elems(d->in[0]);
}

static double flops_bn(const sh_node_desc *d)
{
    return 4.0 * (double)elems(d->in[0]);
}

static double flops_none(const sh_node_desc *d)
{
    (void)d;
    return 0;
}

/* in_place: see sh_op_info. Columns: operands, shape, derivative, work, in place. */
const sh_op_info sh_op_table[SH_OP_COUNT] = {
    [SH_OP_CONV] = {"conv", 2, SH_CONV_INPUTS, 1, SH_CONV_OUTPUTS, infer_conv, sh_derive_conv,
                    flops_of_conv, -1},
    [SH_OP_CONV_GRAD_X] = {"conv_grad_x", 2, 2, 1, 1, NULL, NULL, flops_of_conv_grad_x, -1},
    [SH_OP_CONV_GRAD_W] = {"conv_grad_w", 2, 2, 1, 2, NULL, NULL, flops_of_conv_grad_w, -1},
    [SH_OP_CONV_GRAD] = {"conv_grad", 3, SH_CONV_GRAD_INPUTS, 1, SH_CONV_GRAD_OUTPUTS, NULL, NULL,
                         flops_of_conv_grad, -1},
    [SH_OP_BN_STATS] = {"bn_stats", 1, 1, 2, 2, infer_vector, NULL, flops_bn, -1},
    [SH_OP_BN_APPLY] = {"bn_apply", 5, 6, 1, 1, infer_same, sh_derive_bn_apply, flops_bn, 0},
    [SH_OP_BN_GRAD_REDUCE] = {"bn_grad_reduce", 6, 7, 2, 2, NULL, NULL, flops_bn, -1},
    [SH_OP_BN_GRAD_APPLY] = {"bn_grad_apply", 8, 9, 1, 2, NULL, NULL, flops_bn, 0},
    [SH_OP_BN_EXPORT] = {"bn_export", 2, 2, 2, 2, NULL, NULL, flops_per_input, -1},
    [SH_OP_ACT] = {"act", 1, 1, 1, 1, infer_same, sh_derive_act, flops_per_input, 0},
    [SH_OP_ACT_GRAD] = {"act_grad", 2, 2, 1, 1, NULL, NULL, flops_per_input, 0},
    [SH_OP_ADD] = {"add", 2, 2, 1, 1, infer_add, sh_derive_add, flops_per_input, 0},
    [SH_OP_AVG_POOL] = {"avg_pool", 1, 1, 1, 1, infer_avg_pool, sh_derive_avg_pool, flops_per_input,
                        -1},
    [SH_OP_AVG_POOL_GRAD] = {"avg_pool_grad", 1, 1, 1, 1, NULL, NULL, flops_per_input, -1},
    [SH_OP_LINEAR] = {"linear", 2, 3, 1, 1, infer_linear, sh_derive_linear, flops_of_conv, -1},
    [SH_OP_LINEAR_GRAD_X] = {"linear_grad_x", 2, 2, 1, 1, NULL, NULL, flops_of_conv_grad_x, -1},
    [SH_OP_LINEAR_GRAD_W] = {"linear_grad_w", 2, 2, 1, 2, NULL, NULL, flops_of_conv_grad_w, -1},
    [SH_OP_FLATTEN] = {"flatten", 1, 1, 1, 1, infer_flatten, sh_derive_flatten, flops_none, -1},
    [SH_OP_FLATTEN_GRAD] = {"flatten_grad", 1, 1, 1, 1, NULL, NULL, flops_none, -1},
    [SH_OP_DROPOUT] = {"dropout", 1, 1, 1, 1, infer_same, sh_derive_dropout, flops_per_input, 0},
    [SH_OP_REFLECT_PAD] = {"reflect_pad", 1, 1, 1, 1, infer_reflect_pad, sh_derive_reflect_pad,
                           flops_none, -1},
    [SH_OP_REFLECT_PAD_GRAD] = {"reflect_pad_grad", 1, 1, 1, 1, NULL, NULL, flops_per_input, -1},
    [SH_OP_L2_NORM] = {"l2_norm", 1, 1, 1, 1, infer_matrix, sh_derive_l2_norm, flops_bn, -1},
    [SH_OP_L2_NORM_GRAD] = {"l2_norm_grad", 3, 3, 1, 1, NULL, NULL, flops_bn, -1},
    [SH_OP_CAST] = {"cast", 1, 1, 1, 1, infer_same, sh_derive_cast, flops_none, -1},
};
