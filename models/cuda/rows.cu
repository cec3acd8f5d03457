// SPDX-License-Identifier: Apache-2.0
/** Norms of rows: the length of embeddings, layer norm of pixels and tokens. One warp per row. */
#include "models/cuda/node.h"
#include "models/cuda/reduce.h"

enum { WARP = 32, WARPS = SH_BLOCK / WARP };

static dim3 row_grid(int64_t n_rows)
{
    return dim3((unsigned)((n_rows + WARPS - 1) / WARPS));
}

/** This warp's row. Beyond the last one a warp works on the last again and stores nothing, since
 *  shuffles want all lanes. */
struct warp_row {
    int64_t at;
    bool is_real;
};

__device__ static inline warp_row row_of(int64_t n_rows)
{
    const int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;

    return warp_row{row < n_rows ? row : n_rows - 1, row < n_rows};
}

/* ---- length 1 ---- */

__device__ static inline float length_of(const float *x, int64_t D)
{
    float square = 0;

    for (int64_t i = threadIdx.x % WARP; i < D; i += WARP) square += x[i] * x[i];
    return sqrtf(warp_sum(square));
}

__global__ void __launch_bounds__(SH_BLOCK)
    normalise(float *y, const float *x, int64_t n_rows, int64_t D, float eps)
{
    const warp_row row = row_of(n_rows);
    const float divisor = fmaxf(length_of(x + row.at * D, D), eps);

    for (int64_t i = threadIdx.x % WARP; i < D && row.is_real; i += WARP)
        y[row.at * D + i] = x[row.at * D + i] / divisor;
}

/* dx = (dy - y (y . dy)) / |x|; below eps the divisor is a constant and dx = dy / eps. */
__global__ void __launch_bounds__(SH_BLOCK)
    normalise_grad(float *dx, const float *dy, const float *x, int64_t n_rows, int64_t D, float eps)
{
    const warp_row row = row_of(n_rows);
    const float *g = dy + row.at * D, *v = x + row.at * D;
    const float length = length_of(v, D), divisor = fmaxf(length, eps);
    float dot = 0;

    for (int64_t i = threadIdx.x % WARP; i < D; i += WARP) dot += v[i] / divisor * g[i];
    dot = warp_sum(dot);
    if (length < eps) dot = 0;
    for (int64_t i = threadIdx.x % WARP; i < D && row.is_real; i += WARP)
        dx[row.at * D + i] = (g[i] - v[i] / divisor * dot) / divisor;
}

static void l2_norm(const sh_node_desc *desc, const sh_kernel_args *args)
{
    const int64_t n_rows = desc->in[0]->dims[0], D = desc->in[0]->dims[1];

    SH_LAUNCH(normalise, row_grid(n_rows), dim3(SH_BLOCK), 0, output<float>(args, 0),
              input<float>(args, 0), n_rows, D, desc->attrs->eps);
}

static void l2_norm_grad(const sh_node_desc *desc, const sh_kernel_args *args)
{
    const int64_t n_rows = desc->in[0]->dims[0], D = desc->in[0]->dims[1];

    SH_LAUNCH(normalise_grad, row_grid(n_rows), dim3(SH_BLOCK), 0, output<float>(args, 0),
              input<float>(args, 0), input<float>(args, 1), n_rows, D, desc->attrs->eps);
}

static const char *why_not_f32(const sh_node_desc *desc)
{
    return desc->in[0]->dtype == SH_F32 ? why_not_rows(desc) : "not f32";
}

/* ---- layer norm ---- */

struct row_moments {
    float mean, rstd;
};

/* Two passes over a row that the first one has brought near. */
template <typename T>
__device__ static inline row_moments moments_of(const T *x, int64_t C, float eps)
{
    float sum = 0, square = 0;

    for (int64_t c = threadIdx.x % WARP; c < C; c += WARP) sum += to_f32(x[c]);
    const float mean = warp_sum(sum) / (float)C;
    for (int64_t c = threadIdx.x % WARP; c < C; c += WARP) {
        const float d = to_f32(x[c]) - mean;
        square += d * d;
    }
    return row_moments{mean, 1 / sqrtf(warp_sum(square) / (float)C + eps)};
}

template <typename T>
__global__ void __launch_bounds__(SH_BLOCK)
    layer_norm_rows(T *y, const T *x, const float *gamma, const float *beta, int64_t n_rows,
                    int64_t C, float eps)
{
    const warp_row row = row_of(n_rows);
    const T *v = x + row.at * C;
    const row_moments m = moments_of(v, C, eps);

    for (int64_t c = threadIdx.x % WARP; c < C && row.is_real; c += WARP)
        y[row.at * C + c] = convert<T>::of((to_f32(v[c]) - m.mean) * m.rstd * gamma[c] + beta[c]);
}

