// SPDX-License-Identifier: Apache-2.0
/* Scaling whole channels, per image or per parameter, and scaled sums. */
#include "models/cpu/kernels.h"

enum { PIECE = 1 << 14 }; /* elements that a thread takes at a time */

static const char *why_not(const sh_node_desc *d)
{
    const sh_tensor_desc *x = d->in[0];

    if (!sh_cpu_is_blocked(x)) return "not in blocks of 16 channels";
    if (d->out[0]->layout != x->layout || d->out[0]->dtype != x->dtype)
        return "changes dtype or layout";
    bool is_grad = d->op == SH_OP_MUL_CHANNELS_GRAD || d->op == SH_OP_SCALE_GRAD;
    if (is_grad && (d->in[1]->layout != x->layout || d->in[1]->dtype != x->dtype))
        return "mixes dtypes or layouts";
    return NULL;
}

/* Slab i of x, and what is multiplied with it. */
typedef struct slab {
    size_t at; /* bytes */
    int64_t n, c, channels;
    float scale[16];
} slab;

static slab slab_of(const sh_tensor_desc *x, int64_t i, bool per_image,
                    const sh_tensor_desc *factor, const void *factors)
{
    int64_t blocks = sh_cpu_blocks(x->dims[1]), c = i % blocks * 16;
    slab s = {.at = (size_t)(i * x->dims[2] * x->dims[3] * 16) * sh_dtype_size(x->dtype),
              .n = i / blocks,
              .c = c,
              .channels = x->dims[1] - c < 16 ? x->dims[1] - c : 16};
    int64_t first = (per_image ? s.n * x->dims[1] : 0) + c;

    sh_cpu_simd_get()->cast((const char *)factors + (size_t)first * sh_dtype_size(factor->dtype),
                            factor->dtype, s.scale, SH_F32, s.channels);
    return s;
}

static sh_status run_scale(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const sh_cpu_maps *maps = sh_cpu_simd_get()->maps;
    const sh_tensor_desc *x = d->in[0];
    bool stream = args->in[0] != args->out[0] && sh_cpu_is_large(sh_tensor_bytes(x));

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < x->dims[0] * sh_cpu_blocks(x->dims[1]); i++) {
        slab s = slab_of(x, i, d->op == SH_OP_MUL_CHANNELS, d->in[1], args->in[1]);
        maps->scale_slab((const char *)args->in[0] + s.at, s.scale, (char *)args->out[0] + s.at,
                         x->dims[2] * x->dims[3], x->dtype, stream);
    }
    return SH_OK;
}

static sh_status prepare_grad(const sh_node_desc *d, void **state, size_t *scratch_bytes)
{
    const sh_tensor_desc *x = d->in[0];

    (void)state;
    *scratch_bytes = (size_t)(x->dims[0] * sh_cpu_blocks(x->dims[1]) * 16) * sizeof(float);
    return SH_OK;
}

static sh_status run_scale_grad(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const sh_cpu_simd *simd = sh_cpu_simd_get();
    const sh_tensor_desc *x = d->in[1], *to = sh_cpu_out(d, 1);
    bool stream = args->in[0] != args->out[0] && sh_cpu_is_large(sh_tensor_bytes(x));
    int64_t blocks = sh_cpu_blocks(x->dims[1]);
    float *sums = args->scratch;

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < x->dims[0] * blocks; i++) {
        slab s = slab_of(x, i, d->op == SH_OP_MUL_CHANNELS_GRAD, d->in[2], args->in[2]);
        simd->maps->scale_slab_grad(
            (const char *)args->in[0] + s.at, (const char *)args->in[1] + s.at, s.scale,
            (char *)args->out[0] + s.at, x->dims[2] * x->dims[3], x->dtype, stream, sums + i * 16);
        if (to && d->op == SH_OP_MUL_CHANNELS_GRAD)
            simd->cast(sums + i * 16, SH_F32,
                       (char *)args->out[1] +
                           (size_t)(s.n * x->dims[1] + s.c) * sh_dtype_size(to->dtype),
                       to->dtype, s.channels);
    }
    if (!to || d->op == SH_OP_MUL_CHANNELS_GRAD) return SH_OK;
    for (int64_t c = 0; c < x->dims[1]; c++) {
        double sum = 0;
        for (int64_t n = 0; n < x->dims[0]; n++)
            sum += (double)sums[(n * blocks + c / 16) * 16 + c % 16];
        ((float *)args->out[1])[c] = (float)sum;
    }
    return SH_OK;
}

static const char *why_not_add(const sh_node_desc *d)
{
    const sh_tensor_desc *y = d->out[0];

    for (int i = 0; i < d->n_inputs; i++) {
        if (!d->in[i]) continue;
        if (d->in[i]->layout != y->layout || d->in[i]->dtype != y->dtype)
            return "mixes dtypes or layouts";
    }
    return y->dtype == SH_F32 || y->dtype == SH_BF16 ? NULL : "neither f32 nor bf16";
}

static sh_status run_add_scaled(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const sh_cpu_maps *maps = sh_cpu_simd_get()->maps;
    sh_dtype dtype = d->out[0]->dtype;
    int64_t n = sh_tensor_stored_elems(d->out[0]);
    const char *a = sh_cpu_arg(d, args, 1);
    bool stream = args->in[0] != args->out[0] && sh_cpu_is_large(sh_tensor_bytes(d->out[0]));

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t begin = 0; begin < n; begin += PIECE) {
        size_t at = (size_t)begin * sh_dtype_size(dtype);
        maps->scale_add(d->attrs->scale, (const char *)args->in[0] + at, a ? a + at : NULL,
                        (char *)args->out[0] + at, n - begin < PIECE ? n - begin : PIECE, dtype,
                        stream);
    }
    return SH_OK;
}

const sh_kernel sh_cpu_mul_channels = {
    .name = "cpu:mul_channels", .op = SH_OP_MUL_CHANNELS, .why_not = why_not, .run = run_scale};
const sh_kernel sh_cpu_mul_channels_grad = {.name = "cpu:mul_channels_grad",
                                            .op = SH_OP_MUL_CHANNELS_GRAD,
                                            .why_not = why_not,
                                            .prepare = prepare_grad,
                                            .run = run_scale_grad};
const sh_kernel sh_cpu_scale = {
    .name = "cpu:scale", .op = SH_OP_SCALE, .why_not = why_not, .run = run_scale};
const sh_kernel sh_cpu_scale_grad = {.name = "cpu:scale_grad",
                                     .op = SH_OP_SCALE_GRAD,
                                     .why_not = why_not,
                                     .prepare = prepare_grad,
                                     .run = run_scale_grad};
const sh_kernel sh_cpu_add_scaled = {.name = "cpu:add_scaled",
                                     .op = SH_OP_ADD_SCALED,
                                     .why_not = why_not_add,
                                     .run = run_add_scaled};
