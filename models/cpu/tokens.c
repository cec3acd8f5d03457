// SPDX-License-Identifier: Apache-2.0
/* Patches to tokens, and one token out of many. */
#include "models/cpu/kernels.h"

enum { RUN = 64 }; /* tokens whose sums over images a thread takes at a time */

static const char *why_not(const sh_node_desc *d)
{
    const sh_tensor_desc *x = d->in[0], *y = d->out[0];

    if (!sh_cpu_is_blocked(x) || !sh_cpu_is_blocked(y)) return "not in blocks of 16 channels";
    return x->dtype == y->dtype ? NULL : "changes dtype";
}

/* Where slab i of a tensor begins, and its channels. */
static size_t slab_at(const sh_tensor_desc *d, int64_t i)
{
    return (size_t)(i * d->dims[2] * d->dims[3] * 16) * sh_dtype_size(d->dtype);
}

static int channels_at(const sh_tensor_desc *d, int64_t i)
{
    int64_t c = i % sh_cpu_blocks(d->dims[1]) * 16;

    return (int)(d->dims[1] - c < 16 ? d->dims[1] - c : 16);
}

static int64_t n_slabs(const sh_tensor_desc *d)
{
    return d->dims[0] * sh_cpu_blocks(d->dims[1]);
}

static sh_status run(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const sh_cpu_maps *maps = sh_cpu_simd_get()->maps;
    const sh_tensor_desc *x = d->in[0], *y = d->out[0];
    int64_t blocks = sh_cpu_blocks(x->dims[1]);

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n_slabs(x); i++) {
        int64_t c = i % blocks * 16;
        maps->tokens((const char *)args->in[0] + slab_at(x, i), (const float *)args->in[1] + c,
                     (const float *)args->in[2] + c, x->dims[1], x->dims[2] * x->dims[3],
                     channels_at(x, i), (char *)args->out[0] + slab_at(y, i), x->dtype);
    }
    return SH_OK;
}

/** Sums over images of a run of tokens in block b, to the position's and the class token's
 *  gradients. */
static void sum_run(const sh_node_desc *d, const sh_kernel_args *args, int64_t b, int64_t begin)
{
    const sh_cpu_maps *maps = sh_cpu_simd_get()->maps;
    const sh_tensor_desc *dy = d->in[0];
    int64_t tokens = dy->dims[2], channels = dy->dims[1], left = tokens - begin;
    int64_t image = sh_cpu_blocks(channels) * tokens * 16;
    float *dcls = sh_cpu_result(d, args, 1), *dpos = sh_cpu_result(d, args, 2);
    const char *from = (const char *)args->in[0] + slab_at(dy, b) +
                       (size_t)(begin * 16) * sh_dtype_size(dy->dtype);

    if (dpos)
        maps->sum_images(from, dy->dims[0], image, left < RUN ? left : RUN, dy->dtype,
                         channels_at(dy, b), dpos + begin * channels + b * 16, channels);
    if (dcls && begin == 0)
        maps->sum_images(from, dy->dims[0], image, 1, dy->dtype, channels_at(dy, b), dcls + b * 16,
                         channels);
}

static sh_status run_grad(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const sh_tensor_desc *dy = d->in[0], *dx = d->out[0];
    size_t pixel = 16 * sh_dtype_size(dx->dtype);
    int64_t runs = (dy->dims[2] + RUN - 1) / RUN;

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n_slabs(dx); i++)
        memcpy((char *)args->out[0] + slab_at(dx, i),
               (const char *)args->in[0] + slab_at(dy, i) + pixel,
               (size_t)(dx->dims[2] * dx->dims[3]) * pixel);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < sh_cpu_blocks(dx->dims[1]) * runs; i++)
        sum_run(d, args, i / runs, i % runs * RUN);
    return SH_OK;
}

/* ---- one token ---- */

static const char *why_not_take(const sh_node_desc *d)
{
    const sh_tensor_desc *map = d->op == SH_OP_TAKE_TOKEN ? d->in[0] : d->out[0];
    const sh_tensor_desc *vector = d->op == SH_OP_TAKE_TOKEN ? d->out[0] : d->in[0];

    if (!sh_cpu_is_blocked(map)) return "not in blocks of 16 channels";
    if (vector->layout != SH_NCHW || vector->dtype != map->dtype) return "changes dtype or layout";
    return NULL;
}

static sh_status run_take(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    bool forward = d->op == SH_OP_TAKE_TOKEN;
    const sh_tensor_desc *map = forward ? d->in[0] : d->out[0];
    size_t size = sh_dtype_size(map->dtype), token = (size_t)(d->attrs->index * 16) * size;
    int64_t blocks = sh_cpu_blocks(map->dims[1]);

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n_slabs(map); i++) {
        size_t vector = (size_t)(i / blocks * map->dims[1] + i % blocks * 16) * size;
        size_t n_bytes = (size_t)channels_at(map, i) * size;
        if (forward) {
            memcpy((char *)args->out[0] + vector,
                   (const char *)args->in[0] + slab_at(map, i) + token, n_bytes);
            continue;
        }
        char *slab = (char *)args->out[0] + slab_at(map, i);
        memset(slab, 0, (size_t)(map->dims[2] * map->dims[3] * 16) * size);
        memcpy(slab + token, (const char *)args->in[0] + vector, n_bytes);
    }
    return SH_OK;
}

const sh_kernel sh_cpu_tokens = {
    .name = "cpu:tokens", .op = SH_OP_TOKENS, .why_not = why_not, .run = run};
const sh_kernel sh_cpu_tokens_grad = {
    .name = "cpu:tokens_grad", .op = SH_OP_TOKENS_GRAD, .why_not = why_not, .run = run_grad};
const sh_kernel sh_cpu_take_token = {
    .name = "cpu:take_token", .op = SH_OP_TAKE_TOKEN, .why_not = why_not_take, .run = run_take};
const sh_kernel sh_cpu_take_token_grad = {.name = "cpu:take_token_grad",
                                          .op = SH_OP_TAKE_TOKEN_GRAD,
                                          .why_not = why_not_take,
                                          .run = run_take};
