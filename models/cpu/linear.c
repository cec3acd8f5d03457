// SPDX-License-Identifier: Apache-2.0
/* Linear layers. Each output is one dot product in a fixed order: an image's result does not depend
 * on the batch that it stands in. */
#include "models/cpu/kernels.h"

#include <omp.h>

static const char *why_not(const sh_node_desc *d)
{
    for (int i = 0; i < d->n_inputs; i++)
        if (d->in[i] && d->in[i]->layout != SH_NCHW) return "not row-major";
    return NULL;
}

static const void *row(const void *base, const sh_tensor_desc *d, int64_t n)
{
    return (const char *)base + (size_t)(n * d->dims[1]) * sh_dtype_size(d->dtype);
}

static float element(const void *base, const sh_tensor_desc *d, int64_t n, int64_t c)
{
    int64_t i = n * d->dims[1] + c;

    return d->dtype == SH_BF16 ? sh_bf16_to_f32(((const uint16_t *)base)[i])
                               : ((const float *)base)[i];
}

static sh_status run_forward(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const sh_cpu_simd *simd = sh_cpu_simd_get();
    const sh_tensor_desc *x = d->in[0], *y = d->out[0];
    const float *w = args->in[1], *bias = sh_cpu_arg(d, args, 2);
    int64_t n_in = x->dims[1], n_out = y->dims[1];

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t o = 0; o < n_out; o++) {
        for (int64_t n = 0; n < x->dims[0]; n++) {
            float v = simd->dot(row(args->in[0], x, n), x->dtype, w + o * n_in, n_in);
            if (bias) v += bias[o];
            if (y->dtype == SH_BF16)
                ((uint16_t *)args->out[0])[n * n_out + o] = sh_bf16_from_f32(v);
            else
                ((float *)args->out[0])[n * n_out + o] = v;
        }
    }
    return SH_OK;
}

static sh_status prepare_grad_x(const sh_node_desc *d, void **state, size_t *scratch_bytes)
{
    (void)state;
    *scratch_bytes =
        (size_t)sh_cpu_threads() * sh_cpu_align((size_t)d->out[0]->dims[1] * sizeof(float));
    return SH_OK;
}

static sh_status run_grad_x(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const sh_cpu_simd *simd = sh_cpu_simd_get();
    const sh_tensor_desc *dy = d->in[0], *dx = d->out[0];
    const float *w = args->in[1];
    int64_t n_in = dx->dims[1];
    size_t sum_bytes = sh_cpu_align((size_t)n_in * sizeof(float));

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < dx->dims[0]; n++) {
        float *sum = (float *)((char *)args->scratch + (size_t)omp_get_thread_num() * sum_bytes);
        memset(sum, 0, sum_bytes);
        for (int64_t o = 0; o < dy->dims[1]; o++)
            simd->axpy(element(args->in[0], dy, n, o), w + o * n_in, SH_F32, sum, n_in);
        simd->cast(sum, SH_F32, (void *)row(args->out[0], dx, n), dx->dtype, n_in);
    }
    return SH_OK;
}

static sh_status run_grad_w(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const sh_cpu_simd *simd = sh_cpu_simd_get();
    const sh_tensor_desc *x = d->in[0], *dy = d->in[1];
    float *dw = args->out[0], *dbias = sh_cpu_result(d, args, 1);
    int64_t n_in = x->dims[1];

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t o = 0; o < dy->dims[1]; o++) {
        double sum = 0;
        memset(dw + o * n_in, 0, (size_t)n_in * sizeof(float));
        for (int64_t n = 0; n < x->dims[0]; n++) {
            float g = element(args->in[1], dy, n, o);
            simd->axpy(g, row(args->in[0], x, n), x->dtype, dw + o * n_in, n_in);
            sum += (double)g;
        }
        if (dbias) dbias[o] = (float)sum;
    }
    return SH_OK;
}

const sh_kernel sh_cpu_linear = {
    .name = "cpu:linear", .op = SH_OP_LINEAR, .why_not = why_not, .run = run_forward};
const sh_kernel sh_cpu_linear_grad_x = {.name = "cpu:linear_grad_x",
                                        .op = SH_OP_LINEAR_GRAD_X,
                                        .why_not = why_not,
                                        .prepare = prepare_grad_x,
                                        .run = run_grad_x};
const sh_kernel sh_cpu_linear_grad_w = {
    .name = "cpu:linear_grad_w", .op = SH_OP_LINEAR_GRAD_W, .why_not = why_not, .run = run_grad_w};
