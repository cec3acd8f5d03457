// SPDX-License-Identifier: Apache-2.0
/** Pools over windows. A thread makes V neighbouring channels of one pixel of the result. Gradients
 *  are gathered: an input pixel asks each window that holds it, so nothing is added atomically. */
#include "models/cuda/device.h"
#include "models/cuda/node.h"

/** One dimension of the windows. */
struct side {
    int in, out, kernel, stride, pad;
};

struct pool_shape {
    side h, w;
    int64_t C, n_images;
    bool count_padding, is_even; /* is_even: windows divide the image evenly (ADAPTIVE_POOL) */
};

/** The part of the image that window i sees: [begin, end). */
struct range {
    int begin, end;
};

__device__ static inline range window_of(const pool_shape &s, const side &d, int i)
{
    range r = {i * d.stride - d.pad, i * d.stride - d.pad + d.kernel};

    if (s.is_even) {
        r.begin = (int)((int64_t)i * d.in / d.out);
        r.end = (int)(((int64_t)(i + 1) * d.in + d.out - 1) / d.out);
    }
    if (r.begin < 0) r.begin = 0;
    if (r.end > d.in) r.end = d.in;
    return r;
}

/** A range of windows with all that hold position x, and perhaps a neighbour that does not. */
__device__ static inline range windows_at(const pool_shape &s, const side &d, int x)
{
    range r;

    if (s.is_even) {
        r.begin = (int)((int64_t)x * d.out / d.in) - 1;
        r.end = (int)((int64_t)(x + 1) * d.out / d.in) + 2;
    } else {
        const int first = x + d.pad - d.kernel + 1;
        r.begin = first > 0 ? (first + d.stride - 1) / d.stride : 0;
        r.end = (x + d.pad) / d.stride + 1;
    }
    if (r.begin < 0) r.begin = 0;
    if (r.end > d.out) r.end = d.out;
    return r;
}

__device__ static inline bool holds(const range &r, int x)
{
    return r.begin <= x && x < r.end;
}

/** Where a thread works: pixel (h, w) of an image of H x W, channels from c0. */
struct place {
    int64_t image, c0;
    int h, w;
};

template <int V>
__device__ static inline bool find_place(const pool_shape &s, int H, int W, place *at)
{
    const int64_t groups = s.C / V, i = item_index();
    int64_t pixel = i / groups;

    if (pixel >= s.n_images * H * W) return false;
    at->c0 = i % groups * V;
    at->w = (int)(pixel % W);
    pixel /= W;
    at->h = (int)(pixel % H);
    at->image = pixel / H;
    return true;
}

__device__ static inline int64_t element(const pool_shape &s, const place &at, int W, int H, int h,
                                         int w)
{
    return ((at.image * H + h) * W + w) * s.C + at.c0;
}

/* ---- largest ---- */

/** Per channel the largest element and its position h W + w, the first of equals in row-major
 *  order; position -1 and 0 where the padding's zeros are as large. */
template <typename T, int V>
__device__ static inline void largest(const T *x, const pool_shape &s, const place &at, range rh,
                                      range rw, float *best, int *position)
{
    const bool is_clipped = rh.end - rh.begin < s.h.kernel || rw.end - rw.begin < s.w.kernel;

    load<V>(x + element(s, at, s.w.in, s.h.in, rh.begin, rw.begin), best);
    for (int i = 0; i < V; i++) position[i] = rh.begin * s.w.in + rw.begin;
    for (int h = rh.begin; h < rh.end; h++) {
        for (int w = rw.begin; w < rw.end; w++) {
            float v[V];
            load<V>(x + element(s, at, s.w.in, s.h.in, h, w), v);
#pragma unroll
            for (int i = 0; i < V; i++) {
                if (!(v[i] > best[i])) continue;
                best[i] = v[i];
                position[i] = h * s.w.in + w;
            }
        }
    }
    for (int i = 0; i < V && s.count_padding && is_clipped; i++) {
        if (best[i] > 0) continue;
        best[i] = 0;
        position[i] = -1;
    }
}

template <typename T, int V>
__global__ void __launch_bounds__(SH_BLOCK) max_windows(T *y, const T *x, pool_shape s)
{
    place at;
    float best[V];
    int position[V];

    if (!find_place<V>(s, s.h.out, s.w.out, &at)) return;
    largest<T, V>(x, s, at, window_of(s, s.h, at.h), window_of(s, s.w, at.w), best, position);
    store<V>(y + element(s, at, s.w.out, s.h.out, at.h, at.w), best);
}

template <typename T, int V>
__global__ void __launch_bounds__(SH_BLOCK)
    max_windows_grad(T *dx, const T *dy, const T *x, pool_shape s)
{
    place at;
    float sums[V] = {};

    if (!find_place<V>(s, s.h.in, s.w.in, &at)) return;
    const range oh = windows_at(s, s.h, at.h), ow = windows_at(s, s.w, at.w);
    for (int h = oh.begin; h < oh.end; h++) {
        for (int w = ow.begin; w < ow.end; w++) {
            float best[V], g[V];
            int position[V];
            largest<T, V>(x, s, at, window_of(s, s.h, h), window_of(s, s.w, w), best, position);
            load<V>(dy + element(s, at, s.w.out, s.h.out, h, w), g);
#pragma unroll
            for (int i = 0; i < V; i++)
                sums[i] += position[i] == at.h * s.w.in + at.w ? g[i] : 0.0f;
        }
    }
    store<V>(dx + element(s, at, s.w.in, s.h.in, at.h, at.w), sums);
}

