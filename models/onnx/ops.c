// SPDX-License-Identifier: Apache-2.0
/* How each op is said in ONNX. A row of the table is an op; an op without a row is refused. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/onnx/graph.h"

static const int64_t *dims_of(const sh_onnx_graph *g, const sh_node *node, int k)
{
    return g->p->values[node->in[k]].desc.dims;
}

static const sh_onnx_value *in(const sh_onnx_graph *g, const sh_node *node, int k)
{
    return &g->values[node->in[k]];
}

static void set(sh_onnx_graph *g, const sh_node *node, sh_onnx_name name, sh_onnx_form form)
{
    g->values[node->out[0]] = (sh_onnx_value){.name = name, .form = form};
}

static sh_onnx_name reshape(sh_onnx_graph *g, sh_onnx_name x, int n, const int64_t *dims)
{
    return SH_ONNX_NODE(g, "Reshape", NULL, x.text, sh_onnx_integers(g, n, dims, false).text);
}

sh_onnx_name sh_onnx_as(sh_onnx_graph *g, sh_value v, sh_onnx_form form)
{
    const sh_onnx_value *value = &g->values[v];
    const int64_t *d = g->p->values[v].desc.dims;

    if (value->form == form) return value->name;
    if (form == SH_ONNX_ROWS && value->form == SH_ONNX_IMAGE) {
        const sh_onnx_attr attrs[] = {SH_ONNX_INT("axis", 1), {0}};

        return SH_ONNX_NODE(g, "Flatten", attrs, value->name.text);
    }
    if (form == SH_ONNX_IMAGE && value->form == SH_ONNX_ROWS)
        return reshape(g, value->name, 4, (const int64_t[]){0, d[1], d[2], d[3]});

    /* Tokens [N,T,C] as [N,C,T,1], and as rows in our order. */
    const sh_onnx_attr swap[] = {SH_ONNX_INTS("perm", 0, 2, 1), {0}};
    const sh_onnx_name t = SH_ONNX_NODE(g, "Transpose", swap, value->name.text);

    if (form == SH_ONNX_ROWS) return reshape(g, t, 2, (const int64_t[]){0, -1});
    return reshape(g, t, 4, (const int64_t[]){0, d[1], d[2], 1});
}

/* Rows, or a weight [rows, columns] as it stands. */
static sh_status rows_or_weight(sh_onnx_graph *g, const sh_node *node, int k, sh_onnx_name *out)
{
    sh_status st = SH_OK;

    if (g->p->values[node->in[k]].slot >= 0)
        SH_TRY(sh_onnx_weight(g, node, k, out));
    else
        *out = sh_onnx_as(g, node->in[k], SH_ONNX_ROWS);
out:
    return st;
}

/* ---- layers with weights ---- */

/* A linear layer per token: sh_op_linear makes it a convolution with a weight [out, in]. */
static sh_status emit_token_linear(sh_onnx_graph *g, const sh_node *node)
{
    sh_status st = SH_OK;
    sh_onnx_name bias;
    const bool has_bias = node->n_in > SH_CONV_BIAS && node->in[SH_CONV_BIAS] != SH_NO_VALUE;
    const sh_slot *slot = NULL;
    float *data = NULL, *turned = NULL;

    SH_CHECK(in(g, node, SH_CONV_X)->form == SH_ONNX_TOKENS, SH_ERR_INTERNAL, "%s: no tokens",
             sh_graph_label(g->p, node));
    if (has_bias) SH_TRY(sh_onnx_weight(g, node, SH_CONV_BIAS, &bias));
    SH_TRY(sh_onnx_weight_data(g, node, SH_CONV_W, &slot, &data));
    turned = malloc((size_t)slot->n_elems * sizeof(*turned));
    SH_CHECK(turned != NULL, SH_ERR_NO_MEMORY, "%s", slot->name);

    const int64_t n_out = slot->dims[0], n_in = slot->dims[1];

    for (int64_t o = 0; o < n_out; o++)
        for (int64_t i = 0; i < n_in; i++) turned[i * n_out + o] = data[o * n_in + i];

    const sh_onnx_name w = sh_onnx_tensor(g, slot->name, 2, (const int64_t[]){n_in, n_out}, turned);
    sh_onnx_name y = SH_ONNX_NODE(g, "MatMul", NULL, in(g, node, SH_CONV_X)->name.text, w.text);

    if (has_bias) y = SH_ONNX_NODE(g, "Add", NULL, y.text, bias.text);
    set(g, node, y, SH_ONNX_TOKENS);
out:
    free(data);
    free(turned);
    return st;
}

