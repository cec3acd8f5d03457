// SPDX-License-Identifier: Apache-2.0
/**
 * Convolutions of any shape, plainly: a thread makes one element of the result. The last resort,
 * behind the kernels that are fast for a shape.
 */
#include "models/cuda/conv.h"
#include "models/cuda/node.h"
#include "models/cuda/reduce.h"

__device__ static inline int64_t x_at(const conv_shape &s, int64_t n, int64_t h, int64_t w)
{
    return ((n * s.H + h) * s.W + w) * s.x_pitch;
}

__device__ static inline int64_t y_at(const conv_shape &s, int64_t n, int64_t h, int64_t w)
{
    return ((n * s.OH + h) * s.OW + w) * s.O;
}

template <typename T>
__global__ void __launch_bounds__(SH_BLOCK)
    conv_plain(T *y, const T *x, const float *weight, const float *bias, const T *residual,
               conv_shape s, sh_act act)
{
    const int64_t i = item_index();

    if (i >= s.N * s.OH * s.OW * s.O) return;
    const int64_t o = i % s.O, pixel = i / s.O, n = pixel / s.OW / s.OH;
    const int oh = (int)(pixel / s.OW % s.OH), ow = (int)(pixel % s.OW);
    const int64_t c0 = o / s.out_group * s.in_group;
    const float *w = weight + o * s.in_group * s.KH * s.KW;
    float sum = bias != nullptr ? bias[o] : 0;

    for (int kh = 0; kh < s.KH; kh++) {
        const int h = oh * s.stride[0] - s.pad[0] + kh * s.dilation[0];
        if (h < 0 || h >= s.H) continue;
        for (int kw = 0; kw < s.KW; kw++) {
            const int at = ow * s.stride[1] - s.pad[1] + kw * s.dilation[1];
            if (at < 0 || at >= s.W) continue;
            const T *from = x + x_at(s, n, h, at) + c0;
            for (int64_t c = 0; c < s.in_group; c++)
                sum += to_f32(from[c]) * w[(c * s.KH + kh) * s.KW + kw];
        }
    }
    if (residual != nullptr) sum += to_f32(residual[i]);
    y[i] = convert<T>::of(act_value(act, sum));
}

/** Output position whose tap k lies on input position x, or -1. */
__device__ static inline int output_at(int x, int pad, int k, int dilation, int stride, int n_out)
{
    const int t = x + pad - k * dilation;

    return t >= 0 && t % stride == 0 && t / stride < n_out ? t / stride : -1;
}

template <typename T>
__global__ void __launch_bounds__(SH_BLOCK)
    conv_plain_grad_x(T *dx, const T *dy, const float *weight, conv_shape s)
{
    const int64_t i = item_index();

    if (i >= s.N * s.H * s.W * s.x_pitch) return;
    const int64_t c = i % s.x_pitch, pixel = i / s.x_pitch, n = pixel / s.W / s.H;
    const int h = (int)(pixel / s.W % s.H), w = (int)(pixel % s.W);
    const int64_t o0 = c / s.in_group * s.out_group, taps = s.KH * s.KW;
    const float *own = weight + (o0 * s.in_group + c % s.in_group) * taps;
    float sum = 0;

    for (int kh = 0; kh < s.KH && c < s.C; kh++) {
        const int oh = output_at(h, s.pad[0], kh, s.dilation[0], s.stride[0], (int)s.OH);
        for (int kw = 0; kw < s.KW && oh >= 0; kw++) {
            const int ow = output_at(w, s.pad[1], kw, s.dilation[1], s.stride[1], (int)s.OW);
            if (ow < 0) continue;
            const T *from = dy + y_at(s, n, oh, ow) + o0;
            for (int64_t o = 0; o < s.out_group; o++)
                sum += to_f32(from[o]) * own[o * s.in_group * taps + kh * s.KW + kw];
        }
    }
    dx[i] = convert<T>::of(sum);
}

/** A thread has one weight and one piece of the output's pixels. */
template <typename T>
__global__ void __launch_bounds__(SH_BLOCK)
    conv_plain_grad_w(float *partial, const T *x, const T *dy, conv_shape s)
{
    const int64_t i = item_index(), n_weights = s.O * s.in_group * s.KH * s.KW;
    const int64_t n_pixels = s.N * s.OH * s.OW;

    if (i >= n_weights) return;
    const int kw = (int)(i % s.KW), kh = (int)(i / s.KW % s.KH);
    const int64_t o = i / s.KW / s.KH / s.in_group;
    const int64_t c = o / s.out_group * s.in_group + i / s.KW / s.KH % s.in_group;
    float sum = 0;

    for (int64_t pixel = blockIdx.y; pixel < n_pixels; pixel += gridDim.y) {
        const int64_t h = pixel / s.OW % s.OH * s.stride[0] - s.pad[0] + kh * s.dilation[0];
        const int64_t w = pixel % s.OW * s.stride[1] - s.pad[1] + kw * s.dilation[1];
        if (h < 0 || h >= s.H || w < 0 || w >= s.W) continue;
        sum += to_f32(x[x_at(s, pixel / s.OW / s.OH, h, w) + c]) * to_f32(dy[pixel * s.O + o]);
    }
    partial[blockIdx.y * n_weights + i] = sum;
}

