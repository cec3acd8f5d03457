// SPDX-License-Identifier: Apache-2.0
/* Elementwise ops over flat arrays, and global pooling. */
#include "models/cpu/kernels.h"

enum { PIECE = 1 << 15 }; /* elements that a thread takes at a time */

static const char *why_not(const sh_node_desc *d)
{
    const sh_tensor_desc *y = d->out[0];

    for (int i = 0; i < d->n_inputs; i++) {
        if (d->in[i]->layout != y->layout) return "changes the layout";
        if (d->op != SH_OP_CAST && d->in[i]->dtype != y->dtype) return "mixes dtypes";
        if (d->in[i]->dtype != SH_F32 && d->in[i]->dtype != SH_BF16) return "neither f32 nor bf16";
    }
    if (d->op == SH_OP_ACT && y->layout == SH_NCHW16C && y->dims[1] % 16 != 0 &&
        (d->attrs->act == SH_ACT_SIGMOID || d->attrs->act == SH_ACT_HARD_SIGMOID))
        return "the activation of 0 would fill the padding channels";
    return NULL;
}

#define PIECES(n) (((n) + PIECE - 1) / PIECE)

static sh_status run_map(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const sh_cpu_simd *simd = sh_cpu_simd_get();
    const sh_tensor_desc *y = d->out[0];
    sh_dtype from = d->in[0]->dtype, to = y->dtype;
    int64_t n = sh_tensor_stored_elems(y);

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t piece = 0; piece < PIECES(n); piece++) {
        int64_t at = piece * PIECE, left = n - at < PIECE ? n - at : PIECE;
        const char *a = (const char *)args->in[0] + (size_t)at * sh_dtype_size(from);
        const char *b =
            d->n_inputs > 1 ? (const char *)args->in[1] + (size_t)at * sh_dtype_size(from) : NULL;
        char *out = (char *)args->out[0] + (size_t)at * sh_dtype_size(to);
        switch (d->op) {
        case SH_OP_ADD: simd->add(a, b, out, left, to); break;
        case SH_OP_ACT: simd->act(a, out, left, to, (int)d->attrs->act); break;
        case SH_OP_ACT_GRAD: simd->act_grad(a, b, out, left, to, (int)d->attrs->act); break;
        default: simd->cast(a, from, out, to, left); break;
        }
    }
    return SH_OK;
}

/* ---- global average ---- */

static const char *why_not_pool(const sh_node_desc *d)
{
    const sh_tensor_desc *map = d->op == SH_OP_AVG_POOL ? d->in[0] : d->out[0];
    const sh_tensor_desc *vector = d->op == SH_OP_AVG_POOL ? d->out[0] : d->in[0];

    if (!sh_cpu_is_blocked(map)) return "not in blocks of 16 channels";
    if (vector->layout != SH_NCHW || vector->dtype != map->dtype) return "changes dtype or layout";
    return NULL;
}

static sh_status run_pool(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const sh_cpu_simd *simd = sh_cpu_simd_get();
    bool forward = d->op == SH_OP_AVG_POOL;
    const sh_tensor_desc *map = forward ? d->in[0] : d->out[0];
    int64_t n_channels = map->dims[1], blocks = sh_cpu_blocks(n_channels);
    int64_t pixels = map->dims[2] * map->dims[3];
    size_t size = sh_dtype_size(map->dtype), slab_bytes = (size_t)pixels * 16 * size;
    const char *in = args->in[0];
    char *out = args->out[0];

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < map->dims[0] * blocks; i++) {
        int64_t c = i % blocks * 16, n = n_channels - c < 16 ? n_channels - c : 16;
        size_t vector = (size_t)(i / blocks * n_channels + c) * size;
        float value[16] = {0};
        if (forward) {
            simd->pool(in + (size_t)i * slab_bytes, pixels, map->dtype, value);
            for (int k = 0; k < 16; k++) value[k] /= (float)pixels;
            simd->cast(value, SH_F32, out + vector, map->dtype, n);
        } else {
            simd->cast(in + vector, map->dtype, value, SH_F32, n);
            for (int k = 0; k < 16; k++) value[k] /= (float)pixels;
            simd->fill(value, out + (size_t)i * slab_bytes, pixels, map->dtype);
        }
    }
    return SH_OK;
}

#define MAP(kernel_op, label)                                                                      \
    {                                                                                              \
        .name = "cpu:" label, .op = kernel_op, .why_not = why_not, .run = run_map                  \
    }
const sh_kernel sh_cpu_act = MAP(SH_OP_ACT, "act");
const sh_kernel sh_cpu_act_grad = MAP(SH_OP_ACT_GRAD, "act_grad");
const sh_kernel sh_cpu_add = MAP(SH_OP_ADD, "add");
const sh_kernel sh_cpu_cast = MAP(SH_OP_CAST, "cast");
const sh_kernel sh_cpu_avg_pool = {
    .name = "cpu:avg_pool", .op = SH_OP_AVG_POOL, .why_not = why_not_pool, .run = run_pool};
const sh_kernel sh_cpu_avg_pool_grad = {.name = "cpu:avg_pool_grad",
                                        .op = SH_OP_AVG_POOL_GRAD,
                                        .why_not = why_not_pool,
                                        .run = run_pool};
