// SPDX-License-Identifier: Apache-2.0
/** Batch norm over maps of rows: statistics; application with residual and activation; derivatives
 *  with the activation's slope in them. A thread keeps its channels' constants over its rows. */
#include "models/cuda/norm.h"
#include "models/cuda/reduce.h"

static int64_t rows_of(const sh_tensor_desc *d)
{
    return d->dims[0] * pixels_of(d);
}

static tiling tiling_for(const sh_tensor_desc *d)
{
    return d->dims[1] % 8 == 0 ? tiling_of<8>(rows_of(d), d->dims[1])
                               : tiling_of<1>(rows_of(d), d->dims[1]);
}

/* ---- statistics ---- */

template <typename T, int V>
__global__ void __launch_bounds__(SH_BLOCK) bn_moments(const T *x, tiling t, moments *partial)
{
    SH_SHARED(moments, shared); /* [V][SH_BLOCK] */
    const int64_t c0 = first_channel<V>();
    shifted own[V] = {};
    moments result[V];
    int n = 0;

    for (int64_t row = first_row(); row < t.rows && c0 < t.C; row += row_step(), n++) {
        float v[V];
        load<V>(x + row * t.C + c0, v);
#pragma unroll
        for (int i = 0; i < V; i++) own[i].add(v[i], n == 0);
    }
#pragma unroll
    for (int i = 0; i < V; i++) result[i] = own[i].result((float)n);
    merge_depth<V>(shared, result);
    if (threadIdx.y > 0 || c0 >= t.C) return;
    for (int i = 0; i < V; i++) partial[blockIdx.y * t.C + c0 + i] = result[i];
}

struct run_moments {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        const tiling t = tiling_for(desc->in[0]);
        moments *partial = static_cast<moments *>(args->scratch);

        SH_LAUNCH((bn_moments<T, V>), t.grid(), t.block(), V * SH_BLOCK * sizeof(moments),
                  input<T>(args, 0), t, partial);
        launch_finish_moments(partial, t.pieces, t.C, output<float>(args, 0),
                              output<float>(args, 1));
    }
};

static void bn_stats(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_moments{desc, args});
}

static size_t bn_stats_scratch(const sh_node_desc *desc)
{
    const tiling t = tiling_for(desc->in[0]);

    return t.pieces * (size_t)t.C * sizeof(moments);
}

/* ---- application ---- */

template <typename T, int V>
__global__ void __launch_bounds__(SH_BLOCK)
    bn_apply_rows(T *y, const T *x, const T *residual, tiling t, batch_norm constants, sh_act act)
{
    const int64_t c0 = first_channel<V>();
    channel ch[V];

    if (c0 >= t.C) return;
    load_channels<V>(ch, constants, c0);
    for (int64_t row = first_row(); row < t.rows; row += row_step()) {
        const int64_t at = row * t.C + c0;
        float v[V], r[V] = {};
        load<V>(x + at, v);
        if (residual != nullptr) load<V>(residual + at, r);
#pragma unroll
        for (int i = 0; i < V; i++) v[i] = act_value(act, norm_value(ch[i], v[i]) + r[i]);
        store<V>(y + at, v);
    }
}

struct run_apply {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        const tiling t = tiling_for(desc->in[0]);

        SH_LAUNCH((bn_apply_rows<T, V>), t.grid(), t.block(), 0, output<T>(args, 0),
                  input<T>(args, 0), has_input(desc, 5) ? input<T>(args, 5) : nullptr, t,
                  norm_at(desc, args, 1), desc->attrs->act);
    }
};

static void bn_apply(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_apply{desc, args});
}

/* ---- derivatives ---- */

/** dy before the activation. Its output is y where that is known, else made again from x. */
__device__ static inline float masked(sh_act act, const channel &ch, float dy, float x,
                                      bool is_known, float y)
{
    if (act == SH_ACT_NONE) return dy;
    const float z = norm_value(ch, x);
    return dy * act_slope(act, z, is_known ? y : act_value(act, z));
}

