// SPDX-License-Identifier: Apache-2.0
/** The public builder: inputs, parameters, outputs, and the layers of every network. */
#include "models/graph.h"

const sh_op_attrs sh_graph_plain_attrs = {
    .stride = {1, 1}, .dilation = {1, 1}, .groups = 1, .share = 1, .scale = 1};

bool sh_graph_usable(sh_program *p, sh_value v)
{
    if (p->status != SH_OK) return false;
    if (p->n_forward >= 0) {
        sh_graph_fail(p, sh_error_set(SH_ERR_USAGE,
                                      "a program is built before it is differentiated or planned"));
        return false;
    }
    if (v < 0 || v >= p->n_values) {
        sh_graph_fail(p, sh_error_set(SH_ERR_USAGE, "value %d does not exist in this program", v));
        return false;
    }
    return true;
}

static bool gives_rows(sh_op op)
{
    return op == SH_OP_AVG_POOL || op == SH_OP_LINEAR || op == SH_OP_FLATTEN ||
           op == SH_OP_GEM_POOL || op == SH_OP_TAKE_TOKEN;
}

/** x; a padded image input (see sh_backend.layout_of) as a map like any other. */
static sh_value unpadded(sh_program *p, sh_value x)
{
    sh_tensor_desc desc = p->values[x].desc;

    if (desc.layout != SH_NHWC8) return x;
    desc.layout = p->config.backend->layout_of(desc.dtype, desc.dims, false);
    sh_value y = sh_graph_value(p, &desc, p->values[x].label);
    if (y == SH_NO_VALUE) return y;
    sh_graph_fail(p, sh_graph_node(p, SH_OP_CAST, &sh_graph_plain_attrs, 1, &x, 1, &y));
    return p->status == SH_OK ? y : SH_NO_VALUE;
}

sh_value sh_graph_emit(sh_program *p, sh_op op, const sh_op_attrs *attrs, int n_in,
                       const sh_value *in, const char *label)
{
    sh_status st = SH_OK;
    sh_value y = SH_NO_VALUE;
    sh_value taken[SH_NODE_INPUTS];
    const sh_tensor_desc *in_desc[SH_NODE_INPUTS] = {NULL};

    for (int i = 0; i < n_in; i++) {
        bool may_be_padded = in[i] == SH_NO_VALUE || op == SH_OP_CONV;
        taken[i] = may_be_padded ? in[i] : unpadded(p, in[i]);
    }
    if (p->status != SH_OK) return SH_NO_VALUE;
    for (int i = 0; i < n_in; i++) {
        if (taken[i] != SH_NO_VALUE) in_desc[i] = &p->values[taken[i]].desc;
    }
    sh_tensor_desc desc = *in_desc[0];
    SH_TRY(sh_op_table[op].infer(attrs, in_desc, desc.dims));
    if (gives_rows(op))
        desc.layout = SH_NCHW;
    else if (sh_op_table[op].in_place < 0)
        desc.layout = p->config.backend->layout_of(desc.dtype, desc.dims, false);
    y = sh_graph_value(p, &desc, label);
    SH_TRY(sh_graph_node(p, op, attrs, n_in, taken, 1, &y));
out:
    sh_graph_fail(p, st);
    return p->status == SH_OK ? y : SH_NO_VALUE;
}

/** A value that is a slot of the store. */
static sh_value slot_value(sh_program *p, sh_slot_kind kind, const char *name, int n_dims,
                           const int64_t *dims)
{
    sh_status st = SH_OK;
    sh_value v = SH_NO_VALUE;
    char full[2 * SH_LABEL_SIZE];
    int slot = -1;

    if (p->status != SH_OK) return SH_NO_VALUE;
    snprintf(full, sizeof(full), "%s%s", p->prefix, name);
    SH_TRY(sh_store_add(p->config.store, full, kind, n_dims, dims, &slot));
    for (v = 0; v < p->n_values; v++) {
        if (p->values[v].slot == slot) goto out; /* a shared parameter is one value */
    }
    const sh_slot *s = sh_store_slot(p->config.store, slot);
    sh_tensor_desc desc = {.dtype = SH_F32, .layout = SH_NCHW};
    memcpy(desc.dims, s->dims, sizeof(desc.dims));
    v = sh_graph_value(p, &desc, s->name);
    if (v == SH_NO_VALUE) goto out;
    p->values[v].slot = slot;
    p->values[v].home = kind == SH_SLOT_PARAM ? SH_HOME_PARAMS : SH_HOME_STATES;
    p->values[v].offset = (size_t)s->offset * sizeof(float);
out:
    sh_graph_fail(p, st);
    return p->status == SH_OK ? v : SH_NO_VALUE;
}

