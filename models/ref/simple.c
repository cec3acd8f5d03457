// SPDX-License-Identifier: Apache-2.0
/** Elementwise ops, padding, dropout. */
#include <math.h>

#include "base/rng.h"
#include "models/ref/kernels.h"

/** Normal distribution function. */
static double gauss_cdf(double z)
{
    return erfc(-z * M_SQRT1_2) / 2;
}

static double hard_sigmoid(double z)
{
    return fmin(fmax(z / 6 + 0.5, 0), 1);
}

double sh_ref_act_value(sh_act act, double z)
{
    switch (act) {
    case SH_ACT_RELU: return z > 0 ? z : 0;
    case SH_ACT_RELU6: return z < 0 ? 0 : z > 6 ? 6 : z;
    case SH_ACT_SIGMOID: return 1 / (1 + exp(-z));
    case SH_ACT_TANH: return tanh(z);
    case SH_ACT_SILU: return z / (1 + exp(-z));
    case SH_ACT_GELU: return z * gauss_cdf(z);
    case SH_ACT_HARD_SIGMOID: return hard_sigmoid(z);
    case SH_ACT_HARD_SWISH: return z * hard_sigmoid(z);
    case SH_ACT_NONE: break;
    }
    return z;
}

double sh_ref_act_slope(sh_act act, double z, double y)
{
    double sigmoid;

    switch (act) {
    case SH_ACT_RELU: return y > 0;
    case SH_ACT_RELU6: return y > 0 && y < 6;
    case SH_ACT_SIGMOID: return y * (1 - y);
    case SH_ACT_TANH: return 1 - y * y;
    case SH_ACT_SILU: sigmoid = 1 / (1 + exp(-z)); return sigmoid * (1 + z * (1 - sigmoid));
    case SH_ACT_GELU: return gauss_cdf(z) + z * exp(-z * z / 2) * (M_SQRT1_2 * M_2_SQRTPI / 2);
    case SH_ACT_HARD_SIGMOID: return y > 0 && y < 1 ? 1.0 / 6 : 0;
    case SH_ACT_HARD_SWISH: return fabs(z) < 3 ? z / 3 + 0.5 : z > 0;
    case SH_ACT_NONE: break;
    }
    return 1;
}

void sh_ref_act(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    (void)scalars;
    for (int64_t i = 0; i < sh_ref_elems(desc->in[0]); i++) {
        v->out[0][i] = (float)sh_ref_act_value(desc->attrs->act, v->in[0][i]);
    }
}

void sh_ref_act_grad(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    (void)scalars;
    for (int64_t i = 0; i < sh_ref_elems(desc->in[0]); i++) {
        double at = v->in[1][i]; /* the output, or the input: what the slope is a function of */
        v->out[0][i] = (float)(v->in[0][i] * sh_ref_act_slope(desc->attrs->act, at, at));
    }
}

void sh_ref_add(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    (void)scalars;
    for (int64_t i = 0; i < sh_ref_elems(desc->in[0]); i++) {
        v->out[0][i] = v->in[0][i] + v->in[1][i];
    }
}

/* Casts and reshapes: the dense views do the work. */
void sh_ref_copy(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    (void)scalars;
    memmove(v->out[0], v->in[0], (size_t)sh_ref_elems(desc->in[0]) * sizeof(float));
}

void sh_ref_dropout(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    const int64_t *dims = desc->in[0]->dims;
    int64_t n_elems = dims[1] * dims[2] * dims[3];
    float rate = desc->attrs->rate, scale = 1.0f / (1.0f - rate);

    for (int64_t n = 0; n < dims[0]; n++) {
        sh_rng_key key = sh_rng_make(scalars->seed + (uint64_t)desc->attrs->stream, SH_RNG_DROPOUT,
                                     scalars->step, (uint64_t)(scalars->first_slot + n));
        const float *x = v->in[0] + n * n_elems;
        float *y = v->out[0] + n * n_elems;
        for (int64_t i = 0; i < n_elems; i++) {
            y[i] = sh_rng_uniform(key, (uint64_t)i) < rate ? 0.0f : x[i] * scale;
        }
    }
}

/** Position in 0 .. n - 1 that lies at `i` (which may be outside) when the edge is a mirror. */
static int64_t mirror(int64_t i, int64_t n)
{
    if (i < 0) return -i;
    return i < n ? i : 2 * (n - 1) - i;
}

void sh_ref_reflect_pad(const sh_node_desc *desc, const sh_ref_view *v,
                        const sh_run_scalars *scalars)
{
    const int64_t *in = desc->in[0]->dims, *out = desc->out[0]->dims;
    const int *pad = desc->attrs->pad;
    float *y = v->out[0];

    (void)scalars;
    for (int64_t plane = 0; plane < in[0] * in[1]; plane++) {
        const float *x = v->in[0] + plane * in[2] * in[3];
        for (int64_t h = 0; h < out[2]; h++) {
            const float *row = x + mirror(h - pad[0], in[2]) * in[3];
            for (int64_t w = 0; w < out[3]; w++) *y++ = row[mirror(w - pad[1], in[3])];
        }
    }
}

void sh_ref_reflect_pad_grad(const sh_node_desc *desc, const sh_ref_view *v,
                             const sh_run_scalars *scalars)
{
    const int64_t *in = desc->in[0]->dims, *out = desc->out[0]->dims;
    const int *pad = desc->attrs->pad;
    int64_t n_pixels = out[2] * out[3];
    const float *dy = v->in[0];

    (void)scalars;
    for (int64_t plane = 0; plane < in[0] * in[1]; plane++) {
        double *acc = v->work;
        for (int64_t i = 0; i < n_pixels; i++) acc[i] = 0;
        for (int64_t h = 0; h < in[2]; h++) {
            double *row = acc + mirror(h - pad[0], out[2]) * out[3];
            for (int64_t w = 0; w < in[3]; w++) row[mirror(w - pad[1], out[3])] += *dy++;
        }
        for (int64_t i = 0; i < n_pixels; i++) v->out[0][plane * n_pixels + i] = (float)acc[i];
    }
}
