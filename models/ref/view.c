// SPDX-License-Identifier: Apache-2.0
#include "models/ref/kernels.h"

static bool is_dense(const sh_tensor_desc *d)
{
    return d->dtype == SH_F32 && d->layout == SH_NCHW;
}

static size_t dense_bytes(const sh_tensor_desc *d)
{
    return ((size_t)sh_ref_elems(d) * sizeof(float) + 63) / 64 * 64;
}

/** Doubles that the loops of this op add up in. */
static int64_t n_sums(const sh_node_desc *desc)
{
    const int64_t *in = desc->in[0] == NULL ? NULL : desc->in[0]->dims;
    const int64_t *out = desc->out[0] == NULL ? NULL : desc->out[0]->dims;

    switch (desc->op) {
    case SH_OP_CONV:
    case SH_OP_CONV_GRAD_X:
    case SH_OP_CONV_GRAD:
    case SH_OP_MAX_POOL_GRAD:
    case SH_OP_MEAN_POOL_GRAD:
    case SH_OP_ADAPTIVE_POOL_GRAD:
    case SH_OP_REFLECT_PAD_GRAD: return out == NULL ? 0 : out[2] * out[3];
    case SH_OP_LAYER_NORM_GRAD: return 2 * in[1];
    case SH_OP_ATTENTION: return in[2];
    case SH_OP_ATTENTION_GRAD: return in[2] + 3 * in[1] / desc->attrs->heads * in[2];
    default: return 0;
    }
}

static size_t work_bytes(const sh_node_desc *desc)
{
    return ((size_t)n_sums(desc) * sizeof(double) + 63) / 64 * 64;
}

static bool has_prologue(const sh_node_desc *desc)
{
    return (desc->op == SH_OP_CONV && sh_ref_has_input(desc, SH_CONV_MEAN)) ||
           (desc->op == SH_OP_CONV_GRAD && sh_ref_has_input(desc, SH_CONV_GRAD_MEAN));
}

static bool makes_dy(const sh_node_desc *desc)
{
    return desc->op == SH_OP_CONV_GRAD && sh_ref_has_input(desc, SH_CONV_GRAD_Y);
}

sh_status sh_ref_prepare(const sh_node_desc *desc, void **state, size_t *scratch_bytes)
{
    size_t n_bytes = work_bytes(desc);

    for (int i = 0; i < desc->n_inputs; i++) {
        if (desc->in[i] != NULL && !is_dense(desc->in[i])) n_bytes += dense_bytes(desc->in[i]);
    }
    for (int i = 0; i < desc->n_outputs; i++) {
        if (desc->out[i] != NULL && !is_dense(desc->out[i])) n_bytes += dense_bytes(desc->out[i]);
    }
    if (has_prologue(desc)) n_bytes += dense_bytes(desc->in[0]);
    if (makes_dy(desc)) n_bytes += dense_bytes(desc->in[SH_CONV_GRAD_DY]);
    *state = NULL;
    *scratch_bytes = n_bytes;
    return SH_OK;
}

static float load(const void *data, sh_dtype dtype, int64_t i)
{
    switch (dtype) {
    case SH_BF16: return sh_bf16_to_f32(((const uint16_t *)data)[i]);
    case SH_U8: return ((const uint8_t *)data)[i];
    case SH_I32: return (float)((const int32_t *)data)[i];
    case SH_F32: break;
    }
    return ((const float *)data)[i];
}

static void store(void *data, sh_dtype dtype, int64_t i, float x)
{
    switch (dtype) {
    case SH_BF16: ((uint16_t *)data)[i] = sh_bf16_from_f32(x); return;
    case SH_U8: ((uint8_t *)data)[i] = (uint8_t)x; return;
    case SH_I32: ((int32_t *)data)[i] = (int32_t)x; return;
    case SH_F32: break;
    }
    ((float *)data)[i] = x;
}

/** Elements between horizontal neighbours. */
static int64_t pixel_stride(const sh_tensor_desc *d)
{
    if (d->layout == SH_NCHW) return 1;
    return d->layout == SH_NCHW16C ? 16 : sh_tensor_stored_channels(d);
}

static void unpack(const sh_tensor_desc *d, const void *data, float *dense)
{
    int64_t H = d->dims[2], W = d->dims[3], step = pixel_stride(d);

    for (int64_t n = 0; n < d->dims[0]; n++) {
        for (int64_t c = 0; c < d->dims[1]; c++) {
            for (int64_t h = 0; h < H; h++) {
                int64_t at = sh_tensor_offset(d, n, c, h, 0);
                for (int64_t w = 0; w < W; w++) *dense++ = load(data, d->dtype, at + w * step);
            }
        }
    }
}

static void pack(const sh_tensor_desc *d, const float *dense, void *data)
{
    int64_t H = d->dims[2], W = d->dims[3], step = pixel_stride(d);
    int64_t stored = sh_tensor_stored_channels(d);

    for (int64_t n = 0; n < d->dims[0]; n++) {
        for (int64_t c = 0; c < stored; c++) {
            bool is_padding = c >= d->dims[1];
            for (int64_t h = 0; h < H; h++) {
                int64_t at = sh_tensor_offset(d, n, c, h, 0);
                for (int64_t w = 0; w < W; w++) {
                    store(data, d->dtype, at + w * step, is_padding ? 0.0f : *dense++);
                }
            }
        }
    }
}

void sh_ref_open(const sh_node_desc *desc, const sh_kernel_args *args, sh_ref_view *view)
{
    char *scratch = args->scratch;

    for (int i = 0; i < desc->n_inputs; i++) {
        view->in[i] = args->in[i];
        if (desc->in[i] == NULL || is_dense(desc->in[i])) continue;
        unpack(desc->in[i], args->in[i], (float *)scratch);
        view->in[i] = (const float *)scratch;
        scratch += dense_bytes(desc->in[i]);
    }
    for (int i = 0; i < desc->n_outputs; i++) {
        view->out[i] = args->out[i];
        if (desc->out[i] == NULL || is_dense(desc->out[i])) continue;
        view->out[i] = (float *)scratch;
        scratch += dense_bytes(desc->out[i]);
    }
    view->work = (double *)scratch;
    scratch += work_bytes(desc);
    view->a = (float *)scratch;
    if (has_prologue(desc)) scratch += dense_bytes(desc->in[0]);
    view->dy = (float *)scratch;
}

void sh_ref_close(const sh_node_desc *desc, const sh_kernel_args *args, const sh_ref_view *view)
{
    for (int i = 0; i < desc->n_outputs; i++) {
        if (desc->out[i] == NULL || is_dense(desc->out[i])) continue;
        pack(desc->out[i], view->out[i], args->out[i]);
    }
}
