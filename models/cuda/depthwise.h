// SPDX-License-Identifier: Apache-2.0
/**
 * Depthwise convolution: what its kernels share. A block has 32 channels and works tile by tile:
 * the part of the source that a tile of results needs is brought into shared memory as f32, with
 * batch norm and activation applied once per element and zeros outside the image; then a thread
 * makes pixels of V channels from there.
 */
#ifndef SH_MODELS_CUDA_DEPTHWISE_H
#define SH_MODELS_CUDA_DEPTHWISE_H

#include "models/cuda/conv.h"
#include "models/cuda/node.h"
#include "models/cuda/reduce.h"

enum {
    DW_CHANNELS = 32,
    DW_ACROSS = 4, /* neighbouring results of one thread, where the window is known beforehand */
    DW_SHARED_BYTES = 48 << 10,
    DW_MAX_TAPS = 64,
};

/** How results are cut into tiles, and what of the source a tile needs. */
struct dw_tiles {
    int height, width;               /* of the result */
    int source_height, source_width; /* of the source */
    int th, tw;                      /* results of a tile */
    int sh, sw;                      /* source pixels of a tile */
    int across;                      /* tiles in a row of the image */
    int per_image;
    int64_t n;

    __host__ __device__ size_t source_floats() const
    {
        return (size_t)sh * (size_t)sw * DW_CHANNELS;
    }
};

/** One tile: where its results and its part of the source begin. */
struct dw_tile {
    int64_t image;
    int h0, w0;
};

__device__ static inline dw_tile tile_at(const dw_tiles &t, int64_t i)
{
    const int in_image = (int)(i % t.per_image);

    return dw_tile{i / t.per_image, in_image / t.across * t.th, in_image % t.across * t.tw};
}

/** Lanes of a block; its other threads stand behind each other. */
template <int V> static inline dim3 dw_block()
{
    return dim3(DW_CHANNELS / V, SH_BLOCK * V / DW_CHANNELS);
}

/** About 2048 blocks, where there are so many tiles. */
static inline dim3 dw_grid(const dw_tiles &t, int64_t C)
{
    const int64_t columns = (C + DW_CHANNELS - 1) / DW_CHANNELS;
    int64_t pieces = (2048 + columns - 1) / columns;

    if (pieces > SH_MAX_PIECES) pieces = SH_MAX_PIECES;
    return dim3((unsigned)columns, (unsigned)(pieces < t.n ? pieces : t.n));
}

/* ---- operands made on load ---- */

/** Operands of a batch norm on load; mean is NULL where there is none. */
struct dw_norm {
    batch_norm constants;
    sh_act act;
};

template <typename T, int V> struct activated {
    const T *x;
    channel ch[V] = {};
    sh_act act;
    bool is_normed;

    __device__ activated(const T *x_, const dw_norm &n, int64_t c0, int64_t C)
        : x(x_), act(n.act), is_normed(n.constants.mean != nullptr)
    {
        for (int i = 0; i < V && is_normed && c0 < C; i++) ch[i] = channel_of(n.constants, c0 + i);
    }

    __device__ void operator()(int64_t at, float *v) const
    {
        load<V>(x + at, v);
#pragma unroll
        for (int i = 0; i < V && is_normed; i++) v[i] = act_value(act, norm_value(ch[i], v[i]));
    }
};

/** The gradient of y: dy, or with y (not NULL) made from the gradient of its batch norm, whose
 *  dgamma and dbeta are NULL where the statistics are constants. */
template <typename T> struct dw_gradient {
    const T *dy, *y;
    const float *mean, *var, *gamma, *dgamma, *dbeta;
    float eps, per_row; /* 1 / (N OH OW) */
};

template <typename T, int V> struct gradient {
    const T *dy, *y;
    /* scale (dy - shift) - slope (y - mean) */
    float scale[V] = {}, mean[V] = {}, slope[V] = {}, shift[V] = {};

    __device__ gradient(const dw_gradient<T> &g, int64_t c0, int64_t C) : dy(g.dy), y(g.y)
    {
        for (int i = 0; i < V && y != nullptr && c0 < C; i++) {
            const float rstd = 1 / sqrtf(g.var[c0 + i] + g.eps);
            scale[i] = g.gamma[c0 + i] * rstd;
            mean[i] = g.mean[c0 + i];
            if (g.dgamma == nullptr) continue;
            slope[i] = scale[i] * rstd * g.dgamma[c0 + i] * g.per_row;
            shift[i] = g.dbeta[c0 + i] * g.per_row;
        }
    }

    __device__ void operator()(int64_t at, float *v) const
    {
        float own[V];

        load<V>(dy + at, v);
        if (y == nullptr) return;
        load<V>(y + at, own);
#pragma unroll
        for (int i = 0; i < V; i++)
            v[i] = scale[i] * (v[i] - shift[i]) - slope[i] * (own[i] - mean[i]);
    }
};

/* ---- shared memory ---- */

