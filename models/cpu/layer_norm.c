// SPDX-License-Identifier: Apache-2.0
/* Layer norm: images, or runs of their pixels, are dealt out; gradients of the parameters are
 * summed per image, and then over images in their order. */
#include "models/cpu/kernels.h"

enum { RUN = 32 }; /* pixels that a thread takes at a time going forward */

static const char *why_not(const sh_node_desc *d)
{
    const sh_tensor_desc *y = d->out[0];

    if (!sh_cpu_is_blocked(y)) return "not in blocks of 16 channels";
    for (int i = 0; i < (d->op == SH_OP_LAYER_NORM ? 1 : 2); i++) {
        if (d->in[i]->layout != y->layout || d->in[i]->dtype != y->dtype)
            return "mixes dtypes or layouts";
    }
    return NULL;
}

static sh_cpu_layer_norm norm_of(const sh_node_desc *d)
{
    const sh_tensor_desc *x = d->out[0];

    return (sh_cpu_layer_norm){.n_channels = x->dims[1],
                               .n_blocks = sh_cpu_blocks(x->dims[1]),
                               .pixels = x->dims[2] * x->dims[3],
                               .eps = d->attrs->eps,
                               .dtype = x->dtype};
}

/** A vector of C floats, with zeros to whole blocks. */
static float *padded(const sh_cpu_layer_norm *ln, const void *vector, float *to)
{
    memset(to, 0, (size_t)(ln->n_blocks * 16) * sizeof(float));
    memcpy(to, vector, (size_t)ln->n_channels * sizeof(float));
    return to;
}

static sh_status prepare(const sh_node_desc *d, void **state, size_t *scratch_bytes)
{
    sh_cpu_layer_norm ln = norm_of(d);
    int64_t vectors = d->op == SH_OP_LAYER_NORM ? 2 : 1 + 2 * d->out[0]->dims[0];

    (void)state;
    *scratch_bytes = (size_t)(vectors * ln.n_blocks * 16) * sizeof(float);
    return SH_OK;
}

static sh_status run(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const sh_cpu_maps *maps = sh_cpu_simd_get()->maps;
    sh_cpu_layer_norm ln = norm_of(d);
    int64_t n_images = d->out[0]->dims[0], runs = (ln.pixels + RUN - 1) / RUN;
    size_t image = sh_tensor_bytes(d->out[0]) / (size_t)n_images;
    float *scratch = args->scratch;
    const float *gamma = padded(&ln, args->in[1], scratch);
    const float *beta = padded(&ln, args->in[2], scratch + ln.n_blocks * 16);

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n_images * runs; i++) {
        int64_t begin = i % runs * RUN, end = begin + RUN < ln.pixels ? begin + RUN : ln.pixels;
        size_t at = (size_t)(i / runs) * image;
        maps->layer_norm(&ln, (const char *)args->in[0] + at, gamma, beta,
                         (char *)args->out[0] + at, begin, end);
    }
    return SH_OK;
}

/** Sum over images of vectors that lie `stride` apart. */
static void sum_vectors(const float *v, int64_t n, int64_t stride, int64_t n_channels, float *sum)
{
    for (int64_t c = 0; c < n_channels; c++) {
        double s = 0;
        for (int64_t i = 0; i < n; i++) s += (double)v[i * stride + c];
        sum[c] = (float)s;
    }
}

static sh_status run_grad(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const sh_cpu_maps *maps = sh_cpu_simd_get()->maps;
    sh_cpu_layer_norm ln = norm_of(d);
    int64_t n_images = d->out[0]->dims[0], vector = ln.n_blocks * 16;
    size_t image = sh_tensor_bytes(d->out[0]) / (size_t)n_images;
    const float *gamma = padded(&ln, args->in[2], args->scratch);
    float *records = (float *)args->scratch + vector;

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < n_images; n++) {
        float *sums = records + n * 2 * vector;
        memset(sums, 0, (size_t)(2 * vector) * sizeof(float));
        maps->layer_norm_grad(&ln, (const char *)args->in[0] + (size_t)n * image,
                              (const char *)args->in[1] + (size_t)n * image, gamma,
                              (char *)args->out[0] + (size_t)n * image, sums, sums + vector);
    }
    for (int k = 0; k < 2; k++)
        if (sh_cpu_out(d, 1 + k))
            sum_vectors(records + k * vector, n_images, 2 * vector, ln.n_channels,
                        args->out[1 + k]);
    return SH_OK;
}

const sh_kernel sh_cpu_layer_norm_kernel = {.name = "cpu:layer_norm",
                                            .op = SH_OP_LAYER_NORM,
                                            .why_not = why_not,
                                            .prepare = prepare,
                                            .run = run};
const sh_kernel sh_cpu_layer_norm_grad_kernel = {.name = "cpu:layer_norm_grad",
                                                 .op = SH_OP_LAYER_NORM_GRAD,
                                                 .why_not = why_not,
                                                 .prepare = prepare,
                                                 .run = run_grad};
