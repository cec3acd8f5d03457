// SPDX-License-Identifier: Apache-2.0
/** Concatenation, scaling of channels, stochastic depth. */
#include "base/rng.h"
#include "models/ref/kernels.h"

/** Copy the channels of `part` from or to where they lie in the whole, whose channels are C. */
static void copy_channels(const sh_tensor_desc *part, int64_t first, int64_t C, float *whole,
                          float *dense, bool is_gather)
{
    int64_t n_pixels = part->dims[2] * part->dims[3], n = part->dims[1] * n_pixels;

    for (int64_t image = 0; image < part->dims[0]; image++) {
        float *at = whole + (image * C + first) * n_pixels;
        if (is_gather)
            memcpy(dense + image * n, at, (size_t)n * sizeof(float));
        else
            memcpy(at, dense + image * n, (size_t)n * sizeof(float));
    }
}

void sh_ref_concat(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    int64_t first = 0;

    (void)scalars;
    for (int k = 0; k < desc->n_inputs; k++) {
        copy_channels(desc->in[k], first, desc->out[0]->dims[1], v->out[0], (float *)v->in[k],
                      false);
        first += desc->in[k]->dims[1];
    }
}

void sh_ref_concat_grad(const sh_node_desc *desc, const sh_ref_view *v,
                        const sh_run_scalars *scalars)
{
    int64_t first = 0;

    (void)scalars;
    for (int k = 0; k < desc->n_outputs; k++) {
        copy_channels(desc->out[k], first, desc->in[0]->dims[1], (float *)v->in[0], v->out[k],
                      true);
        first += desc->out[k]->dims[1];
    }
}

void sh_ref_mul_channels(const sh_node_desc *desc, const sh_ref_view *v,
                         const sh_run_scalars *scalars)
{
    int64_t n_pixels = desc->in[0]->dims[2] * desc->in[0]->dims[3];

    (void)scalars;
    for (int64_t i = 0; i < sh_ref_elems(desc->in[0]); i++) {
        v->out[0][i] = v->in[0][i] * v->in[1][i / n_pixels];
    }
}

void sh_ref_mul_channels_grad(const sh_node_desc *desc, const sh_ref_view *v,
                              const sh_run_scalars *scalars)
{
    int64_t n_pixels = desc->in[0]->dims[2] * desc->in[0]->dims[3];
    float *ds = sh_ref_has_output(desc, 1) ? v->out[1] : NULL;

    (void)scalars;
    for (int64_t plane = 0; plane < sh_ref_elems(desc->in[2]); plane++) {
        double sum = 0;
        for (int64_t i = plane * n_pixels; i < (plane + 1) * n_pixels; i++) {
            sum += (double)v->in[0][i] * v->in[1][i];
            v->out[0][i] = v->in[0][i] * v->in[2][plane];
        }
        if (ds != NULL) ds[plane] = (float)sum;
    }
}

void sh_ref_scale(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    int64_t C = desc->in[0]->dims[1], n_pixels = desc->in[0]->dims[2] * desc->in[0]->dims[3];

    (void)scalars;
    for (int64_t i = 0; i < sh_ref_elems(desc->in[0]); i++) {
        v->out[0][i] = v->in[0][i] * v->in[1][i / n_pixels % C];
    }
}

void sh_ref_scale_grad(const sh_node_desc *desc, const sh_ref_view *v,
                       const sh_run_scalars *scalars)
{
    const int64_t *d = desc->in[0]->dims;
    int64_t n_pixels = d[2] * d[3];
    float *dgamma = sh_ref_has_output(desc, 1) ? v->out[1] : NULL;

    (void)scalars;
    for (int64_t c = 0; c < d[1]; c++) {
        double sum = 0;
        for (int64_t n = 0; n < d[0]; n++) {
            int64_t begin = (n * d[1] + c) * n_pixels;
            for (int64_t i = begin; i < begin + n_pixels; i++) {
                sum += (double)v->in[0][i] * v->in[1][i];
                v->out[0][i] = v->in[0][i] * v->in[2][c];
            }
        }
        if (dgamma != NULL) dgamma[c] = (float)sum;
    }
}

void sh_ref_add_scaled(const sh_node_desc *desc, const sh_ref_view *v,
                       const sh_run_scalars *scalars)
{
    const float *a = sh_ref_has_input(desc, 1) ? v->in[1] : NULL;
    double scale = desc->attrs->scale;

    (void)scalars;
    for (int64_t i = 0; i < sh_ref_elems(desc->in[0]); i++) {
        v->out[0][i] = (float)(scale * v->in[0][i] + (a == NULL ? 0 : a[i]));
    }
}

void sh_ref_path_drop(const sh_node_desc *desc, const sh_ref_view *v, const sh_run_scalars *scalars)
{
    const int64_t *d = desc->in[0]->dims;
    int64_t n_elems = d[1] * d[2] * d[3];
    float rate = desc->attrs->rate, scale = 1.0f / (1.0f - rate);

    for (int64_t n = 0; n < d[0]; n++) {
        sh_rng_key key = sh_rng_make(scalars->seed + (uint64_t)desc->attrs->stream, SH_RNG_DROPOUT,
                                     scalars->step, (uint64_t)(scalars->first_slot + n));
        bool is_kept = sh_rng_uniform(key, 0) >= rate;
        for (int64_t i = n * n_elems; i < (n + 1) * n_elems; i++) {
            v->out[0][i] = is_kept ? v->in[0][i] * scale : 0;
        }
    }
}
