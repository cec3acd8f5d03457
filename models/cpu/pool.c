// SPDX-License-Identifier: Apache-2.0
/* Pools over windows, and the generalised mean: each slab is one thread's. */
#include "models/cpu/kernels.h"

#include <math.h>
#include <omp.h>

static bool is_backward(const sh_node_desc *d)
{
    return d->op == SH_OP_MAX_POOL_GRAD || d->op == SH_OP_MEAN_POOL_GRAD;
}

static const char *why_not(const sh_node_desc *d)
{
    const sh_tensor_desc *y = d->out[0];

    for (int i = 0; i < d->n_inputs; i++) {
        if (!sh_cpu_is_blocked(d->in[i])) return "not in blocks of 16 channels";
        if (d->in[i]->dtype != y->dtype) return "mixes dtypes";
    }
    return sh_cpu_is_blocked(y) ? NULL : "not in blocks of 16 channels";
}

/** The windows of a node; its large side is x or dx. */
static sh_cpu_window window_of(const sh_node_desc *d)
{
    const sh_tensor_desc *large = is_backward(d) ? d->out[0] : d->in[0];
    const sh_tensor_desc *small = is_backward(d) ? d->in[0] : d->out[0];
    sh_cpu_window win = {.count_padding = d->attrs->count_padding,
                         .stream = sh_cpu_is_large(sh_tensor_bytes(d->out[0])),
                         .dtype = large->dtype};

    for (int i = 0; i < 2; i++) {
        win.side[i] = large->dims[2 + i];
        win.out[i] = small->dims[2 + i];
        win.kernel[i] = d->attrs->kernel[i];
        win.stride[i] = d->attrs->stride[i];
        win.pad[i] = d->attrs->pad[i];
    }
    return win;
}

static size_t ring_bytes(const sh_cpu_window *win)
{
    return sh_cpu_align((size_t)(win->kernel[0] * win->side[1] * 16) * sizeof(float));
}

static sh_status prepare(const sh_node_desc *d, void **state, size_t *scratch_bytes)
{
    sh_cpu_window win = window_of(d);

    (void)state;
    *scratch_bytes = (size_t)sh_cpu_threads() * ring_bytes(&win);
    return SH_OK;
}

static sh_status run(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const sh_cpu_maps *maps = sh_cpu_simd_get()->maps;
    const sh_tensor_desc *y = d->out[0];
    const sh_cpu_window win = window_of(d);
    bool is_max = d->op == SH_OP_MAX_POOL || d->op == SH_OP_MAX_POOL_GRAD;
    size_t pixel = 16 * sh_dtype_size(win.dtype);
    size_t large = (size_t)(win.side[0] * win.side[1]) * pixel;
    size_t small = (size_t)(win.out[0] * win.out[1]) * pixel;

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < y->dims[0] * sh_cpu_blocks(y->dims[1]); i++) {
        if (!is_backward(d)) {
            maps->pool_forward(&win, is_max, (const char *)args->in[0] + (size_t)i * large,
                               (char *)args->out[0] + (size_t)i * small);
            continue;
        }
        const void *x = is_max ? (const char *)args->in[1] + (size_t)i * large : NULL;
        char *ring = (char *)args->scratch + (size_t)omp_get_thread_num() * ring_bytes(&win);
        maps->pool_backward(&win, is_max, x, (const char *)args->in[0] + (size_t)i * small,
                            (char *)args->out[0] + (size_t)i * large, (float *)ring);
    }
    return SH_OK;
}

/* ---- generalised mean ---- */

static const char *why_not_gem(const sh_node_desc *d)
{
    const sh_tensor_desc *map = d->op == SH_OP_GEM_POOL ? d->in[0] : d->in[1];
    const sh_tensor_desc *vector = d->op == SH_OP_GEM_POOL ? d->out[0] : d->in[0];

    if (!sh_cpu_is_blocked(map)) return "not in blocks of 16 channels";
    if (vector->layout != SH_NCHW || vector->dtype != map->dtype) return "changes dtype or layout";
    if (d->op == SH_OP_GEM_POOL_GRAD && !sh_cpu_is_blocked(d->out[0]))
        return "not in blocks of 16 channels";
    return NULL;
}

static sh_status prepare_gem(const sh_node_desc *d, void **state, size_t *scratch_bytes)
{
    const sh_tensor_desc *x = d->in[1];

    (void)state;
    *scratch_bytes = (size_t)(x->dims[0] * sh_cpu_blocks(x->dims[1])) * sizeof(double);
    return SH_OK;
}