static sh_status emit_conv(sh_onnx_graph *g, const sh_node *node)
{
    sh_status st = SH_OK;
    const sh_op_attrs *a = &node->attrs;
    sh_onnx_name w, bias;
    const bool has_bias = node->n_in > SH_CONV_BIAS && node->in[SH_CONV_BIAS] != SH_NO_VALUE;
    const sh_onnx_attr attrs[] = {
        SH_ONNX_INTS("strides", a->stride[0], a->stride[1]),
        SH_ONNX_INTS("dilations", a->dilation[0], a->dilation[1]),
        SH_ONNX_INTS("pads", a->pad[0], a->pad[1], a->pad[2], a->pad[3]),
        SH_ONNX_INT("group", a->groups),
        {0},
    };

    if (sh_store_slot(g->p->config.store, g->p->values[node->in[SH_CONV_W]].slot)->n_dims == 2) {
        SH_TRY(emit_token_linear(g, node));
        goto out;
    }
    if (has_bias) SH_TRY(sh_onnx_weight(g, node, SH_CONV_BIAS, &bias));
    SH_TRY(sh_onnx_weight(g, node, SH_CONV_W, &w));
    const sh_onnx_name x = sh_onnx_as(g, node->in[SH_CONV_X], SH_ONNX_IMAGE);
    const char *const inputs[] = {x.text, w.text, has_bias ? bias.text : NULL, NULL};

    set(g, node, sh_onnx_node(g, "Conv", inputs, attrs), SH_ONNX_IMAGE);
out:
    return st;
}

static sh_status emit_batch_norm(sh_onnx_graph *g, const sh_node *node)
{
    enum { X, MEAN, VAR, GAMMA, BETA, RESIDUAL };
    sh_status st = SH_OK;
    sh_onnx_name mean, var, gamma, beta;
    const sh_onnx_attr attrs[] = {SH_ONNX_FLOAT("epsilon", node->attrs.eps), {0}};

    SH_CHECK(node->n_in <= RESIDUAL && node->attrs.act == SH_ACT_NONE, SH_ERR_INTERNAL,
             "%s is fused already", sh_graph_label(g->p, node));
    SH_TRY(sh_onnx_weight(g, node, GAMMA, &gamma));
    SH_TRY(sh_onnx_weight(g, node, BETA, &beta));
    SH_TRY(sh_onnx_weight(g, node, MEAN, &mean));
    SH_TRY(sh_onnx_weight(g, node, VAR, &var));
    set(g, node,
        SH_ONNX_NODE(g, "BatchNormalization", attrs, in(g, node, X)->name.text, gamma.text,
                     beta.text, mean.text, var.text),
        in(g, node, X)->form);
out:
    return st;
}

/* Rows through Gemm; tokens through a product with the transposed weight. */
static sh_status emit_linear(sh_onnx_graph *g, const sh_node *node)
{
    enum { X, W, BIAS };
    sh_status st = SH_OK;
    sh_onnx_name w, bias;
    const bool has_bias = node->n_in > BIAS && node->in[BIAS] != SH_NO_VALUE;
    const sh_onnx_attr attrs[] = {SH_ONNX_INT("transB", 1), {0}};
    const sh_onnx_name x = sh_onnx_as(g, node->in[X], SH_ONNX_ROWS);

    if (has_bias) SH_TRY(sh_onnx_weight(g, node, BIAS, &bias));
    SH_TRY(rows_or_weight(g, node, W, &w));
    const char *const inputs[] = {x.text, w.text, has_bias ? bias.text : NULL, NULL};

    set(g, node, sh_onnx_node(g, "Gemm", inputs, attrs), SH_ONNX_ROWS);
out:
    return st;
}