/* ---- means ---- */

__device__ static inline float divisor_of(const pool_shape &s, const range &h, const range &w)
{
    if (!s.is_even && s.count_padding) return (float)(s.h.kernel * s.w.kernel);
    return (float)((h.end - h.begin) * (w.end - w.begin));
}

template <typename T, int V>
__global__ void __launch_bounds__(SH_BLOCK) mean_windows(T *y, const T *x, pool_shape s)
{
    place at;
    float sums[V] = {};

    if (!find_place<V>(s, s.h.out, s.w.out, &at)) return;
    const range rh = window_of(s, s.h, at.h), rw = window_of(s, s.w, at.w);
    for (int h = rh.begin; h < rh.end; h++) {
        for (int w = rw.begin; w < rw.end; w++) {
            float v[V];
            load<V>(x + element(s, at, s.w.in, s.h.in, h, w), v);
#pragma unroll
            for (int i = 0; i < V; i++) sums[i] += v[i];
        }
    }
    for (int i = 0; i < V; i++) sums[i] /= divisor_of(s, rh, rw);
    store<V>(y + element(s, at, s.w.out, s.h.out, at.h, at.w), sums);
}

template <typename T, int V>
__global__ void __launch_bounds__(SH_BLOCK) mean_windows_grad(T *dx, const T *dy, pool_shape s)
{
    place at;
    float sums[V] = {};

    if (!find_place<V>(s, s.h.in, s.w.in, &at)) return;
    const range oh = windows_at(s, s.h, at.h), ow = windows_at(s, s.w, at.w);
    for (int h = oh.begin; h < oh.end; h++) {
        for (int w = ow.begin; w < ow.end; w++) {
            const range rh = window_of(s, s.h, h), rw = window_of(s, s.w, w);
            float g[V];
            if (!holds(rh, at.h) || !holds(rw, at.w)) continue;
            load<V>(dy + element(s, at, s.w.out, s.h.out, h, w), g);
#pragma unroll
            for (int i = 0; i < V; i++) sums[i] += g[i] / divisor_of(s, rh, rw);
        }
    }
    store<V>(dx + element(s, at, s.w.in, s.h.in, at.h, at.w), sums);
}

/* ---- launching ---- */

static pool_shape pool_shape_of(const sh_node_desc *desc, const sh_tensor_desc *x,
                                const sh_tensor_desc *y)
{
    const sh_op_attrs *a = desc->attrs;
    bool is_even = desc->op == SH_OP_ADAPTIVE_POOL || desc->op == SH_OP_ADAPTIVE_POOL_GRAD;

    return pool_shape{{(int)x->dims[2], (int)y->dims[2], a->kernel[0], a->stride[0], a->pad[0]},
                      {(int)x->dims[3], (int)y->dims[3], a->kernel[1], a->stride[1], a->pad[1]},
                      x->dims[1],
                      x->dims[0],
                      a->count_padding != 0,
                      is_even};
}

/** Threads for each pixel of `d`, V channels each. */
template <int V> static dim3 grid_over(const sh_tensor_desc *d)
{
    return item_grid(elems_of(d) / V);
}

struct run_windows {
    const sh_node_desc *desc;
    const sh_kernel_args *args;
    bool is_max;

    template <typename T, int V> void run() const
    {
        const pool_shape s = pool_shape_of(desc, desc->in[0], desc->out[0]);
        const dim3 grid = grid_over<V>(desc->out[0]), block = dim3(SH_BLOCK);
        T *y = output<T>(args, 0);
        const T *x = input<T>(args, 0);

        if (is_max)
            SH_LAUNCH((max_windows<T, V>), grid, block, 0, y, x, s);
        else
            SH_LAUNCH((mean_windows<T, V>), grid, block, 0, y, x, s);
    }
};

static void max_pool(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_windows{desc, args, true});
}

static void mean_pool(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_windows{desc, args, false});
}

struct run_windows_grad {
    const sh_node_desc *desc;
    const sh_kernel_args *args;
    bool is_max;

    template <typename T, int V> void run() const
    {
        const pool_shape s = pool_shape_of(desc, desc->out[0], desc->in[0]);
        const dim3 grid = grid_over<V>(desc->out[0]), block = dim3(SH_BLOCK);
        T *dx = output<T>(args, 0);
        const T *dy = input<T>(args, 0);

        if (is_max)
            SH_LAUNCH((max_windows_grad<T, V>), grid, block, 0, dx, dy, input<T>(args, 1), s);
        else
            SH_LAUNCH((mean_windows_grad<T, V>), grid, block, 0, dx, dy, s);
    }
};

static void max_pool_grad(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_windows_grad{desc, args, true});
}

static void mean_pool_grad(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_windows_grad{desc, args, false});
}

const sh_cuda_op sh_cuda_max_pool = {why_not_rows, NULL, max_pool};
const sh_cuda_op sh_cuda_max_pool_grad = {why_not_rows, NULL, max_pool_grad};
const sh_cuda_op sh_cuda_mean_pool = {why_not_rows, NULL, mean_pool};
const sh_cuda_op sh_cuda_mean_pool_grad = {why_not_rows, NULL, mean_pool_grad};
const sh_cuda_op sh_cuda_adaptive_pool = {why_not_rows, NULL, mean_pool};
const sh_cuda_op sh_cuda_adaptive_pool_grad = {why_not_rows, NULL, mean_pool_grad};
