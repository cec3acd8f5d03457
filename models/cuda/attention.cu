// SPDX-License-Identifier: Apache-2.0
/**
 * Self-attention, plainly: a warp has one query (its scores in shared memory), or in the second
 * half of the derivative one key. Tokens are rows of 3 C channels, a head's channels consecutive.
 */
#include "models/cuda/device.h"
#include "models/cuda/node.h"

enum { WARP = 32, WARPS = SH_BLOCK / WARP, MAX_TOKENS = 768 /* two rows per warp in 48 KB */ };

struct attention_shape {
    int64_t n_images, T, C, d;
    int heads;
    float scale; /* 1 / sqrt(d) */
};

/** One warp's work: token i of one head of one image. Warps without any repeat the last one and
 *  store nothing. */
template <typename T> struct head_row {
    int64_t i, row;   /* row: of lse, [N][heads][T] */
    int64_t out, qkv; /* elements of the head's first channel in token 0 */
    bool is_real;
};

template <typename T> __device__ static inline head_row<T> head_row_of(const attention_shape &s)
{
    const int64_t n_rows = s.n_images * s.heads * s.T;
    const int64_t wanted = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    head_row<T> h;

    h.is_real = wanted < n_rows;
    h.row = h.is_real ? wanted : n_rows - 1;
    h.i = h.row % s.T;
    const int64_t head = h.row / s.T % s.heads, image = h.row / s.T / s.heads;
    h.out = image * s.T * s.C + head * s.d;
    h.qkv = image * s.T * 3 * s.C + head * s.d;
    return h;
}

template <typename A, typename B>
__device__ static inline float dot(const A *a, const B *b, int64_t d)
{
    float sum = 0;

    for (int64_t c = 0; c < d; c++) sum += to_f32(a[c]) * to_f32(b[c]);
    return sum;
}

template <typename T>
__global__ void __launch_bounds__(SH_BLOCK)
    attend(T *y, float *lse, const T *qkv, attention_shape s)
{
    SH_SHARED(float, shared); /* [WARPS][T] */
    const head_row<T> h = head_row_of<T>(s);
    const int64_t lane = threadIdx.x % WARP, step = 3 * s.C;
    float *p = shared + threadIdx.x / WARP * s.T, top = -INFINITY, sum = 0;
    const T *q = qkv + h.qkv + h.i * step, *k = qkv + h.qkv + s.C, *v = k + s.C;

    for (int64_t j = lane; j < s.T; j += WARP) {
        p[j] = dot(q, k + j * step, s.d) * s.scale;
        top = fmaxf(top, p[j]);
    }
    top = warp_max(top);
    for (int64_t j = lane; j < s.T; j += WARP) {
        p[j] = expf(p[j] - top);
        sum += p[j];
    }
    sum = warp_sum(sum);
    __syncwarp();
    if (!h.is_real) return;
    for (int64_t c = lane; c < s.d; c += WARP) {
        float out = 0;
        for (int64_t j = 0; j < s.T; j++) out += p[j] * to_f32(v[j * step + c]);
        y[h.out + h.i * s.C + c] = convert<T>::of(out / sum);
    }
    if (lane == 0) lse[h.row] = top + logf(sum);
}

/** Operands of the derivative; D [N][heads][T] is made by the first half and read by the second. */
template <typename T> struct attention_grad_args {
    const T *dy, *qkv, *y;
    const float *lse;
    float *D;
    T *dqkv;
};

/** dq of a query. */
template <typename T>
__global__ void __launch_bounds__(SH_BLOCK)
    attend_grad_query(attention_grad_args<T> a, attention_shape s)
{
    SH_SHARED(float, shared); /* [WARPS][T] */
    const head_row<T> h = head_row_of<T>(s);
    const int64_t lane = threadIdx.x % WARP, step = 3 * s.C;
    float *ds = shared + threadIdx.x / WARP * s.T;
    const T *q = a.qkv + h.qkv + h.i * step, *k = a.qkv + h.qkv + s.C, *v = k + s.C;
    const T *dy = a.dy + h.out + h.i * s.C;
    const float D = dot(dy, a.y + h.out + h.i * s.C, s.d), lse = a.lse[h.row];

    for (int64_t j = lane; j < s.T; j += WARP) {
        const float p = expf(dot(q, k + j * step, s.d) * s.scale - lse);
        ds[j] = p * (dot(dy, v + j * step, s.d) - D) * s.scale;
    }
    __syncwarp();
    if (!h.is_real) return;
    for (int64_t c = lane; c < s.d; c += WARP) {
        float sum = 0;
        for (int64_t j = 0; j < s.T; j++) sum += ds[j] * to_f32(k[j * step + c]);
        a.dqkv[h.qkv + h.i * step + c] = convert<T>::of(sum);
    }
    if (lane == 0) a.D[h.row] = D;
}

