// SPDX-License-Identifier: Apache-2.0
/** Reflection padding, concatenation of channels, tokens of transformers: elements change place, or
 *  a few are added. */
#include "models/cuda/device.h"
#include "models/cuda/node.h"

/* ---- reflection ---- */

struct reflection {
    int64_t n_images, C;
    int H, W, top, left, padded_H, padded_W;
};

/** Position in 0 .. n - 1 that lies at i, which may be outside, when the edge is a mirror. */
__device__ static inline int mirror(int i, int n)
{
    if (i < 0) return -i;
    return i < n ? i : 2 * (n - 1) - i;
}

template <typename T>
__global__ void __launch_bounds__(SH_BLOCK) reflect(T *y, const T *x, reflection r)
{
    const int64_t i = item_index();

    if (i >= r.n_images * r.padded_H * r.padded_W * r.C) return;
    const int64_t pixel = i / r.C;
    const int w = mirror((int)(pixel % r.padded_W) - r.left, r.W);
    const int h = mirror((int)(pixel / r.padded_W % r.padded_H) - r.top, r.H);
    const int64_t image = pixel / r.padded_W / r.padded_H;
    y[i] = x[((image * r.H + h) * r.W + w) * r.C + i % r.C];
}

/** The padded positions that show x, of n behind `before` rows of padding: at most three. */
__device__ static inline int images_of(int x, int n, int before, int n_padded, int *at)
{
    int count = 0;

    at[count++] = x + before;
    if (x > 0 && before - x >= 0) at[count++] = before - x;
    if (x < n - 1 && before + 2 * (n - 1) - x < n_padded) at[count++] = before + 2 * (n - 1) - x;
    return count;
}

template <typename T>
__global__ void __launch_bounds__(SH_BLOCK) reflect_grad(T *dx, const T *dy, reflection r)
{
    const int64_t i = item_index();
    int h[3], w[3];
    float sum = 0;

    if (i >= r.n_images * r.H * r.W * r.C) return;
    const int64_t pixel = i / r.C, image = pixel / r.W / r.H;
    const int n_h = images_of((int)(pixel / r.W % r.H), r.H, r.top, r.padded_H, h);
    const int n_w = images_of((int)(pixel % r.W), r.W, r.left, r.padded_W, w);
    for (int a = 0; a < n_h; a++) {
        for (int b = 0; b < n_w; b++)
            sum += to_f32(dy[((image * r.padded_H + h[a]) * r.padded_W + w[b]) * r.C + i % r.C]);
    }
    dx[i] = convert<T>::of(sum);
}

static reflection reflection_of(const sh_node_desc *desc, const sh_tensor_desc *x,
                                const sh_tensor_desc *padded)
{
    return reflection{x->dims[0],           x->dims[1],          (int)x->dims[2],
                      (int)x->dims[3],      desc->attrs->pad[0], desc->attrs->pad[1],
                      (int)padded->dims[2], (int)padded->dims[3]};
}

struct run_reflect {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        SH_LAUNCH(reflect<T>, item_grid(elems_of(desc->out[0])), dim3(SH_BLOCK), 0,
                  output<T>(args, 0), input<T>(args, 0),
                  reflection_of(desc, desc->in[0], desc->out[0]));
    }
};

static void reflect_pad(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_reflect{desc, args});
}

struct run_reflect_grad {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        SH_LAUNCH(reflect_grad<T>, item_grid(elems_of(desc->out[0])), dim3(SH_BLOCK), 0,
                  output<T>(args, 0), input<T>(args, 0),
                  reflection_of(desc, desc->out[0], desc->in[0]));
    }
};

static void reflect_pad_grad(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_reflect_grad{desc, args});
}

/* ---- concatenation ---- */

enum { MAX_PARTS = 8 };

/** Parts of a map's channels: part k has channels [first[k], first[k + 1]). */
template <typename T> struct parts {
    T *at[MAX_PARTS];
    int64_t first[MAX_PARTS + 1];
    int n;
};

/** Every element of the whole, from its part or to it. */
template <typename T, bool is_split>
__global__ void __launch_bounds__(SH_BLOCK) move_parts(parts<T> p, T *whole, int64_t n)
{
    const int64_t i = item_index();
    int k = 0;

    if (i >= n) return;
    const int64_t C = p.first[p.n], row = i / C, c = i % C;
    while (c >= p.first[k + 1]) k++;
    T *part = p.at[k] + row * (p.first[k + 1] - p.first[k]) + (c - p.first[k]);
    if (is_split)
        *part = whole[i];
    else
        whole[i] = *part;
}

template <bool is_split> struct run_parts {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        const sh_tensor_desc *const *descs = is_split ? desc->out : desc->in;
        const sh_tensor_desc *whole = is_split ? desc->in[0] : desc->out[0];
        parts<T> p = {};

        p.n = is_split ? desc->n_outputs : desc->n_inputs;
        for (int k = 0; k < p.n; k++) {
            /* Only read where this joins. */
            p.at[k] = is_split ? output<T>(args, k) : const_cast<T *>(input<T>(args, k));
            p.first[k + 1] = p.first[k] + descs[k]->dims[1];
        }
        SH_LAUNCH((move_parts<T, is_split>), item_grid(elems_of(whole)), dim3(SH_BLOCK), 0, p,
                  is_split ? const_cast<T *>(input<T>(args, 0)) : output<T>(args, 0),
                  elems_of(whole));
    }
};

static void concat(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_parts<false>{desc, args});
}

