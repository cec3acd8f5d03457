// SPDX-License-Identifier: Apache-2.0
/** Batch normalisation and row normalisation. */
#include <math.h>

#include "models/ref/kernels.h"

/** The two loops that every per-channel kernel has. */
typedef struct planes {
    int64_t N, C, n_pixels;
} planes;

static planes planes_of(const sh_tensor_desc *d)
{
    return (planes){d->dims[0], d->dims[1], d->dims[2] * d->dims[3]};
}

/* Two passes: the mean of squares less the squared mean would cancel. */
void sh_ref_moments(const sh_tensor_desc *d, const float *x, float *mean, float *var)
{
    planes p = planes_of(d);
    double m = (double)(p.N * p.n_pixels);

    for (int64_t c = 0; c < p.C; c++) {
        double sum = 0, square = 0;
        for (int64_t n = 0; n < p.N; n++) {
            const float *plane = x + (n * p.C + c) * p.n_pixels;
            for (int64_t i = 0; i < p.n_pixels; i++) sum += plane[i];
        }
        for (int64_t n = 0; n < p.N; n++) {
            const float *plane = x + (n * p.C + c) * p.n_pixels;
            for (int64_t i = 0; i < p.n_pixels; i++) {
                square += (plane[i] - sum / m) * (plane[i] - sum / m);
            }
        }
        mean[c] = (float)(sum / m);
        var[c] = (float)(square / m);
    }
}

void sh_ref_bn_stats(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    (void)scalars;
    sh_ref_moments(desc->in[0], v->in[0], v->out[0], v->out[1]);
}

sh_ref_channel sh_ref_channel_of(const sh_ref_view *v, int first, int64_t c, float eps)
{
    return (sh_ref_channel){.mean = v->in[first][c],
                            .rstd = 1.0 / sqrt((double)v->in[first + 1][c] + eps),
                            .gamma = v->in[first + 2][c],
                            .beta = v->in[first + 3][c]};
}

void sh_ref_bn_apply(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    planes p = planes_of(desc->in[0]);
    const float *residual = sh_ref_has_input(desc, 5) ? v->in[5] : NULL;

    (void)scalars;
    for (int64_t plane = 0; plane < p.N * p.C; plane++) {
        sh_ref_channel ch = sh_ref_channel_of(v, 1, plane % p.C, desc->attrs->eps);
        for (int64_t i = plane * p.n_pixels; i < (plane + 1) * p.n_pixels; i++) {
            double z = sh_ref_bn_value(&ch, v->in[0][i]);
            if (residual != NULL) z += residual[i];
            v->out[0][i] = (float)sh_ref_act_value(desc->attrs->act, z);
        }
    }
}

/** Gradient before the activation. The activation's output is taken from y, or recomputed. */
static double masked(sh_act act, const sh_ref_channel *ch, const sh_ref_view *v, const float *y,
                     int64_t i)
{
    if (act == SH_ACT_NONE) return v->in[0][i];
    double z = sh_ref_bn_value(ch, v->in[1][i]);
    return v->in[0][i] * sh_ref_act_slope(act, z, y != NULL ? y[i] : sh_ref_act_value(act, z));
}

void sh_ref_bn_grad_reduce(const sh_node_desc *desc, const sh_ref_view *v,
                           const sh_run_scalars *scalars)
{
    planes p = planes_of(desc->in[0]);
    const float *y = sh_ref_has_input(desc, 6) ? v->in[6] : NULL;

    (void)scalars;
    for (int64_t c = 0; c < p.C; c++) {
        sh_ref_channel ch = sh_ref_channel_of(v, 2, c, desc->attrs->eps);
        double dgamma = 0, dbeta = 0;
        for (int64_t n = 0; n < p.N; n++) {
            int64_t begin = (n * p.C + c) * p.n_pixels;
            for (int64_t i = begin; i < begin + p.n_pixels; i++) {
                double g = masked(desc->attrs->act, &ch, v, y, i);
                dbeta += g;
                dgamma += g * (v->in[1][i] - ch.mean) * ch.rstd;
            }
        }
        v->out[0][c] = (float)dgamma;
        v->out[1][c] = (float)dbeta;
    }
}

void sh_ref_bn_grad_apply(const sh_node_desc *desc, const sh_ref_view *v,
                          const sh_run_scalars *scalars)
{
    planes p = planes_of(desc->in[0]);
    const float *y = sh_ref_has_input(desc, 8) ? v->in[8] : NULL;
    float *dresidual = sh_ref_has_output(desc, 1) ? v->out[1] : NULL;
    double m = (double)(p.N * p.n_pixels);

    (void)scalars;
    for (int64_t plane = 0; plane < p.N * p.C; plane++) {
        int64_t c = plane % p.C;
        sh_ref_channel ch = sh_ref_channel_of(v, 2, c, desc->attrs->eps);
        double dgamma = desc->attrs->frozen ? 0 : v->in[6][c];
        double dbeta = desc->attrs->frozen ? 0 : v->in[7][c];
        for (int64_t i = plane * p.n_pixels; i < (plane + 1) * p.n_pixels; i++) {
            double g = masked(desc->attrs->act, &ch, v, y, i);
            double xhat = (v->in[1][i] - ch.mean) * ch.rstd;
            v->out[0][i] = (float)(ch.gamma * ch.rstd * (g - dbeta / m - xhat * dgamma / m));
            if (dresidual != NULL) dresidual[i] = (float)g;
        }
    }
}

/* ---- squeeze and excitation of what a batch norm gives ---- */

static double activated(const sh_node_desc *desc, const sh_ref_channel *ch, double x)
{
    return sh_ref_act_value(desc->attrs->act, sh_ref_bn_value(ch, x));
}

