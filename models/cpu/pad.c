// SPDX-License-Identifier: Apache-2.0
/* Reflection padding, row by row of each slab. */
#include "models/cpu/kernels.h"

#include <omp.h>

/** Position in 0 .. n - 1 that lies at `i` (which may be outside) when the edge is a mirror. */
static int64_t mirror(int64_t i, int64_t n)
{
    if (i < 0) return -i;
    return i < n ? i : 2 * (n - 1) - i;
}

static const char *why_not(const sh_node_desc *d)
{
    const sh_tensor_desc *x = d->in[0], *y = d->out[0];

    if (!sh_cpu_is_blocked(d->op == SH_OP_REFLECT_PAD ? y : x))
        return "not in blocks of 16 channels";
    if (x->dtype != y->dtype) return "changes dtype";
    if (x->layout != y->layout && (x->layout != SH_NCHW || d->op != SH_OP_REFLECT_PAD))
        return "changes the layout";
    return NULL;
}

/* Row-major images come in as a slab of few channels; that slab is made in scratch first. */
static sh_status prepare(const sh_node_desc *d, void **state, size_t *scratch_bytes)
{
    const sh_tensor_desc *x = d->in[0], *y = d->out[0];
    bool rows = x->layout == SH_NCHW;
    int64_t row = y->dims[3] * 16; /* of sums */
    size_t slab = rows ? (size_t)(x->dims[2] * x->dims[3] * 16) * sh_dtype_size(x->dtype)
                       : (size_t)row * sizeof(float);

    (void)state;
    *scratch_bytes = (size_t)sh_cpu_threads() * sh_cpu_align(slab);
    return SH_OK;
}

static void *mine(const sh_node_desc *d, const sh_kernel_args *args)
{
    size_t n_bytes = 0;
    void *none = NULL;

    (void)prepare(d, &none, &n_bytes);
    return (char *)args->scratch +
           n_bytes / (size_t)sh_cpu_threads() * (size_t)omp_get_thread_num();
}

/** One row with its ends mirrored. */
static void pad_row(const char *x, int64_t w, int left, int right, size_t pixel, char *y)
{
    for (int64_t i = -left; i < 0; i++, y += pixel) memcpy(y, x + (size_t)-i * pixel, pixel);
    memcpy(y, x, (size_t)w * pixel);
    y += (size_t)w * pixel;
    for (int64_t i = w; i < w + right; i++, y += pixel)
        memcpy(y, x + (size_t)mirror(i, w) * pixel, pixel);
}

static sh_status run_pad(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const sh_cpu_maps *maps = sh_cpu_simd_get()->maps;
    const sh_tensor_desc *x = d->in[0];
    const int64_t *out = d->out[0]->dims;
    const int *pad = d->attrs->pad;
    int64_t blocks = sh_cpu_blocks(x->dims[1]), h = x->dims[2], w = x->dims[3];
    size_t size = sh_dtype_size(x->dtype), pixel = 16 * size;

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < out[0] * blocks; i++) {
        int64_t c = i % blocks * 16, n = x->dims[1] - c < 16 ? x->dims[1] - c : 16;
        const char *from = (const char *)args->in[0] + (size_t)(i * h * w) * pixel;
        char *to = (char *)args->out[0] + (size_t)(i * out[2] * out[3]) * pixel;
        if (x->layout == SH_NCHW) {
            char *slab = mine(d, args);
            from =
                (const char *)args->in[0] + (size_t)((i / blocks * x->dims[1] + c) * h * w) * size;
            maps->slab_from_rows(from, x->dtype, h * w, (int)n, slab, x->dtype);
            from = slab;
        }
        for (int64_t oy = 0; oy < out[2]; oy++) {
            int64_t y = mirror(oy - pad[0], h);
            pad_row(from + (size_t)(y * w) * pixel, w, pad[1], pad[3], pixel,
                    to + (size_t)(oy * out[3]) * pixel);
        }
    }
    return SH_OK;
}

/** sum[w] += a row of the padded gradient, its ends folded back. */
static void fold_row(const sh_cpu_simd *simd, const char *dy, int64_t w, int left, int right,
                     sh_dtype dtype, float *sum)
{
    size_t pixel = 16 * sh_dtype_size(dtype);

    simd->axpy(1, dy + (size_t)left * pixel, dtype, sum, w * 16);
    for (int64_t i = 1; i <= left; i++)
        simd->axpy(1, dy + (size_t)(left - i) * pixel, dtype, sum + i * 16, 16);
    for (int64_t i = w; i < w + right; i++)
        simd->axpy(1, dy + (size_t)(i + left) * pixel, dtype, sum + mirror(i, w) * 16, 16);
}

static sh_status run_grad(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const sh_cpu_simd *simd = sh_cpu_simd_get();
    const sh_tensor_desc *dx = d->out[0];
    const int64_t *padded = d->in[0]->dims;
    const int *pad = d->attrs->pad;
    int64_t h = dx->dims[2], w = dx->dims[3];
    size_t pixel = 16 * sh_dtype_size(dx->dtype);

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < dx->dims[0] * sh_cpu_blocks(dx->dims[1]); i++) {
        const char *from = (const char *)args->in[0] + (size_t)(i * padded[2] * padded[3]) * pixel;
        char *to = (char *)args->out[0] + (size_t)(i * h * w) * pixel;
        float *sum = mine(d, args);
        for (int64_t y = 0; y < h; y++) {
            memset(sum, 0, (size_t)(w * 16) * sizeof(float));
            /* Itself, and the rows above and below that mirror it. */
            const int64_t rows[3] = {y, -y, 2 * (h - 1) - y};
            for (int k = 0; k < 3; k++) {
                bool outside = k == 1 ? y == 0 || y > pad[0] : y == h - 1 || rows[2] >= h + pad[2];
                if (k > 0 && outside) continue;
                fold_row(simd, from + (size_t)((rows[k] + pad[0]) * padded[3]) * pixel, w, pad[1],
                         pad[3], dx->dtype, sum);
            }
            simd->cast(sum, SH_F32, to + (size_t)(y * w) * pixel, dx->dtype, w * 16);
        }
    }
    return SH_OK;
}

const sh_kernel sh_cpu_reflect_pad = {.name = "cpu:reflect_pad",
                                      .op = SH_OP_REFLECT_PAD,
                                      .why_not = why_not,
                                      .prepare = prepare,
                                      .run = run_pad};
const sh_kernel sh_cpu_reflect_pad_grad = {.name = "cpu:reflect_pad_grad",
                                           .op = SH_OP_REFLECT_PAD_GRAD,
                                           .why_not = why_not,
                                           .prepare = prepare,
                                           .run = run_grad};
