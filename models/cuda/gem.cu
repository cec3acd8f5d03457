// SPDX-License-Identifier: Apache-2.0
/** Generalised means of whole maps; one block per image. */
#include "models/cuda/node.h"
#include "models/cuda/reduce.h"

struct gem_shape {
    int64_t n_images, C, n_pixels;
    float eps;
};

static gem_shape gem_shape_of(const sh_tensor_desc *d, const sh_op_attrs *attrs)
{
    return gem_shape{d->dims[0], d->dims[1], pixels_of(d), attrs->eps};
}

/** Means of c^p, c = max(x, eps), in every thread of a lane. */
template <typename T, int V>
__device__ static inline void mean_powers(const T *x, const gem_shape &s, float p, float *shared,
                                          float *means)
{
    const int64_t c0 = first_channel<V>();

    for (int i = 0; i < V; i++) means[i] = 0;
    for (int64_t k = threadIdx.y; k < s.n_pixels && c0 < s.C; k += blockDim.y) {
        float v[V];
        load<V>(x + (blockIdx.y * s.n_pixels + k) * s.C + c0, v);
#pragma unroll
        for (int i = 0; i < V; i++) means[i] += powf(fmaxf(v[i], s.eps), p);
    }
    sum_depth<V>(shared, means);
    __syncthreads();
    for (int i = 0; i < V; i++)
        means[i] = shared[i * SH_BLOCK + (int)threadIdx.x] / (float)s.n_pixels;
}

template <typename T, int V>
__global__ void __launch_bounds__(SH_BLOCK)
    gem_images(T *y, const T *x, const float *power, gem_shape s)
{
    SH_SHARED(float, shared); /* [V][SH_BLOCK] */
    const int64_t c0 = first_channel<V>();
    const float p = *power;
    float means[V];

    mean_powers<T, V>(x, s, p, shared, means);
    if (threadIdx.y > 0 || c0 >= s.C) return;
    for (int i = 0; i < V; i++) means[i] = powf(means[i], 1 / p);
    store<V>(y + blockIdx.y * s.C + c0, means);
}

/** terms [N][C]: what each map adds to dp, mean(w ln w) / p with w = c^p / mean(c^p) (models/ref).
 */
template <typename T, int V>
__global__ void __launch_bounds__(SH_BLOCK)
    gem_images_grad(T *dx, float *terms, const T *dy, const T *x, const float *power, gem_shape s)
{
    SH_SHARED(float, shared); /* [V][SH_BLOCK] */
    const int64_t c0 = first_channel<V>();
    const float p = *power;
    float means[V], y[V], g[V] = {}, spread[V] = {};

    mean_powers<T, V>(x, s, p, shared, means);
    if (c0 < s.C) load<V>(dy + blockIdx.y * s.C + c0, g);
    for (int i = 0; i < V; i++) y[i] = powf(means[i], 1 / p);
    for (int64_t k = threadIdx.y; k < s.n_pixels && c0 < s.C; k += blockDim.y) {
        const int64_t at = (blockIdx.y * s.n_pixels + k) * s.C + c0;
        float v[V];
        load<V>(x + at, v);
#pragma unroll
        for (int i = 0; i < V; i++) {
            const float c = fmaxf(v[i], s.eps), w = powf(c, p) / means[i];
            spread[i] += w > 0 ? w * logf(w) : 0;
            v[i] = v[i] >= s.eps ? g[i] * y[i] * w / c / (float)s.n_pixels : 0.0f;
        }
        store<V>(dx + at, v);
    }
    __syncthreads(); /* the means have been read */
    sum_depth<V>(shared, spread);
    if (threadIdx.y > 0 || c0 >= s.C) return;
    for (int i = 0; i < V; i++)
        terms[blockIdx.y * s.C + c0 + i] = g[i] * y[i] / p * spread[i] / (float)s.n_pixels / p;
}

/** One block: the sum of all terms. */
__global__ void __launch_bounds__(SH_BLOCK) sum_terms(const float *terms, int64_t n, float *out)
{
    SH_SHARED(double, shared); /* [SH_BLOCK] */
    double sum = 0;

    for (int64_t i = threadIdx.x; i < n; i += SH_BLOCK) sum += terms[i];
    shared[threadIdx.x] = sum;
    for (unsigned half = SH_BLOCK / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    }
    if (threadIdx.x == 0) *out = (float)shared[0];
}

struct run_gem_pool {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        const gem_shape s = gem_shape_of(desc->in[0], desc->attrs);

        SH_LAUNCH((gem_images<T, V>), image_grid<V>(s.n_images, s.C), image_block<V>(s.C),
                  V * SH_BLOCK * sizeof(float), output<T>(args, 0), input<T>(args, 0),
                  input<float>(args, 1), s);
    }
};

static void gem_pool(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_gem_pool{desc, args});
}

struct run_gem_pool_grad {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        const gem_shape s = gem_shape_of(desc->in[1], desc->attrs);
        float *terms = static_cast<float *>(args->scratch);

        SH_LAUNCH((gem_images_grad<T, V>), image_grid<V>(s.n_images, s.C), image_block<V>(s.C),
                  V * SH_BLOCK * sizeof(float), output<T>(args, 0), terms, input<T>(args, 0),
                  input<T>(args, 1), input<float>(args, 2), s);
        if (!has_output(desc, 1)) return;
        SH_LAUNCH(sum_terms, dim3(1), dim3(SH_BLOCK), SH_BLOCK * sizeof(double), terms,
                  s.n_images * s.C, output<float>(args, 1));
    }
};

static void gem_pool_grad(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[1]->dtype, desc->in[1]->dims[1], run_gem_pool_grad{desc, args});
}

static size_t gem_pool_grad_scratch(const sh_node_desc *desc)
{
    return (size_t)(desc->in[1]->dims[0] * desc->in[1]->dims[1]) * sizeof(float);
}

static const char *why_not_images(const sh_node_desc *desc)
{
    if (desc->in[0]->dims[0] > SH_MAX_GRID_Y) return "too many images";
    return why_not_rows(desc);
}

const sh_cuda_op sh_cuda_gem_pool = {why_not_images, NULL, gem_pool};
const sh_cuda_op sh_cuda_gem_pool_grad = {why_not_images, gem_pool_grad_scratch, gem_pool_grad};
