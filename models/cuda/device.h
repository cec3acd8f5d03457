// SPDX-License-Identifier: Apache-2.0
/**
 * What every kernel file begins with: CUDA or the emulator in its place, element types, vectors of
 * channels, sums over threads.
 *
 * A kernel file is written once. nvcc compiles it for devices; with a C++ compiler the emulator
 * runs it on the host. Hence: launches by SH_LAUNCH, shared memory by SH_SHARED (all of it dynamic,
 * its bytes given at the launch), full warps in shuffles, nothing that only hardware has.
 *
 * Sums are made in an order that depends on shapes alone: never by atomics.
 */
#ifndef SH_MODELS_CUDA_DEVICE_H
#define SH_MODELS_CUDA_DEVICE_H

#include <stdint.h>

#include "models/cuda/kernels.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "models/cuda/memory.h"

#define SH_LAUNCH_ON(queue, kernel, grid, block, shared_bytes, ...)                                \
    kernel<<<grid, block, shared_bytes, sh_cuda_queue(queue)>>>(__VA_ARGS__)
#define SH_SHARED(type, name)                                                                      \
    extern __shared__ __align__(16) unsigned char sh_shared_bytes[];                               \
    type *name = reinterpret_cast<type *>(sh_shared_bytes)
#else
#include "models/cuda/emulator/emulator.h"

#define SH_LAUNCH_ON(queue, kernel, grid, block, shared_bytes, ...)                                \
    ((void)(queue), sh_emulator_run(                                                               \
                        __FILE__, grid, block, shared_bytes,                                       \
                        [](const auto &...argument) { kernel(argument...); }, __VA_ARGS__))
#define SH_SHARED(type, name) type *name = reinterpret_cast<type *>(sh_emulator_shared)
#endif

#define SH_LAUNCH(kernel, grid, block, shared_bytes, ...)                                          \
    SH_LAUNCH_ON(SH_QUEUE_COMPUTE, kernel, grid, block, shared_bytes, __VA_ARGS__)

enum {
    SH_BLOCK = 256,       /* threads of every block */
    SH_MAX_PIECES = 1024, /* partial sums per channel */
    SH_ROWS_PER_THREAD = 16,
};

/* ---- elements ---- */

typedef struct sh_bf16 {
    uint16_t bits;
} sh_bf16;

__device__ static inline float to_f32(float x)
{
    return x;
}

__device__ static inline float to_f32(sh_bf16 x)
{
#if defined(__CUDACC__)
    return __uint_as_float((uint32_t)x.bits << 16);
#else
    return sh_bf16_to_f32(x.bits);
#endif
}

template <typename T> struct convert;

template <> struct convert<float> {
    __device__ static float of(float x)
    {
        return x;
    }
};

template <> struct convert<sh_bf16> {
    __device__ static sh_bf16 of(float x)
    {
        sh_bf16 y;
#if defined(__CUDACC__)
        y.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
#else
        y.bits = sh_bf16_from_f32(x);
#endif
        return y;
    }
};

/** x as it will be read back from memory of type T. */
template <typename T> __device__ static inline float as_stored(float x)
{
    return to_f32(convert<T>::of(x));
}

/** V consecutive elements, moved 16 bytes at a time. */
template <typename T, int V> struct alignas(sizeof(T) * V < 16 ? sizeof(T) * V : 16) pack {
    T v[V];
};

template <int V, typename T> __device__ static inline void load(const T *from, float *x)
{
    const pack<T, V> p = *reinterpret_cast<const pack<T, V> *>(from);
#pragma unroll
    for (int i = 0; i < V; i++) x[i] = to_f32(p.v[i]);
}

template <int V, typename T> __device__ static inline void store(T *to, const float *x)
{
    pack<T, V> p;
#pragma unroll
    for (int i = 0; i < V; i++) p.v[i] = convert<T>::of(x[i]);
    *reinterpret_cast<pack<T, V> *>(to) = p;
}

/* ---- activations ---- */

__device__ static inline float gauss_cdf(float z)
{
    return 0.5f * erfcf(-z * 0.70710678f);
}

__device__ static inline float hard_sigmoid(float z)
{
    return fminf(fmaxf(z / 6 + 0.5f, 0.0f), 1.0f);
}