/* Per channel: [C] beside rows and tokens, [C,1,1] beside images. */
static sh_status emit_scale(sh_onnx_graph *g, const sh_node *node)
{
    sh_status st = SH_OK;
    const sh_slot *slot = NULL;
    float *data = NULL;
    const sh_onnx_form form = in(g, node, 0)->form;

    SH_TRY(sh_onnx_weight_data(g, node, 1, &slot, &data));

    const sh_onnx_name gamma = sh_onnx_tensor(g, slot->name, form == SH_ONNX_IMAGE ? 3 : 1,
                                              (const int64_t[]){slot->n_elems, 1, 1}, data);

    set(g, node, SH_ONNX_NODE(g, "Mul", NULL, in(g, node, 0)->name.text, gamma.text), form);
out:
    free(data);
    return st;
}

static sh_status emit_layer_norm(sh_onnx_graph *g, const sh_node *node)
{
    sh_status st = SH_OK;
    sh_onnx_name gamma, beta;
    const sh_onnx_form form = in(g, node, 0)->form;
    const sh_onnx_attr attrs[] = {
        SH_ONNX_INT("axis", -1), SH_ONNX_FLOAT("epsilon", node->attrs.eps), {0}};

    SH_CHECK(form != SH_ONNX_IMAGE, SH_ERR_UNSUPPORTED, "%s: a layer norm of an image in ONNX",
             sh_graph_label(g->p, node));
    SH_TRY(sh_onnx_weight(g, node, 1, &gamma));
    SH_TRY(sh_onnx_weight(g, node, 2, &beta));
    set(g, node,
        SH_ONNX_NODE(g, "LayerNormalization", attrs, in(g, node, 0)->name.text, gamma.text,
                     beta.text),
        form);
out:
    return st;
}

/* ---- element by element ---- */

static sh_onnx_name gelu(sh_onnx_graph *g, const char *x)
{
    const sh_onnx_name half = sh_onnx_number(g, 0.5f), one = sh_onnx_number(g, 1);
    const sh_onnx_name root = sh_onnx_number(g, sqrtf(0.5f));
    sh_onnx_name y = SH_ONNX_NODE(g, "Mul", NULL, x, root.text);

    y = SH_ONNX_NODE(g, "Erf", NULL, y.text);
    y = SH_ONNX_NODE(g, "Add", NULL, y.text, one.text);
    y = SH_ONNX_NODE(g, "Mul", NULL, y.text, half.text);
    return SH_ONNX_NODE(g, "Mul", NULL, y.text, x);
}

static sh_status emit_act(sh_onnx_graph *g, const sh_node *node)
{
    sh_status st = SH_OK;
    const char *x = in(g, node, 0)->name.text;
    sh_onnx_name y;

    switch (node->attrs.act) {
    case SH_ACT_RELU: y = SH_ONNX_NODE(g, "Relu", NULL, x); break;
    case SH_ACT_RELU6: {
        const sh_onnx_name low = sh_onnx_number(g, 0), high = sh_onnx_number(g, 6);

        y = SH_ONNX_NODE(g, "Clip", NULL, x, low.text, high.text);
        break;
    }
    case SH_ACT_SIGMOID: y = SH_ONNX_NODE(g, "Sigmoid", NULL, x); break;
    case SH_ACT_TANH: y = SH_ONNX_NODE(g, "Tanh", NULL, x); break;
    case SH_ACT_SILU:
        y = SH_ONNX_NODE(g, "Sigmoid", NULL, x);
        y = SH_ONNX_NODE(g, "Mul", NULL, x, y.text);
        break;
    case SH_ACT_GELU: y = gelu(g, x); break;
    case SH_ACT_HARD_SIGMOID: {
        const sh_onnx_attr attrs[] = {SH_ONNX_FLOAT("alpha", 1.0f / 6), {0}};

        y = SH_ONNX_NODE(g, "HardSigmoid", attrs, x);
        break;
    }
    case SH_ACT_HARD_SWISH: y = SH_ONNX_NODE(g, "HardSwish", NULL, x); break;
    default: SH_FAIL(SH_ERR_UNSUPPORTED, "activation %s in ONNX", sh_act_name(node->attrs.act));
    }
    set(g, node, y, in(g, node, 0)->form);
out:
    return st;
}

