// SPDX-License-Identifier: Apache-2.0
#include "models/cuda/cudnn_conv.h"

#include <inttypes.h>
#include <stdio.h>

enum { MOST_PADDED_WEIGHTS = 1 << 19 };

/** Which operands of an op are x and y of its convolution, and where the weights' shape is. */
typedef struct role {
    bool is_output;
    int index;
} role;

static const struct {
    sh_op op;
    sh_cudnn_kind kind;
    const char *name;
    role x, w, y;
} kinds[] = {
    {SH_OP_CONV, SH_CUDNN_FORWARD, "forward", {false, 0}, {false, 1}, {true, 0}},
    {SH_OP_CONV_GRAD_X, SH_CUDNN_GRAD_X, "grad_x", {true, 0}, {false, 1}, {false, 0}},
    {SH_OP_CONV_GRAD_W, SH_CUDNN_GRAD_W, "grad_w", {false, 0}, {true, 0}, {false, 1}},
};

static const sh_tensor_desc *operand(const sh_node_desc *desc, role r)
{
    return r.is_output ? desc->out[r.index] : desc->in[r.index];
}

static bool has_input(const sh_node_desc *desc, int i)
{
    return i < desc->n_inputs && desc->in[i] != NULL;
}

static bool is_map(const sh_tensor_desc *d)
{
    bool is_float = d->dtype == SH_F32 || d->dtype == SH_BF16;

    return is_float && (d->layout == SH_NHWC || d->dims[2] * d->dims[3] == 1);
}

/** Padding channels, with weights of zero for them, or x without them, at a pitch. Heuristics of
 *  cuDNN 9 have no engine for gradients of about a million weights or more: those of patches. */
static int64_t read_channels(const sh_tensor_desc *x, const sh_tensor_desc *w, sh_cudnn_kind kind)
{
    const int64_t stored = sh_tensor_stored_channels(x);
    const int64_t n_weights = w->dims[0] * stored * w->dims[2] * w->dims[3];

    return kind == SH_CUDNN_GRAD_W && n_weights > MOST_PADDED_WEIGHTS ? x->dims[1] : stored;
}

const char *sh_cudnn_conv_of(const sh_node_desc *desc, sh_cudnn_conv *out)
{
    const sh_op_attrs *a = desc->attrs;
    size_t k = 0;

    while (k < SH_COUNT(kinds) && kinds[k].op != desc->op) k++;
    if (k == SH_COUNT(kinds)) return "no convolution";
    const sh_tensor_desc *x = operand(desc, kinds[k].x), *w = operand(desc, kinds[k].w);
    const sh_tensor_desc *y = operand(desc, kinds[k].y);

    if (a->groups != 1) return "groups of channels";
    bool is_image = x->layout == SH_NHWC8 && x->dtype == SH_BF16;
    if (!(is_map(x) || is_image) || !is_map(y) || x->dtype != y->dtype)
        return "maps are not rows of channels";
    if (desc->op == SH_OP_CONV && has_input(desc, SH_CONV_MEAN)) return "a batch norm on load";
    if (desc->op == SH_OP_CONV && desc->n_outputs > SH_CONV_Y_MEAN &&
        desc->out[SH_CONV_Y_MEAN] != NULL)
        return "statistics on store";
    *out = (sh_cudnn_conv){
        .kind = kinds[k].kind,
        .dtype = x->dtype,
        .dw = x->dtype,
        .kernel = {w->dims[2], w->dims[3]},
        .stride = {a->stride[0], a->stride[1]},
        .dilation = {a->dilation[0], a->dilation[1]},
        .pad = {a->pad[0], a->pad[1], a->pad[2], a->pad[3]},
    };
    memcpy(out->x, x->dims, sizeof(out->x));
    memcpy(out->y, y->dims, sizeof(out->y));
    out->x[1] = read_channels(x, w, out->kind);
    out->x_pitch = sh_tensor_stored_channels(x);
    return NULL;
}

/* ---- keys ---- */

static size_t append(char *key, size_t n, const char *name, const int64_t *values, int n_values)
{
    n += (size_t)snprintf(key + n, SH_CUDNN_KEY_BYTES - n, " %s ", name);
    for (int i = 0; i < n_values && n < SH_CUDNN_KEY_BYTES; i++)
        n += (size_t)snprintf(key + n, SH_CUDNN_KEY_BYTES - n, "%s%" PRId64, i > 0 ? "," : "",
                              values[i]);
    return n < SH_CUDNN_KEY_BYTES ? n : SH_CUDNN_KEY_BYTES - 1;
}

void sh_cudnn_key(const sh_cudnn_conv *conv, char key[SH_CUDNN_KEY_BYTES])
{
    size_t n = (size_t)snprintf(key, SH_CUDNN_KEY_BYTES, "%s %s", kinds[conv->kind].name,
                                sh_dtype_name(conv->dtype));

    n = append(key, n, "x", conv->x, 4);
    n = append(key, n, "y", conv->y, 4);
    n = append(key, n, "kernel", conv->kernel, 2);
    n = append(key, n, "stride", conv->stride, 2);
    n = append(key, n, "pad", conv->pad, 4);
    n = append(key, n, "dilation", conv->dilation, 2);
    if (conv->x_pitch != conv->x[1]) append(key, n, "pitch", &conv->x_pitch, 1);
}