sh_value sh_graph_named_param(sh_program *p, const char *name, const char *part, int n_dims,
                              const int64_t *dims)
{
    char full[SH_LABEL_SIZE];

    snprintf(full, sizeof(full), "%s.%s", name, part);
    return sh_program_param(p, full, n_dims, dims);
}

/** Rows in f32, row-major. */
static sh_value to_f32(sh_program *p, sh_value x, const char *label)
{
    sh_tensor_desc desc = p->values[x].desc;

    desc.dtype = SH_F32;
    desc.layout = SH_NCHW;
    sh_value y = sh_graph_value(p, &desc, label);
    if (y == SH_NO_VALUE) return y;
    sh_graph_fail(p, sh_graph_node(p, SH_OP_CAST, &sh_graph_plain_attrs, 1, &x, 1, &y));
    return p->status == SH_OK ? y : SH_NO_VALUE;
}

/* ---- the public builder ---- */

sh_value sh_program_input(sh_program *p, const char *name, const int64_t dims[4])
{
    if (p->status != SH_OK) return SH_NO_VALUE;
    for (int i = 0; i < 4; i++) {
        if (dims[i] > 0) continue;
        sh_graph_fail(p, sh_error_set(SH_ERR_USAGE, "input %s: dimension %d is %lld", name, i,
                                      (long long)dims[i]));
        return SH_NO_VALUE;
    }
    sh_tensor_desc desc = {.dtype = p->config.dtype, .dims = {dims[0], dims[1], dims[2], dims[3]}};
    desc.layout = p->config.backend->layout_of(desc.dtype, desc.dims, true);
    sh_value v = sh_graph_value(p, &desc, name);
    if (v != SH_NO_VALUE) p->values[v].is_input = true;
    return v;
}

sh_value sh_program_param(sh_program *p, const char *name, int n_dims, const int64_t *dims)
{
    return slot_value(p, SH_SLOT_PARAM, name, n_dims, dims);
}

sh_value sh_program_state(sh_program *p, const char *name, int64_t n_channels, float momentum)
{
    sh_value v = slot_value(p, SH_SLOT_STATE, name, 1, &n_channels);

    if (v != SH_NO_VALUE) {
        sh_store_slot_mutable(p->config.store, p->values[v].slot)->momentum = momentum;
    }
    return v;
}

void sh_graph_same_padding(const int64_t *dims, const sh_op_attrs *attrs, const int kernel[2],
                           int pad[4])
{
    for (int i = 0; i < 2; i++) {
        int64_t n_out = (dims[2 + i] + attrs->stride[i] - 1) / attrs->stride[i];
        int64_t extent = attrs->dilation[i] * (kernel[i] - 1) + 1;
        int64_t total = (n_out - 1) * attrs->stride[i] + extent - dims[2 + i];
        if (total < 0) total = 0;
        pad[i] = (int)(total / 2);
        pad[2 + i] = (int)(total - total / 2);
    }
}

