// SPDX-License-Identifier: Apache-2.0
/** Pooling: over windows, and over whole maps. */
#include <math.h>

#include "models/ref/kernels.h"

/** The part of an image that one output sees: rows [h0, h1), columns [w0, w1). Never empty. */
typedef struct window {
    int64_t h0, h1, w0, w1;
} window;

static void clip(int64_t at, int kernel, int stride, int pad, int64_t side, int64_t *begin,
                 int64_t *end)
{
    *begin = at * stride - pad;
    *end = *begin + kernel;
    if (*begin < 0) *begin = 0;
    if (*end > side) *end = side;
}

static window window_of(const sh_op_attrs *a, const sh_tensor_desc *x, int64_t oh, int64_t ow)
{
    window w;

    clip(oh, a->kernel[0], a->stride[0], a->pad[0], x->dims[2], &w.h0, &w.h1);
    clip(ow, a->kernel[1], a->stride[1], a->pad[1], x->dims[3], &w.w0, &w.w1);
    return w;
}

static bool is_clipped(const sh_op_attrs *a, window w)
{
    return w.h1 - w.h0 < a->kernel[0] || w.w1 - w.w0 < a->kernel[1];
}

/** Position of the first largest element, row-major; -1 where the padding's zeros are as large. */
static int64_t largest(const sh_op_attrs *a, const float *plane, int64_t width, window w)
{
    int64_t best = w.h0 * width + w.w0;

    for (int64_t h = w.h0; h < w.h1; h++) {
        for (int64_t i = h * width + w.w0; i < h * width + w.w1; i++) {
            if (plane[i] > plane[best]) best = i;
        }
    }
    return a->count_padding && is_clipped(a, w) && plane[best] <= 0 ? -1 : best;
}

void sh_ref_max_pool(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    const sh_tensor_desc *x = desc->in[0], *y = desc->out[0];
    float *out = v->out[0];

    (void)scalars;
    for (int64_t plane = 0; plane < x->dims[0] * x->dims[1]; plane++) {
        const float *in = v->in[0] + plane * x->dims[2] * x->dims[3];
        for (int64_t h = 0; h < y->dims[2]; h++) {
            for (int64_t w = 0; w < y->dims[3]; w++) {
                int64_t best =
                    largest(desc->attrs, in, x->dims[3], window_of(desc->attrs, x, h, w));
                *out++ = best < 0 ? 0 : in[best];
            }
        }
    }
}

void sh_ref_max_pool_grad(const sh_node_desc *desc, const sh_ref_view *v,
                          const sh_run_scalars *scalars)
{
    const sh_tensor_desc *x = desc->in[1], *y = desc->in[0];
    int64_t n_pixels = x->dims[2] * x->dims[3];
    const float *dy = v->in[0];
    double *acc = v->work;

    (void)scalars;
    for (int64_t plane = 0; plane < x->dims[0] * x->dims[1]; plane++) {
        const float *in = v->in[1] + plane * n_pixels;
        for (int64_t i = 0; i < n_pixels; i++) acc[i] = 0;
        for (int64_t h = 0; h < y->dims[2]; h++) {
            for (int64_t w = 0; w < y->dims[3]; w++) {
                int64_t best =
                    largest(desc->attrs, in, x->dims[3], window_of(desc->attrs, x, h, w));
                if (best >= 0) acc[best] += *dy;
                dy++;
            }
        }
        for (int64_t i = 0; i < n_pixels; i++) v->out[0][plane * n_pixels + i] = (float)acc[i];
    }
}

/* ---- means ---- */

/** Window i of those that divide the image evenly; they may overlap by a pixel. */
static window even_window(const sh_tensor_desc *x, const sh_tensor_desc *y, int64_t i)
{
    int64_t h = i / y->dims[3], w = i % y->dims[3], n_h = y->dims[2], n_w = y->dims[3];

    return (window){h * x->dims[2] / n_h, ((h + 1) * x->dims[2] + n_h - 1) / n_h,
                    w * x->dims[3] / n_w, ((w + 1) * x->dims[3] + n_w - 1) / n_w};
}

/** What output i of a plane is the mean of: its pixels are divided by *divisor. */
static window mean_window(const sh_node_desc *desc, const sh_tensor_desc *x,
                          const sh_tensor_desc *y, int64_t i, double *divisor)
{
    const sh_op_attrs *a = desc->attrs;
    bool is_even = desc->op == SH_OP_ADAPTIVE_POOL || desc->op == SH_OP_ADAPTIVE_POOL_GRAD;
    window w = is_even ? even_window(x, y, i) : window_of(a, x, i / y->dims[3], i % y->dims[3]);

    *divisor = (double)(!is_even && a->count_padding ? (int64_t)a->kernel[0] * a->kernel[1]
                                                     : (w.h1 - w.h0) * (w.w1 - w.w0));
    return w;
}