struct run_conv {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        const conv_shape s =
            conv_shape_of(desc->in[SH_CONV_X], desc->in[SH_CONV_W], desc->out[0], desc->attrs);

        SH_LAUNCH(conv_plain<T>, item_grid(elems_of(desc->out[0])), dim3(SH_BLOCK), 0,
                  output<T>(args, 0), input<T>(args, 0), input<float>(args, 1),
                  optional_input(desc, args, SH_CONV_BIAS),
                  has_input(desc, SH_CONV_RESIDUAL) ? input<T>(args, SH_CONV_RESIDUAL) : nullptr, s,
                  desc->attrs->y_act);
    }
};

static void conv(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_conv{desc, args});
}

static const char *why_not_conv(const sh_node_desc *desc)
{
    if (has_input(desc, SH_CONV_MEAN)) return "a batch norm on load";
    if (has_output(desc, SH_CONV_Y_MEAN)) return "statistics on store";
    return is_image(desc->in[0]) && is_rows(desc->out[0]) ? NULL : "maps are not rows of channels";
}

struct run_conv_grad_x {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        const conv_shape s = conv_shape_of(desc->out[0], desc->in[1], desc->in[0], desc->attrs);

        SH_LAUNCH(conv_plain_grad_x<T>, item_grid(sh_tensor_stored_elems(desc->out[0])),
                  dim3(SH_BLOCK), 0, output<T>(args, 0), input<T>(args, 0), input<float>(args, 1),
                  s);
    }
};

static void conv_grad_x(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_conv_grad_x{desc, args});
}

static const char *why_not_grad_x(const sh_node_desc *desc)
{
    return is_rows(desc->in[0]) && is_image(desc->out[0]) ? NULL : "maps are not rows of channels";
}

/** Pieces of the pixels of dy: about 64 pixels each, fewer where there are many weights. */
static unsigned pieces_of(const sh_tensor_desc *dw, const sh_tensor_desc *dy)
{
    const int64_t n_pixels = dy->dims[0] * pixels_of(dy);
    const int64_t most = (1 << 24) / elems_of(dw) + 1;
    int64_t pieces = (n_pixels + 63) / 64;

    if (pieces > SH_MAX_PIECES) pieces = SH_MAX_PIECES;
    return (unsigned)(pieces < most ? pieces : most);
}

static size_t partial_bytes(const sh_node_desc *desc)
{
    return pieces_of(desc->out[0], desc->in[1]) * (size_t)elems_of(desc->out[0]) * sizeof(float);
}

struct run_conv_grad_w {
    const sh_node_desc *desc;
    const sh_kernel_args *args;

    template <typename T, int V> void run() const
    {
        const sh_tensor_desc *dy = desc->in[1], *dw = desc->out[0];
        const conv_shape s = conv_shape_of(desc->in[0], dw, dy, desc->attrs);
        const unsigned pieces = pieces_of(dw, dy);
        const dim3 grid(item_grid(elems_of(dw)).x, pieces);
        float *partial = static_cast<float *>(args->scratch);

        SH_LAUNCH(conv_plain_grad_w<T>, grid, dim3(SH_BLOCK), 0, partial, input<T>(args, 0),
                  input<T>(args, 1), s);
        launch_finish_sums<1>(partial, pieces, elems_of(dw),
                              sums_out{{output<float>(args, 0), nullptr, nullptr}, 0});
        if (!has_output(desc, 1)) return;
        by_type(dy->dtype, s.O,
                launch_column_sums{args->in[1], s.N * s.OH * s.OW, s.O,
                                   static_cast<char *>(args->scratch) + partial_bytes(desc),
                                   output<float>(args, 1)});
    }
};

static void conv_grad_w(const sh_node_desc *desc, const sh_kernel_args *args)
{
    by_type(desc->in[0]->dtype, desc->in[0]->dims[1], run_conv_grad_w{desc, args});
}

static size_t conv_grad_w_scratch(const sh_node_desc *desc)
{
    const sh_tensor_desc *dy = desc->in[1];

    return partial_bytes(desc) + column_sums_bytes(dy->dims[0] * pixels_of(dy), dy->dims[1]);
}

static const char *why_not_grad_w(const sh_node_desc *desc)
{
    return is_image(desc->in[0]) && is_rows(desc->in[1]) ? NULL : "maps are not rows of channels";
}

const sh_cuda_op sh_cuda_conv = {why_not_conv, NULL, conv};
const sh_cuda_op sh_cuda_conv_grad_x = {why_not_grad_x, NULL, conv_grad_x};
const sh_cuda_op sh_cuda_conv_grad_w = {why_not_grad_w, conv_grad_w_scratch, conv_grad_w};
