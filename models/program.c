// SPDX-License-Identifier: Apache-2.0
#include "models/program.h"

#include <stdlib.h>

#include "models/graph.h"

sh_status sh_program_create(const sh_program_config *config, sh_program **out)
{
    sh_status st = SH_OK;
    sh_program *p = NULL;

    SH_CHECK(config->dtype == SH_F32 || config->dtype == SH_BF16, SH_ERR_USAGE,
             "a program computes in f32 or bf16, not %s", sh_dtype_name(config->dtype));
    p = calloc(1, sizeof(*p));
    SH_CHECK(p != NULL, SH_ERR_NO_MEMORY, "program, %zu bytes", sizeof(*p));
    p->config = *config;
    p->n_forward = -1;
    p->deriving = SH_NO_VALUE;
    p->prefix = strdup(config->prefix != NULL ? config->prefix : "");
    SH_CHECK(p->prefix != NULL, SH_ERR_NO_MEMORY, "program prefix");
    *out = p;
    p = NULL;
out:
    sh_program_destroy(&p);
    return st;
}

void sh_program_destroy(sh_program **program)
{
    sh_program *p = *program;

    if (p == NULL) return;
    for (int i = 0; i < p->n_nodes; i++) {
        sh_node *node = &p->nodes[i];
        if (node->kernel != NULL && node->kernel->release != NULL) {
            node->kernel->release(node->state);
        }
        free(node->refusals);
    }
    free(p->nodes);
    free(p->values);
    free(p->prefix);
    free(p);
    *program = NULL;
}

/* ---- the graph ---- */

void sh_graph_fail(sh_program *p, sh_status status)
{
    if (status == SH_OK || p->status != SH_OK) return;
    p->status = status;
    snprintf(p->error, sizeof(p->error), "%s", sh_error_message());
}

sh_value sh_graph_value(sh_program *p, const sh_tensor_desc *desc, const char *label)
{
    /* Filled before the array may move: desc and label may point into it. */
    sh_value_info value = {.desc = *desc, .slot = -1, .producer = -1, .alias = SH_NO_VALUE};

    snprintf(value.label, sizeof(value.label), "%s", label);
    if (p->n_values == p->value_capacity) {
        int capacity = p->value_capacity == 0 ? 256 : 2 * p->value_capacity;
        sh_value_info *values = realloc(p->values, (size_t)capacity * sizeof(*values));
        if (values == NULL) {
            sh_graph_fail(p, sh_error_set(SH_ERR_NO_MEMORY, "program, %d values", capacity));
            return SH_NO_VALUE;
        }
        p->values = values;
        p->value_capacity = capacity;
    }
    p->values[p->n_values] = value;
    return p->n_values++;
}

sh_status sh_graph_node(sh_program *p, sh_op op, const sh_op_attrs *attrs, int n_in,
                        const sh_value *in, int n_out, const sh_value *out)
{
    sh_status st = SH_OK;

    const sh_op_info *info = &sh_op_table[op];
    SH_CHECK(p->status == SH_OK, p->status, "%s", p->error);
    SH_CHECK(n_in >= info->min_inputs && n_in <= info->max_inputs && n_out >= info->min_outputs &&
                 n_out <= info->max_outputs,
             SH_ERR_INTERNAL, "%s with %d inputs and %d outputs", info->name, n_in, n_out);
    if (p->n_nodes == p->node_capacity) {
        int capacity = p->node_capacity == 0 ? 128 : 2 * p->node_capacity;
        sh_node *nodes = realloc(p->nodes, (size_t)capacity * sizeof(*nodes));
        SH_CHECK(nodes != NULL, SH_ERR_NO_MEMORY, "program, %d nodes", capacity);
        p->nodes = nodes;
        p->node_capacity = capacity;
    }
    sh_node *node = &p->nodes[p->n_nodes];
    memset(node, 0, sizeof(*node));
    node->op = op;
    node->attrs = *attrs;
    node->phase = p->building;
    node->about = p->deriving;
    node->n_in = n_in;
    node->n_out = n_out;
    for (int i = 0; i < n_in; i++) node->in[i] = in[i];
    for (int i = 0; i < n_out; i++) {
        node->out[i] = out[i];
        if (out[i] != SH_NO_VALUE) p->values[out[i]].producer = p->n_nodes;
    }
    p->n_nodes++;
out:
    return st;
}

int sh_graph_n_uses(const sh_program *p, sh_value v)
{
    int n = 0;

    for (int i = 0; i < p->n_nodes; i++) {
        if (p->nodes[i].op == SH_OP_COUNT) continue;
        for (int k = 0; k < p->nodes[i].n_in; k++) n += p->nodes[i].in[k] == v;
    }
    return n;
}