/** all [n_rows]: each row's moments, for the sums over rows. */
template <typename T>
__global__ void __launch_bounds__(SH_BLOCK)
    layer_norm_rows_grad(T *dx, row_moments *all, const T *dy, const T *x, const float *gamma,
                         int64_t n_rows, int64_t C, float eps)
{
    const warp_row row = row_of(n_rows);
    const T *v = x + row.at * C, *g = dy + row.at * C;
    const row_moments m = moments_of(v, C, eps);
    float sum = 0, with_xhat = 0;

    for (int64_t c = threadIdx.x % WARP; c < C; c += WARP) {
        const float own = to_f32(g[c]) * gamma[c];
        sum += own;
        with_xhat += own * (to_f32(v[c]) - m.mean) * m.rstd;
    }
    const float mean_g = warp_sum(sum) / (float)C, mean_gx = warp_sum(with_xhat) / (float)C;
    if (!row.is_real) return;
    if (threadIdx.x % WARP == 0) all[row.at] = m;
    for (int64_t c = threadIdx.x % WARP; c < C; c += WARP) {
        const float xhat = (to_f32(v[c]) - m.mean) * m.rstd;
        dx[row.at * C + c] =
            convert<T>::of(m.rstd * (to_f32(g[c]) * gamma[c] - mean_g - xhat * mean_gx));
    }
}

/** Sums over rows of dy xhat and of dy. */
template <typename T, int V>
__global__ void __launch_bounds__(SH_BLOCK)
    layer_norm_sums(const T *dy, const T *x, const row_moments *all, tiling t, float *partial)
{
    SH_SHARED(float, shared); /* [2 V][SH_BLOCK] */
    const int64_t c0 = first_channel<V>();
    float sums[2 * V] = {};

    for (int64_t row = first_row(); row < t.rows && c0 < t.C; row += row_step()) {
        const row_moments m = all[row];
        float g[V], v[V];
        load<V>(dy + row * t.C + c0, g);
        load<V>(x + row * t.C + c0, v);
#pragma unroll
        for (int i = 0; i < V; i++) {
            sums[i] += g[i] * (v[i] - m.mean) * m.rstd;
            sums[V + i] += g[i];
        }
    }
    put_piece<2, V>(shared, sums, t.C, c0, partial);
}

struct run_layer_norm {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        const int64_t C = desc->in[0]->dims[1], n_rows = elems_of(desc->in[0]) / C;

        SH_LAUNCH(layer_norm_rows<T>, row_grid(n_rows), dim3(SH_BLOCK), 0, output<T>(args, 0),
                  input<T>(args, 0), input<float>(args, 1), input<float>(args, 2), n_rows, C,
                  desc->attrs->eps);
    }
};

static void layer_norm(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_layer_norm{desc, args});
}

/** Bytes of the rows' moments in the scratch; the partial sums follow. */
static size_t moments_bytes(int64_t n_rows)
{
    return ((size_t)n_rows * sizeof(row_moments) + 63) / 64 * 64;
}

struct run_layer_norm_grad {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        const int64_t C = desc->in[0]->dims[1], n_rows = elems_of(desc->in[0]) / C;
        const tiling t = tiling_of<V>(n_rows, C);
        row_moments *all = static_cast<row_moments *>(args->scratch);
        float *partial =
            reinterpret_cast<float *>(static_cast<char *>(args->scratch) + moments_bytes(n_rows));

        SH_LAUNCH(layer_norm_rows_grad<T>, row_grid(n_rows), dim3(SH_BLOCK), 0, output<T>(args, 0),
                  all, input<T>(args, 0), input<T>(args, 1), input<float>(args, 2), n_rows, C,
                  desc->attrs->eps);
        if (!has_output(desc, 1)) return;
        SH_LAUNCH((layer_norm_sums<T, V>), t.grid(), t.block(), 2 * V * SH_BLOCK * sizeof(float),
                  input<T>(args, 0), input<T>(args, 1), all, t, partial);
        launch_finish_sums<2>(
            partial, t.pieces, C,
            sums_out{{output<float>(args, 1), optional_output(desc, args, 2), nullptr}, 0});
    }
};

static void layer_norm_grad(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_layer_norm_grad{desc, args});
}

static size_t layer_norm_grad_scratch(const sh_node_desc *desc)
{
    const int64_t C = desc->in[0]->dims[1], n_rows = elems_of(desc->in[0]) / C;

    return moments_bytes(n_rows) + 2 * column_sums_bytes(n_rows, C);
}

const sh_cuda_op sh_cuda_l2_norm = {why_not_f32, NULL, l2_norm};
const sh_cuda_op sh_cuda_l2_norm_grad = {why_not_f32, NULL, l2_norm_grad};
const sh_cuda_op sh_cuda_layer_norm = {why_not_rows, NULL, layer_norm};
const sh_cuda_op sh_cuda_layer_norm_grad = {why_not_rows, layer_norm_grad_scratch, layer_norm_grad};
