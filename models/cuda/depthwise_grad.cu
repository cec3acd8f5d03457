// SPDX-License-Identifier: Apache-2.0
/**
 * Derivatives of depthwise convolution. The gradient of y is brought into shared memory, made on
 * load from that of its batch norm where there is one. dx ends with the activation's slope and the
 * sums for the batch norm of x; dw is summed over the tiles of a block, then over blocks.
 */
#include "models/cuda/depthwise.h"

/* ---- dx ---- */

template <typename T> struct dw_grad_x_args {
    T *dx;
    dw_gradient<T> g;
    const float *w;
    const T *x;      /* with on_load: for the slope and the sums */
    dw_norm on_load; /* mean NULL: dx as it is */
    float *partial;  /* [pieces][2][C]: dgamma, dbeta */
};

/** Floor of a / b, b > 0. */
__device__ static inline int divide_down(int a, int b)
{
    return a >= 0 ? a / b : -((b - 1 - a) / b);
}

/** One element of dx of any window; (h, w) its position, (h0, w0) of the tile's first pixel. */
template <int V>
__device__ static inline void any_window_grad(const float *tile, const dw_tiles &t,
                                              const float *weights, const conv_shape &s, int h,
                                              int w, int h0, int w0, float *sums)
{
    for (int k = 0; k < s.KH * s.KW; k++) {
        const int y = h + s.pad[0] - k / (int)s.KW * s.dilation[0];
        const int x = w + s.pad[1] - k % (int)s.KW * s.dilation[1];
        float v[V], weight[V];
        if (y % s.stride[0] != 0 || x % s.stride[1] != 0) continue;
        const int at = (y / s.stride[0] - h0) * t.sw + x / s.stride[1] - w0;
        load<V>(tile + at * DW_CHANNELS, v);
        load<V>(weights + k * DW_CHANNELS, weight);
#pragma unroll
        for (int i = 0; i < V; i++) sums[i] += v[i] * weight[i];
    }
}

/** The slope of the activation in front of x, and what x's batch norm wants summed. */
template <typename T, int V>
__device__ static inline void mask_and_sum(const T *x, sh_act act, const channel *ch, float *dx,
                                           float *sums)
{
    float v[V];

    load<V>(x, v);
#pragma unroll
    for (int i = 0; i < V; i++) {
        const float z = norm_value(ch[i], v[i]);
        dx[i] = as_stored<T>(dx[i] * act_slope(act, z, act_value(act, z)));
        sums[i] += dx[i] * (v[i] - ch[i].mean) * ch[i].rstd;
        sums[V + i] += dx[i];
    }
}

/** K = 0: any window. Else K x K, dense, stride 1: a convolution with reversed weights. */
template <typename T, int V, int K>
__global__ void __launch_bounds__(SH_BLOCK)
    depthwise_grad_x(dw_grad_x_args<T> a, conv_shape s, dw_tiles t)
{
    SH_SHARED(float, tile); /* source, weights; at the end the sums of the block's threads */
    const int across = K > 0 ? DW_ACROSS : 1, own = (int)threadIdx.x * V;
    const int64_t c0 = first_channel<V>();
    const gradient<T, V> source(a.g, c0, s.C);
    const bool is_normed = a.on_load.constants.mean != nullptr;
    const int reach_h = (int)(s.KH - 1) * s.dilation[0], reach_w = (int)(s.KW - 1) * s.dilation[1];
    float *weights = tile + t.source_floats(), totals[2 * V] = {};
    channel ch[V] = {};

    fill_weights<V>(weights, a.w, (int)(s.KH * s.KW), s.C, K > 0);
    for (int i = 0; i < V && is_normed && c0 < s.C; i++)
        ch[i] = channel_of(a.on_load.constants, c0 + i);
    for (int64_t k = blockIdx.y; k < t.n; k += gridDim.y) {
        const dw_tile at = tile_at(t, k);
        const int h0 = divide_down(at.h0 + s.pad[0] - reach_h, s.stride[0]);
        const int w0 = divide_down(at.w0 + s.pad[1] - reach_w, s.stride[1]);
        __syncthreads();
        fill<V>(tile, source, at.image, h0, w0, t.sh, t.sw, t.source_height, t.source_width, s.C);
        __syncthreads();
        for (int q = (int)threadIdx.y; q < t.th * t.tw / across; q += (int)blockDim.y) {
            const int row = q / (t.tw / across), column = q % (t.tw / across) * across;
            float sums[across][V] = {};
            if (c0 >= s.C || at.h0 + row >= t.height) continue;
            if constexpr (K > 0) {
                const float *from = tile + (row * t.sw + column) * DW_CHANNELS + own;
                window_sums<V, K, 1>(from, t.sw, weights + own, sums);
            } else {
                any_window_grad<V>(tile + own, t, weights + own, s, at.h0 + row, at.w0 + column, h0,
                                   w0, sums[0]);
            }
#pragma unroll
            for (int r = 0; r < across; r++) {
                const int64_t pixel =
                    (at.image * t.height + at.h0 + row) * t.width + at.w0 + column + r;
                if (at.w0 + column + r >= t.width) continue;
                if (is_normed)
                    mask_and_sum<T, V>(a.x + pixel * s.C + c0, a.on_load.act, ch, sums[r], totals);
                store<V>(a.dx + pixel * s.C + c0, sums[r]);
            }
        }
    }
    if (!is_normed) return;
    __syncthreads();
    put_piece<2, V>(tile, totals, s.C, c0, a.partial);
}