void sh_ref_se_squeeze(const sh_node_desc *desc, const sh_ref_view *v,
                       const sh_run_scalars *scalars)
{
    planes p = planes_of(desc->in[0]);

    (void)scalars;
    for (int64_t plane = 0; plane < p.N * p.C; plane++) {
        sh_ref_channel ch = sh_ref_channel_of(v, 1, plane % p.C, desc->attrs->eps);
        double sum = 0;
        for (int64_t i = plane * p.n_pixels; i < (plane + 1) * p.n_pixels; i++)
            sum += activated(desc, &ch, v->in[0][i]);
        v->out[0][plane] = (float)(sum / (double)p.n_pixels);
    }
}

void sh_ref_se_excite(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    planes p = planes_of(desc->in[0]);

    (void)scalars;
    for (int64_t plane = 0; plane < p.N * p.C; plane++) {
        sh_ref_channel ch = sh_ref_channel_of(v, 2, plane % p.C, desc->attrs->eps);
        for (int64_t i = plane * p.n_pixels; i < (plane + 1) * p.n_pixels; i++)
            v->out[0][i] = (float)(activated(desc, &ch, v->in[0][i]) * v->in[1][plane]);
    }
}

void sh_ref_se_factor_grad(const sh_node_desc *desc, const sh_ref_view *v,
                           const sh_run_scalars *scalars)
{
    planes p = planes_of(desc->in[0]);

    (void)scalars;
    for (int64_t plane = 0; plane < p.N * p.C; plane++) {
        sh_ref_channel ch = sh_ref_channel_of(v, 2, plane % p.C, desc->attrs->eps);
        double sum = 0;
        for (int64_t i = plane * p.n_pixels; i < (plane + 1) * p.n_pixels; i++)
            sum += v->in[0][i] * activated(desc, &ch, v->in[1][i]);
        v->out[0][plane] = (float)sum;
    }
}

void sh_ref_se_grad(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    planes p = planes_of(desc->in[0]);

    (void)scalars;
    for (int64_t c = 0; c < p.C; c++) {
        sh_ref_channel ch = sh_ref_channel_of(v, 2, c, desc->attrs->eps);
        double dgamma = 0, dbeta = 0;
        for (int64_t n = 0; n < p.N; n++) {
            int64_t plane = n * p.C + c;
            double share = v->in[7][plane] / (double)p.n_pixels;
            for (int64_t i = plane * p.n_pixels; i < (plane + 1) * p.n_pixels; i++) {
                double z = sh_ref_bn_value(&ch, v->in[1][i]);
                double slope =
                    sh_ref_act_slope(desc->attrs->act, z, sh_ref_act_value(desc->attrs->act, z));
                double g = ((double)v->in[0][i] * v->in[6][plane] + share) * slope;
                dbeta += g;
                dgamma += g * (v->in[1][i] - ch.mean) * ch.rstd;
                v->out[0][i] = (float)g;
            }
        }
        v->out[1][c] = (float)dgamma;
        v->out[2][c] = (float)dbeta;
    }
}

void sh_ref_bn_export(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    double m = (double)desc->attrs->n_reduced, share = desc->attrs->share;
    double unbiased = m > 1 ? m / (m - 1) : 1;

    (void)scalars;
    for (int64_t c = 0; c < desc->in[0]->dims[0]; c++) {
        v->out[0][c] = (float)(share * v->in[0][c]);
        v->out[1][c] = (float)(share * v->in[1][c] * unbiased);
    }
}

void sh_ref_fold_bn(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    int64_t O = desc->in[0]->dims[0], n = sh_ref_elems(desc->in[0]) / O;

    (void)scalars;
    for (int64_t o = 0; o < O; o++) {
        sh_ref_channel ch = sh_ref_channel_of(v, 1, o, desc->attrs->eps);
        double bias = sh_ref_has_input(desc, 5) ? v->in[5][o] : 0;
        for (int64_t i = o * n; i < (o + 1) * n; i++) {
            v->out[0][i] = (float)(v->in[0][i] * ch.rstd * ch.gamma);
        }
        v->out[1][o] = (float)sh_ref_bn_value(&ch, bias);
    }
}

static double row_norm(const float *x, int64_t D)
{
    double square = 0;

    for (int64_t i = 0; i < D; i++) square += (double)x[i] * x[i];
    return sqrt(square);
}

void sh_ref_l2_norm(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    int64_t D = desc->in[0]->dims[1];

    (void)scalars;
    for (int64_t n = 0; n < desc->in[0]->dims[0]; n++) {
        const float *x = v->in[0] + n * D;
        double norm = row_norm(x, D);
        if (norm < desc->attrs->eps) norm = desc->attrs->eps;
        for (int64_t i = 0; i < D; i++) v->out[0][n * D + i] = (float)(x[i] / norm);
    }
}

/* dx = (dy - y (y . dy)) / |x|; below eps the divisor is a constant and dx = dy / eps. */
void sh_ref_l2_norm_grad(const sh_node_desc *desc, const sh_ref_view *v,
                         const sh_run_scalars *scalars)
{
    int64_t D = desc->in[0]->dims[1];

    (void)scalars;
    for (int64_t n = 0; n < desc->in[0]->dims[0]; n++) {
        const float *dy = v->in[0] + n * D, *x = v->in[1] + n * D;
        double norm = row_norm(x, D), dot = 0;
        bool is_clamped = norm < desc->attrs->eps;
        if (is_clamped) norm = desc->attrs->eps;
        for (int64_t i = 0; i < D && !is_clamped; i++) dot += (double)x[i] / norm * dy[i];
        for (int64_t i = 0; i < D; i++) {
            v->out[0][n * D + i] = (float)((dy[i] - x[i] / norm * dot) / norm);
        }
    }
}
