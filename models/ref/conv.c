// SPDX-License-Identifier: Apache-2.0
/** Convolution and linear layers: one output plane at a time, accumulated in double. */
#include "models/ref/kernels.h"

/** Sizes of a convolution y[N,O,OH,OW] = x[N,C,H,W] * w[O,C/groups,KH,KW]. */
typedef struct geometry {
    int64_t N, C, H, W, O, OH, OW, KH, KW;
    int64_t in_group, out_group; /* channels per group */
    const sh_op_attrs *attrs;
} geometry;

static geometry geometry_of(const sh_tensor_desc *x, const sh_tensor_desc *w,
                            const sh_tensor_desc *y, const sh_op_attrs *attrs)
{
    return (geometry){.N = x->dims[0],
                      .C = x->dims[1],
                      .H = x->dims[2],
                      .W = x->dims[3],
                      .O = y->dims[1],
                      .OH = y->dims[2],
                      .OW = y->dims[3],
                      .KH = w->dims[2],
                      .KW = w->dims[3],
                      .in_group = w->dims[1],
                      .out_group = y->dims[1] / attrs->groups,
                      .attrs = attrs};
}

/** Outputs along one side whose tap lies inside the input: [*begin, *end), and the input position
 *  of output 0. */
static int64_t valid_range(int64_t n_in, int64_t n_out, int64_t tap, int stride, int dilation,
                           int pad, int64_t *begin, int64_t *end)
{
    int64_t start = tap * dilation - pad;

    *begin = start >= 0 ? 0 : (-start + stride - 1) / stride;
    *end = n_in - 1 - start < 0 ? 0 : (n_in - 1 - start) / stride + 1;
    if (*end > n_out) *end = n_out;
    return start;
}

/** One tap (kh, kw) of one channel pair: which output rows and columns it touches. */
typedef struct tap {
    int64_t h_begin, h_end, h_start, w_begin, w_end, w_start;
} tap;

static tap tap_of(const geometry *g, int64_t kh, int64_t kw)
{
    const sh_op_attrs *a = g->attrs;
    tap t;

    t.h_start =
        valid_range(g->H, g->OH, kh, a->stride[0], a->dilation[0], a->pad[0], &t.h_begin, &t.h_end);
    t.w_start =
        valid_range(g->W, g->OW, kw, a->stride[1], a->dilation[1], a->pad[1], &t.w_begin, &t.w_end);
    return t;
}

static void add_forward(const geometry *g, const float *x, const float *w, double *acc)
{
    int64_t sh = g->attrs->stride[0], sw = g->attrs->stride[1];

    for (int64_t k = 0; k < g->KH * g->KW; k++) {
        tap t = tap_of(g, k / g->KW, k % g->KW);
        double weight = w[k];
        for (int64_t h = t.h_begin; h < t.h_end; h++) {
            const float *row = x + (h * sh + t.h_start) * g->W + t.w_start;
            double *to = acc + h * g->OW;
            for (int64_t i = t.w_begin; i < t.w_end; i++) to[i] += weight * row[i * sw];
        }
    }
}

void sh_ref_conv(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    geometry g = geometry_of(desc->in[0], desc->in[1], desc->out[0], desc->attrs);
    const float *bias = desc->n_inputs > 2 ? v->in[2] : NULL;
    int64_t n_pixels = g.OH * g.OW, n_taps = g.KH * g.KW;
    double *acc = v->work;

    (void)scalars;
    for (int64_t n = 0; n < g.N; n++) {
        for (int64_t o = 0; o < g.O; o++) {
            int64_t c0 = o / g.out_group * g.in_group;
            for (int64_t i = 0; i < n_pixels; i++) acc[i] = bias == NULL ? 0 : bias[o];
            for (int64_t c = 0; c < g.in_group; c++) {
                add_forward(&g, v->in[0] + (n * g.C + c0 + c) * g.H * g.W,
                            v->in[1] + (o * g.in_group + c) * n_taps, acc);
            }
            float *y = v->out[0] + (n * g.O + o) * n_pixels;
            for (int64_t i = 0; i < n_pixels; i++) y[i] = (float)acc[i];
        }
    }
}

static void add_backward(const geometry *g, const float *dy, const float *w, double *acc)
{
    int64_t sh = g->attrs->stride[0], sw = g->attrs->stride[1];

    for (int64_t k = 0; k < g->KH * g->KW; k++) {
        tap t = tap_of(g, k / g->KW, k % g->KW);
        double weight = w[k];
        for (int64_t h = t.h_begin; h < t.h_end; h++) {
            double *to = acc + (h * sh + t.h_start) * g->W + t.w_start;
            const float *row = dy + h * g->OW;
            for (int64_t i = t.w_begin; i < t.w_end; i++) to[i * sw] += weight * row[i];
        }
    }
}

