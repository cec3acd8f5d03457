// SPDX-License-Identifier: Apache-2.0
/** Squeeze and excitation of a = act(batch norm of x), made again wherever it is read. */
#include "models/cuda/images.h"
#include "models/cuda/norm.h"
#include "models/cuda/reduce.h"

/* ---- sums over an image's pixels ---- */

/** sums = share * sum of a, or of dy a where dy is given. */
template <typename T, int V>
__global__ void __launch_bounds__(SH_BLOCK)
    sum_activated(T *to, const T *dy, const T *x, image_rows m, batch_norm constants, sh_act act,
                  float share)
{
    SH_SHARED(float, shared); /* [V][SH_BLOCK] */
    const int64_t c0 = first_channel<V>();
    channel ch[V] = {};
    float sums[V] = {};

    if (c0 < m.C) load_channels<V>(ch, constants, c0);
    for (int64_t p = threadIdx.y; p < m.n_pixels && c0 < m.C; p += blockDim.y) {
        float v[V], g[V] = {};
        load<V>(x + pixel_at(m, p, c0), v);
        if (dy != nullptr) load<V>(dy + pixel_at(m, p, c0), g);
#pragma unroll
        for (int i = 0; i < V; i++) {
            const float a = act_value(act, norm_value(ch[i], v[i]));
            sums[i] += dy != nullptr ? g[i] * a : a;
        }
    }
    sum_depth<V>(shared, sums);
    if (threadIdx.y > 0 || c0 >= m.C) return;
    for (int i = 0; i < V; i++) sums[i] *= share;
    store<V>(to + blockIdx.y * m.C + c0, sums);
}

struct run_se_sum {
    const sh_node_desc *desc;
    const sh_kernel_args *args;
    bool is_grad; /* dy stands before x */

    template <typename T, int V> void run() const
    {
        const int x = is_grad ? 1 : 0;
        const image_rows m = image_rows_of(desc->in[x]);

        SH_LAUNCH((sum_activated<T, V>), image_grid<V>(m.n_images, m.C), image_block<V>(m.C),
                  V * SH_BLOCK * sizeof(float), output<T>(args, 0),
                  is_grad ? input<T>(args, 0) : nullptr, input<T>(args, x), m,
                  norm_at(desc, args, x + 1), desc->attrs->act,
                  is_grad ? 1.0f : 1 / (float)m.n_pixels);
    }
};

static void se_squeeze(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_se_sum{desc, args, false});
}

static void se_factor_grad(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[1]->dtype, desc->in[1]->dims[1], run_se_sum{desc, args, true});
}

/* ---- y = a s ---- */

template <typename T, int V>
__global__ void __launch_bounds__(SH_BLOCK)
    excite_images(T *y, const T *x, const T *s, image_rows m, batch_norm constants, sh_act act)
{
    const int64_t c0 = first_channel<V>();
    channel ch[V];
    float factor[V];

    if (c0 >= m.C) return;
    load_channels<V>(ch, constants, c0);
    load<V>(s + blockIdx.y * m.C + c0, factor);
    for (int64_t p = threadIdx.y; p < m.n_pixels; p += blockDim.y) {
        float v[V];
        load<V>(x + pixel_at(m, p, c0), v);
#pragma unroll
        for (int i = 0; i < V; i++) v[i] = act_value(act, norm_value(ch[i], v[i])) * factor[i];
        store<V>(y + pixel_at(m, p, c0), v);
    }
}

struct run_se_excite {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        const image_rows m = image_rows_of(desc->in[0]);

        SH_LAUNCH((excite_images<T, V>), image_grid<V>(m.n_images, m.C), image_block<V>(m.C), 0,
                  output<T>(args, 0), input<T>(args, 0), input<T>(args, 1), m,
                  norm_at(desc, args, 2), desc->attrs->act);
    }
};

static void se_excite(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_se_excite{desc, args});
}

/* ---- the gradient of the batch norm's result ---- */

/** The partial sums, of g xhat and of g, are one piece per image. */
template <typename T, int V>
__global__ void __launch_bounds__(SH_BLOCK)
    se_grad_images(T *to, const T *dy, const T *x, const T *s, const T *dp, image_rows m,
                   batch_norm constants, sh_act act, float *partial)
{
    SH_SHARED(float, shared); /* [2 V][SH_BLOCK] */
    const int64_t c0 = first_channel<V>();
    channel ch[V] = {};
    float factor[V] = {}, share[V] = {}, sums[2 * V] = {};

    if (c0 < m.C) {
        load_channels<V>(ch, constants, c0);
        load<V>(s + blockIdx.y * m.C + c0, factor);
        load<V>(dp + blockIdx.y * m.C + c0, share);
        for (int i = 0; i < V; i++) share[i] /= (float)m.n_pixels;
    }
    for (int64_t p = threadIdx.y; p < m.n_pixels && c0 < m.C; p += blockDim.y) {
        float g[V], v[V];
        load<V>(dy + pixel_at(m, p, c0), g);
        load<V>(x + pixel_at(m, p, c0), v);
#pragma unroll
        for (int i = 0; i < V; i++) {
            const float z = norm_value(ch[i], v[i]);
            g[i] = (g[i] * factor[i] + share[i]) * act_slope(act, z, act_value(act, z));
            const float stored = as_stored<T>(g[i]);
            sums[i] += stored * (v[i] - ch[i].mean) * ch[i].rstd;
            sums[V + i] += stored;
        }
        store<V>(to + pixel_at(m, p, c0), g);
    }
    put_piece<2, V>(shared, sums, m.C, c0, partial);
}

struct run_se_grad {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        const image_rows m = image_rows_of(desc->in[1]);
        float *partial = static_cast<float *>(args->scratch);

        SH_LAUNCH((se_grad_images<T, V>), image_grid<V>(m.n_images, m.C), image_block<V>(m.C),
                  2 * V * SH_BLOCK * sizeof(float), output<T>(args, 0), input<T>(args, 0),
                  input<T>(args, 1), input<T>(args, 6), input<T>(args, 7), m,
                  norm_at(desc, args, 2), desc->attrs->act, partial);
        launch_finish_sums<2>(
            partial, (unsigned)m.n_images, m.C,
            sums_out{{output<float>(args, 1), output<float>(args, 2), nullptr}, 0});
    }
};

static void se_grad(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[1]->dtype, desc->in[1]->dims[1], run_se_grad{desc, args});
}

static size_t se_grad_scratch(const sh_node_desc *desc)
{
    const image_rows m = image_rows_of(desc->in[1]);

    return 2 * (size_t)(m.n_images * m.C) * sizeof(float);
}

const sh_cuda_op sh_cuda_se_squeeze = {why_not_images, NULL, se_squeeze};
const sh_cuda_op sh_cuda_se_excite = {why_not_images, NULL, se_excite};
const sh_cuda_op sh_cuda_se_factor_grad = {why_not_images, NULL, se_factor_grad};
const sh_cuda_op sh_cuda_se_grad = {why_not_images, se_grad_scratch, se_grad};
