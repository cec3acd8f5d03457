// SPDX-License-Identifier: Apache-2.0
/** Transformers: layer norm, attention, tokens. */
#include <math.h>

#include "models/ref/kernels.h"

/** One pixel's channels: x[c * stride], c < C. */
typedef struct pixel {
    int64_t C, stride, at; /* at: element of channel 0 */
    double mean, rstd;
} pixel;

/** Pixel i of all N H W, with the moments of its channels. */
static pixel pixel_of(const sh_tensor_desc *d, const float *x, int64_t i, float eps)
{
    int64_t n_pixels = d->dims[2] * d->dims[3];
    pixel p = {.C = d->dims[1],
               .stride = n_pixels,
               .at = i / n_pixels * d->dims[1] * n_pixels + i % n_pixels};
    double square = 0;

    for (int64_t c = 0; c < p.C; c++) p.mean += x[p.at + c * p.stride];
    p.mean /= (double)p.C;
    for (int64_t c = 0; c < p.C; c++) square += pow(x[p.at + c * p.stride] - p.mean, 2);
    p.rstd = 1 / sqrt(square / (double)p.C + eps);
    return p;
}

void sh_ref_layer_norm(const sh_node_desc *desc, const sh_ref_view *v,
                       const sh_run_scalars *scalars)
{
    const sh_tensor_desc *d = desc->in[0];

    (void)scalars;
    for (int64_t i = 0; i < d->dims[0] * d->dims[2] * d->dims[3]; i++) {
        pixel p = pixel_of(d, v->in[0], i, desc->attrs->eps);
        for (int64_t c = 0; c < p.C; c++) {
            double xhat = (v->in[0][p.at + c * p.stride] - p.mean) * p.rstd;
            v->out[0][p.at + c * p.stride] = (float)(xhat * v->in[1][c] + v->in[2][c]);
        }
    }
}

void sh_ref_layer_norm_grad(const sh_node_desc *desc, const sh_ref_view *v,
                            const sh_run_scalars *scalars)
{
    const sh_tensor_desc *d = desc->in[0];
    const float *dy = v->in[0], *x = v->in[1], *gamma = v->in[2];
    int64_t C = d->dims[1];
    double *dgamma = v->work, *dbeta = v->work + C;

    (void)scalars;
    for (int64_t c = 0; c < 2 * C; c++) v->work[c] = 0;
    for (int64_t i = 0; i < d->dims[0] * d->dims[2] * d->dims[3]; i++) {
        pixel p = pixel_of(d, x, i, desc->attrs->eps);
        double mean_g = 0, mean_g_xhat = 0;
        for (int64_t c = 0; c < C; c++) {
            int64_t at = p.at + c * p.stride;
            double xhat = (x[at] - p.mean) * p.rstd;
            mean_g += (double)dy[at] * gamma[c] / (double)C;
            mean_g_xhat += dy[at] * gamma[c] * xhat / (double)C;
            dgamma[c] += dy[at] * xhat;
            dbeta[c] += dy[at];
        }
        for (int64_t c = 0; c < C; c++) {
            int64_t at = p.at + c * p.stride;
            double xhat = (x[at] - p.mean) * p.rstd, g = (double)dy[at] * gamma[c];
            v->out[0][at] = (float)(p.rstd * (g - mean_g - xhat * mean_g_xhat));
        }
    }
    for (int k = 1; k < desc->n_outputs; k++) {
        for (int64_t c = 0; c < C; c++) v->out[k][c] = (float)v->work[(k - 1) * C + c];
    }
}

/* ---- attention ---- */

/** One head of one image: channel c of q, k, v and of the output are rows of T tokens. */
typedef struct head {
    int64_t T, d;
    double scale; /* 1 / sqrt(d) */
    const float *q, *k, *v;
    int64_t rows, qkv_at; /* of the output's and the input's first channel */
} head;

static head head_of(const sh_tensor_desc *qkv, const float *data, int n_heads, int64_t i)
{
    int64_t T = qkv->dims[2], C = qkv->dims[1] / 3, d = C / n_heads;
    int64_t n = i / n_heads, h = i % n_heads;
    head a = {.T = T,
              .d = d,
              .scale = 1 / sqrt((double)d),
              .rows = (n * C + h * d) * T,
              .qkv_at = (n * 3 * C + h * d) * T};

    a.q = data + a.qkv_at;
    a.k = a.q + C * T;
    a.v = a.k + C * T;
    return a;
}

/** s_ij for all j. */
static void scores(const head *a, int64_t i, double *s)
{
    for (int64_t j = 0; j < a->T; j++) s[j] = 0;
    for (int64_t c = 0; c < a->d; c++) {
        double q = a->q[c * a->T + i] * a->scale;
        for (int64_t j = 0; j < a->T; j++) s[j] += q * a->k[c * a->T + j];
    }
}

