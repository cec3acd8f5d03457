// SPDX-License-Identifier: Apache-2.0
/**
 * Losses of classification: models/loss/classes.c on a device, where they are defined.
 *
 * A block has a row and shares out its classes. What is a maximum or a count does not depend on an
 * order; a sum over classes is made in theirs, as the host makes it: all threads bring terms, one
 * adds them up. Logits are read again where they are needed, so that no row of f64 is stored.
 */
#include "models/cuda/loss.h"
#include "models/cuda/memory.h"
#include "models/loss/class_kernels.h"

static const double min_sine = 3e-4; /* models/loss/classes.c: MIN_SINE */

/** A batch as the kernels see it. */
struct classifying {
    sh_class_config config;
    double cos_margin, sin_margin;
    const float *weights;
    const int32_t *fish, *labels;
    const float *logits; /* [own rows, columns] */
    int64_t row_begin;

    __device__ double weight_of(int64_t c) const
    {
        return weights != nullptr ? weights[c] : 1;
    }

    __device__ bool is_other_side(int64_t label, int64_t c) const
    {
        return fish != nullptr && c != label && fish[c] == fish[label];
    }
};

/** A row on its way through the softmax. */
struct class_row {
    classifying all;
    const float *logits; /* [n_classes, n_centres] */
    int64_t label;
    double z_label; /* with the margin */
    double slope;   /* d z / d logit of the row's own class */
    double other;   /* of every other class */
    double log_sum; /* of exp(z) */
    double spread;  /* what smoothing gives to each class that takes part */
    bool is_correct;

    /** The column of the largest logit within a class. A NaN is passed on, not passed over. */
    __device__ int64_t centre_of(int64_t c) const
    {
        const float *own = logits + c * all.config.n_centres;
        int64_t best = 0;

#pragma unroll 1
        for (int64_t k = 1; k < all.config.n_centres; k++)
            if (own[k] > own[best] || own[k] != own[k]) best = k;
        return best;
    }

    /** The logit of a class, without margin and scale. */
    __device__ double plain(int64_t c) const
    {
        return all.is_other_side(label, c) ? -INFINITY
                                           : logits[c * all.config.n_centres + centre_of(c)];
    }

    __device__ double z(int64_t c) const
    {
        return c == label                            ? z_label
               : all.config.kind == SH_CLASS_ARCFACE ? plain(c) * all.config.scale
                                                     : plain(c);
    }

    /** How much of the cost is -log p_c. */
    __device__ double target(int64_t c) const
    {
        if (all.is_other_side(label, c)) return 0;
        return all.weight_of(c) * (spread + (c == label ? 1 - (double)all.config.smoothing : 0));
    }

    __device__ void add_margin()
    {
        const double cosine = z_label, sine = sqrt(fmax(0.0, 1 - cosine * cosine));
        const float scale = all.config.scale, m = all.config.margin;

        slope = other = scale;
        if (cosine < -all.cos_margin) {
            z_label = scale * (cosine - m * all.sin_margin);
            return;
        }
        z_label = scale * (cosine * all.cos_margin - sine * all.sin_margin);
        slope = scale * (all.cos_margin + all.sin_margin * cosine / fmax(sine, min_sine));
    }
};

/* ---- over the threads of a block; all of them call these ---- */

/** term(0) + term(1) + ... + term(n - 1), in this order. shared: [SH_BLOCK]. */
template <class Term>
__device__ static inline double sum_in_order(double *shared, int64_t n, const Term &term)
{
    double sum = 0;

    for (int64_t first = 0; first < n; first += SH_BLOCK) {
        const int64_t i = first + threadIdx.x;
        const int n_terms = n - first < SH_BLOCK ? (int)(n - first) : (int)SH_BLOCK;

        shared[threadIdx.x] = i < n ? term(i) : 0;
        __syncthreads();
        for (int k = 0; k < n_terms && threadIdx.x == 0; k++) sum += shared[k];
        __syncthreads();
    }
    if (threadIdx.x == 0) shared[0] = sum;
    __syncthreads();
    sum = shared[0];
    __syncthreads();
    return sum;
}

__device__ static inline double largest_of(double *shared, double own)
{
    const unsigned at = threadIdx.x;

    shared[at] = own;
    for (unsigned half = SH_BLOCK / 2; half > 0; half /= 2) {
        __syncthreads();
        if (at < half && shared[at + half] > shared[at]) shared[at] = shared[at + half];
    }
    __syncthreads();
    own = shared[0];
    __syncthreads();
    return own;
}

/** shared: [2][SH_BLOCK] of 8 bytes. */
__device__ static inline class_row forward_row(const classifying &all, double *shared)
{
    const int64_t n_classes = all.config.n_classes;
    class_row r = {};
    double largest = -INFINITY;
    int64_t counts[2] = {0, 0}; /* other sides; classes that are not below the row's own */

    r.all = all;
    r.logits = all.logits + blockIdx.x * n_classes * all.config.n_centres;
    r.label = all.labels[all.row_begin + blockIdx.x];
    r.slope = r.other = 1;
    r.z_label = r.plain(r.label);
    for (int64_t c = threadIdx.x; c < n_classes; c += SH_BLOCK) {
        counts[0] += all.is_other_side(r.label, c);
        counts[1] += c != r.label && !(r.plain(c) < r.z_label);
    }
    sum_counts<2>(reinterpret_cast<int64_t *>(shared), counts);
    __syncthreads();
    r.is_correct = counts[1] == 0;
    r.spread = all.config.smoothing / (double)(n_classes - counts[0]);
    if (all.config.kind == SH_CLASS_ARCFACE) r.add_margin();
    for (int64_t c = threadIdx.x; c < n_classes; c += SH_BLOCK) {
        const double z = r.z(c);

        if (z > largest) largest = z;
    }
    largest = largest_of(shared, largest);
    const double sum =
        sum_in_order(shared, n_classes, [&](int64_t c) { return exp(r.z(c) - largest); });
    r.log_sum = largest + log(sum);
    return r;
}