void sh_ref_mean_pool(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    const sh_tensor_desc *x = desc->in[0], *y = desc->out[0];
    float *out = v->out[0];

    (void)scalars;
    for (int64_t plane = 0; plane < x->dims[0] * x->dims[1]; plane++) {
        const float *in = v->in[0] + plane * x->dims[2] * x->dims[3];
        for (int64_t i = 0; i < y->dims[2] * y->dims[3]; i++) {
            double sum = 0, divisor;
            window w = mean_window(desc, x, y, i, &divisor);
            for (int64_t h = w.h0; h < w.h1; h++) {
                for (int64_t k = w.w0; k < w.w1; k++) sum += in[h * x->dims[3] + k];
            }
            *out++ = (float)(sum / divisor);
        }
    }
}

void sh_ref_mean_pool_grad(const sh_node_desc *desc, const sh_ref_view *v,
                           const sh_run_scalars *scalars)
{
    const sh_tensor_desc *x = desc->out[0], *y = desc->in[0];
    int64_t n_pixels = x->dims[2] * x->dims[3];
    const float *dy = v->in[0];
    double *acc = v->work;

    (void)scalars;
    for (int64_t plane = 0; plane < x->dims[0] * x->dims[1]; plane++) {
        for (int64_t i = 0; i < n_pixels; i++) acc[i] = 0;
        for (int64_t i = 0; i < y->dims[2] * y->dims[3]; i++) {
            double divisor;
            window w = mean_window(desc, x, y, i, &divisor);
            double g = *dy++ / divisor;
            for (int64_t h = w.h0; h < w.h1; h++) {
                for (int64_t k = w.w0; k < w.w1; k++) acc[h * x->dims[3] + k] += g;
            }
        }
        for (int64_t i = 0; i < n_pixels; i++) v->out[0][plane * n_pixels + i] = (float)acc[i];
    }
}

/* ---- whole maps ---- */

void sh_ref_avg_pool(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    int64_t n_pixels = desc->in[0]->dims[2] * desc->in[0]->dims[3];

    (void)scalars;
    for (int64_t plane = 0; plane < sh_ref_elems(desc->out[0]); plane++) {
        double sum = 0;
        for (int64_t i = 0; i < n_pixels; i++) sum += v->in[0][plane * n_pixels + i];
        v->out[0][plane] = (float)(sum / (double)n_pixels);
    }
}

void sh_ref_avg_pool_grad(const sh_node_desc *desc, const sh_ref_view *v,
                          const sh_run_scalars *scalars)
{
    int64_t n_pixels = desc->out[0]->dims[2] * desc->out[0]->dims[3];

    (void)scalars;
    for (int64_t plane = 0; plane < sh_ref_elems(desc->in[0]); plane++) {
        float g = (float)((double)v->in[0][plane] / (double)n_pixels);
        for (int64_t i = 0; i < n_pixels; i++) v->out[0][plane * n_pixels + i] = g;
    }
}

static double at_least(double x, double eps)
{
    return x > eps ? x : eps;
}

/** Mean of c^p, with c = max(x, eps). */
static double mean_power(const float *x, int64_t n, double p, double eps)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++) sum += pow(at_least(x[i], eps), p);
    return sum / (double)n;
}

void sh_ref_gem_pool(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    int64_t n_pixels = desc->in[0]->dims[2] * desc->in[0]->dims[3];
    double p = v->in[1][0];

    (void)scalars;
    for (int64_t plane = 0; plane < sh_ref_elems(desc->out[0]); plane++) {
        const float *x = v->in[0] + plane * n_pixels;
        v->out[0][plane] = (float)pow(mean_power(x, n_pixels, p, desc->attrs->eps), 1 / p);
    }
}

/* dp of a map: mean(c^p ln c) / S - ln(S) / p = mean(w ln w) / p with w = c^p / S, which does not
 * cancel where all pixels are alike. */
void sh_ref_gem_pool_grad(const sh_node_desc *desc, const sh_ref_view *v,
                          const sh_run_scalars *scalars)
{
    int64_t n_pixels = desc->in[1]->dims[2] * desc->in[1]->dims[3];
    double p = v->in[2][0], eps = desc->attrs->eps, dp = 0;

    (void)scalars;
    for (int64_t plane = 0; plane < sh_ref_elems(desc->in[0]); plane++) {
        const float *x = v->in[1] + plane * n_pixels;
        double mean = mean_power(x, n_pixels, p, eps), y = pow(mean, 1 / p), spread = 0;
        double g = v->in[0][plane] * y / mean / (double)n_pixels;
        for (int64_t i = 0; i < n_pixels; i++) {
            double w = pow(at_least(x[i], eps), p) / mean;
            spread += w > 0 ? w * log(w) : 0;
            double slope = x[i] >= desc->attrs->eps ? pow(at_least(x[i], eps), p - 1) : 0;
            v->out[0][plane * n_pixels + i] = (float)(g * slope);
        }
        dp += v->in[0][plane] * y / p * spread / (double)n_pixels / p;
    }
    if (sh_ref_has_output(desc, 1)) v->out[1][0] = (float)dp;
}