static size_t grad_x_bytes(const conv_shape &s, const dw_tiles &t)
{
    const size_t n_bytes =
        (t.source_floats() + (size_t)(s.KH * s.KW) * DW_CHANNELS) * sizeof(float);
    const size_t sum_bytes = 2 * 8 * SH_BLOCK * sizeof(float);

    return n_bytes > sum_bytes ? n_bytes : sum_bytes;
}

static dw_tiles grad_x_tiles(const conv_shape &s)
{
    const int64_t window[2] = {s.KH, s.KW};

    return choose_tiles(
        s.N, (int)s.H, (int)s.W, (int)s.OH, (int)s.OW,
        [&](int side, int n) {
            return (n - 1 + (int)(window[side] - 1) * s.dilation[side]) / s.stride[side] + 2;
        },
        [&](const dw_tiles &t) { return grad_x_bytes(s, t); });
}

/* ---- dw ---- */

template <typename T> struct dw_grad_w_args {
    float *partial; /* [pieces][taps][C] */
    const T *x;
    dw_norm on_load;
    dw_gradient<T> g;
};

/** How a block's threads, `depth` per lane, share taps and pixels: slots of taps, each with as many
 *  groups as there is room for; a thread has taps slot, slot + slots, ... */
struct tap_shares {
    int taps, groups, slots;
};

__device__ static inline tap_shares shares_of(int taps, int depth)
{
    const int groups = depth > taps ? depth / taps : 1;

    return tap_shares{taps, groups, depth / groups};
}