sh_value sh_op_conv(sh_program *p, sh_value x, const char *name, const sh_conv_attrs *conv)
{
    if (!sh_graph_usable(p, x)) return SH_NO_VALUE;
    sh_op_attrs attrs = sh_graph_plain_attrs;
    for (int i = 0; i < 2; i++) {
        attrs.stride[i] = conv->stride > 0 ? conv->stride : 1;
        attrs.dilation[i] = conv->dilation > 0 ? conv->dilation : 1;
    }
    attrs.groups = conv->groups > 0 ? conv->groups : 1;
    memcpy(attrs.pad, conv->pad, sizeof(attrs.pad));
    if (conv->same) sh_graph_same_padding(p->values[x].desc.dims, &attrs, conv->kernel, attrs.pad);

    int64_t channels = p->values[x].desc.dims[1] / attrs.groups;
    int64_t w_dims[4] = {conv->out_channels, channels, conv->kernel[0], conv->kernel[1]};
    int64_t b_dims[1] = {conv->out_channels};
    sh_value in[3] = {x, sh_graph_named_param(p, name, "weight", 4, w_dims), SH_NO_VALUE};
    if (conv->bias) in[2] = sh_graph_named_param(p, name, "bias", 1, b_dims);
    if (p->status != SH_OK) return SH_NO_VALUE;
    return sh_graph_emit(p, SH_OP_CONV, &attrs, conv->bias ? 3 : 2, in, name);
}

/** Batch statistics of x and the export of this shard's share of the running ones. */
static void batch_statistics(sh_program *p, sh_value x, const char *name, sh_value *mean,
                             sh_value *var)
{
    sh_op_attrs attrs = sh_graph_plain_attrs;
    sh_value running[2] = {*mean, *var}, batch[2], delta[2];

    attrs.share = p->config.share;
    for (int i = 0; i < 2; i++) {
        const sh_tensor_desc desc = p->values[running[i]].desc;
        batch[i] = sh_graph_value(p, &desc, name);
        delta[i] = sh_graph_value(p, &desc, p->values[running[i]].label);
        if (delta[i] == SH_NO_VALUE) return;
        p->values[delta[i]].home = SH_HOME_DELTAS;
        p->values[delta[i]].slot = -1;
        p->values[delta[i]].offset = p->values[running[i]].offset;
    }
    const sh_tensor_desc *d = &p->values[x].desc;
    attrs.n_reduced = d->dims[0] * d->dims[2] * d->dims[3];
    sh_graph_fail(p, sh_graph_node(p, SH_OP_BN_STATS, &attrs, 1, &x, 2, batch));
    sh_graph_fail(p, sh_graph_node(p, SH_OP_BN_EXPORT, &attrs, 2, batch, 2, delta));
    *mean = batch[0];
    *var = batch[1];
}

sh_value sh_op_batch_norm(sh_program *p, sh_value x, const char *name, float eps, float momentum)
{
    char full[SH_LABEL_SIZE];

    if (!sh_graph_usable(p, x) || (x = unpadded(p, x)) == SH_NO_VALUE) return SH_NO_VALUE;
    int64_t dims[1] = {p->values[x].desc.dims[1]};
    sh_value gamma = sh_graph_named_param(p, name, "weight", 1, dims);
    sh_value beta = sh_graph_named_param(p, name, "bias", 1, dims);
    snprintf(full, sizeof(full), "%s.running_mean", name);
    sh_value mean = sh_program_state(p, full, dims[0], momentum);
    snprintf(full, sizeof(full), "%s.running_var", name);
    sh_value var = sh_program_state(p, full, dims[0], momentum);
    if (p->status != SH_OK) return SH_NO_VALUE;

    sh_op_attrs attrs = sh_graph_plain_attrs;
    attrs.eps = eps;
    attrs.frozen = !p->config.training;
    if (!attrs.frozen) batch_statistics(p, x, name, &mean, &var);
    if (p->status != SH_OK) return SH_NO_VALUE;
    const sh_value in[5] = {x, mean, var, gamma, beta};
    return sh_graph_emit(p, SH_OP_BN_APPLY, &attrs, 5, in, name);
}

sh_value sh_op_act(sh_program *p, sh_value x, sh_act act)
{
    sh_op_attrs attrs = sh_graph_plain_attrs;

    if (!sh_graph_usable(p, x)) return SH_NO_VALUE;
    if (act == SH_ACT_NONE) return x;
    attrs.act = act;
    return sh_graph_emit(p, SH_OP_ACT, &attrs, 1, &x, sh_act_name(act));
}

sh_value sh_op_add(sh_program *p, sh_value a, sh_value b)
{
    const sh_value in[2] = {a, b};

    if (!sh_graph_usable(p, a) || !sh_graph_usable(p, b)) return SH_NO_VALUE;
    return sh_graph_emit(p, SH_OP_ADD, &sh_graph_plain_attrs, 2, in, "add");
}