__device__ static inline float act_value(sh_act act, float z)
{
    switch (act) {
    case SH_ACT_RELU: return fmaxf(z, 0.0f);
    case SH_ACT_RELU6: return fminf(fmaxf(z, 0.0f), 6.0f);
    case SH_ACT_SIGMOID: return 1 / (1 + expf(-z));
    case SH_ACT_TANH: return tanhf(z);
    case SH_ACT_SILU: return z / (1 + expf(-z));
    case SH_ACT_GELU: return z * gauss_cdf(z);
    case SH_ACT_HARD_SIGMOID: return hard_sigmoid(z);
    case SH_ACT_HARD_SWISH: return z * hard_sigmoid(z);
    case SH_ACT_NONE: break;
    }
    return z;
}

/** Slope at z, where y = act(z); only z is used where sh_act_needs_input, else only y. */
__device__ static inline float act_slope(sh_act act, float z, float y)
{
    float sigmoid;

    switch (act) {
    case SH_ACT_RELU: return y > 0 ? 1.0f : 0.0f;
    case SH_ACT_RELU6: return y > 0 && y < 6 ? 1.0f : 0.0f;
    case SH_ACT_SIGMOID: return y * (1 - y);
    case SH_ACT_TANH: return 1 - y * y;
    case SH_ACT_SILU: sigmoid = 1 / (1 + expf(-z)); return sigmoid * (1 + z * (1 - sigmoid));
    case SH_ACT_GELU: return gauss_cdf(z) + z * expf(-z * z / 2) * 0.39894228f;
    case SH_ACT_HARD_SIGMOID: return y > 0 && y < 1 ? 1.0f / 6 : 0.0f;
    case SH_ACT_HARD_SWISH: return fabsf(z) < 3 ? z / 3 + 0.5f : z > 0 ? 1.0f : 0.0f;
    case SH_ACT_NONE: break;
    }
    return 1;
}

/* ---- batch norm's constants ---- */

struct channel {
    float mean, rstd, gamma, beta;
};

/** Pointers to mean, var, gamma, beta [C]. */
struct batch_norm {
    const float *mean, *var, *gamma, *beta;
    float eps;
};

__device__ static inline channel channel_of(const batch_norm &n, int64_t c)
{
    channel ch;

    ch.mean = n.mean[c];
    ch.rstd = 1 / sqrtf(n.var[c] + n.eps);
    ch.gamma = n.gamma[c];
    ch.beta = n.beta[c];
    return ch;
}

template <int V>
__device__ static inline void load_channels(channel *ch, const batch_norm &n, int64_t c0)
{
#pragma unroll
    for (int i = 0; i < V; i++) ch[i] = channel_of(n, c0 + i);
}

__device__ static inline float norm_value(const channel &ch, float x)
{
    return (x - ch.mean) * ch.rstd * ch.gamma + ch.beta;
}

/* ---- sums ---- */

/** Sum of a warp's 32 lanes, the same bits in each. */
__device__ static inline float warp_sum(float x)
{
    for (int m = 16; m > 0; m /= 2) x += __shfl_xor_sync(~0u, x, m);
    return x;
}

__device__ static inline float warp_max(float x)
{
    for (int m = 16; m > 0; m /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, m));
    return x;
}

/** Mean and sum of squared deviations of n values; merged by Chan's formula, which does not cancel
 *  as the mean of squares less the squared mean would. */
struct moments {
    float n, mean, m2;
};

__device__ static inline moments merge(const moments &a, const moments &b)
{
    moments all = {a.n + b.n, a.mean, a.m2};
    float share = all.n > 0 ? b.n / all.n : 0, d = b.mean - a.mean;

    if (b.n > 0) {
        all.mean += d * share;
        all.m2 += b.m2 + d * d * a.n * share;
    }
    return all;
}

/** Moments of one thread's values: sums of differences from the first of them. */
struct shifted {
    float shift, sum, square;

    __device__ void add(float x, bool is_first)
    {
        if (is_first) {
            shift = x;
            sum = square = 0;
        }
        sum += x - shift;
        square += (x - shift) * (x - shift);
    }

    __device__ moments result(float n) const
    {
        moments m = {n, 0, 0};
        if (n > 0) {
            m.mean = shift + sum / n;
            m.m2 = fmaxf(square - sum * sum / n, 0.0f);
        }
        return m;
    }
};

/* ---- how channels and rows are dealt out ---- */