void sh_ref_conv_grad_x(const sh_node_desc *desc, const sh_ref_view *v,
                        const sh_run_scalars *scalars)
{
    geometry g = geometry_of(desc->out[0], desc->in[1], desc->in[0], desc->attrs);
    int64_t n_pixels = g.H * g.W, n_taps = g.KH * g.KW;
    double *acc = v->work;

    (void)scalars;
    for (int64_t n = 0; n < g.N; n++) {
        for (int64_t c = 0; c < g.C; c++) {
            int64_t o0 = c / g.in_group * g.out_group, c_in_group = c % g.in_group;
            for (int64_t i = 0; i < n_pixels; i++) acc[i] = 0;
            for (int64_t o = o0; o < o0 + g.out_group; o++) {
                add_backward(&g, v->in[0] + (n * g.O + o) * g.OH * g.OW,
                             v->in[1] + (o * g.in_group + c_in_group) * n_taps, acc);
            }
            float *dx = v->out[0] + (n * g.C + c) * n_pixels;
            for (int64_t i = 0; i < n_pixels; i++) dx[i] = (float)acc[i];
        }
    }
}

/** Sum over images and pixels of x at the tap times dy. */
static double tap_product(const geometry *g, const float *x, const float *dy, int64_t c, int64_t o,
                          tap t)
{
    int64_t sh = g->attrs->stride[0], sw = g->attrs->stride[1];
    double sum = 0;

    for (int64_t n = 0; n < g->N; n++) {
        const float *x_plane = x + (n * g->C + c) * g->H * g->W;
        const float *dy_plane = dy + (n * g->O + o) * g->OH * g->OW;
        for (int64_t h = t.h_begin; h < t.h_end; h++) {
            const float *row = x_plane + (h * sh + t.h_start) * g->W + t.w_start;
            const float *dy_row = dy_plane + h * g->OW;
            for (int64_t i = t.w_begin; i < t.w_end; i++) sum += (double)row[i * sw] * dy_row[i];
        }
    }
    return sum;
}

/** Sum of dy over everything but the channel. */
static void sum_channels(const sh_tensor_desc *d, const float *dy, float *sums)
{
    int64_t n_pixels = d->dims[2] * d->dims[3];

    for (int64_t c = 0; c < d->dims[1]; c++) {
        double sum = 0;
        for (int64_t n = 0; n < d->dims[0]; n++) {
            const float *plane = dy + (n * d->dims[1] + c) * n_pixels;
            for (int64_t i = 0; i < n_pixels; i++) sum += plane[i];
        }
        sums[c] = (float)sum;
    }
}

void sh_ref_conv_grad_w(const sh_node_desc *desc, const sh_ref_view *v,
                        const sh_run_scalars *scalars)
{
    geometry g = geometry_of(desc->in[0], desc->out[0], desc->in[1], desc->attrs);
    float *dw = v->out[0];

    (void)scalars;
    for (int64_t o = 0; o < g.O; o++) {
        int64_t c0 = o / g.out_group * g.in_group;
        for (int64_t c = 0; c < g.in_group; c++) {
            for (int64_t k = 0; k < g.KH * g.KW; k++) {
                tap t = tap_of(&g, k / g.KW, k % g.KW);
                *dw++ = (float)tap_product(&g, v->in[0], v->in[1], c0 + c, o, t);
            }
        }
    }
    if (desc->n_outputs > 1 && v->out[1] != NULL) sum_channels(desc->in[1], v->in[1], v->out[1]);
}

/* ---- linear: y[n,o] = sum_i x[n,i] w[o,i] + bias[o] ---- */

void sh_ref_linear(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    int64_t N = desc->in[0]->dims[0], I = desc->in[0]->dims[1], O = desc->out[0]->dims[1];
    const float *bias = desc->n_inputs > 2 ? v->in[2] : NULL;

    (void)scalars;
    for (int64_t n = 0; n < N; n++) {
        for (int64_t o = 0; o < O; o++) {
            const float *x = v->in[0] + n * I, *w = v->in[1] + o * I;
            double sum = bias == NULL ? 0 : bias[o];
            for (int64_t i = 0; i < I; i++) sum += (double)x[i] * w[i];
            v->out[0][n * O + o] = (float)sum;
        }
    }
}

void sh_ref_linear_grad_x(const sh_node_desc *desc, const sh_ref_view *v,
                          const sh_run_scalars *scalars)
{
    int64_t N = desc->in[0]->dims[0], O = desc->in[0]->dims[1], I = desc->in[1]->dims[1];

    (void)scalars;
    for (int64_t n = 0; n < N; n++) {
        for (int64_t i = 0; i < I; i++) {
            double sum = 0;
            for (int64_t o = 0; o < O; o++) {
                sum += (double)v->in[0][n * O + o] * v->in[1][o * I + i];
            }
            v->out[0][n * I + i] = (float)sum;
        }
    }
}

void sh_ref_linear_grad_w(const sh_node_desc *desc, const sh_ref_view *v,
                          const sh_run_scalars *scalars)
{
    int64_t N = desc->in[0]->dims[0], I = desc->in[0]->dims[1], O = desc->in[1]->dims[1];

    (void)scalars;
    for (int64_t o = 0; o < O; o++) {
        for (int64_t i = 0; i < I; i++) {
            double sum = 0;
            for (int64_t n = 0; n < N; n++) {
                sum += (double)v->in[1][n * O + o] * v->in[0][n * I + i];
            }
            v->out[0][o * I + i] = (float)sum;
        }
    }
    if (desc->n_outputs > 1 && v->out[1] != NULL) sum_channels(desc->in[1], v->in[1], v->out[1]);
}