sh_value sh_op_global_avg_pool(sh_program *p, sh_value x)
{
    if (!sh_graph_usable(p, x)) return SH_NO_VALUE;
    return sh_graph_emit(p, SH_OP_AVG_POOL, &sh_graph_plain_attrs, 1, &x, "pool");
}

sh_value sh_op_linear(sh_program *p, sh_value x, const char *name, int out_features, bool bias)
{
    if (!sh_graph_usable(p, x)) return SH_NO_VALUE;
    int64_t dims[2] = {out_features, p->values[x].desc.dims[1]};
    sh_value in[3] = {x, sh_graph_named_param(p, name, "weight", 2, dims), SH_NO_VALUE};
    if (bias) in[2] = sh_graph_named_param(p, name, "bias", 1, dims);
    if (p->status != SH_OK) return SH_NO_VALUE;
    /* Per token it is a 1x1 convolution, whose weight lies just as [out, in] does. */
    bool is_tokens = p->values[x].desc.dims[2] > 1 && p->values[x].desc.dims[3] == 1;
    sh_op op = is_tokens ? SH_OP_CONV : SH_OP_LINEAR;
    return sh_graph_emit(p, op, &sh_graph_plain_attrs, bias ? 3 : 2, in, name);
}

sh_value sh_op_flatten(sh_program *p, sh_value x)
{
    if (!sh_graph_usable(p, x)) return SH_NO_VALUE;
    return sh_graph_emit(p, SH_OP_FLATTEN, &sh_graph_plain_attrs, 1, &x, "flatten");
}

sh_value sh_op_dropout(sh_program *p, sh_value x, float rate)
{
    sh_op_attrs attrs = sh_graph_plain_attrs;

    if (!sh_graph_usable(p, x)) return SH_NO_VALUE;
    if (!(rate >= 0 && rate < 1)) {
        sh_graph_fail(p, sh_error_set(SH_ERR_USAGE, "dropout rate %g is not in [0, 1)", rate));
        return SH_NO_VALUE;
    }
    attrs.rate = rate;
    attrs.stream = p->n_dropouts++;
    if (!p->config.training || rate == 0) return x;
    return sh_graph_emit(p, SH_OP_DROPOUT, &attrs, 1, &x, "dropout");
}

sh_value sh_op_reflect_pad(sh_program *p, sh_value x, const int pad[4])
{
    sh_op_attrs attrs = sh_graph_plain_attrs;

    if (!sh_graph_usable(p, x)) return SH_NO_VALUE;
    memcpy(attrs.pad, pad, sizeof(attrs.pad));
    return sh_graph_emit(p, SH_OP_REFLECT_PAD, &attrs, 1, &x, "reflect_pad");
}

sh_value sh_op_l2_norm(sh_program *p, sh_value x)
{
    sh_op_attrs attrs = sh_graph_plain_attrs;

    if (!sh_graph_usable(p, x)) return SH_NO_VALUE;
    if (p->values[x].desc.dtype != SH_F32) x = to_f32(p, x, "l2_norm");
    if (x == SH_NO_VALUE) return x;
    attrs.eps = (float)SH_L2_NORM_EPS;
    return sh_graph_emit(p, SH_OP_L2_NORM, &attrs, 1, &x, "l2_norm");
}

void sh_program_dims(const sh_program *p, sh_value v, int64_t dims[4])
{
    memset(dims, 0, 4 * sizeof(dims[0]));
    if (p->status == SH_OK && v >= 0 && v < p->n_values) {
        memcpy(dims, p->values[v].desc.dims, 4 * sizeof(dims[0]));
    }
}

sh_value sh_program_output(sh_program *p, const char *name, sh_value v)
{
    if (!sh_graph_usable(p, v)) return SH_NO_VALUE;
    if (p->values[v].desc.dims[2] * p->values[v].desc.dims[3] > 1) v = sh_op_flatten(p, v);
    if (v == SH_NO_VALUE) return v;
    sh_value y = to_f32(p, v, name);
    if (y != SH_NO_VALUE) p->values[y].is_pinned = true;
    return y;
}