static sh_status emit_add(sh_onnx_graph *g, const sh_node *node)
{
    const sh_onnx_name b = sh_onnx_as(g, node->in[1], in(g, node, 0)->form);

    set(g, node, SH_ONNX_NODE(g, "Add", NULL, in(g, node, 0)->name.text, b.text),
        in(g, node, 0)->form);
    return SH_OK;
}

/* in: b, ?a; scale b + a. */
static sh_status emit_add_scaled(sh_onnx_graph *g, const sh_node *node)
{
    const sh_onnx_name scale = sh_onnx_number(g, node->attrs.scale);
    sh_onnx_name y = SH_ONNX_NODE(g, "Mul", NULL, in(g, node, 0)->name.text, scale.text);

    if (node->n_in > 1 && node->in[1] != SH_NO_VALUE)
        y = SH_ONNX_NODE(g, "Add", NULL, y.text,
                         sh_onnx_as(g, node->in[1], in(g, node, 0)->form).text);
    set(g, node, y, in(g, node, 0)->form);
    return SH_OK;
}

static sh_status emit_mul_channels(sh_onnx_graph *g, const sh_node *node)
{
    const sh_onnx_name s = sh_onnx_as(g, node->in[1], SH_ONNX_IMAGE);
    const sh_onnx_name x = sh_onnx_as(g, node->in[0], SH_ONNX_IMAGE);

    set(g, node, SH_ONNX_NODE(g, "Mul", NULL, x.text, s.text), SH_ONNX_IMAGE);
    return SH_OK;
}

static sh_status emit_concat(sh_onnx_graph *g, const sh_node *node)
{
    sh_onnx_name names[SH_ONNX_INPUTS];
    const char *inputs[SH_ONNX_INPUTS + 1] = {NULL};
    const sh_onnx_attr attrs[] = {SH_ONNX_INT("axis", 1), {0}};

    for (int k = 0; k < node->n_in; k++) {
        names[k] = sh_onnx_as(g, node->in[k], SH_ONNX_IMAGE);
        inputs[k] = names[k].text;
    }
    set(g, node, sh_onnx_node(g, "Concat", inputs, attrs), SH_ONNX_IMAGE);
    return SH_OK;
}

static sh_status emit_nothing(sh_onnx_graph *g, const sh_node *node)
{
    g->values[node->out[0]] = *in(g, node, 0);
    return SH_OK;
}

/* ---- pools and shapes ---- */

static sh_status emit_global_pool(sh_onnx_graph *g, const sh_node *node)
{
    if (in(g, node, 0)->form == SH_ONNX_TOKENS) {
        const sh_onnx_attr attrs[] = {SH_ONNX_INTS("axes", 1), SH_ONNX_INT("keepdims", 0), {0}};

        set(g, node, SH_ONNX_NODE(g, "ReduceMean", attrs, in(g, node, 0)->name.text), SH_ONNX_ROWS);
    } else {
        const sh_onnx_name x = sh_onnx_as(g, node->in[0], SH_ONNX_IMAGE);

        set(g, node, SH_ONNX_NODE(g, "GlobalAveragePool", NULL, x.text), SH_ONNX_IMAGE);
    }
    return SH_OK;
}