void sh_graph_describe(const sh_program *p, sh_node *node)
{
    for (int k = 0; k < node->n_in; k++) {
        node->in_desc[k] = node->in[k] == SH_NO_VALUE ? NULL : &p->values[node->in[k]].desc;
    }
    for (int k = 0; k < node->n_out; k++) {
        node->out_desc[k] = node->out[k] == SH_NO_VALUE ? NULL : &p->values[node->out[k]].desc;
    }
    node->desc = (sh_node_desc){.op = node->op,
                                .attrs = &node->attrs,
                                .n_inputs = node->n_in,
                                .n_outputs = node->n_out,
                                .in = node->in_desc,
                                .out = node->out_desc};
}

const char *sh_graph_label(const sh_program *p, const sh_node *node)
{
    for (int k = 0; k < node->n_out; k++) {
        if (node->out[k] != SH_NO_VALUE) return p->values[node->out[k]].label;
    }
    return "";
}

void sh_graph_compact(sh_program *p)
{
    int n = 0, n_forward = 0;

    for (int i = 0; i < p->n_values; i++) p->values[i].producer = -1;
    for (int i = 0; i < p->n_nodes; i++) {
        if (p->nodes[i].op == SH_OP_COUNT) continue;
        if (n != i) p->nodes[n] = p->nodes[i];
        sh_node *node = &p->nodes[n];
        n_forward += node->phase == SH_PHASE_FORWARD;
        for (int k = 0; k < node->n_out; k++) {
            if (node->out[k] != SH_NO_VALUE) p->values[node->out[k]].producer = n;
        }
        n++;
    }
    p->n_nodes = n;
    p->n_forward = n_forward;
}

/* ---- builder helpers ---- */

static const sh_op_attrs default_attrs = {
    .stride = {1, 1}, .dilation = {1, 1}, .groups = 1, .share = 1};

static bool usable(sh_program *p, sh_value v)
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

