// SPDX-License-Identifier: Apache-2.0
/** The optimizer over flat arenas: one thread per element. */
#include "models/cuda/device.h"
#include "models/optim_kernels.h"

__global__ void __launch_bounds__(SH_BLOCK)
    update_sgd(float *p, float *m, const float *grad, int64_t n, sh_sgd c, const sh_optim_now *now)
{
    const int64_t i = item_index();

    if (i >= n || !now->good) return;
    float g = grad[i] * now->scale + c.decay * p[i];
    if (m != nullptr) g = m[i] = c.momentum * m[i] + g;
    p[i] -= now->rates.learning_rate * c.lr_scale * g;
}

__global__ void __launch_bounds__(SH_BLOCK)
    update_adam(float *p, float *m, float *v, const float *grad, int64_t n, sh_adam c,
                const sh_optim_now *now)
{
    const int64_t i = item_index();

    if (i >= n || !now->good) return;
    const sh_optim_rates r = now->rates;
    const float shrink = 1.0f - r.learning_rate * c.lr_scale * c.decay;
    const float step_size = r.step_size * c.lr_scale;
    const float g = grad[i] * now->scale + c.l2 * p[i];
    const float first = m[i] = c.beta1 * m[i] + (1.0f - c.beta1) * g;
    const float second = v[i] = c.beta2 * v[i] + (1.0f - c.beta2) * (g * g);
    p[i] = p[i] * shrink - step_size * first / (sqrtf(second) / r.root_correction + c.eps);
}

__global__ void __launch_bounds__(SH_BLOCK)
    update_blend(float *x, const float *y, int64_t n, float share, const sh_optim_now *now)
{
    const int64_t i = item_index();

    if (i < n && now->good) x[i] = (1.0f - share) * x[i] + share * y[i];
}

__global__ void __launch_bounds__(SH_BLOCK)
    update_approach(float *x, const float *y, int64_t n, float share, const sh_optim_now *now)
{
    const int64_t i = item_index();

    if (i < n && now->good) x[i] += share * (y[i] - x[i]);
}

__global__ void __launch_bounds__(SH_BLOCK) copy_elements(float *to, const float *from, int64_t n)
{
    const int64_t i = item_index();

    if (i < n) to[i] = from[i];
}

/** One block per SH_NORM_BLOCK elements: its threads' sums, then those by a tree. */
__global__ void __launch_bounds__(SH_BLOCK) sum_squares(const float *x, int64_t n, double *sums)
{
    SH_SHARED(double, shared); /* [SH_BLOCK] */
    const int64_t begin = (int64_t)blockIdx.x * SH_NORM_BLOCK;
    const int64_t end = begin + SH_NORM_BLOCK < n ? begin + SH_NORM_BLOCK : n;
    double sum = 0;

    for (int64_t i = begin + threadIdx.x; i < end; i += SH_BLOCK) sum += (double)x[i] * x[i];
    shared[threadIdx.x] = sum;
    for (unsigned half = SH_BLOCK / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    }
    if (threadIdx.x == 0) sums[blockIdx.x] = shared[0];
}

/** One block: neighbours become pairs, pairs of pairs, ... as in base/tree.h. */
__global__ void __launch_bounds__(SH_BLOCK)
    judge_step(double *sums, int64_t n, sh_optim_limits limits, sh_optim_loss loss,
               sh_optim_now *now)
{
    for (int64_t half = 1; half < n; half *= 2) {
        for (int64_t i = (int64_t)threadIdx.x * 2 * half; i + half < n;
             i += (int64_t)SH_BLOCK * 2 * half)
            sums[i] += sums[i + half];
        __syncthreads();
    }
    if (threadIdx.x > 0) return;
    const double norm = n > 0 ? sqrt(sums[0]) : 0;
    const bool is_large = limits.bad_norm > 0 && norm > limits.bad_norm;
    double value = loss.terms[0] != nullptr ? *loss.terms[0] : 0;
    if (loss.terms[1] != nullptr) value += loss.weight * *loss.terms[1];
    now->norm = norm;
    now->scale =
        limits.clip_norm > 0 && norm > limits.clip_norm ? (float)(limits.clip_norm / norm) : 1.0f;
    now->good = isfinite(norm) && !is_large && isfinite(value);
}

static void sgd(float *p, float *m, const float *grad, int64_t n, const sh_sgd *constants,
                const sh_optim_now *now)
{
    const sh_sgd c = *constants;

    if (n > 0) SH_LAUNCH(update_sgd, item_grid(n), dim3(SH_BLOCK), 0, p, m, grad, n, c, now);
}

static void adam(float *p, float *m, float *v, const float *grad, int64_t n,
                 const sh_adam *constants, const sh_optim_now *now)
{
    const sh_adam c = *constants;

    if (n > 0) SH_LAUNCH(update_adam, item_grid(n), dim3(SH_BLOCK), 0, p, m, v, grad, n, c, now);
}

static void blend(float *x, const float *y, int64_t n, float share, const sh_optim_now *now)
{
    if (n > 0) SH_LAUNCH(update_blend, item_grid(n), dim3(SH_BLOCK), 0, x, y, n, share, now);
}

static void approach(float *x, const float *y, int64_t n, float share, const sh_optim_now *now)
{
    if (n > 0) SH_LAUNCH(update_approach, item_grid(n), dim3(SH_BLOCK), 0, x, y, n, share, now);
}

static void copy(float *to, const float *from, int64_t n)
{
    if (n > 0) SH_LAUNCH(copy_elements, item_grid(n), dim3(SH_BLOCK), 0, to, from, n);
}

static void squares(const float *x, int64_t n, double *sums)
{
    const int64_t n_blocks = (n + SH_NORM_BLOCK - 1) / SH_NORM_BLOCK;

    if (n > 0)
        SH_LAUNCH(sum_squares, dim3((unsigned)n_blocks), dim3(SH_BLOCK), SH_BLOCK * sizeof(double),
                  x, n, sums);
}

static void judge(double *sums, int64_t n, const sh_optim_limits *limits, const sh_optim_loss *loss,
                  sh_optim_now *now)
{
    SH_LAUNCH(judge_step, dim3(1), dim3(SH_BLOCK), 0, sums, n, *limits, *loss, now);
}

const sh_optim_kernels sh_cuda_optim = {squares, judge, sgd, adam, blend, approach, copy};