/* Does a window that begins at pixel `first` reach beyond `side` pixels? */
static bool is_outside(int64_t first, int kernel, int64_t side)
{
    return first < 0 || first + kernel > side;
}

/* Of each window of a maximum what it is at least, [1, 1, OH, OW]: 0 where its zero padding takes
 * part, which MaxPool never looks at, otherwise nothing. (A Pad of zeros in front says the same,
 * but onnxruntime takes it for MaxPool's own padding and leaves the zeros out.) */
static sh_status padding_floor(sh_onnx_graph *g, const sh_node *node, sh_onnx_name *out)
{
    sh_status st = SH_OK;
    const sh_op_attrs *a = &node->attrs;
    const int64_t *x = dims_of(g, node, 0), *y = g->p->values[node->out[0]].desc.dims;
    const int64_t dims[4] = {1, 1, y[2], y[3]};
    float *floor = malloc((size_t)(y[2] * y[3]) * sizeof(*floor));

    SH_CHECK(floor != NULL, SH_ERR_NO_MEMORY, "padding of a pool");
    for (int64_t i = 0; i < y[2] * y[3]; i++) {
        const int64_t row = i / y[3] * a->stride[0] - a->pad[0];
        const int64_t column = i % y[3] * a->stride[1] - a->pad[1];

        floor[i] = is_outside(row, a->kernel[0], x[2]) || is_outside(column, a->kernel[1], x[3])
                       ? 0
                       : -FLT_MAX;
    }
    *out = sh_onnx_tensor(g, "padding", 4, dims, floor);
out:
    free(floor);
    return st;
}

static sh_status emit_pool(sh_onnx_graph *g, const sh_node *node)
{
    sh_status st = SH_OK;
    const sh_op_attrs *a = &node->attrs;
    const bool mean = node->op == SH_OP_MEAN_POOL;
    const sh_onnx_attr attrs[] = {
        SH_ONNX_INTS("kernel_shape", a->kernel[0], a->kernel[1]),
        SH_ONNX_INTS("strides", a->stride[0], a->stride[1]),
        SH_ONNX_INTS("pads", a->pad[0], a->pad[1], a->pad[2], a->pad[3]),
        mean ? SH_ONNX_INT("count_include_pad", a->count_padding) : (sh_onnx_attr){0},
        {0},
    };
    const sh_onnx_name x = sh_onnx_as(g, node->in[0], SH_ONNX_IMAGE);
    sh_onnx_name y = SH_ONNX_NODE(g, mean ? "AveragePool" : "MaxPool", attrs, x.text), floor;

    if (!mean && a->count_padding) {
        SH_TRY(padding_floor(g, node, &floor));
        y = SH_ONNX_NODE(g, "Max", NULL, y.text, floor.text);
    }
    set(g, node, y, SH_ONNX_IMAGE);
out:
    return st;
}

static sh_status emit_gem_pool(sh_onnx_graph *g, const sh_node *node)
{
    sh_status st = SH_OK;
    const sh_slot *slot = NULL;
    float *power = NULL;

    SH_TRY(sh_onnx_weight_data(g, node, 1, &slot, &power));

    const sh_onnx_name x = sh_onnx_as(g, node->in[0], SH_ONNX_IMAGE);
    const sh_onnx_name eps = sh_onnx_number(g, node->attrs.eps);
    const sh_onnx_name p = sh_onnx_number(g, *power), root = sh_onnx_number(g, 1 / *power);
    sh_onnx_name y = SH_ONNX_NODE(g, "Clip", NULL, x.text, eps.text);

    y = SH_ONNX_NODE(g, "Pow", NULL, y.text, p.text);
    y = SH_ONNX_NODE(g, "GlobalAveragePool", NULL, y.text);
    set(g, node, SH_ONNX_NODE(g, "Pow", NULL, y.text, root.text), SH_ONNX_IMAGE);
out:
    free(power);
    return st;
}