template <typename T, int V>
__global__ void __launch_bounds__(SH_BLOCK)
    depthwise_grad_w(dw_grad_w_args<T> a, conv_shape s, dw_tiles t)
{
    SH_SHARED(float, tile); /* of x, then of dy; at the end the sums of the block's threads */
    const int most = V == 1 ? DW_MAX_TAPS / 8 : 1; /* taps of a thread: SH_BLOCK V / 32 per lane */
    const int64_t c0 = first_channel<V>();
    const activated<T, V> x(a.x, a.on_load, c0, s.C);
    const gradient<T, V> g(a.g, c0, s.C);
    const tap_shares shares = shares_of((int)(s.KH * s.KW), (int)blockDim.y);
    const int slot = (int)threadIdx.y % shares.slots, group = (int)threadIdx.y / shares.slots;
    const int own = (int)threadIdx.x * V;
    float *g_tile = tile + t.source_floats(), sums[most][V] = {};

    for (int64_t k = blockIdx.y; k < t.n; k += gridDim.y) {
        const dw_tile at = tile_at(t, k);
        __syncthreads();
        fill<V>(tile, x, at.image, at.h0 * s.stride[0] - s.pad[0], at.w0 * s.stride[1] - s.pad[1],
                t.sh, t.sw, t.source_height, t.source_width, s.C);
        fill<V>(g_tile, g, at.image, at.h0, at.w0, t.th, t.tw, t.height, t.width, s.C);
        __syncthreads();
        for (int m = 0; m < most; m++) {
            const int tap = slot + m * shares.slots;
            if (tap >= shares.taps || group >= shares.groups) continue;
            const int dh = tap / (int)s.KW * s.dilation[0], dw = tap % (int)s.KW * s.dilation[1];
            for (int p = group; p < t.th * t.tw; p += shares.groups) {
                const int h = p / t.tw * s.stride[0] + dh, w = p % t.tw * s.stride[1] + dw;
                float v[V], own_g[V];
                load<V>(tile + (h * t.sw + w) * DW_CHANNELS + own, v);
                load<V>(g_tile + p * DW_CHANNELS + own, own_g);
#pragma unroll
                for (int i = 0; i < V; i++) sums[m][i] += v[i] * own_g[i];
            }
        }
    }
    __syncthreads();
    const int depth = (int)blockDim.y;
    for (int m = 0; m < most; m++)
        store<V>(tile + (m * depth + (int)threadIdx.y) * DW_CHANNELS + own, sums[m]);
    __syncthreads();
    for (int m = 0; m < most && group == 0 && c0 < s.C; m++) {
        const int tap = slot + m * shares.slots;
        if (tap >= shares.taps) continue;
        for (int i = 0; i < V; i++) {
            float sum = sums[m][i];
            for (int k = 1; k < shares.groups; k++)
                sum += tile[(m * depth + k * shares.slots + slot) * DW_CHANNELS + own + i];
            a.partial[((int64_t)blockIdx.y * shares.taps + tap) * s.C + c0 + i] = sum;
        }
    }
}

static size_t grad_w_bytes(const dw_tiles &t)
{
    const size_t n_bytes =
        (t.source_floats() + (size_t)t.th * (size_t)t.tw * DW_CHANNELS) * sizeof(float);
    const size_t sum_bytes = SH_BLOCK * 8 * sizeof(float);

    return n_bytes > sum_bytes ? n_bytes : sum_bytes;
}

static dw_tiles grad_w_tiles(const conv_shape &s)
{
    const int64_t window[2] = {s.KH, s.KW};

    return choose_tiles(
        s.N, (int)s.OH, (int)s.OW, (int)s.H, (int)s.W,
        [&](int side, int n) {
            return (n - 1) * s.stride[side] + (int)(window[side] - 1) * s.dilation[side] + 1;
        },
        [&](const dw_tiles &t) { return grad_w_bytes(t); });
}

/* ---- launching ---- */

template <typename T, int V> static void launch_grad_x(const dw_grad_x_args<T> &a, conv_shape s)
{
    const dw_tiles t = grad_x_tiles(s);
    const dim3 grid = dw_grid(t, s.C), block = dw_block<V>();
    const size_t n_bytes = grad_x_bytes(s, t);
    const int known = s.stride[0] == 1 ? dw_known_window(s) : 0;

    if (known == 3) {
        SH_LAUNCH((depthwise_grad_x<T, V, 3>), grid, block, n_bytes, a, s, t);
    } else if (known == 5) {
        SH_LAUNCH((depthwise_grad_x<T, V, 5>), grid, block, n_bytes, a, s, t);
    } else {
        SH_LAUNCH((depthwise_grad_x<T, V, 0>), grid, block, n_bytes, a, s, t);
    }
}

template <typename T, int V>
static void launch_grad_w(const dw_grad_w_args<T> &a, conv_shape s, float *dw)
{
    const dw_tiles t = grad_w_tiles(s);
    const dim3 grid = dw_grid(t, s.C);

    SH_LAUNCH((depthwise_grad_w<T, V>), grid, dw_block<V>(), grad_w_bytes(t), a, s, t);
    launch_finish_sums<1>(a.partial, grid.y, s.KH * s.KW * s.C,
                          sums_out{{dw, nullptr, nullptr}, s.KH * s.KW});
}

