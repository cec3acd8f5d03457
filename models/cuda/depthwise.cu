// SPDX-License-Identifier: Apache-2.0
/** Depthwise convolution, forward: batch norm and activation on load; bias, residual and activation
 *  or the statistics of the result on store. */
#include "models/cuda/depthwise.h"

/** What a kernel needs besides the types. */
template <typename T> struct dw_forward_args {
    T *y;
    const T *x;
    const float *w, *bias; /* bias may be NULL */
    const T *residual;     /* of the result's shape, or NULL */
    dw_norm on_load;
    sh_act y_act;
    moments *partial; /* [pieces][C], or NULL */
};

/** One result of any window, from shared memory. */
template <int V>
__device__ static inline void any_window(const float *tile, const dw_tiles &t, const float *weights,
                                         const conv_shape &s, int row, int column, float *sums)
{
    for (int k = 0; k < s.KH * s.KW; k++) {
        const int h = row * s.stride[0] + k / (int)s.KW * s.dilation[0];
        const int w = column * s.stride[1] + k % (int)s.KW * s.dilation[1];
        float v[V], weight[V];
        load<V>(tile + (h * t.sw + w) * DW_CHANNELS, v);
        load<V>(weights + k * DW_CHANNELS, weight);
#pragma unroll
        for (int i = 0; i < V; i++) sums[i] += v[i] * weight[i];
    }
}

/** K = 0: any window. */
template <typename T, int V, int K, int S>
__global__ void __launch_bounds__(SH_BLOCK)
    depthwise_forward(dw_forward_args<T> a, conv_shape s, dw_tiles t)
{
    SH_SHARED(float, tile); /* source, weights; at the end the moments of the block's threads */
    const int across = K > 0 ? DW_ACROSS : 1;
    const int64_t c0 = first_channel<V>();
    const activated<T, V> source(a.x, a.on_load, c0, s.C);
    const int own = (int)threadIdx.x * V;
    float *weights = tile + t.source_floats(), bias[V] = {};
    shifted statistics[V] = {};
    int n = 0;

    fill_weights<V>(weights, a.w, (int)(s.KH * s.KW), s.C, false);
    for (int i = 0; i < V && a.bias != nullptr && c0 < s.C; i++) bias[i] = a.bias[c0 + i];
    for (int64_t k = blockIdx.y; k < t.n; k += gridDim.y) {
        const dw_tile at = tile_at(t, k);
        __syncthreads();
        fill<V>(tile, source, at.image, at.h0 * s.stride[0] - s.pad[0],
                at.w0 * s.stride[1] - s.pad[1], t.sh, t.sw, t.source_height, t.source_width, s.C);
        __syncthreads();
        for (int q = (int)threadIdx.y; q < t.th * t.tw / across; q += (int)blockDim.y) {
            const int row = q / (t.tw / across), column = q % (t.tw / across) * across;
            float sums[across][V];
            if (c0 >= s.C || at.h0 + row >= t.height) continue;
            for (int r = 0; r < across; r++) {
                for (int i = 0; i < V; i++) sums[r][i] = bias[i];
            }
            if constexpr (K > 0) {
                const float *from = tile + (row * S * t.sw + column * S) * DW_CHANNELS + own;
                window_sums<V, K, S>(from, t.sw, weights + own, sums);
            } else {
                any_window<V>(tile + own, t, weights + own, s, row, column, sums[0]);
            }
            for (int r = 0; r < across && at.w0 + column + r < t.width; r++) {
                const int64_t pixel =
                    (at.image * t.height + at.h0 + row) * t.width + at.w0 + column + r;
                float residual[V] = {};
                if (a.residual != nullptr) load<V>(a.residual + pixel * s.C + c0, residual);
                for (int i = 0; i < V; i++) {
                    sums[r][i] = act_value(a.y_act, sums[r][i] + residual[i]);
                    statistics[i].add(as_stored<T>(sums[r][i]), n == 0);
                }
                store<V>(a.y + pixel * s.C + c0, sums[r]);
                n++;
            }
        }
    }
    if (a.partial == nullptr) return;
    moments result[V];
    for (int i = 0; i < V; i++) result[i] = statistics[i].result((float)n);
    __syncthreads();
    merge_depth<V>(reinterpret_cast<moments *>(tile), result);
    if (threadIdx.y > 0 || c0 >= s.C) return;
    for (int i = 0; i < V; i++) a.partial[blockIdx.y * s.C + c0 + i] = result[i];
}

