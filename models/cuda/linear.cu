// SPDX-License-Identifier: Apache-2.0
/** Linear layers, products of small matrices: f32 sums over shared tiles. Plain; the heads of
 *  networks are far from what a step waits for. */
#include "models/cuda/node.h"
#include "models/cuda/reduce.h"

enum { TILE = 32, SIDE = TILE / 2 }; /* a thread has 2 x 2 results, SIDE apart */

/** An [m][k] matrix that may be a transposed view. */
template <typename T> struct view {
    const T *at;
    int64_t step_m, step_k;
};

/** c[M][N] = a[M][K] b[N][K]^T + bias[N]. */
template <typename A, typename B, typename C>
__global__ void __launch_bounds__(SIDE *SIDE)
    product(C *c, view<A> a, view<B> b, const float *bias, int64_t M, int64_t N, int64_t K)
{
    SH_SHARED(float, shared); /* [2][TILE k][TILE + 1] */
    float *a_tile = shared, *b_tile = shared + TILE * (TILE + 1);
    const int64_t m0 = (int64_t)blockIdx.y * TILE, n0 = (int64_t)blockIdx.x * TILE;
    const int x = (int)threadIdx.x, y = (int)threadIdx.y, thread = y * SIDE + x;
    float sum[2][2] = {};

    for (int64_t k0 = 0; k0 < K; k0 += TILE) {
        for (int i = thread; i < TILE * TILE; i += SIDE * SIDE) {
            const int k = i % TILE, at = k * (TILE + 1) + i / TILE;
            const int64_t m = m0 + i / TILE, n = n0 + i / TILE;
            const bool is_inside = k0 + k < K;
            a_tile[at] = is_inside && m < M ? to_f32(a.at[m * a.step_m + (k0 + k) * a.step_k]) : 0;
            b_tile[at] = is_inside && n < N ? to_f32(b.at[n * b.step_m + (k0 + k) * b.step_k]) : 0;
        }
        __syncthreads();
        for (int k = 0; k < TILE; k++) {
            const float *a_row = a_tile + k * (TILE + 1) + y, *b_row = b_tile + k * (TILE + 1) + x;
#pragma unroll
            for (int i = 0; i < 2; i++) {
                sum[i][0] += a_row[i * SIDE] * b_row[0];
                sum[i][1] += a_row[i * SIDE] * b_row[SIDE];
            }
        }
        __syncthreads();
    }
    for (int i = 0; i < 4; i++) {
        const int64_t m = m0 + y + i / 2 * SIDE, n = n0 + x + i % 2 * SIDE;
        if (m >= M || n >= N) continue;
        c[m * N + n] = convert<C>::of(sum[i / 2][i % 2] + (bias != nullptr ? bias[n] : 0));
    }
}

template <typename A, typename B, typename C>
static void launch_product(C *c, view<A> a, view<B> b, const float *bias, int64_t M, int64_t N,
                           int64_t K)
{
    const dim3 grid((unsigned)((N + TILE - 1) / TILE), (unsigned)((M + TILE - 1) / TILE));

    SH_LAUNCH((product<A, B, C>), grid, dim3(SIDE, SIDE), 2 * TILE * (TILE + 1) * sizeof(float), c,
              a, b, bias, M, N, K);
}

struct linear_sizes {
    int64_t N, I, O;
};

/** y = x w^T + bias. */
struct run_linear {
    const sh_node_desc *desc;
    const sh_kernel_args *args;
    linear_sizes s;

    template <typename T, int V> void run() const
    {
        launch_product<T, float, T>(output<T>(args, 0), {input<T>(args, 0), s.I, 1},
                                    {input<float>(args, 1), s.I, 1}, optional_input(desc, args, 2),
                                    s.N, s.O, s.I);
    }
};

static void linear(const sh_node_desc *desc, const sh_kernel_args *args)
{
    const linear_sizes s = {desc->in[0]->dims[0], desc->in[0]->dims[1], desc->out[0]->dims[1]};

    by_type(desc->in[0]->dtype, s.I, run_linear{desc, args, s});
}

/** dx = dy w. */
struct run_linear_grad_x {
    const sh_kernel_args *args;
    linear_sizes s;

    template <typename T, int V> void run() const
    {
        launch_product<T, float, T>(output<T>(args, 0), {input<T>(args, 0), s.O, 1},
                                    {input<float>(args, 1), 1, s.I}, nullptr, s.N, s.I, s.O);
    }
};

static void linear_grad_x(const sh_node_desc *desc, const sh_kernel_args *args)
{
    const linear_sizes s = {desc->in[0]->dims[0], desc->out[0]->dims[1], desc->in[0]->dims[1]};

    by_type(desc->in[0]->dtype, s.I, run_linear_grad_x{args, s});
}

/** dw = dy^T x, dbias = sums of dy. */
struct run_linear_grad_w {
    const sh_node_desc *desc;
    const sh_kernel_args *args;
    linear_sizes s;

    template <typename T, int V> void run() const
    {
        launch_product<T, T, float>(output<float>(args, 0), {input<T>(args, 1), 1, s.O},
                                    {input<T>(args, 0), 1, s.I}, nullptr, s.O, s.I, s.N);
        if (!has_output(desc, 1)) return;
        by_type(desc->in[1]->dtype, s.O,
                launch_column_sums{args->in[1], s.N, s.O, args->scratch, output<float>(args, 1)});
    }
};

static void linear_grad_w(const sh_node_desc *desc, const sh_kernel_args *args)
{
    const linear_sizes s = {desc->in[0]->dims[0], desc->in[0]->dims[1], desc->in[1]->dims[1]};

    by_type(desc->in[0]->dtype, s.I, run_linear_grad_w{desc, args, s});
}

static size_t linear_grad_w_scratch(const sh_node_desc *desc)
{
    if (!has_output(desc, 1)) return 0;
    return column_sums_bytes(desc->in[1]->dims[0], desc->in[1]->dims[1]);
}

static const char *why_not_matrices(const sh_node_desc *desc)
{
    for (int i = 0; i < desc->n_inputs; i++) {
        if (desc->in[i] != NULL && desc->in[i]->dims[0] > (int64_t)TILE * SH_MAX_GRID_Y)
            return "too many rows";
    }
    return why_not_rows(desc);
}

const sh_cuda_op sh_cuda_linear = {why_not_matrices, NULL, linear};
const sh_cuda_op sh_cuda_linear_grad_x = {why_not_matrices, NULL, linear_grad_x};
const sh_cuda_op sh_cuda_linear_grad_w = {why_not_matrices, linear_grad_w_scratch, linear_grad_w};