void sh_ref_attention(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    int n_heads = desc->attrs->heads;
    double *s = v->work;

    (void)scalars;
    for (int64_t h = 0; h < desc->in[0]->dims[0] * n_heads; h++) {
        head a = head_of(desc->in[0], v->in[0], n_heads, h);
        for (int64_t i = 0; i < a.T; i++) {
            double top = -INFINITY, sum = 0;
            scores(&a, i, s);
            for (int64_t j = 0; j < a.T; j++) top = s[j] > top ? s[j] : top;
            for (int64_t j = 0; j < a.T; j++) sum += s[j] = exp(s[j] - top);
            for (int64_t c = 0; c < a.d; c++) {
                double y = 0;
                for (int64_t j = 0; j < a.T; j++) y += s[j] * a.v[c * a.T + j];
                v->out[0][a.rows + c * a.T + i] = (float)(y / sum);
            }
            v->out[1][h * a.T + i] = (float)(top + log(sum));
        }
    }
}

/** Row i of the gradients of one head, added to dq, dk, dv (each d rows of T doubles). s: scratch
 *  for T. */
static void attention_grad_row(const head *a, int64_t i, const float *dy, const float *y,
                               double lse, double *s, double *dq, double *dk, double *dv)
{
    double D = 0;

    scores(a, i, s);
    for (int64_t c = 0; c < a->d; c++) D += (double)dy[c * a->T + i] * y[c * a->T + i];
    for (int64_t j = 0; j < a->T; j++) {
        double P = exp(s[j] - lse), dP = 0;
        for (int64_t c = 0; c < a->d; c++) {
            dP += (double)dy[c * a->T + i] * a->v[c * a->T + j];
            dv[c * a->T + j] += P * dy[c * a->T + i];
        }
        s[j] = P * (dP - D) * a->scale;
    }
    for (int64_t c = 0; c < a->d; c++) {
        double sum = 0, q = a->q[c * a->T + i];
        for (int64_t j = 0; j < a->T; j++) {
            sum += s[j] * a->k[c * a->T + j];
            dk[c * a->T + j] += s[j] * q;
        }
        dq[c * a->T + i] = sum;
    }
}

void sh_ref_attention_grad(const sh_node_desc *desc, const sh_ref_view *v,
                           const sh_run_scalars *scalars)
{
    int n_heads = desc->attrs->heads;
    int64_t C = desc->in[0]->dims[1], T = desc->in[0]->dims[2], n = C / n_heads * T;
    double *s = v->work, *sums = v->work + T; /* dq, dk, dv */

    (void)scalars;
    for (int64_t h = 0; h < desc->in[0]->dims[0] * n_heads; h++) {
        head a = head_of(desc->in[1], v->in[1], n_heads, h);
        for (int64_t i = 0; i < 3 * n; i++) sums[i] = 0;
        for (int64_t i = 0; i < T; i++) {
            attention_grad_row(&a, i, v->in[0] + a.rows, v->in[2] + a.rows, v->in[3][h * T + i], s,
                               sums, sums + n, sums + 2 * n);
        }
        for (int part = 0; part < 3; part++) {
            float *to = v->out[0] + a.qkv_at + part * C * T;
            for (int64_t i = 0; i < n; i++) to[i] = (float)sums[part * n + i];
        }
    }
}

/* ---- tokens ---- */

void sh_ref_tokens(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    const int64_t *d = desc->out[0]->dims;
    int64_t C = d[1], T = d[2];

    (void)scalars;
    for (int64_t row = 0; row < d[0] * C; row++) {
        const float *cls = v->in[1] + row % C, *pos = v->in[2] + row % C;
        for (int64_t t = 0; t < T; t++) {
            double x = t == 0 ? *cls : v->in[0][row * (T - 1) + t - 1];
            v->out[0][row * T + t] = (float)(x + pos[t * C]);
        }
    }
}

void sh_ref_tokens_grad(const sh_node_desc *desc, const sh_ref_view *v,
                        const sh_run_scalars *scalars)
{
    const int64_t *d = desc->in[0]->dims;
    int64_t C = d[1], T = d[2];

    (void)scalars;
    for (int64_t row = 0; row < d[0] * C; row++) {
        memcpy(v->out[0] + row * (T - 1), v->in[0] + row * T + 1, (size_t)(T - 1) * sizeof(float));
    }
    for (int64_t i = 0; i < C * T; i++) {
        int64_t c = i / T, t = i % T;
        double sum = 0;
        for (int64_t n = 0; n < d[0]; n++) sum += v->in[0][(n * C + c) * T + t];
        if (t == 0 && sh_ref_has_output(desc, 1)) v->out[1][c] = (float)sum;
        if (sh_ref_has_output(desc, 2)) v->out[2][t * C + c] = (float)sum;
    }
}

void sh_ref_take_token(const sh_node_desc *desc, const sh_ref_view *v,
                       const sh_run_scalars *scalars)
{
    int64_t T = desc->in[0]->dims[2];

    (void)scalars;
    for (int64_t row = 0; row < sh_ref_elems(desc->out[0]); row++) {
        v->out[0][row] = v->in[0][row * T + desc->attrs->index];
    }
}

void sh_ref_take_token_grad(const sh_node_desc *desc, const sh_ref_view *v,
                            const sh_run_scalars *scalars)
{
    int64_t T = desc->out[0]->dims[2];

    (void)scalars;
    for (int64_t i = 0; i < sh_ref_elems(desc->out[0]); i++) {
        v->out[0][i] = i % T == desc->attrs->index ? v->in[0][i / T] : 0;
    }
}