/** Source pixels along one side of a tile. */
static int forward_side(const conv_shape &s, int side, int n)
{
    const int64_t window = side == 0 ? s.KH : s.KW;

    return (n - 1) * s.stride[side] + (int)(window - 1) * s.dilation[side] + 1;
}

static size_t forward_bytes(const conv_shape &s, const dw_tiles &t)
{
    const size_t n_bytes =
        (t.source_floats() + (size_t)(s.KH * s.KW) * DW_CHANNELS) * sizeof(float);
    const size_t merge_bytes = 8 * SH_BLOCK * sizeof(moments);

    return n_bytes > merge_bytes ? n_bytes : merge_bytes;
}

static dw_tiles forward_tiles(const conv_shape &s)
{
    return choose_tiles(
        s.N, (int)s.OH, (int)s.OW, (int)s.H, (int)s.W,
        [&](int side, int n) { return forward_side(s, side, n); },
        [&](const dw_tiles &t) { return forward_bytes(s, t); });
}

static conv_shape shape_of(const sh_node_desc *desc)
{
    return conv_shape_of(desc->in[SH_CONV_X], desc->in[SH_CONV_W], desc->out[SH_CONV_Y],
                         desc->attrs);
}

struct run_forward {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V, int K, int S> void launch() const
    {
        const conv_shape s = shape_of(desc);
        const dw_tiles t = forward_tiles(s);
        const dim3 grid = dw_grid(t, s.C);
        const bool has_statistics = has_output(desc, SH_CONV_Y_MEAN);
        const batch_norm constants = {optional_input(desc, args, SH_CONV_MEAN),
                                      optional_input(desc, args, SH_CONV_VAR),
                                      optional_input(desc, args, SH_CONV_GAMMA),
                                      optional_input(desc, args, SH_CONV_BETA), desc->attrs->eps};
        const dw_forward_args<T> a = {
            output<T>(args, SH_CONV_Y),
            input<T>(args, SH_CONV_X),
            input<float>(args, SH_CONV_W),
            optional_input(desc, args, SH_CONV_BIAS),
            has_input(desc, SH_CONV_RESIDUAL) ? input<T>(args, SH_CONV_RESIDUAL) : nullptr,
            {constants, desc->attrs->act},
            desc->attrs->y_act,
            has_statistics ? static_cast<moments *>(args->scratch) : nullptr};

        SH_LAUNCH((depthwise_forward<T, V, K, S>), grid, dw_block<V>(), forward_bytes(s, t), a, s,
                  t);
        if (!has_statistics) return;
        launch_finish_moments(a.partial, grid.y, s.C, output<float>(args, SH_CONV_Y_MEAN),
                              output<float>(args, SH_CONV_Y_VAR));
    }

    template <typename T, int V> void run() const
    {
        const conv_shape s = shape_of(desc);
        const bool is_strided = s.stride[0] == 2;

        switch (dw_known_window(s)) {
        case 3: is_strided ? launch<T, V, 3, 2>() : launch<T, V, 3, 1>(); break;
        case 5: is_strided ? launch<T, V, 5, 2>() : launch<T, V, 5, 1>(); break;
        default: launch<T, V, 0, 1>();
        }
    }
};

static void forward(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_forward{desc, args});
}

static size_t forward_scratch(const sh_node_desc *desc)
{
    const conv_shape s = shape_of(desc);

    if (!has_output(desc, SH_CONV_Y_MEAN)) return 0;
    return dw_grid(forward_tiles(s), s.C).y * (size_t)s.C * sizeof(moments);
}

static const char *why_not_forward(const sh_node_desc *desc)
{
    return why_not_depthwise(desc->in[SH_CONV_X], desc->in[SH_CONV_W], desc->out[SH_CONV_Y],
                             desc->attrs);
}

const sh_cuda_op sh_cuda_conv_depthwise = {why_not_forward, forward_scratch, forward};