/** Bytes of the partial sums. */
static size_t partial_x_bytes(const conv_shape &s)
{
    return 2 * dw_grid(grad_x_tiles(s), s.C).y * (size_t)s.C * sizeof(float);
}

static size_t partial_w_bytes(const conv_shape &s)
{
    return dw_grid(grad_w_tiles(s), s.C).y * (size_t)(s.KH * s.KW * s.C) * sizeof(float);
}

static size_t partial_bias_bytes(const conv_shape &s)
{
    return column_sums_bytes(s.N * s.OH * s.OW, s.C);
}

/** dy alone. */
template <typename T> static dw_gradient<T> gradient_alone(const sh_kernel_args *args, int i)
{
    dw_gradient<T> g = {};

    g.dy = input<T>(args, i);
    return g;
}

struct run_grad_x {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        dw_grad_x_args<T> a = {};

        a.dx = output<T>(args, 0);
        a.g = gradient_alone<T>(args, 0);
        a.w = input<float>(args, 1);
        launch_grad_x<T, V>(a, conv_shape_of(desc->out[0], desc->in[1], desc->in[0], desc->attrs));
    }
};

static void grad_x(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_grad_x{desc, args});
}

static const char *why_not_grad_x(const sh_node_desc *desc)
{
    return why_not_depthwise(desc->out[0], desc->in[1], desc->in[0], desc->attrs);
}

static conv_shape grad_w_shape(const sh_node_desc *desc)
{
    return conv_shape_of(desc->in[0], desc->out[0], desc->in[1], desc->attrs);
}

static void launch_bias(const sh_node_desc *desc, const sh_kernel_args *args, int dy, int out,
                        void *scratch)
{
    const sh_tensor_desc *d = desc->in[dy];

    by_type(d->dtype, d->dims[1],
            launch_column_sums{args->in[dy], d->dims[0] * pixels_of(d), d->dims[1], scratch,
                               output<float>(args, out)});
}

struct run_grad_w {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        const conv_shape s = grad_w_shape(desc);
        char *scratch = static_cast<char *>(args->scratch);
        dw_grad_w_args<T> a = {};

        a.partial = reinterpret_cast<float *>(scratch);
        a.x = input<T>(args, 0);
        a.g = gradient_alone<T>(args, 1);
        launch_grad_w<T, V>(a, s, output<float>(args, 0));
        if (has_output(desc, 1)) launch_bias(desc, args, 1, 1, scratch + partial_w_bytes(s));
    }
};

static void grad_w(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_grad_w{desc, args});
}

static size_t grad_w_scratch(const sh_node_desc *desc)
{
    const conv_shape s = grad_w_shape(desc);

    return partial_w_bytes(s) + (has_output(desc, 1) ? partial_bias_bytes(s) : 0);
}

static const char *why_not_grad_w(const sh_node_desc *desc)
{
    return why_not_depthwise(desc->in[0], desc->out[0], desc->in[1], desc->attrs);
}

/* ---- CONV_GRAD ---- */

static conv_shape grad_shape(const sh_node_desc *desc)
{
    const sh_tensor_desc *x =
        has_input(desc, SH_CONV_GRAD_X_IN) ? desc->in[SH_CONV_GRAD_X_IN] : desc->out[0];

    return conv_shape_of(x, desc->in[SH_CONV_GRAD_W_IN], desc->in[SH_CONV_GRAD_DY], desc->attrs);
}

template <typename T>
static dw_gradient<T> gradient_of(const sh_node_desc *desc, const sh_kernel_args *args,
                                  const conv_shape &s)
{
    dw_gradient<T> g = gradient_alone<T>(args, SH_CONV_GRAD_DY);

    if (!has_input(desc, SH_CONV_GRAD_Y)) return g;
    g.y = input<T>(args, SH_CONV_GRAD_Y);
    g.mean = input<float>(args, SH_CONV_GRAD_Y_MEAN);
    g.var = input<float>(args, SH_CONV_GRAD_Y_VAR);
    g.gamma = input<float>(args, SH_CONV_GRAD_Y_GAMMA);
    g.dgamma = optional_input(desc, args, SH_CONV_GRAD_Y_DGAMMA);
    g.dbeta = optional_input(desc, args, SH_CONV_GRAD_Y_DBETA);
    g.eps = desc->attrs->y_eps;
    g.per_row = 1 / (float)(s.N * s.OH * s.OW);
    return g;
}