/* ---- kernels: a block per own row ---- */

__global__ void __launch_bounds__(SH_BLOCK) cost_of_rows(classifying all, sh_class_row *rows)
{
    SH_SHARED(double, shared); /* [2][SH_BLOCK] */

    if (all.labels[all.row_begin + blockIdx.x] < 0) {
        if (threadIdx.x == 0) rows[blockIdx.x] = sh_class_row{0, 0};
        return;
    }
    const class_row r = forward_row(all, shared);
    double cost;
    if (all.config.smoothing == 0) {
        cost = all.weight_of(r.label) * (r.log_sum - r.z_label);
    } else {
        cost = sum_in_order(shared, all.config.n_classes, [&](int64_t c) {
            return all.is_other_side(r.label, c) ? 0 : r.target(c) * (r.log_sum - r.z(c));
        });
    }
    if (threadIdx.x == 0) rows[blockIdx.x] = sh_class_row{cost, r.is_correct};
}

__global__ void __launch_bounds__(SH_BLOCK)
    gradient_of_rows(classifying all, const double *scale, float weight, float *grads)
{
    SH_SHARED(double, shared); /* [2][SH_BLOCK] */
    const int64_t n_classes = all.config.n_classes, n_centres = all.config.n_centres;
    float *grad = grads + blockIdx.x * n_classes * n_centres;

    for (int64_t i = threadIdx.x; i < n_classes * n_centres; i += SH_BLOCK) grad[i] = 0;
    if (all.labels[all.row_begin + blockIdx.x] < 0) return;
    __syncthreads();
    const class_row r = forward_row(all, shared);
    const double total = sum_in_order(shared, n_classes, [&](int64_t c) { return r.target(c); });
    for (int64_t c = threadIdx.x; c < n_classes; c += SH_BLOCK) {
        double slope = exp(r.z(c) - r.log_sum) * total - r.target(c);

        slope *= *scale * (c == r.label ? r.slope : r.other);
        grad[c * n_centres + r.centre_of(c)] = (float)slope * weight;
    }
}

/** One block. costs [n]: scratch. */
__global__ void __launch_bounds__(SH_BLOCK)
    sum_classes(classifying all, const sh_class_row *rows, int64_t n, double *costs, double *scale,
                sh_class_stats *stats)
{
    SH_SHARED(double, shared); /* [2][SH_BLOCK] */
    int64_t counts[2] = {0, 0};

    for (int64_t i = threadIdx.x; i < n; i += SH_BLOCK) {
        costs[i] = rows[i].cost;
        counts[0] += all.labels[i] >= 0;
        counts[1] += rows[i].is_correct;
    }
    sum_counts<2>(reinterpret_cast<int64_t *>(shared), counts);
    __syncthreads();
    const double total = sum_in_order(shared, n, [&](int64_t i) {
        return all.labels[i] >= 0 ? all.weight_of(all.labels[i]) : 0;
    });
    sum_tree(costs, n);
    if (threadIdx.x > 0) return;
    *scale = total > 0 ? 1 / total : 0;
    *stats = sh_class_stats{costs[0] * *scale, counts[0], counts[1]};
}

/* ---- the table ---- */

enum { SHARED_BYTES = 2 * SH_BLOCK * sizeof(double) };

struct class_scratch {
    double *costs; /* [n] */
    double *scale;
};

static class_scratch take_scratch(carver *c, int64_t n)
{
    double *costs = c->take<double>(n);

    return class_scratch{costs, c->take<double>(1)};
}

static classifying classifying_of(const sh_class_batch *batch, const float *logits,
                                  int64_t row_begin)
{
    const double margin = batch->config->margin;

    return classifying{*batch->config, cos(margin),   sin(margin), batch->weights,
                       batch->fish,    batch->labels, logits,      row_begin};
}

static size_t scratch_bytes(int64_t n)
{
    carver carve = {nullptr, 0};

    take_scratch(&carve, n);
    return carve.n_bytes;
}

static sh_status choose(const sh_class_batch *batch, const float *logits, int64_t row_begin,
                        int64_t row_end, sh_class_row *rows)
{
    if (row_begin == row_end) return SH_OK;
    SH_LAUNCH(cost_of_rows, dim3((unsigned)(row_end - row_begin)), dim3(SH_BLOCK), SHARED_BYTES,
              classifying_of(batch, logits, row_begin), rows);
    return sh_cuda_launched("classification");
}

static sh_status apply(const sh_class_batch *batch, const sh_class_row *rows, const float *logits,
                       int64_t row_begin, int64_t row_end, float weight, sh_class_stats *stats,
                       float *grad)
{
    carver carve = {static_cast<char *>(batch->scratch), 0};
    const class_scratch s = take_scratch(&carve, batch->n);
    const classifying all = classifying_of(batch, logits, row_begin);

    SH_LAUNCH(sum_classes, dim3(1), dim3(SH_BLOCK), SHARED_BYTES, all, rows, batch->n, s.costs,
              s.scale, stats);
    if (grad != nullptr && row_begin < row_end)
        SH_LAUNCH(gradient_of_rows, dim3((unsigned)(row_end - row_begin)), dim3(SH_BLOCK),
                  SHARED_BYTES, all, s.scale, weight, grad);
    return sh_cuda_launched("classification");
}

const sh_class_kernels sh_cuda_classes = {scratch_bytes, choose, apply};
