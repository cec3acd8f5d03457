// SPDX-License-Identifier: Apache-2.0
/* Depthwise convolutions, slab by slab, with batch norm fused on both sides: see simd/depthwise.c.
 * Weight gradients are kept per image and added in image order, so that they do not depend on the
 * number of threads. */
#include "models/cpu/conv.h"

#include <omp.h>
#include <stdlib.h>

typedef struct plan {
    const sh_cpu_simd *simd;
    sh_cpu_conv conv;
    sh_cpu_dw dw;
    int64_t n_images, n_blocks, n_taps;
    int n_threads;
    size_t packed_bytes; /* weights as the kernels read them */
    size_t bias_at, norms_at, records_at, dw_at, threads_at, thread_bytes;
} plan;

static const char *why_not(const sh_node_desc *d)
{
    sh_cpu_conv c = sh_cpu_conv_of(d);
    int64_t side = c.w->dims[2];

    if (c.attrs->groups == 1 || c.attrs->groups != c.x->dims[1] || c.w->dims[0] != c.x->dims[1])
        return "not depthwise";
    if (side != c.w->dims[3] || (side != 3 && side != 5)) return "the kernel is not 3x3 or 5x5";
    if (c.attrs->stride[0] > 8 || c.attrs->stride[1] > 8) return "the stride is above 8";
    if (c.wants_dbias) return "has a bias";
    if (c.has_residual) return "adds a residual";
    if (c.wants_stats && sh_cpu_in(d, SH_CONV_BIAS)) return "statistics beside a bias";
    return sh_cpu_conv_why_not(&c);
}

static sh_status prepare(const sh_node_desc *d, void **state, size_t *scratch_bytes)
{
    sh_status st = SH_OK;
    plan *p = calloc(1, sizeof(*p));
    size_t at = 0;

    SH_CHECK(p != NULL, SH_ERR_NO_MEMORY, "depthwise convolution");
    p->simd = sh_cpu_simd_get();
    p->conv = sh_cpu_conv_of(d);
    const sh_op_attrs *a = d->attrs;
    const int64_t *x = p->conv.x->dims, *y = p->conv.y->dims, *w = p->conv.w->dims;
    const sh_tensor_desc *result = d->op == SH_OP_CONV ? p->conv.y : p->conv.x;
    p->dw = (sh_cpu_dw){.dtype = p->conv.x->dtype,
                        .h = x[2],
                        .w = x[3],
                        .oh = y[2],
                        .ow = y[3],
                        .kh = (int)w[2],
                        .kw = (int)w[3],
                        .stride = {a->stride[0], a->stride[1]},
                        .dilation = {a->dilation[0], a->dilation[1]},
                        .pad = {a->pad[0], a->pad[1]},
                        .stream = sh_cpu_is_large(sh_tensor_bytes(result))};
    p->n_images = x[0];
    p->n_blocks = sh_cpu_blocks(x[1]);
    p->n_taps = w[2] * w[3];
    p->n_threads = sh_cpu_threads();
    size_t taps = (size_t)(p->n_blocks * p->n_taps) * 16 * sizeof(float);
    size_t records = (size_t)(p->n_images * p->n_blocks);
    p->thread_bytes = sh_cpu_align((size_t)p->simd->dw_rows(&p->dw) * sizeof(float));
    p->packed_bytes = p->conv.wants_dx || !p->conv.wants_dw ? taps : 0;
    p->bias_at = sh_cpu_take(&at, (size_t)p->n_blocks * 16 * sizeof(float));
    p->norms_at = sh_cpu_take(&at, sh_cpu_conv_norm_bytes(&p->conv));
    p->records_at = sh_cpu_take(&at, records * sizeof(sh_cpu_moments));
    p->dw_at = sh_cpu_take(&at, p->conv.wants_dw ? (size_t)p->n_images * taps : 0);
    p->threads_at = sh_cpu_take(&at, (size_t)p->n_threads * p->thread_bytes);
    *scratch_bytes = at;
    *state = p;
out:
    return st;
}

typedef struct run {
    const plan *p;
    sh_cpu_conv_data data;
    sh_cpu_conv_norms norms;
    char *scratch;
    const float *weights, *bias; /* bias: [16 n_blocks], or NULL */
    float *dweights;
} run;

static size_t packed_bytes(const void *state)
{
    return ((const plan *)state)->packed_bytes;
}

/** Weights [C][taps] to [block][tap][16]. */
static sh_status pack(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const plan *p = state;
    const float *w = sh_cpu_conv_locate(d, args).w;
    float *packed = args->packed;
    int64_t n_channels = p->conv.x->dims[1];

    for (int64_t c = 0; c < p->n_blocks * 16; c++)
        for (int64_t k = 0; k < p->n_taps; k++)
            packed[(c / 16 * p->n_taps + k) * 16 + c % 16] =
                c < n_channels ? w[c * p->n_taps + k] : 0;
    return SH_OK;
}

static run start(const sh_node_desc *d, const plan *p, const sh_kernel_args *args)
{
    run r = {.p = p, .data = sh_cpu_conv_locate(d, args), .scratch = args->scratch};

    r.norms = sh_cpu_conv_norms_make(&p->conv, &r.data, r.scratch + p->norms_at);
    r.weights = args->packed;
    r.dweights = (float *)(r.scratch + p->dw_at);
    r.bias = sh_cpu_conv_pad_bias(&p->conv, r.data.bias, (float *)(r.scratch + p->bias_at));
    return r;
}

