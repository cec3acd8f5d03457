// SPDX-License-Identifier: Apache-2.0
/* Batch norm's per-channel arithmetic, shared by the kernels that normalise and those that fuse it.
 */
#include "models/cpu/kernels.h"

#include <math.h>

bool sh_cpu_act_bounds(sh_act act, float *lo, float *hi)
{
    static const struct {
        bool is_clamp;
        float lo, hi;
    } bounds[] = {[SH_ACT_NONE] = {true, -INFINITY, INFINITY},
                  [SH_ACT_RELU] = {true, 0, INFINITY},
                  [SH_ACT_RELU6] = {true, 0, 6},
                  [SH_ACT_SIGMOID] = {false, 0, 0},
                  [SH_ACT_TANH] = {false, 0, 0},
                  [SH_ACT_SILU] = {false, 0, 0},
                  [SH_ACT_GELU] = {false, 0, 0},
                  [SH_ACT_HARD_SIGMOID] = {false, 0, 0},
                  [SH_ACT_HARD_SWISH] = {false, 0, 0}};

    *lo = bounds[act].lo;
    *hi = bounds[act].hi;
    return bounds[act].is_clamp;
}

bool sh_cpu_norm_has_act(sh_act act)
{
    float lo, hi;

    return act == SH_ACT_SILU || sh_cpu_act_bounds(act, &lo, &hi);
}

static int64_t padded(int64_t n_channels)
{
    return sh_cpu_blocks(n_channels) * 16;
}

size_t sh_cpu_norm_bytes(int64_t n_channels)
{
    return 6 * (size_t)padded(n_channels) * sizeof(float);
}

sh_cpu_norm sh_cpu_norm_make(void *scratch, int64_t n_channels, const float *mean, const float *var,
                             const float *gamma, const float *beta, float eps, sh_act act)
{
    int64_t n = padded(n_channels);
    float *at = scratch;
    sh_cpu_norm norm = {.scale = at,
                        .shift = at + n,
                        .mean = at + 2 * n,
                        .a = at + 3 * n,
                        .b = at + 4 * n,
                        .c = at + 5 * n};

    memset(scratch, 0, sh_cpu_norm_bytes(n_channels));
    (void)sh_cpu_act_bounds(act, &norm.lo, &norm.hi);
    norm.curve = sh_act_needs_input(act) ? act : SH_ACT_NONE;
    for (int64_t c = 0; c < n_channels; c++) {
        double scale = gamma[c] / sqrt((double)var[c] + eps);
        norm.scale[c] = (float)scale;
        /* Of the scale as it was rounded, so that the mean still goes to beta. */
        norm.shift[c] = (float)(beta[c] - (double)mean[c] * (double)norm.scale[c]);
        norm.mean[c] = mean[c];
    }
    return norm;
}

void sh_cpu_norm_make_grad(sh_cpu_norm *norm, int64_t n_channels, const float *mean,
                           const float *var, const float *gamma, float eps, const float *dgamma,
                           const float *dbeta, double n_reduced, bool frozen)
{
    for (int64_t c = 0; c < n_channels; c++) {
        double rstd = 1 / sqrt((double)var[c] + eps), a = gamma[c] * rstd;
        double b = frozen ? 0 : -a * rstd * dgamma[c] / n_reduced;
        norm->a[c] = (float)a;
        norm->b[c] = (float)b;
        norm->c[c] = frozen ? 0 : (float)(-a * dbeta[c] / n_reduced - b * mean[c]);
    }
}

sh_cpu_affine sh_cpu_norm_block(const sh_cpu_norm *norm, int64_t block)
{
    if (!norm->scale) return (sh_cpu_affine){.scale = NULL};
    return (sh_cpu_affine){.scale = norm->scale + block * 16,
                           .shift = norm->shift + block * 16,
                           .lo = norm->lo,
                           .hi = norm->hi,
                           .curve = norm->curve};
}

sh_cpu_bn_grad sh_cpu_grad_block(const sh_cpu_norm *norm, int64_t block)
{
    return (sh_cpu_bn_grad){
        .a = norm->a + block * 16, .b = norm->b + block * 16, .c = norm->c + block * 16};
}

void sh_cpu_finish_moments(const sh_cpu_moments *records, int64_t n_items, int64_t n_channels,
                           float *mean, float *var)
{
    int64_t n_blocks = sh_cpu_blocks(n_channels);

#pragma omp parallel for schedule(static)
    for (int64_t c = 0; c < n_channels; c++) {
        const sh_cpu_moments *m = records + c / 16;
        int64_t lane = c % 16;
        double n = 0, sum = 0, square = 0;
        for (int64_t i = 0; i < n_items; i++) {
            const sh_cpu_moments *r = m + i * n_blocks;
            n += (double)r->count;
            sum += (double)r->shift[lane] * (double)r->count + (double)r->sum[lane];
        }
        double centre = sum / n;
        for (int64_t i = 0; i < n_items; i++) {
            const sh_cpu_moments *r = m + i * n_blocks;
            double k = (double)r->count, s = r->sum[lane], off = r->shift[lane] + s / k - centre;
            square += r->square[lane] - s * s / k + k * off * off;
        }
        mean[c] = (float)centre;
        var[c] = (float)(square > 0 ? square / n : 0);
    }
}

void sh_cpu_finish_sums(const sh_cpu_grad_sums *records, int64_t n_items, int64_t n_channels,
                        const float *var, float eps, float *dgamma, float *dbeta)
{
    int64_t n_blocks = sh_cpu_blocks(n_channels);

#pragma omp parallel for schedule(static)
    for (int64_t c = 0; c < n_channels; c++) {
        double g = 0, gx = 0;
        for (int64_t i = 0; i < n_items; i++) {
            const sh_cpu_grad_sums *r = records + i * n_blocks + c / 16;
            g += (double)r->g[c % 16];
            gx += (double)r->gx[c % 16];
        }
        dgamma[c] = (float)(gx / sqrt((double)var[c] + eps));
        dbeta[c] = (float)g;
    }
}