/** Append a forward node with one output whose shape the op's table row gives. */
static sh_value emit(sh_program *p, sh_op op, const sh_op_attrs *attrs, int n_in,
                     const sh_value *in, const char *label)
{
    sh_status st = SH_OK;
    sh_value y = SH_NO_VALUE;
    const sh_tensor_desc *in_desc[SH_NODE_INPUTS] = {NULL};

    for (int i = 0; i < n_in; i++) {
        if (in[i] != SH_NO_VALUE) in_desc[i] = &p->values[in[i]].desc;
    }
    sh_tensor_desc desc = *in_desc[0];
    SH_TRY(sh_op_table[op].infer(attrs, in_desc, desc.dims));
    if (op == SH_OP_CONV || op == SH_OP_REFLECT_PAD) {
        desc.layout = p->config.backend->layout_of(desc.dtype, desc.dims, false);
    } else if (op == SH_OP_AVG_POOL || op == SH_OP_LINEAR || op == SH_OP_FLATTEN) {
        desc.layout = SH_NCHW;
    }
    y = sh_graph_value(p, &desc, label);
    SH_TRY(sh_graph_node(p, op, attrs, n_in, in, 1, &y));
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

/** `name`.`part` as a parameter. */
static sh_value named_param(sh_program *p, const char *name, const char *part, int n_dims,
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
    sh_graph_fail(p, sh_graph_node(p, SH_OP_CAST, &default_attrs, 1, &x, 1, &y));
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

static void same_padding(const int64_t *dims, const sh_op_attrs *attrs, const int kernel[2],
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
    if (!usable(p, x)) return SH_NO_VALUE;
    sh_op_attrs attrs = default_attrs;
    for (int i = 0; i < 2; i++) {
        attrs.stride[i] = conv->stride > 0 ? conv->stride : 1;
        attrs.dilation[i] = conv->dilation > 0 ? conv->dilation : 1;
    }
    attrs.groups = conv->groups > 0 ? conv->groups : 1;
    memcpy(attrs.pad, conv->pad, sizeof(attrs.pad));
    if (conv->same) same_padding(p->values[x].desc.dims, &attrs, conv->kernel, attrs.pad);

    int64_t channels = p->values[x].desc.dims[1] / attrs.groups;
    int64_t w_dims[4] = {conv->out_channels, channels, conv->kernel[0], conv->kernel[1]};
    int64_t b_dims[1] = {conv->out_channels};
    sh_value in[3] = {x, named_param(p, name, "weight", 4, w_dims), SH_NO_VALUE};
    if (conv->bias) in[2] = named_param(p, name, "bias", 1, b_dims);
    if (p->status != SH_OK) return SH_NO_VALUE;
    return emit(p, SH_OP_CONV, &attrs, conv->bias ? 3 : 2, in, name);
}

/** Batch statistics of x and the export of this shard's share of the running ones. */
static void batch_statistics(sh_program *p, sh_value x, const char *name, sh_value *mean,
                             sh_value *var)
{
    sh_op_attrs attrs = default_attrs;
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

    if (!usable(p, x)) return SH_NO_VALUE;
    int64_t dims[1] = {p->values[x].desc.dims[1]};
    sh_value gamma = named_param(p, name, "weight", 1, dims);
    sh_value beta = named_param(p, name, "bias", 1, dims);
    snprintf(full, sizeof(full), "%s.running_mean", name);
    sh_value mean = sh_program_state(p, full, dims[0], momentum);
    snprintf(full, sizeof(full), "%s.running_var", name);
    sh_value var = sh_program_state(p, full, dims[0], momentum);
    if (p->status != SH_OK) return SH_NO_VALUE;

    sh_op_attrs attrs = default_attrs;
    attrs.eps = eps;
    attrs.frozen = !p->config.training;
    if (!attrs.frozen) batch_statistics(p, x, name, &mean, &var);
    if (p->status != SH_OK) return SH_NO_VALUE;
    const sh_value in[5] = {x, mean, var, gamma, beta};
    return emit(p, SH_OP_BN_APPLY, &attrs, 5, in, name);
}

sh_value sh_op_act(sh_program *p, sh_value x, sh_act act)
{
    sh_op_attrs attrs = default_attrs;

    if (!usable(p, x)) return SH_NO_VALUE;
    if (act == SH_ACT_NONE) return x;
    attrs.act = act;
    return emit(p, SH_OP_ACT, &attrs, 1, &x, sh_act_name(act));
}

sh_value sh_op_add(sh_program *p, sh_value a, sh_value b)
{
    const sh_value in[2] = {a, b};

    if (!usable(p, a) || !usable(p, b)) return SH_NO_VALUE;
    return emit(p, SH_OP_ADD, &default_attrs, 2, in, "add");
}

sh_value sh_op_global_avg_pool(sh_program *p, sh_value x)
{
    if (!usable(p, x)) return SH_NO_VALUE;
    return emit(p, SH_OP_AVG_POOL, &default_attrs, 1, &x, "pool");
}

sh_value sh_op_linear(sh_program *p, sh_value x, const char *name, int out_features, bool bias)
{
    if (!usable(p, x)) return SH_NO_VALUE;
    int64_t dims[2] = {out_features, p->values[x].desc.dims[1]};
    sh_value in[3] = {x, named_param(p, name, "weight", 2, dims), SH_NO_VALUE};
    if (bias) in[2] = named_param(p, name, "bias", 1, dims);
    if (p->status != SH_OK) return SH_NO_VALUE;
    return emit(p, SH_OP_LINEAR, &default_attrs, bias ? 3 : 2, in, name);
}

sh_value sh_op_flatten(sh_program *p, sh_value x)
{
    if (!usable(p, x)) return SH_NO_VALUE;
    return emit(p, SH_OP_FLATTEN, &default_attrs, 1, &x, "flatten");
}

sh_value sh_op_dropout(sh_program *p, sh_value x, float rate)
{
    sh_op_attrs attrs = default_attrs;

    if (!usable(p, x)) return SH_NO_VALUE;
    if (!(rate >= 0 && rate < 1)) {
        sh_graph_fail(p, sh_error_set(SH_ERR_USAGE, "dropout rate %g is not in [0, 1)", rate));
        return SH_NO_VALUE;
    }
    attrs.rate = rate;
    attrs.stream = p->n_dropouts++;
    if (!p->config.training || rate == 0) return x;
    return emit(p, SH_OP_DROPOUT, &attrs, 1, &x, "dropout");
}

sh_value sh_op_reflect_pad(sh_program *p, sh_value x, const int pad[4])
{
    sh_op_attrs attrs = default_attrs;

    if (!usable(p, x)) return SH_NO_VALUE;
    memcpy(attrs.pad, pad, sizeof(attrs.pad));
    return emit(p, SH_OP_REFLECT_PAD, &attrs, 1, &x, "reflect_pad");
}

sh_value sh_op_l2_norm(sh_program *p, sh_value x, float eps)
{
    sh_op_attrs attrs = default_attrs;

    if (!usable(p, x)) return SH_NO_VALUE;
    if (p->values[x].desc.dtype != SH_F32) x = to_f32(p, x, "l2_norm");
    if (x == SH_NO_VALUE) return x;
    attrs.eps = eps;
    return emit(p, SH_OP_L2_NORM, &attrs, 1, &x, "l2_norm");
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
    if (!usable(p, v)) return SH_NO_VALUE;
    if (p->values[v].desc.dims[2] * p->values[v].desc.dims[3] > 1) v = sh_op_flatten(p, v);
    if (v == SH_NO_VALUE) return v;
    sh_value y = to_f32(p, v, name);
    if (y != SH_NO_VALUE) p->values[y].is_pinned = true;
    return y;
}