static char *slab(const plan *p, const void *base, int64_t i, int64_t pixels)
{
    return (char *)base + (size_t)(i * pixels * 16) * sh_dtype_size(p->dw.dtype);
}

static sh_status run_forward(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const plan *p = state;
    run r = start(d, p, args);
    sh_cpu_moments *records = (sh_cpu_moments *)(r.scratch + p->records_at);

#pragma omp parallel for schedule(static) num_threads(p->n_threads)
    for (int64_t i = 0; i < p->n_images * p->n_blocks; i++) {
        sh_cpu_dw dw = p->dw;
        int64_t block = i % p->n_blocks;
        size_t at = p->threads_at + (size_t)omp_get_thread_num() * p->thread_bytes;
        dw.norm = sh_cpu_norm_block(&r.norms.x, block);
        dw.finish = sh_cpu_conv_finish(&p->conv, r.bias ? r.bias + block * 16 : NULL, NULL);
        records[i].count = 0;
        p->simd->dw_forward(&dw, slab(p, r.data.x, i, dw.h * dw.w),
                            r.weights + block * p->n_taps * 16,
                            slab(p, r.data.out_y, i, dw.oh * dw.ow),
                            p->conv.wants_stats ? &records[i] : NULL, (float *)(r.scratch + at));
    }
    if (p->conv.wants_stats)
        sh_cpu_finish_moments(records, p->n_images, p->conv.y->dims[1], r.data.mean, r.data.var);
    return SH_OK;
}

static void backward_slab(const run *r, int64_t i, float *rows)
{
    const plan *p = r->p;
    sh_cpu_dw dw = p->dw;
    int64_t block = i % p->n_blocks;
    sh_cpu_grad_sums *sums = (sh_cpu_grad_sums *)(r->scratch + p->records_at) + i;
    float *dweights = p->conv.wants_dw ? r->dweights + i * p->n_taps * 16 : NULL;
    const char *x = r->data.x ? slab(p, r->data.x, i, dw.h * dw.w) : NULL;
    const char *g = slab(p, r->data.dy, i, dw.oh * dw.ow);
    sh_cpu_bn_grad grad = {.a = NULL};

    dw.norm = sh_cpu_norm_block(&r->norms.x, block);
    if (p->conv.has_grad) grad = sh_cpu_grad_block(&r->norms.y, block);
    if (dweights) memset(dweights, 0, (size_t)p->n_taps * 16 * sizeof(float));
    memset(sums, 0, sizeof(*sums));
    p->simd->dw_backward(&dw, g, p->conv.has_grad ? slab(p, r->data.y, i, dw.oh * dw.ow) : g,
                         p->conv.has_grad ? &grad : NULL, x, r->weights + block * p->n_taps * 16,
                         dweights, p->conv.wants_dx ? slab(p, r->data.dx, i, dw.h * dw.w) : NULL,
                         p->conv.has_sums ? r->norms.x.mean + block * 16 : NULL,
                         p->conv.has_sums ? sums : NULL, rows);
}

/** dw[c][tap]: the images' sums, in order. */
static void finish_dw(const run *r)
{
    const plan *p = r->p;
    int64_t n = p->n_blocks * p->n_taps * 16;

#pragma omp parallel for schedule(static)
    for (int64_t c = 0; c < p->conv.x->dims[1]; c++) {
        for (int64_t k = 0; k < p->n_taps; k++) {
            const float *from = r->dweights + (c / 16 * p->n_taps + k) * 16 + c % 16;
            double sum = 0;
            for (int64_t i = 0; i < p->n_images; i++) sum += (double)from[i * n];
            r->data.dw[c * p->n_taps + k] = (float)sum;
        }
    }
}

static sh_status run_backward(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const plan *p = state;
    run r = start(d, p, args);

#pragma omp parallel for schedule(static) num_threads(p->n_threads)
    for (int64_t i = 0; i < p->n_images * p->n_blocks; i++) {
        size_t at = p->threads_at + (size_t)omp_get_thread_num() * p->thread_bytes;
        backward_slab(&r, i, (float *)(r.scratch + at));
    }
    if (p->conv.wants_dw) finish_dw(&r);
    if (p->conv.has_sums)
        sh_cpu_finish_sums((sh_cpu_grad_sums *)(r.scratch + p->records_at), p->n_images,
                           p->conv.x->dims[1], r.data.x_var, d->attrs->eps, r.data.dgamma,
                           r.data.dbeta);
    return SH_OK;
}

#define DEPTHWISE(kernel_op, function)                                                             \
    {                                                                                              \
        .name = "cpu:depthwise", .op = kernel_op, .why_not = why_not, .prepare = prepare,          \
        .packed_bytes = packed_bytes, .pack = pack, .run = function, .release = free               \
    }
const sh_kernel sh_cpu_conv_depthwise = DEPTHWISE(SH_OP_CONV, run_forward);
const sh_kernel sh_cpu_conv_grad_x_depthwise = DEPTHWISE(SH_OP_CONV_GRAD_X, run_backward);
const sh_kernel sh_cpu_conv_grad_w_depthwise = DEPTHWISE(SH_OP_CONV_GRAD_W, run_backward);
const sh_kernel sh_cpu_conv_grad_depthwise = DEPTHWISE(SH_OP_CONV_GRAD, run_backward);