/** g, which is dy before the activation, and x at `at`; y NULL: not known. */
template <int V, typename T>
__device__ static inline void load_masked(const T *dy, const T *x, const T *y, int64_t at,
                                          sh_act act, const channel *ch, float *g, float *v)
{
    float out[V] = {};

    load<V>(dy + at, g);
    load<V>(x + at, v);
    if (y != nullptr) load<V>(y + at, out);
#pragma unroll
    for (int i = 0; i < V; i++) g[i] = masked(act, ch[i], g[i], v[i], y != nullptr, out[i]);
}

/** Sums of g xhat and of g. */
template <typename T, int V>
__global__ void __launch_bounds__(SH_BLOCK)
    bn_grad_sums(const T *dy, const T *x, const T *y, tiling t, batch_norm constants, sh_act act,
                 float *partial)
{
    SH_SHARED(float, shared); /* [2 V][SH_BLOCK] */
    const int64_t c0 = first_channel<V>();
    float sums[2 * V] = {};

    if (c0 < t.C) {
        channel ch[V];
        load_channels<V>(ch, constants, c0);
        for (int64_t row = first_row(); row < t.rows; row += row_step()) {
            const int64_t at = row * t.C + c0;
            float g[V], v[V];
            load_masked<V>(dy, x, y, at, act, ch, g, v);
#pragma unroll
            for (int i = 0; i < V; i++) {
                sums[i] += g[i] * (v[i] - ch[i].mean) * ch[i].rstd;
                sums[V + i] += g[i];
            }
        }
    }
    put_piece<2, V>(shared, sums, t.C, c0, partial);
}

struct run_grad_reduce {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        const tiling t = tiling_for(desc->in[1]);
        float *partial = static_cast<float *>(args->scratch);

        SH_LAUNCH((bn_grad_sums<T, V>), t.grid(), t.block(), 2 * V * SH_BLOCK * sizeof(float),
                  input<T>(args, 0), input<T>(args, 1),
                  has_input(desc, 6) ? input<T>(args, 6) : nullptr, t, norm_at(desc, args, 2),
                  desc->attrs->act, partial);
        launch_finish_sums<2>(
            partial, t.pieces, t.C,
            sums_out{{output<float>(args, 0), output<float>(args, 1), nullptr}, 0});
    }
};

static void bn_grad_reduce(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[1]->dtype, desc->in[1]->dims[1], run_grad_reduce{desc, args});
}

static size_t bn_grad_reduce_scratch(const sh_node_desc *desc)
{
    const tiling t = tiling_for(desc->in[1]);

    return 2 * t.pieces * (size_t)t.C * sizeof(float);
}

/** dgamma and dbeta [C] are NULL where the statistics are constants. */
template <typename T, int V>
__global__ void __launch_bounds__(SH_BLOCK)
    bn_grad_rows(T *dx, T *dresidual, const T *dy, const T *x, const T *y, tiling t,
                 batch_norm constants, sh_act act, const float *dgamma, const float *dbeta)
{
    const int64_t c0 = first_channel<V>();
    const float per_row = 1 / (float)t.rows;
    channel ch[V];
    float mean_g[V] = {}, mean_gx[V] = {};

    if (c0 >= t.C) return;
    load_channels<V>(ch, constants, c0);
#pragma unroll
    for (int i = 0; i < V && dgamma != nullptr; i++) {
        mean_gx[i] = dgamma[c0 + i] * per_row;
        mean_g[i] = dbeta[c0 + i] * per_row;
    }
    for (int64_t row = first_row(); row < t.rows; row += row_step()) {
        const int64_t at = row * t.C + c0;
        float g[V], v[V];
        load_masked<V>(dy, x, y, at, act, ch, g, v);
#pragma unroll
        for (int i = 0; i < V; i++) {
            const float xhat = (v[i] - ch[i].mean) * ch[i].rstd;
            v[i] = ch[i].gamma * ch[i].rstd * (g[i] - mean_g[i] - xhat * mean_gx[i]);
        }
        store<V>(dx + at, v);
        if (dresidual != nullptr) store<V>(dresidual + at, g);
    }
}