static dw_norm norm_of_x(const sh_node_desc *desc, const sh_kernel_args *args)
{
    const batch_norm constants = {optional_input(desc, args, SH_CONV_GRAD_MEAN),
                                  optional_input(desc, args, SH_CONV_GRAD_VAR),
                                  optional_input(desc, args, SH_CONV_GRAD_GAMMA),
                                  optional_input(desc, args, SH_CONV_GRAD_BETA), desc->attrs->eps};

    return dw_norm{constants, desc->attrs->act};
}

/* One after the other, they share the scratch. */
struct run_grad {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        const conv_shape s = grad_shape(desc);
        const dw_gradient<T> g = gradient_of<T>(desc, args, s);
        float *partial = static_cast<float *>(args->scratch);

        if (has_output(desc, SH_CONV_GRAD_DX)) {
            dw_grad_x_args<T> a = {};
            a.dx = output<T>(args, SH_CONV_GRAD_DX);
            a.g = g;
            a.w = input<float>(args, SH_CONV_GRAD_W_IN);
            a.partial = partial;
            if (has_output(desc, SH_CONV_GRAD_DGAMMA)) {
                a.x = input<T>(args, SH_CONV_GRAD_X_IN);
                a.on_load = norm_of_x(desc, args);
            }
            launch_grad_x<T, V>(a, s);
        }
        if (has_output(desc, SH_CONV_GRAD_DGAMMA)) {
            launch_finish_sums<2>(partial, dw_grid(grad_x_tiles(s), s.C).y, s.C,
                                  sums_out{{output<float>(args, SH_CONV_GRAD_DGAMMA),
                                            output<float>(args, SH_CONV_GRAD_DBETA), nullptr},
                                           0});
        }
        if (has_output(desc, SH_CONV_GRAD_DW)) {
            const dw_grad_w_args<T> a = {partial, input<T>(args, SH_CONV_GRAD_X_IN),
                                         norm_of_x(desc, args), g};
            launch_grad_w<T, V>(a, s, output<float>(args, SH_CONV_GRAD_DW));
        }
        if (has_output(desc, SH_CONV_GRAD_DBIAS))
            launch_bias(desc, args, SH_CONV_GRAD_DY, SH_CONV_GRAD_DBIAS, partial);
    }
};

static void grad(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[SH_CONV_GRAD_DY]->dtype, desc->in[SH_CONV_GRAD_DY]->dims[1],
            run_grad{desc, args});
}

static size_t grad_scratch(const sh_node_desc *desc)
{
    const conv_shape s = grad_shape(desc);
    const size_t parts[3] = {partial_x_bytes(s), partial_w_bytes(s), partial_bias_bytes(s)};
    size_t most = 0;

    for (int i = 0; i < 3; i++) most = parts[i] > most ? parts[i] : most;
    return most;
}

static const char *why_not_grad(const sh_node_desc *desc)
{
    const sh_tensor_desc *x =
        has_input(desc, SH_CONV_GRAD_X_IN) ? desc->in[SH_CONV_GRAD_X_IN] : desc->out[0];

    if (has_output(desc, SH_CONV_GRAD_DBIAS) && has_input(desc, SH_CONV_GRAD_Y))
        return "a bias before a batch norm";
    return why_not_depthwise(x, desc->in[SH_CONV_GRAD_W_IN], desc->in[SH_CONV_GRAD_DY],
                             desc->attrs);
}

const sh_cuda_op sh_cuda_conv_grad_x_depthwise = {why_not_grad_x, NULL, grad_x};
const sh_cuda_op sh_cuda_conv_grad_w_depthwise = {why_not_grad_w, grad_w_scratch, grad_w};
const sh_cuda_op sh_cuda_conv_grad_depthwise = {why_not_grad, grad_scratch, grad};