static sh_status emit_flatten(sh_onnx_graph *g, const sh_node *node)
{
    set(g, node, sh_onnx_as(g, node->in[0], SH_ONNX_ROWS), SH_ONNX_ROWS);
    return SH_OK;
}

static sh_status emit_reflect_pad(sh_onnx_graph *g, const sh_node *node)
{
    const sh_onnx_attr attrs[] = {SH_ONNX_TEXT("mode", "reflect"), {0}};
    const int *pad = node->attrs.pad;
    const sh_onnx_name pads = sh_onnx_integers(
        g, 8, (const int64_t[]){0, 0, pad[0], pad[1], 0, 0, pad[2], pad[3]}, false);
    const sh_onnx_name x = sh_onnx_as(g, node->in[0], SH_ONNX_IMAGE);

    set(g, node, SH_ONNX_NODE(g, "Pad", attrs, x.text, pads.text), SH_ONNX_IMAGE);
    return SH_OK;
}

static sh_status emit_l2_norm(sh_onnx_graph *g, const sh_node *node)
{
    sh_status st = SH_OK;
    sh_onnx_name x;
    const sh_onnx_attr attrs[] = {SH_ONNX_INTS("axes", 1), SH_ONNX_INT("keepdims", 1), {0}};

    SH_TRY(rows_or_weight(g, node, 0, &x));

    const sh_onnx_name eps = sh_onnx_number(g, node->attrs.eps);
    sh_onnx_name length = SH_ONNX_NODE(g, "ReduceL2", attrs, x.text);

    length = SH_ONNX_NODE(g, "Max", NULL, length.text, eps.text);
    set(g, node, SH_ONNX_NODE(g, "Div", NULL, x.text, length.text), SH_ONNX_ROWS);
out:
    return st;
}

/* ---- transformers ---- */

/* An empty token is put before the patches; the class token is added to it with the positions. */
static sh_status emit_tokens(sh_onnx_graph *g, const sh_node *node)
{
    enum { PATCHES, CLS, POS };
    sh_status st = SH_OK;
    const sh_slot *cls_slot = NULL, *slot = NULL;
    float *cls = NULL, *pos = NULL;
    const int64_t *d = dims_of(g, node, PATCHES);
    const sh_onnx_attr swap[] = {SH_ONNX_INTS("perm", 0, 2, 1), {0}};

    SH_TRY(sh_onnx_weight_data(g, node, CLS, &cls_slot, &cls));
    SH_TRY(sh_onnx_weight_data(g, node, POS, &slot, &pos));
    for (int64_t c = 0; c < d[1]; c++) pos[c] += cls[c];

    const sh_onnx_name added = sh_onnx_tensor(g, slot->name, slot->n_dims, slot->dims, pos);
    const sh_onnx_name pads = sh_onnx_integers(g, 6, (const int64_t[]){0, 1, 0, 0, 0, 0}, false);
    sh_onnx_name x = sh_onnx_as(g, node->in[PATCHES], SH_ONNX_IMAGE);

    x = reshape(g, x, 3, (const int64_t[]){0, d[1], d[2] * d[3]});
    x = SH_ONNX_NODE(g, "Transpose", swap, x.text);
    x = SH_ONNX_NODE(g, "Pad", NULL, x.text, pads.text);
    set(g, node, SH_ONNX_NODE(g, "Add", NULL, x.text, added.text), SH_ONNX_TOKENS);
out:
    free(cls);
    free(pos);
    return st;
}

static sh_onnx_name pick(sh_onnx_graph *g, sh_onnx_name x, int axis, int64_t index)
{
    const sh_onnx_attr attrs[] = {SH_ONNX_INT("axis", axis), {0}};

    return SH_ONNX_NODE(g, "Gather", attrs, x.text, sh_onnx_integers(g, 1, &index, true).text);
}