/** Pixels from (h0, w0), rows x columns, of an image of H x W; zeros outside. */
template <int V, class Source>
__device__ static inline void fill(float *to, const Source &source, int64_t image, int h0, int w0,
                                   int rows, int columns, int H, int W, int64_t C)
{
    const int64_t c0 = first_channel<V>();

    for (int p = (int)threadIdx.y; p < rows * columns; p += (int)blockDim.y) {
        const int h = h0 + p / columns, w = w0 + p % columns;
        float v[V] = {};
        if (h >= 0 && h < H && w >= 0 && w < W && c0 < C)
            source(((image * H + h) * W + w) * C + c0, v);
        store<V>(to + p * DW_CHANNELS + threadIdx.x * V, v);
    }
}

/** Weights of this block's channels, [taps][DW_CHANNELS]; in reversed order where asked. */
template <int V>
__device__ static inline void fill_weights(float *to, const float *w, int taps, int64_t C,
                                           bool is_reversed)
{
    const int64_t c0 = first_channel<V>();

    for (int k = (int)threadIdx.y; k < taps; k += (int)blockDim.y) {
        const int tap = is_reversed ? taps - 1 - k : k;
        for (int i = 0; i < V; i++)
            to[k * DW_CHANNELS + (int)threadIdx.x * V + i] = c0 < C ? w[(c0 + i) * taps + tap] : 0;
    }
}

/** DW_ACROSS neighbouring results of a dense K x K window with stride S, added to sums. `tile` is
 *  the first result's first source pixel, this thread's channels. */
template <int V, int K, int S>
__device__ static inline void window_sums(const float *tile, int tile_width, const float *weights,
                                          float (*sums)[V])
{
    for (int kh = 0; kh < K; kh++) {
        float w[K][V];
#pragma unroll
        for (int kw = 0; kw < K; kw++) load<V>(weights + (kh * K + kw) * DW_CHANNELS, w[kw]);
#pragma unroll
        for (int j = 0; j < (DW_ACROSS - 1) * S + K; j++) {
            float v[V];
            load<V>(tile + (kh * tile_width + j) * DW_CHANNELS, v);
#pragma unroll
            for (int r = 0; r < DW_ACROSS; r++) {
                if (j - r * S < 0 || j - r * S >= K) continue;
#pragma unroll
                for (int i = 0; i < V; i++) sums[r][i] += v[i] * w[j - r * S][i];
            }
        }
    }
}

/* ---- the host's side ---- */

static inline int dw_divide_up(int a, int b)
{
    return (a + b - 1) / b;
}

/** Tiles of at most 8 x 16 results whose shared memory fits. bytes(tiles): what the kernel needs.
 */
template <class Source, class Bytes>
static inline dw_tiles choose_tiles(int64_t n_images, int height, int width, int source_height,
                                    int source_width, const Source &source_side, const Bytes &bytes)
{
    dw_tiles t = {height, width, source_height, source_width, 8, 16, 0, 0, 0, 0, 0};

    for (;;) {
        t.sh = source_side(0, t.th);
        t.sw = source_side(1, t.tw);
        if (bytes(t) <= DW_SHARED_BYTES || (t.th == 1 && t.tw == DW_ACROSS)) break;
        if (t.th >= t.tw || t.tw == DW_ACROSS)
            t.th /= 2;
        else
            t.tw /= 2;
    }
    t.across = dw_divide_up(width, t.tw);
    t.per_image = t.across * dw_divide_up(height, t.th);
    t.n = n_images * t.per_image;
    return t;
}

/** Is this a depthwise convolution that the kernels can do? x is an operand of C channels. */
static inline const char *why_not_depthwise(const sh_tensor_desc *x, const sh_tensor_desc *w,
                                            const sh_tensor_desc *y, const sh_op_attrs *a)
{
    if (a->groups != x->dims[1] || y->dims[1] != x->dims[1]) return "not depthwise";
    if (!is_rows(x) || !is_rows(y)) return "maps are not rows of channels";
    if (w->dims[2] * w->dims[3] > DW_MAX_TAPS) return "more than 64 taps";
    const int64_t rows = (w->dims[2] - 1) * a->dilation[0] + a->stride[0];
    const int64_t columns = (w->dims[3] - 1) * a->dilation[1] + a->stride[1] * DW_ACROSS;
    const int64_t n_pixels = rows * columns + w->dims[2] * w->dims[3] + DW_ACROSS;
    if (n_pixels * DW_CHANNELS * (int64_t)sizeof(float) > DW_SHARED_BYTES)
        return "a window too wide for shared memory";
    return NULL;
}

/** One side of a dense window that has kernels of its own: 3 or 5 taps, stride 1 or 2; else 0. */
static inline int dw_known_window(const conv_shape &s)
{
    const bool is_square = s.KH == s.KW && s.stride[0] == s.stride[1];
    const bool is_dense = s.dilation[0] == 1 && s.dilation[1] == 1;

    return is_square && is_dense && (s.KH == 3 || s.KH == 5) && s.stride[0] <= 2 ? (int)s.KH : 0;
}

#endif
