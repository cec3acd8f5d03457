// SPDX-License-Identifier: Apache-2.0
/** Factors per channel (squeeze and excitation, layer scale) and means of whole maps. */
#include "models/cuda/images.h"
#include "models/cuda/reduce.h"

/* ---- y = x s ---- */

template <typename T, int V>
__global__ void __launch_bounds__(SH_BLOCK) scale_images(T *y, const T *x, const T *s, image_rows m)
{
    const int64_t c0 = first_channel<V>();
    float factor[V];

    if (c0 >= m.C) return;
    load<V>(s + blockIdx.y * m.C + c0, factor);
    for (int64_t p = threadIdx.y; p < m.n_pixels; p += blockDim.y) {
        float v[V];
        load<V>(x + pixel_at(m, p, c0), v);
#pragma unroll
        for (int i = 0; i < V; i++) v[i] *= factor[i];
        store<V>(y + pixel_at(m, p, c0), v);
    }
}

/** dx may be dy. ds may be NULL. */
template <typename T, int V>
__global__ void __launch_bounds__(SH_BLOCK)
    scale_images_grad(T *dx, T *ds, const T *dy, const T *x, const T *s, image_rows m)
{
    SH_SHARED(float, shared); /* [V][SH_BLOCK] */
    const int64_t c0 = first_channel<V>();
    float factor[V] = {}, sums[V] = {};

    if (c0 < m.C) load<V>(s + blockIdx.y * m.C + c0, factor);
    for (int64_t p = threadIdx.y; p < m.n_pixels && c0 < m.C; p += blockDim.y) {
        float g[V], v[V];
        load<V>(dy + pixel_at(m, p, c0), g);
        load<V>(x + pixel_at(m, p, c0), v);
#pragma unroll
        for (int i = 0; i < V; i++) {
            sums[i] += g[i] * v[i];
            g[i] *= factor[i];
        }
        store<V>(dx + pixel_at(m, p, c0), g);
    }
    if (ds == nullptr) return;
    sum_depth<V>(shared, sums);
    if (threadIdx.y == 0 && c0 < m.C) store<V>(ds + blockIdx.y * m.C + c0, sums);
}

struct run_mul_channels {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        const image_rows m = image_rows_of(desc->in[0]);

        SH_LAUNCH((scale_images<T, V>), image_grid<V>(m.n_images, m.C), image_block<V>(m.C), 0,
                  output<T>(args, 0), input<T>(args, 0), input<T>(args, 1), m);
    }
};

static void mul_channels(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_mul_channels{desc, args});
}

struct run_mul_channels_grad {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        const image_rows m = image_rows_of(desc->in[1]);

        SH_LAUNCH((scale_images_grad<T, V>), image_grid<V>(m.n_images, m.C), image_block<V>(m.C),
                  V * SH_BLOCK * sizeof(float), output<T>(args, 0),
                  has_output(desc, 1) ? output<T>(args, 1) : nullptr, input<T>(args, 0),
                  input<T>(args, 1), input<T>(args, 2), m);
    }
};

static void mul_channels_grad(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[1]->dtype, desc->in[1]->dims[1], run_mul_channels_grad{desc, args});
}

/* ---- y = x gamma ---- */

/** Without dgamma's partial sums, also the forward op: y = dy gamma. */
template <typename T, int V>
__global__ void __launch_bounds__(SH_BLOCK)
    scale_rows(T *dx, const T *dy, const T *x, const float *gamma, tiling t, float *partial)
{
    SH_SHARED(float, shared); /* [V][SH_BLOCK] where partial is wanted */
    const int64_t c0 = first_channel<V>();
    float factor[V] = {}, sums[V] = {};

    for (int i = 0; i < V && c0 < t.C; i++) factor[i] = gamma[c0 + i];
    for (int64_t row = first_row(); row < t.rows && c0 < t.C; row += row_step()) {
        float g[V], v[V] = {};
        load<V>(dy + row * t.C + c0, g);
        if (partial != nullptr) load<V>(x + row * t.C + c0, v);
#pragma unroll
        for (int i = 0; i < V; i++) {
            sums[i] += g[i] * v[i];
            g[i] *= factor[i];
        }
        store<V>(dx + row * t.C + c0, g);
    }
    if (partial == nullptr) return;
    put_piece<1, V>(shared, sums, t.C, c0, partial);
}