struct run_grad_apply {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        const tiling t = tiling_for(desc->in[1]);
        bool is_frozen = desc->attrs->frozen != 0;

        SH_LAUNCH((bn_grad_rows<T, V>), t.grid(), t.block(), 0, output<T>(args, 0),
                  has_output(desc, 1) ? output<T>(args, 1) : nullptr, input<T>(args, 0),
                  input<T>(args, 1), has_input(desc, 8) ? input<T>(args, 8) : nullptr, t,
                  norm_at(desc, args, 2), desc->attrs->act,
                  is_frozen ? nullptr : input<float>(args, 6),
                  is_frozen ? nullptr : input<float>(args, 7));
    }
};

static void bn_grad_apply(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[1]->dtype, desc->in[1]->dims[1], run_grad_apply{desc, args});
}

/* ---- vectors ---- */

__global__ void export_statistics(const float *mean, const float *var, int64_t C, float share,
                                  float unbiased, float *delta_mean, float *delta_var)
{
    const int64_t c = item_index();

    if (c >= C) return;
    delta_mean[c] = share * mean[c];
    delta_var[c] = share * var[c] * unbiased;
}

static void bn_export(const sh_node_desc *desc, const sh_kernel_args *args)
{
    const int64_t C = desc->in[0]->dims[0], m = desc->attrs->n_reduced;
    const double unbiased = m > 1 ? (double)m / (double)(m - 1) : 1;

    SH_LAUNCH(export_statistics, item_grid(C), dim3(SH_BLOCK), 0, input<float>(args, 0),
              input<float>(args, 1), C, desc->attrs->share, (float)unbiased, output<float>(args, 0),
              output<float>(args, 1));
}

/** w [O][n]; the thread of an output channel's first weight makes its bias too. */
__global__ void fold_weights(const float *w, const float *bias, int64_t O, int64_t n,
                             batch_norm constants, float *folded, float *folded_bias)
{
    const int64_t i = item_index();

    if (i >= O * n) return;
    const channel ch = channel_of(constants, i / n);
    folded[i] = w[i] * ch.rstd * ch.gamma;
    if (i % n == 0) folded_bias[i / n] = norm_value(ch, bias != nullptr ? bias[i / n] : 0);
}

static void fold_bn(const sh_node_desc *desc, const sh_kernel_args *args)
{
    const int64_t O = desc->in[0]->dims[0], n = elems_of(desc->in[0]) / O;

    SH_LAUNCH(fold_weights, item_grid(O * n), dim3(SH_BLOCK), 0, input<float>(args, 0),
              optional_input(desc, args, 5), O, n, norm_at(desc, args, 1), output<float>(args, 0),
              output<float>(args, 1));
}

static const char *why_not_parameters(const sh_node_desc *desc)
{
    return desc->in[0]->dtype == SH_F32 && desc->in[0]->layout == SH_NCHW ? NULL : "not f32";
}

const sh_cuda_op sh_cuda_bn_stats = {why_not_rows, bn_stats_scratch, bn_stats};
const sh_cuda_op sh_cuda_bn_apply = {why_not_rows, NULL, bn_apply};
const sh_cuda_op sh_cuda_bn_grad_reduce = {why_not_rows, bn_grad_reduce_scratch, bn_grad_reduce};
const sh_cuda_op sh_cuda_bn_grad_apply = {why_not_rows, NULL, bn_grad_apply};
const sh_cuda_op sh_cuda_bn_export = {why_not_parameters, NULL, bn_export};
const sh_cuda_op sh_cuda_fold_bn = {why_not_parameters, NULL, fold_bn};