static sh_status emit_attention(sh_onnx_graph *g, const sh_node *node)
{
    const int64_t *d = dims_of(g, node, 0);
    const int64_t width = d[1] / 3, heads = node->attrs.heads, depth = width / heads;
    const sh_onnx_attr split[] = {SH_ONNX_INTS("perm", 2, 0, 3, 1, 4), {0}};
    const sh_onnx_attr turn[] = {SH_ONNX_INTS("perm", 0, 1, 3, 2), {0}};
    const sh_onnx_attr join[] = {SH_ONNX_INTS("perm", 0, 2, 1, 3), {0}};
    const sh_onnx_attr last[] = {SH_ONNX_INT("axis", -1), {0}};
    const sh_onnx_name scale = sh_onnx_number(g, 1 / sqrtf((float)depth));
    sh_onnx_name x = in(g, node, 0)->name;

    x = reshape(g, x, 5, (const int64_t[]){0, d[2], 3, heads, depth});
    x = SH_ONNX_NODE(g, "Transpose", split, x.text); /* [3, N, heads, T, depth] */

    const sh_onnx_name q = pick(g, x, 0, 0), k = pick(g, x, 0, 1), v = pick(g, x, 0, 2);
    const sh_onnx_name kt = SH_ONNX_NODE(g, "Transpose", turn, k.text);
    sh_onnx_name s = SH_ONNX_NODE(g, "MatMul", NULL, q.text, kt.text);

    s = SH_ONNX_NODE(g, "Mul", NULL, s.text, scale.text);
    s = SH_ONNX_NODE(g, "Softmax", last, s.text);
    s = SH_ONNX_NODE(g, "MatMul", NULL, s.text, v.text);
    s = SH_ONNX_NODE(g, "Transpose", join, s.text);
    set(g, node, reshape(g, s, 3, (const int64_t[]){0, d[2], width}), SH_ONNX_TOKENS);
    return SH_OK;
}

static sh_status emit_take_token(sh_onnx_graph *g, const sh_node *node)
{
    set(g, node, pick(g, in(g, node, 0)->name, 1, node->attrs.index), SH_ONNX_ROWS);
    return SH_OK;
}

static sh_status (*const emitters[SH_OP_COUNT])(sh_onnx_graph *g, const sh_node *node) = {
    [SH_OP_CONV] = emit_conv,
    [SH_OP_BN_APPLY] = emit_batch_norm,
    [SH_OP_ACT] = emit_act,
    [SH_OP_ADD] = emit_add,
    [SH_OP_AVG_POOL] = emit_global_pool,
    [SH_OP_MAX_POOL] = emit_pool,
    [SH_OP_MEAN_POOL] = emit_pool,
    [SH_OP_GEM_POOL] = emit_gem_pool,
    [SH_OP_CONCAT] = emit_concat,
    [SH_OP_MUL_CHANNELS] = emit_mul_channels,
    [SH_OP_SCALE] = emit_scale,
    [SH_OP_ADD_SCALED] = emit_add_scaled,
    [SH_OP_LAYER_NORM] = emit_layer_norm,
    [SH_OP_ATTENTION] = emit_attention,
    [SH_OP_TOKENS] = emit_tokens,
    [SH_OP_TAKE_TOKEN] = emit_take_token,
    [SH_OP_LINEAR] = emit_linear,
    [SH_OP_FLATTEN] = emit_flatten,
    [SH_OP_REFLECT_PAD] = emit_reflect_pad,
    [SH_OP_L2_NORM] = emit_l2_norm,
    [SH_OP_CAST] = emit_nothing,
};

sh_status sh_onnx_emit(sh_onnx_graph *g, const sh_node *node)
{
    sh_status st = SH_OK;

    SH_CHECK(emitters[node->op] != NULL, SH_ERR_UNSUPPORTED, "%s: the op %s has no form in ONNX",
             sh_graph_label(g->p, node), sh_op_name(node->op));
    SH_TRY(emitters[node->op](g, node));
out:
    return st;
}
