// SPDX-License-Identifier: Apache-2.0
/** Linear layers: y[n,o] = sum_i x[n,i] w[o,i] + bias[o]. */
#include "models/ref/kernels.h"

void sh_ref_sum_channels(const sh_tensor_desc *d, const float *dy, float *sums)
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

void sh_ref_linear(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    int64_t N = desc->in[0]->dims[0], I = desc->in[0]->dims[1], O = desc->out[0]->dims[1];
    const float *bias = sh_ref_has_input(desc, 2) ? v->in[2] : NULL;

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
    if (sh_ref_has_output(desc, 1)) sh_ref_sum_channels(desc->in[1], v->in[1], v->out[1]);
}