/** A map is rows of C channels, row = pixel of an image. A block is lanes x depth threads: a lane
 *  works on V neighbouring channels; the rows of a piece are dealt out to its depth. */
struct tiling {
    int64_t rows, C;
    int lanes, depth;
    unsigned columns, pieces; /* the grid */

    __host__ __device__ dim3 grid() const
    {
        return dim3(columns, pieces);
    }
    __host__ __device__ dim3 block() const
    {
        return dim3((unsigned)lanes, (unsigned)depth);
    }
};

template <int V> static inline tiling tiling_of(int64_t rows, int64_t C)
{
    tiling t = {rows, C, 1, 0, 0, 0};
    int64_t groups = C / V, per_piece;

    while (t.lanes < 32 && t.lanes < groups) t.lanes *= 2;
    t.depth = SH_BLOCK / t.lanes;
    t.columns = (unsigned)((groups + t.lanes - 1) / t.lanes);
    per_piece = (int64_t)t.depth * SH_ROWS_PER_THREAD;
    t.pieces = (unsigned)((rows + per_piece - 1) / per_piece);
    if (t.pieces > SH_MAX_PIECES) t.pieces = SH_MAX_PIECES;
    return t;
}

/** This thread's first channel; C or more where it has none. */
template <int V> __device__ static inline int64_t first_channel()
{
    return ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * V;
}

/** This thread's rows: for (row = first_row(); row < t.rows; row += row_step()). */
__device__ static inline int64_t first_row()
{
    return (int64_t)blockIdx.y * blockDim.y + threadIdx.y;
}

__device__ static inline int64_t row_step()
{
    return (int64_t)gridDim.y * blockDim.y;
}

/** Add what the threads of one lane hold, values[n]; thread row 0 has the result. Shared memory:
 *  SH_BLOCK * n floats. All threads of the block call it. */
template <int n> __device__ static inline void sum_depth(float *shared, float *values)
{
    const int stride = SH_BLOCK;
    const int at = (int)(threadIdx.y * blockDim.x + threadIdx.x);

    for (int i = 0; i < n; i++) shared[i * stride + at] = values[i];
    for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.y >= half) continue;
        for (int i = 0; i < n; i++)
            shared[i * stride + at] += shared[i * stride + at + (int)(half * blockDim.x)];
    }
    for (int i = 0; i < n; i++) values[i] = shared[i * stride + at];
}

/** The same for moments: shared memory SH_BLOCK * V moments. */
template <int V> __device__ static inline void merge_depth(moments *shared, moments *values)
{
    const int stride = SH_BLOCK;
    const int at = (int)(threadIdx.y * blockDim.x + threadIdx.x);

    for (int i = 0; i < V; i++) shared[i * stride + at] = values[i];
    for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.y >= half) continue;
        for (int i = 0; i < V; i++)
            shared[i * stride + at] =
                merge(shared[i * stride + at], shared[i * stride + at + (int)(half * blockDim.x)]);
    }
    for (int i = 0; i < V; i++) values[i] = shared[i * stride + at];
}

/** A grid with one block per image and 32 lanes of channels; rows are the image's pixels. */
template <int V> static inline dim3 image_grid(int64_t n_images, int64_t C)
{
    return dim3(tiling_of<V>(1, C).columns, (unsigned)n_images);
}

template <int V> static inline dim3 image_block(int64_t C)
{
    return tiling_of<V>(1, C).block();
}

/** Blocks of one thread per item. */
static inline dim3 item_grid(int64_t n_items)
{
    return dim3((unsigned)((n_items + SH_BLOCK - 1) / SH_BLOCK));
}

__device__ static inline int64_t item_index()
{
    return (int64_t)blockIdx.x * SH_BLOCK + threadIdx.x;
}

/* ---- launching by type ---- */

enum { SH_MAX_GRID_Y = 65535 };

/** Call body.template run<T, V>() for an element type, with V = 8 where channels allow it. */
template <class Body> static inline void by_type(sh_dtype dtype, int64_t C, const Body &body)
{
    if (dtype == SH_BF16) {
        if (C % 8 == 0)
            body.template run<sh_bf16, 8>();
        else
            body.template run<sh_bf16, 1>();
    } else {
        if (C % 8 == 0)
            body.template run<float, 8>();
        else
            body.template run<float, 1>();
    }
}

#endif