static sh_status run_gem(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const sh_cpu_simd *simd = sh_cpu_simd_get();
    const sh_tensor_desc *x = d->in[0];
    int64_t channels = x->dims[1], blocks = sh_cpu_blocks(channels);
    int64_t pixels = x->dims[2] * x->dims[3];
    float p = *(const float *)args->in[1];
    size_t size = sh_dtype_size(x->dtype);

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < x->dims[0] * blocks; i++) {
        int64_t c = i % blocks * 16, n = channels - c < 16 ? channels - c : 16;
        float powers[16], logs[16];
        simd->maps->gem_sums((const char *)args->in[0] + (size_t)(i * pixels * 16) * size, pixels,
                             x->dtype, p, d->attrs->eps, powers, logs);
        for (int k = 0; k < 16; k++)
            powers[k] = (float)pow((double)powers[k] / (double)pixels, 1 / (double)p);
        simd->cast(powers, SH_F32,
                   (char *)args->out[0] + (size_t)(i / blocks * channels + c) * size, x->dtype, n);
    }
    return SH_OK;
}

/** Slab i: dx to `to`; returns its share of dp. */
static double gem_grad_slab(const sh_node_desc *d, const sh_kernel_args *args, int64_t i)
{
    const sh_cpu_simd *simd = sh_cpu_simd_get();
    const sh_tensor_desc *x = d->in[1];
    int64_t channels = x->dims[1], blocks = sh_cpu_blocks(channels);
    int64_t pixels = x->dims[2] * x->dims[3];
    int64_t c = i % blocks * 16, n = channels - c < 16 ? channels - c : 16;
    double p = *(const float *)args->in[2], m = (double)pixels, dp = 0;
    size_t size = sh_dtype_size(x->dtype), slab = (size_t)(i * pixels * 16) * size;
    const char *from = (const char *)args->in[1] + slab;
    float powers[16], logs[16], dy[16] = {0}, factor[16];

    simd->cast((const char *)args->in[0] + (size_t)(i / blocks * channels + c) * size, x->dtype, dy,
               SH_F32, n);
    simd->maps->gem_sums(from, pixels, x->dtype, (float)p, d->attrs->eps, powers, logs);
    for (int k = 0; k < 16; k++) {
        double mean = (double)powers[k] / m, root = pow(mean, 1 / p);
        factor[k] = (float)((double)dy[k] * root / mean / m);
        dp += (double)dy[k] * root / p * ((double)logs[k] / m / mean - log(mean) / p);
    }
    simd->maps->gem_grad(from, pixels, x->dtype, (float)p, d->attrs->eps, factor,
                         (char *)args->out[0] + slab);
    return dp;
}

static sh_status run_gem_grad(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const sh_tensor_desc *x = d->in[1];
    int64_t n_slabs = x->dims[0] * sh_cpu_blocks(x->dims[1]);
    double *shares = args->scratch, sum = 0;

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n_slabs; i++) shares[i] = gem_grad_slab(d, args, i);
    if (!sh_cpu_out(d, 1)) return SH_OK;
    for (int64_t i = 0; i < n_slabs; i++) sum += shares[i];
    *(float *)args->out[1] = (float)sum;
    return SH_OK;
}

const sh_kernel sh_cpu_max_pool = {
    .name = "cpu:max_pool", .op = SH_OP_MAX_POOL, .why_not = why_not, .run = run};
const sh_kernel sh_cpu_mean_pool = {
    .name = "cpu:mean_pool", .op = SH_OP_MEAN_POOL, .why_not = why_not, .run = run};
const sh_kernel sh_cpu_max_pool_grad = {.name = "cpu:max_pool_grad",
                                        .op = SH_OP_MAX_POOL_GRAD,
                                        .why_not = why_not,
                                        .prepare = prepare,
                                        .run = run};
const sh_kernel sh_cpu_mean_pool_grad = {.name = "cpu:mean_pool_grad",
                                         .op = SH_OP_MEAN_POOL_GRAD,
                                         .why_not = why_not,
                                         .prepare = prepare,
                                         .run = run};
const sh_kernel sh_cpu_gem_pool = {
    .name = "cpu:gem_pool", .op = SH_OP_GEM_POOL, .why_not = why_not_gem, .run = run_gem};
const sh_kernel sh_cpu_gem_pool_grad = {.name = "cpu:gem_pool_grad",
                                        .op = SH_OP_GEM_POOL_GRAD,
                                        .why_not = why_not_gem,
                                        .prepare = prepare_gem,
                                        .run = run_gem_grad};
