// SPDX-License-Identifier: Apache-2.0
/** Convolution: one output plane at a time, accumulated in double. */
#include <math.h>

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

/** The convolution's real input: x, or batch norm and activation of it in the op's scratch. `first`
 *  is the index of the operand `mean`. */
static const float *prologue(const sh_node_desc *desc, const sh_ref_view *v, int first)
{
    const sh_tensor_desc *d = desc->in[0];
    int64_t n_pixels = d->dims[2] * d->dims[3];

    if (!sh_ref_has_input(desc, first)) return v->in[0];
    for (int64_t plane = 0; plane < d->dims[0] * d->dims[1]; plane++) {
        sh_ref_channel ch = sh_ref_channel_of(v, first, plane % d->dims[1], desc->attrs->eps);
        for (int64_t i = plane * n_pixels; i < (plane + 1) * n_pixels; i++) {
            v->a[i] = (float)sh_ref_act_value(desc->attrs->act, sh_ref_bn_value(&ch, v->in[0][i]));
        }
    }
    return v->a;
}

void sh_ref_conv(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    geometry g = geometry_of(desc->in[0], desc->in[1], desc->out[0], desc->attrs);
    const float *bias = sh_ref_has_input(desc, SH_CONV_BIAS) ? v->in[SH_CONV_BIAS] : NULL;
    const float *residual =
        sh_ref_has_input(desc, SH_CONV_RESIDUAL) ? v->in[SH_CONV_RESIDUAL] : NULL;
    const float *x = prologue(desc, v, SH_CONV_MEAN);
    int64_t n_pixels = g.OH * g.OW, n_taps = g.KH * g.KW;
    double *acc = v->work;

    (void)scalars;
    for (int64_t n = 0; n < g.N; n++) {
        for (int64_t o = 0; o < g.O; o++) {
            int64_t c0 = o / g.out_group * g.in_group;
            for (int64_t i = 0; i < n_pixels; i++) acc[i] = bias == NULL ? 0 : bias[o];
            for (int64_t c = 0; c < g.in_group; c++) {
                add_forward(&g, x + (n * g.C + c0 + c) * g.H * g.W,
                            v->in[1] + (o * g.in_group + c) * n_taps, acc);
            }
            int64_t first = (n * g.O + o) * n_pixels;
            float *y = v->out[0] + first;
            for (int64_t i = 0; i < n_pixels; i++) {
                double sum = acc[i] + (residual == NULL ? 0 : residual[first + i]);
                double z = sh_ref_act_value(desc->attrs->y_act, sum);
                y[i] = sh_ref_stored(desc->out[0]->dtype, z);
            }
        }
    }
    if (sh_ref_has_output(desc, SH_CONV_Y_MEAN)) {
        sh_ref_moments(desc->out[0], v->out[0], v->out[SH_CONV_Y_MEAN], v->out[SH_CONV_Y_VAR]);
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

/** dx of the whole tensor. */
static void grad_x(const geometry *g, const float *dy, const float *w, double *acc, float *dx)
{
    int64_t n_pixels = g->H * g->W, n_taps = g->KH * g->KW;

    for (int64_t n = 0; n < g->N; n++) {
        for (int64_t c = 0; c < g->C; c++) {
            int64_t o0 = c / g->in_group * g->out_group, c_in_group = c % g->in_group;
            for (int64_t i = 0; i < n_pixels; i++) acc[i] = 0;
            for (int64_t o = o0; o < o0 + g->out_group; o++) {
                add_backward(g, dy + (n * g->O + o) * g->OH * g->OW,
                             w + (o * g->in_group + c_in_group) * n_taps, acc);
            }
            for (int64_t i = 0; i < n_pixels; i++) *dx++ = (float)acc[i];
        }
    }
}

void sh_ref_conv_grad_x(const sh_node_desc *desc, const sh_ref_view *v,
                        const sh_run_scalars *scalars)
{
    geometry g = geometry_of(desc->out[0], desc->in[1], desc->in[0], desc->attrs);

    (void)scalars;
    grad_x(&g, v->in[0], v->in[1], v->work, v->out[0]);
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

/** dw of the whole weight. */
static void grad_w(const geometry *g, const float *x, const float *dy, float *dw)
{
    for (int64_t o = 0; o < g->O; o++) {
        int64_t c0 = o / g->out_group * g->in_group;
        for (int64_t c = 0; c < g->in_group; c++) {
            for (int64_t k = 0; k < g->KH * g->KW; k++) {
                tap t = tap_of(g, k / g->KW, k % g->KW);
                *dw++ = (float)tap_product(g, x, dy, c0 + c, o, t);
            }
        }
    }
}

void sh_ref_conv_grad_w(const sh_node_desc *desc, const sh_ref_view *v,
                        const sh_run_scalars *scalars)
{
    geometry g = geometry_of(desc->in[0], desc->out[0], desc->in[1], desc->attrs);

    (void)scalars;
    grad_w(&g, v->in[0], v->in[1], v->out[0]);
    if (sh_ref_has_output(desc, 1)) sh_ref_sum_channels(desc->in[1], v->in[1], v->out[1]);
}

/* ---- CONV_GRAD ---- */

/** The gradient of y: dy, or made from the gradient of y's batch norm in the op's scratch. */
static const float *gradient_of_y(const sh_node_desc *desc, const sh_ref_view *v)
{
    const sh_tensor_desc *d = desc->in[SH_CONV_GRAD_DY];
    const float *dy = v->in[SH_CONV_GRAD_DY], *y = v->in[SH_CONV_GRAD_Y];
    bool is_frozen = !sh_ref_has_input(desc, SH_CONV_GRAD_Y_DGAMMA);
    int64_t n_pixels = d->dims[2] * d->dims[3];
    double m = (double)(d->dims[0] * n_pixels);

    if (!sh_ref_has_input(desc, SH_CONV_GRAD_Y)) return dy;
    for (int64_t plane = 0; plane < d->dims[0] * d->dims[1]; plane++) {
        int64_t o = plane % d->dims[1];
        double mean = v->in[SH_CONV_GRAD_Y_MEAN][o];
        double rstd = 1 / sqrt((double)v->in[SH_CONV_GRAD_Y_VAR][o] + desc->attrs->y_eps);
        double dgamma = is_frozen ? 0 : v->in[SH_CONV_GRAD_Y_DGAMMA][o];
        double dbeta = is_frozen ? 0 : v->in[SH_CONV_GRAD_Y_DBETA][o];
        double scale = v->in[SH_CONV_GRAD_Y_GAMMA][o] * rstd;
        for (int64_t i = plane * n_pixels; i < (plane + 1) * n_pixels; i++) {
            double yhat = (y[i] - mean) * rstd;
            v->dy[i] = (float)(scale * (dy[i] - dbeta / m - yhat * dgamma / m));
        }
    }
    return v->dy;
}

/** The epilogue: dx times act', and the sums that batch norm's gradient needs. */
static void mask_and_sum(const sh_node_desc *desc, const sh_ref_view *v)
{
    const sh_tensor_desc *d = desc->out[SH_CONV_GRAD_DX];
    int64_t n_pixels = d->dims[2] * d->dims[3];
    const float *x = v->in[SH_CONV_GRAD_X_IN];
    float *dx = v->out[SH_CONV_GRAD_DX];

    for (int64_t c = 0; c < d->dims[1]; c++) {
        sh_ref_channel ch = sh_ref_channel_of(v, SH_CONV_GRAD_MEAN, c, desc->attrs->eps);
        double dgamma = 0, dbeta = 0;
        for (int64_t n = 0; n < d->dims[0]; n++) {
            int64_t begin = (n * d->dims[1] + c) * n_pixels;
            for (int64_t i = begin; i < begin + n_pixels; i++) {
                double z = sh_ref_bn_value(&ch, x[i]), a = sh_ref_act_value(desc->attrs->act, z);
                dx[i] = sh_ref_stored(d->dtype, dx[i] * sh_ref_act_slope(desc->attrs->act, z, a));
                dbeta += dx[i];
                dgamma += dx[i] * (x[i] - ch.mean) * ch.rstd;
            }
        }
        v->out[SH_CONV_GRAD_DGAMMA][c] = (float)dgamma;
        v->out[SH_CONV_GRAD_DBETA][c] = (float)dbeta;
    }
}

void sh_ref_conv_grad(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    bool has_dx = sh_ref_has_output(desc, SH_CONV_GRAD_DX);
    const sh_tensor_desc *x_desc = has_dx ? desc->out[SH_CONV_GRAD_DX] : desc->in[0];
    geometry g =
        geometry_of(x_desc, desc->in[SH_CONV_GRAD_W_IN], desc->in[SH_CONV_GRAD_DY], desc->attrs);
    const float *dy = gradient_of_y(desc, v);

    (void)scalars;
    if (sh_ref_has_output(desc, SH_CONV_GRAD_DW)) {
        grad_w(&g, prologue(desc, v, SH_CONV_GRAD_MEAN), dy, v->out[SH_CONV_GRAD_DW]);
    }
    if (sh_ref_has_output(desc, SH_CONV_GRAD_DBIAS)) {
        sh_ref_sum_channels(desc->in[SH_CONV_GRAD_DY], dy, v->out[SH_CONV_GRAD_DBIAS]);
    }
    if (has_dx) grad_x(&g, dy, v->in[SH_CONV_GRAD_W_IN], v->work, v->out[SH_CONV_GRAD_DX]);
    if (sh_ref_has_output(desc, SH_CONV_GRAD_DGAMMA)) mask_and_sum(desc, v);
}
