// SPDX-License-Identifier: Apache-2.0
#include "models/ops.h"

#include "models/graph.h"

const char *sh_op_name(sh_op op)
{
    return op < SH_OP_COUNT ? sh_op_table[op].name : "removed";
}

const char *sh_act_name(sh_act act)
{
    static const char *const names[] = {[SH_ACT_NONE] = "none",
                                        [SH_ACT_RELU] = "relu",
                                        [SH_ACT_RELU6] = "relu6",
                                        [SH_ACT_SIGMOID] = "sigmoid",
                                        [SH_ACT_TANH] = "tanh",
                                        [SH_ACT_SILU] = "silu",
                                        [SH_ACT_GELU] = "gelu",
                                        [SH_ACT_HARD_SIGMOID] = "hard-sigmoid",
                                        [SH_ACT_HARD_SWISH] = "hard-swish"};

    return names[act];
}

bool sh_act_needs_input(sh_act act)
{
    return act == SH_ACT_SILU || act == SH_ACT_GELU || act == SH_ACT_HARD_SWISH;
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

static sh_status infer_pool(const sh_op_attrs *attrs, const sh_tensor_desc *const *in,
                            int64_t dims[4])
{
    sh_status st = SH_OK;

    set_dims(dims, in[0]->dims[0], in[0]->dims[1], 0, 0);
    for (int i = 0; i < 2; i++) {
        int kernel = attrs->kernel[i], before = attrs->pad[i], after = attrs->pad[2 + i];
        int64_t padded = in[0]->dims[2 + i] + before + after;
        SH_CHECK(kernel > 0 && attrs->stride[i] > 0, SH_ERR_USAGE, "pool: kernel %d, stride %d",
                 kernel, attrs->stride[i]);
        SH_CHECK(before >= 0 && after >= 0 && before < kernel && after < kernel, SH_ERR_USAGE,
                 "pool: padding of %d and %d lets a window of %d miss the image", before, after,
                 kernel);
        SH_CHECK(padded >= kernel, SH_ERR_USAGE,
                 "pool: an input of %lld with padding is smaller than the window's %d",
                 (long long)padded, kernel);
        dims[2 + i] = (padded - kernel) / attrs->stride[i] + 1;
    }
out:
    return st;
}

static sh_status infer_adaptive_pool(const sh_op_attrs *attrs, const sh_tensor_desc *const *in,
                                     int64_t dims[4])
{
    sh_status st = SH_OK;

    SH_CHECK(attrs->kernel[0] > 0 && attrs->kernel[1] > 0, SH_ERR_USAGE,
             "adaptive pool to %d x %d pixels", attrs->kernel[0], attrs->kernel[1]);
    set_dims(dims, in[0]->dims[0], in[0]->dims[1], attrs->kernel[0], attrs->kernel[1]);
out:
    return st;
}

static sh_status infer_concat(const sh_op_attrs *attrs, const sh_tensor_desc *const *in,
                              int64_t dims[4])
{
    sh_status st = SH_OK;
    int64_t channels = 0;

    (void)attrs;
    for (int i = 0; i < SH_CONCAT_MAX && in[i] != NULL; i++) {
        const int64_t *a = in[0]->dims, *b = in[i]->dims;
        SH_CHECK(a[0] == b[0] && a[2] == b[2] && a[3] == b[3], SH_ERR_MISMATCH,
                 "concatenation of %lld images of %lldx%lld and %lld of %lldx%lld", (long long)a[0],
                 (long long)a[2], (long long)a[3], (long long)b[0], (long long)b[2],
                 (long long)b[3]);
        channels += b[1];
    }
    set_dims(dims, in[0]->dims[0], channels, in[0]->dims[2], in[0]->dims[3]);
out:
    return st;
}

static sh_status infer_mul_channels(const sh_op_attrs *attrs, const sh_tensor_desc *const *in,
                                    int64_t dims[4])
{
    sh_status st = SH_OK;
    const int64_t *x = in[0]->dims, *s = in[1]->dims;

    SH_CHECK(s[0] == x[0] && s[1] == x[1] && s[2] == 1 && s[3] == 1, SH_ERR_MISMATCH,
             "channel factors [%lld,%lld,%lld,%lld] for [%lld,%lld] channels", (long long)s[0],
             (long long)s[1], (long long)s[2], (long long)s[3], (long long)x[0], (long long)x[1]);
    SH_TRY(infer_same(attrs, in, dims));
out:
    return st;
}

static sh_status infer_attention(const sh_op_attrs *attrs, const sh_tensor_desc *const *in,
                                 int64_t dims[4])
{
    sh_status st = SH_OK;
    const int64_t *x = in[0]->dims;

    SH_CHECK(x[3] == 1, SH_ERR_USAGE,
             "attention needs tokens [N, 3 C, T, 1], got %lld x %lld pixels", (long long)x[2],
             (long long)x[3]);
    SH_CHECK(attrs->heads > 0 && x[1] % (3 * (int64_t)attrs->heads) == 0, SH_ERR_USAGE,
             "attention: %lld channels are not q, k and v of %d heads", (long long)x[1],
             attrs->heads);
    set_dims(dims, x[0], x[1] / 3, x[2], 1);
out:
    return st;
}

static sh_status infer_tokens(const sh_op_attrs *attrs, const sh_tensor_desc *const *in,
                              int64_t dims[4])
{
    (void)attrs;
    set_dims(dims, in[0]->dims[0], in[0]->dims[1], 1 + in[0]->dims[2] * in[0]->dims[3], 1);
    return SH_OK;
}

static sh_status infer_take_token(const sh_op_attrs *attrs, const sh_tensor_desc *const *in,
                                  int64_t dims[4])
{
    sh_status st = SH_OK;
    const int64_t *x = in[0]->dims;

    SH_CHECK(x[3] == 1 && attrs->index >= 0 && attrs->index < x[2], SH_ERR_USAGE,
             "token %d of [%lld,%lld,%lld,%lld]", attrs->index, (long long)x[0], (long long)x[1],
             (long long)x[2], (long long)x[3]);
    set_dims(dims, x[0], x[1], 1, 1);
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

static double flops_pool(const sh_node_desc *d)
{
    const sh_tensor_desc *y =
        d->op == SH_OP_MEAN_POOL || d->op == SH_OP_MAX_POOL ? d->out[0] : d->in[0];

    return (double)elems(y) * d->attrs->kernel[0] * d->attrs->kernel[1];
}

/** Powers count as ten. */
static double flops_gem(const sh_node_desc *d)
{
    const sh_tensor_desc *x = d->op == SH_OP_GEM_POOL ? d->in[0] : d->in[1];

    return 10.0 * (double)elems(x);
}

/** Two products of T x T x d per head. */
static double flops_attention(const sh_node_desc *d)
{
    double T = (double)d->out[0]->dims[2];

    return 4.0 * T * (double)elems(d->out[0]);
}

/** Five such products: s again, dv, dp, dq, dk. */
static double flops_attention_grad(const sh_node_desc *d)
{
    double T = (double)d->in[0]->dims[2];

    return 10.0 * T * (double)elems(d->in[0]);
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
    [SH_OP_FOLD_BN] = {"fold_bn", 5, 6, 2, 2, NULL, NULL, flops_per_input, -1},
    [SH_OP_ACT] = {"act", 1, 1, 1, 1, infer_same, sh_derive_act, flops_per_input, 0},
    [SH_OP_ACT_GRAD] = {"act_grad", 2, 2, 1, 1, NULL, NULL, flops_per_input, 0},
    [SH_OP_ADD] = {"add", 2, 2, 1, 1, infer_add, sh_derive_add, flops_per_input, 0},
    [SH_OP_AVG_POOL] = {"avg_pool", 1, 1, 1, 1, infer_avg_pool, sh_derive_avg_pool, flops_per_input,
                        -1},
    [SH_OP_AVG_POOL_GRAD] = {"avg_pool_grad", 1, 1, 1, 1, NULL, NULL, flops_per_input, -1},
    [SH_OP_MAX_POOL] = {"max_pool", 1, 1, 1, 1, infer_pool, sh_derive_max_pool, flops_pool, -1},
    [SH_OP_MAX_POOL_GRAD] = {"max_pool_grad", 2, 2, 1, 1, NULL, NULL, flops_pool, -1},
    [SH_OP_MEAN_POOL] = {"mean_pool", 1, 1, 1, 1, infer_pool, sh_derive_mean_pool, flops_pool, -1},
    [SH_OP_MEAN_POOL_GRAD] = {"mean_pool_grad", 1, 1, 1, 1, NULL, NULL, flops_pool, -1},
    [SH_OP_ADAPTIVE_POOL] = {"adaptive_pool", 1, 1, 1, 1, infer_adaptive_pool,
                             sh_derive_adaptive_pool, flops_per_input, -1},
    [SH_OP_ADAPTIVE_POOL_GRAD] = {"adaptive_pool_grad", 1, 1, 1, 1, NULL, NULL, flops_per_input,
                                  -1},
    [SH_OP_GEM_POOL] = {"gem_pool", 2, 2, 1, 1, infer_avg_pool, sh_derive_gem_pool, flops_gem, -1},
    [SH_OP_GEM_POOL_GRAD] = {"gem_pool_grad", 3, 3, 1, 2, NULL, NULL, flops_gem, -1},
    [SH_OP_CONCAT] = {"concat", 1, SH_CONCAT_MAX, 1, 1, infer_concat, sh_derive_concat, flops_none,
                      -1},
    [SH_OP_CONCAT_GRAD] = {"concat_grad", 1, 1, 1, SH_CONCAT_MAX, NULL, NULL, flops_none, -1},
    [SH_OP_MUL_CHANNELS] = {"mul_channels", 2, 2, 1, 1, infer_mul_channels, sh_derive_mul_channels,
                            flops_per_input, 0},
    [SH_OP_MUL_CHANNELS_GRAD] = {"mul_channels_grad", 3, 3, 1, 2, NULL, NULL, flops_bn, 0},
    [SH_OP_SE_SQUEEZE] = {"se_squeeze", 5, 5, 1, 1, NULL, NULL, flops_bn, -1},
    [SH_OP_SE_EXCITE] = {"se_excite", 6, 6, 1, 1, NULL, NULL, flops_bn, -1},
    [SH_OP_SE_FACTOR_GRAD] = {"se_factor_grad", 6, 6, 1, 1, NULL, NULL, flops_bn, -1},
    [SH_OP_SE_GRAD] = {"se_grad", 8, 8, 3, 3, NULL, NULL, flops_bn, 0},
    [SH_OP_SCALE] = {"scale", 2, 2, 1, 1, infer_same, sh_derive_scale, flops_per_input, 0},
    [SH_OP_SCALE_GRAD] = {"scale_grad", 3, 3, 1, 2, NULL, NULL, flops_bn, 0},
    [SH_OP_ADD_SCALED] = {"add_scaled", 1, 2, 1, 1, infer_add, sh_derive_add_scaled,
                          flops_per_input, 0},
    [SH_OP_PATH_DROP] = {"path_drop", 1, 1, 1, 1, infer_same, sh_derive_path_drop, flops_per_input,
                         0},
    [SH_OP_LAYER_NORM] = {"layer_norm", 3, 3, 1, 1, infer_same, sh_derive_layer_norm, flops_bn, -1},
    [SH_OP_LAYER_NORM_GRAD] = {"layer_norm_grad", 3, 3, 1, 3, NULL, NULL, flops_bn, -1},
    [SH_OP_ATTENTION] = {"attention", 1, 1, 2, 2, infer_attention, sh_derive_attention,
                         flops_attention, -1},
    [SH_OP_ATTENTION_GRAD] = {"attention_grad", 4, 4, 1, 1, NULL, NULL, flops_attention_grad, -1},
    [SH_OP_TOKENS] = {"tokens", 3, 3, 1, 1, infer_tokens, sh_derive_tokens, flops_per_input, -1},
    [SH_OP_TOKENS_GRAD] = {"tokens_grad", 1, 1, 1, 3, NULL, NULL, flops_per_input, -1},
    [SH_OP_TAKE_TOKEN] = {"take_token", 1, 1, 1, 1, infer_take_token, sh_derive_take_token,
                          flops_none, -1},
    [SH_OP_TAKE_TOKEN_GRAD] = {"take_token_grad", 1, 1, 1, 1, NULL, NULL, flops_none, -1},
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