/** dk and dv of a key; h.i is the key's token. */
template <typename T>
__global__ void __launch_bounds__(SH_BLOCK)
    attend_grad_key(attention_grad_args<T> a, attention_shape s)
{
    SH_SHARED(float, shared); /* [WARPS][2][T]: p, ds */
    const head_row<T> h = head_row_of<T>(s);
    const int64_t lane = threadIdx.x % WARP, step = 3 * s.C, first = h.row - h.i;
    float *p = shared + threadIdx.x / WARP * 2 * s.T, *ds = p + s.T;
    const T *q = a.qkv + h.qkv, *k = q + s.C + h.i * step, *v = k + s.C;

    for (int64_t i = lane; i < s.T; i += WARP) {
        p[i] = expf(dot(q + i * step, k, s.d) * s.scale - a.lse[first + i]);
        ds[i] = p[i] * (dot(a.dy + h.out + i * s.C, v, s.d) - a.D[first + i]) * s.scale;
    }
    __syncwarp();
    if (!h.is_real) return;
    for (int64_t c = lane; c < s.d; c += WARP) {
        float dk = 0, dv = 0;
        for (int64_t i = 0; i < s.T; i++) {
            dk += ds[i] * to_f32(q[i * step + c]);
            dv += p[i] * to_f32(a.dy[h.out + i * s.C + c]);
        }
        a.dqkv[h.qkv + s.C + h.i * step + c] = convert<T>::of(dk);
        a.dqkv[h.qkv + 2 * s.C + h.i * step + c] = convert<T>::of(dv);
    }
}

static attention_shape attention_shape_of(const sh_tensor_desc *y, int heads)
{
    const int64_t d = y->dims[1] / heads;

    return attention_shape{y->dims[0], y->dims[2], y->dims[1], d, heads, 1 / sqrtf((float)d)};
}

static dim3 warp_grid(const attention_shape &s)
{
    return dim3((unsigned)((s.n_images * s.heads * s.T + WARPS - 1) / WARPS));
}

struct run_attention {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        const attention_shape s = attention_shape_of(desc->out[0], desc->attrs->heads);

        SH_LAUNCH(attend<T>, warp_grid(s), dim3(SH_BLOCK), WARPS * (size_t)s.T * sizeof(float),
                  output<T>(args, 0), output<float>(args, 1), input<T>(args, 0), s);
    }
};

static void attention(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_attention{desc, args});
}

struct run_attention_grad {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        const attention_shape s = attention_shape_of(desc->in[0], desc->attrs->heads);
        const size_t row_bytes = (size_t)s.T * sizeof(float);
        const attention_grad_args<T> a = {input<T>(args, 0),
                                          input<T>(args, 1),
                                          input<T>(args, 2),
                                          input<float>(args, 3),
                                          static_cast<float *>(args->scratch),
                                          output<T>(args, 0)};

        SH_LAUNCH(attend_grad_query<T>, warp_grid(s), dim3(SH_BLOCK), WARPS * row_bytes, a, s);
        SH_LAUNCH(attend_grad_key<T>, warp_grid(s), dim3(SH_BLOCK), 2 * WARPS * row_bytes, a, s);
    }
};

static void attention_grad(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_attention_grad{desc, args});
}

static size_t attention_grad_scratch(const sh_node_desc *desc)
{
    return (size_t)elems_of(desc->in[3]) * sizeof(float);
}

/** lse is f32 and row-major; the rest is rows of channels. */
static const char *why_not_attention(const sh_node_desc *desc)
{
    if (desc->in[0]->dims[2] > MAX_TOKENS) return "more than 768 tokens";
    return is_rows(desc->in[0]) && is_rows(desc->out[0]) ? NULL : "tokens are not rows of channels";
}

const sh_cuda_op sh_cuda_attention = {why_not_attention, NULL, attention};
const sh_cuda_op sh_cuda_attention_grad = {why_not_attention, attention_grad_scratch,
                                           attention_grad};
