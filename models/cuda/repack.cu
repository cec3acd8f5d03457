// SPDX-License-Identifier: Apache-2.0
/** Around convolutions of cuDNN: weights in its order and back, what follows on a result. */
#include "models/cuda/reduce.h"
#include "models/cuda/repack.h"

template <typename T>
__global__ void __launch_bounds__(SH_BLOCK)
    pack_weights(T *packed, const float *w, sh_packed_weights as)
{
    const int64_t i = item_index();

    if (i >= as.O * as.taps * as.stored) return;
    const int64_t c = i % as.stored, tap = i / as.stored % as.taps, o = i / as.stored / as.taps;
    packed[i] = convert<T>::of(c < as.C ? w[(o * as.C + c) * as.taps + tap] : 0.0f);
}

template <typename T>
__global__ void __launch_bounds__(SH_BLOCK)
    unpack_weights(float *dw, const T *packed, sh_packed_weights as)
{
    const int64_t i = item_index();

    if (i >= as.O * as.C * as.taps) return;
    const int64_t tap = i % as.taps, c = i / as.taps % as.C, o = i / as.taps / as.C;
    dw[i] = to_f32(packed[(o * as.taps + tap) * as.stored + c]);
}

/** A thread has V neighbouring channels of a row. */
template <typename T, int V>
__global__ void __launch_bounds__(SH_BLOCK)
    finish_conv(T *y, const float *bias, const T *residual, int64_t n, int64_t channels, sh_act act)
{
    const int64_t i = item_index() * V;
    float value[V], add[V];

    if (i >= n) return;
    load<V>(y + i, value);
#pragma unroll
    for (int k = 0; k < V && bias != nullptr; k++) value[k] += bias[i % channels + k];
    if (residual != nullptr) {
        load<V>(residual + i, add);
#pragma unroll
        for (int k = 0; k < V; k++) value[k] += add[k];
    }
#pragma unroll
    for (int k = 0; k < V; k++) value[k] = act_value(act, value[k]);
    store<V>(y + i, value);
}

template <typename T>
__global__ void __launch_bounds__(SH_BLOCK) fill(T *x, int64_t n, uint32_t seed)
{
    const int64_t i = item_index();
    uint32_t h = (uint32_t)i * 2654435761u ^ seed;

    if (i >= n) return;
    h = (h ^ h >> 15) * 2246822519u;
    h = (h ^ h >> 13) * 3266489917u;
    x[i] = convert<T>::of((float)(int32_t)(h ^ h >> 16) * (1.0f / 2147483648.0f));
}

struct run_pack {
    const sh_packed_weights &as;
    void *packed;
    const float *w;

    template <typename T, int V> void run() const
    {
        SH_LAUNCH(pack_weights<T>, item_grid(as.O * as.taps * as.stored), dim3(SH_BLOCK), 0,
                  static_cast<T *>(packed), w, as);
    }
};

struct run_unpack {
    const sh_packed_weights &as;
    float *dw;
    const void *packed;

    template <typename T, int V> void run() const
    {
        SH_LAUNCH(unpack_weights<T>, item_grid(as.O * as.C * as.taps), dim3(SH_BLOCK), 0, dw,
                  static_cast<const T *>(packed), as);
    }
};

struct run_finish {
    void *y;
    const float *bias;
    const void *residual;
    int64_t n, channels;
    sh_act act;

    template <typename T, int V> void run() const
    {
        SH_LAUNCH((finish_conv<T, V>), item_grid(n / V), dim3(SH_BLOCK), 0, static_cast<T *>(y),
                  bias, static_cast<const T *>(residual), n, channels, act);
    }
};

struct run_fill {
    void *x;
    int64_t n;
    uint32_t seed;

    template <typename T, int V> void run() const
    {
        SH_LAUNCH(fill<T>, item_grid(n), dim3(SH_BLOCK), 0, static_cast<T *>(x), n, seed);
    }
};

void sh_cuda_pack_weights(const sh_packed_weights *as, void *packed, const float *w)
{
    by_type(as->dtype, 1, run_pack{*as, packed, w});
}

void sh_cuda_unpack_weights(const sh_packed_weights *as, float *dw, const void *packed)
{
    by_type(as->dtype, 1, run_unpack{*as, dw, packed});
}

void sh_cuda_finish_conv(sh_dtype dtype, void *y, const float *bias, const void *residual,
                         int64_t rows, int64_t channels, sh_act act)
{
    by_type(dtype, channels, run_finish{y, bias, residual, rows * channels, channels, act});
}

void sh_cuda_sum_columns(sh_dtype dtype, const void *x, int64_t rows, int64_t channels,
                         void *scratch, float *sums)
{
    by_type(dtype, channels, launch_column_sums{x, rows, channels, scratch, sums});
}

size_t sh_cuda_sum_columns_bytes(int64_t rows, int64_t channels)
{
    return column_sums_bytes(rows, channels);
}

void sh_cuda_fill(sh_dtype dtype, void *x, int64_t n, uint32_t seed)
{
    by_type(dtype, 1, run_fill{x, n, seed});
}