static void concat_grad(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_parts<true>{desc, args});
}

static const char *why_not_parts(const sh_node_desc *desc)
{
    int n = desc->n_inputs > desc->n_outputs ? desc->n_inputs : desc->n_outputs;

    return n > MAX_PARTS ? "more than 8 parts" : why_not_rows(desc);
}

/* ---- tokens: [N, T, C] in memory ---- */

struct token_shape {
    int64_t n_images, n_tokens, C;
};

static token_shape token_shape_of(const sh_tensor_desc *tokens)
{
    return token_shape{tokens->dims[0], tokens->dims[2], tokens->dims[1]};
}

template <typename T>
__global__ void __launch_bounds__(SH_BLOCK)
    make_tokens(T *y, const T *x, const float *cls, const float *pos, token_shape s)
{
    const int64_t i = item_index(), per_image = s.n_tokens * s.C;

    if (i >= s.n_images * per_image) return;
    const int64_t image = i / per_image, at = i % per_image;
    const float patch = at < s.C ? cls[at] : to_f32(x[image * (per_image - s.C) + at - s.C]);
    y[i] = convert<T>::of(patch + pos[at]);
}

/** A thread has one channel of one token in all images. */
template <typename T>
__global__ void __launch_bounds__(SH_BLOCK)
    make_tokens_grad(T *dx, float *dcls, float *dpos, const T *dy, token_shape s)
{
    const int64_t at = item_index(), per_image = s.n_tokens * s.C;
    float sum = 0;

    if (at >= per_image) return;
    for (int64_t image = 0; image < s.n_images; image++) {
        const T g = dy[image * per_image + at];
        sum += to_f32(g);
        if (at >= s.C) dx[image * (per_image - s.C) + at - s.C] = g;
    }
    if (dpos != nullptr) dpos[at] = sum;
    if (dcls != nullptr && at < s.C) dcls[at] = sum;
}

struct run_tokens {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        SH_LAUNCH(make_tokens<T>, item_grid(elems_of(desc->out[0])), dim3(SH_BLOCK), 0,
                  output<T>(args, 0), input<T>(args, 0), input<float>(args, 1),
                  input<float>(args, 2), token_shape_of(desc->out[0]));
    }
};

static void tokens(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_tokens{desc, args});
}

struct run_tokens_grad {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        const token_shape s = token_shape_of(desc->in[0]);

        SH_LAUNCH(make_tokens_grad<T>, item_grid(s.n_tokens * s.C), dim3(SH_BLOCK), 0,
                  output<T>(args, 0), optional_output(desc, args, 1),
                  optional_output(desc, args, 2), input<T>(args, 0), s);
    }
};

static void tokens_grad(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_tokens_grad{desc, args});
}

template <typename T>
__global__ void __launch_bounds__(SH_BLOCK)
    take_rows(T *y, const T *x, int64_t index, token_shape s)
{
    const int64_t i = item_index();

    if (i < s.n_images * s.C) y[i] = x[(i / s.C * s.n_tokens + index) * s.C + i % s.C];
}

template <typename T>
__global__ void __launch_bounds__(SH_BLOCK)
    take_rows_grad(T *dx, const T *dy, int64_t index, token_shape s)
{
    const int64_t i = item_index(), row = i / s.C;

    if (row >= s.n_images * s.n_tokens) return;
    const bool is_taken = row % s.n_tokens == index;
    dx[i] = is_taken ? dy[row / s.n_tokens * s.C + i % s.C] : convert<T>::of(0);
}

struct run_take {
    const sh_node_desc *desc;
    const sh_kernel_args *args;
    bool is_grad;

    template <typename T, int V> void run() const
    {
        const token_shape s = token_shape_of(is_grad ? desc->out[0] : desc->in[0]);
        const dim3 grid = item_grid(elems_of(desc->out[0]));

        if (is_grad) {
            SH_LAUNCH(take_rows_grad<T>, grid, dim3(SH_BLOCK), 0, output<T>(args, 0),
                      input<T>(args, 0), desc->attrs->index, s);
        } else {
            SH_LAUNCH(take_rows<T>, grid, dim3(SH_BLOCK), 0, output<T>(args, 0), input<T>(args, 0),
                      desc->attrs->index, s);
        }
    }
};

static void take_token(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_take{desc, args, false});
}

static void take_token_grad(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_take{desc, args, true});
}

/** cls and pos are parameters [1, T, C]; the rest is rows of channels. */
static const char *why_not_tokens(const sh_node_desc *desc)
{
    return is_rows(desc->in[0]) && is_rows(desc->out[0]) ? NULL : "tokens are not rows of channels";
}

const sh_cuda_op sh_cuda_reflect_pad = {why_not_rows, NULL, reflect_pad};
const sh_cuda_op sh_cuda_reflect_pad_grad = {why_not_rows, NULL, reflect_pad_grad};
const sh_cuda_op sh_cuda_concat = {why_not_parts, NULL, concat};
const sh_cuda_op sh_cuda_concat_grad = {why_not_parts, NULL, concat_grad};
const sh_cuda_op sh_cuda_tokens = {why_not_tokens, NULL, tokens};
const sh_cuda_op sh_cuda_tokens_grad = {why_not_tokens, NULL, tokens_grad};
const sh_cuda_op sh_cuda_take_token = {why_not_tokens, NULL, take_token};
const sh_cuda_op sh_cuda_take_token_grad = {why_not_tokens, NULL, take_token_grad};
