// SPDX-License-Identifier: Apache-2.0
/** The optimizer's loops in host memory. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/tree.h"
#include "models/optim_kernels.h"

enum { BLOCK = 16384 /* elements of one task */ };

/* Vectors of the widest kind there is. */
#if defined(__x86_64__)
#define EACH_WIDTH __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define EACH_WIDTH
#endif

static int64_t block_elems(int64_t begin, int64_t n)
{
    return n - begin < BLOCK ? n - begin : BLOCK;
}

static double loss_of(const sh_optim_loss *l)
{
    double first = l->terms[0] != NULL ? *l->terms[0] : 0;

    return l->terms[1] != NULL ? first + l->weight * *l->terms[1] : first;
}

static void judge(double *sums, int64_t n, const sh_optim_limits *limits, const sh_optim_loss *loss,
                  sh_optim_now *now)
{
    double norm = sqrt(sh_tree_sum(sums, n));
    bool is_large = limits->bad_norm > 0 && norm > limits->bad_norm;
    bool clips = limits->clip_norm > 0 && norm > limits->clip_norm;

    now->norm = norm;
    now->scale = clips ? (float)(limits->clip_norm / norm) : 1.0f;
    now->good = isfinite(norm) && !is_large && isfinite(loss_of(loss));
}

static void sgd(float *p, float *m, const float *grad, int64_t n, const sh_sgd *c,
                const sh_optim_now *now)
{
    const float scale = now->scale, rate = now->rates.learning_rate * c->lr_scale;

    if (!now->good) return;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        float g = grad[i] * scale + c->decay * p[i];

        if (m != NULL) g = m[i] = c->momentum * m[i] + g;
        p[i] -= rate * g;
    }
}

/* Of one step. */
typedef struct adam_step {
    float scale, l2, shrink, beta1, beta2, step_size, root_correction, eps;
} adam_step;

/* The same bits in every width: each operation rounds once, and none is contracted. Vectors need
 * the constants as a copy: what the pointers write could lie in the original. */
EACH_WIDTH
static void adam_block(float *restrict p, float *restrict m, float *restrict v,
                       const float *restrict grad, int64_t n, const adam_step constants)
{
    const adam_step c = constants;

    for (int64_t i = 0; i < n; i++) {
        float g = grad[i] * c.scale + c.l2 * p[i];

        m[i] = c.beta1 * m[i] + (1.0f - c.beta1) * g;
        v[i] = c.beta2 * v[i] + (1.0f - c.beta2) * (g * g);
        p[i] = p[i] * c.shrink - c.step_size * m[i] / (sqrtf(v[i]) / c.root_correction + c.eps);
    }
}

static void adam(float *p, float *m, float *v, const float *grad, int64_t n, const sh_adam *c,
                 const sh_optim_now *now)
{
    const sh_optim_rates *r = &now->rates;
    const adam_step step = {.scale = now->scale,
                            .l2 = c->l2,
                            .shrink = 1.0f - r->learning_rate * c->lr_scale * c->decay,
                            .beta1 = c->beta1,
                            .beta2 = c->beta2,
                            .step_size = r->step_size * c->lr_scale,
                            .root_correction = r->root_correction,
                            .eps = c->eps};

    if (!now->good) return;
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < n; at += BLOCK)
        adam_block(p + at, m + at, v + at, grad + at, block_elems(at, n), step);
}

static void blend(float *x, const float *y, int64_t n, float share, const sh_optim_now *now)
{
    if (!now->good) return;
    for (int64_t i = 0; i < n; i++) x[i] = (1.0f - share) * x[i] + share * y[i];
}

static void approach(float *x, const float *y, int64_t n, float share, const sh_optim_now *now)
{
    if (!now->good) return;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) x[i] += share * (y[i] - x[i]);
}

static void copy(float *to, const float *from, int64_t n)
{
    memcpy(to, from, (size_t)n * sizeof(float));
}

/* Each of the eight sums adds in the same order in vectors of every width. */
EACH_WIDTH
static double block_squares(const float *x, int64_t n)
{
    double lanes[8] = {0};
    int64_t i = 0;

    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++) lanes[k] += (double)x[i + k] * (double)x[i + k];
    for (int k = 0; i + k < n; k++) lanes[k] += (double)x[i + k] * (double)x[i + k];
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
           ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

static void squares(const float *x, int64_t n, double *sums)
{
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < n; at += SH_NORM_BLOCK)
        sums[at / SH_NORM_BLOCK] =
            block_squares(x + at, n - at < SH_NORM_BLOCK ? n - at : SH_NORM_BLOCK);
}

const sh_optim_kernels sh_optim_host = {.squares = squares,
                                        .judge = judge,
                                        .sgd = sgd,
                                        .adam = adam,
                                        .blend = blend,
                                        .approach = approach,
                                        .copy = copy};