struct run_scale {
    const sh_node_desc *desc;
    const sh_kernel_args *args;
    bool is_grad;

    template <typename T, int V> void run() const
    {
        const sh_tensor_desc *d = desc->in[0];
        const tiling t = tiling_of<V>(d->dims[0] * pixels_of(d), d->dims[1]);
        bool has_sums = is_grad && has_output(desc, 1);
        float *partial = has_sums ? static_cast<float *>(args->scratch) : nullptr;

        SH_LAUNCH((scale_rows<T, V>), t.grid(), t.block(),
                  has_sums ? V * SH_BLOCK * sizeof(float) : 0, output<T>(args, 0),
                  input<T>(args, 0), input<T>(args, is_grad ? 1 : 0),
                  input<float>(args, is_grad ? 2 : 1), t, partial);
        if (!has_sums) return;
        launch_finish_sums<1>(partial, t.pieces, t.C,
                              sums_out{{output<float>(args, 1), nullptr, nullptr}, 0});
    }
};

static void scale(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_scale{desc, args, false});
}

static void scale_grad(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_scale{desc, args, true});
}

static size_t scale_grad_scratch(const sh_node_desc *desc)
{
    const sh_tensor_desc *d = desc->in[0];

    return column_sums_bytes(d->dims[0] * pixels_of(d), d->dims[1]);
}

/* ---- means of maps ---- */

template <typename T, int V>
__global__ void __launch_bounds__(SH_BLOCK) mean_images(T *y, const T *x, image_rows m)
{
    SH_SHARED(float, shared); /* [V][SH_BLOCK] */
    const int64_t c0 = first_channel<V>();
    float sums[V] = {};

    for (int64_t p = threadIdx.y; p < m.n_pixels && c0 < m.C; p += blockDim.y) {
        float v[V];
        load<V>(x + pixel_at(m, p, c0), v);
#pragma unroll
        for (int i = 0; i < V; i++) sums[i] += v[i];
    }
    sum_depth<V>(shared, sums);
    if (threadIdx.y > 0 || c0 >= m.C) return;
    for (int i = 0; i < V; i++) sums[i] /= (float)m.n_pixels;
    store<V>(y + blockIdx.y * m.C + c0, sums);
}

template <typename T, int V>
__global__ void __launch_bounds__(SH_BLOCK) mean_images_grad(T *dx, const T *dy, image_rows m)
{
    const int64_t c0 = first_channel<V>();
    float g[V];

    if (c0 >= m.C) return;
    load<V>(dy + blockIdx.y * m.C + c0, g);
    for (int i = 0; i < V; i++) g[i] /= (float)m.n_pixels;
    for (int64_t p = threadIdx.y; p < m.n_pixels; p += blockDim.y)
        store<V>(dx + pixel_at(m, p, c0), g);
}

struct run_avg_pool {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        const image_rows m = image_rows_of(desc->in[0]);

        SH_LAUNCH((mean_images<T, V>), image_grid<V>(m.n_images, m.C), image_block<V>(m.C),
                  V * SH_BLOCK * sizeof(float), output<T>(args, 0), input<T>(args, 0), m);
    }
};

static void avg_pool(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_avg_pool{desc, args});
}

struct run_avg_pool_grad {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        const image_rows m = image_rows_of(desc->out[0]);

        SH_LAUNCH((mean_images_grad<T, V>), image_grid<V>(m.n_images, m.C), image_block<V>(m.C), 0,
                  output<T>(args, 0), input<T>(args, 0), m);
    }
};

static void avg_pool_grad(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_avg_pool_grad{desc, args});
}

const sh_cuda_op sh_cuda_mul_channels = {why_not_images, NULL, mul_channels};
const sh_cuda_op sh_cuda_mul_channels_grad = {why_not_images, NULL, mul_channels_grad};
const sh_cuda_op sh_cuda_scale = {why_not_rows, NULL, scale};
const sh_cuda_op sh_cuda_scale_grad = {why_not_rows, scale_grad_scratch, scale_grad};
const sh_cuda_op sh_cuda_avg_pool = {why_not_images, NULL, avg_pool};
const sh_cuda_op sh_cuda_avg_pool_grad = {why_not_images, NULL, avg_pool_grad};
