// SPDX-License-Identifier: Apache-2.0
/** Elementwise ops, and copies between types and layouts. A thread has 8 neighbouring elements. */
#include "base/rng_core.h"
#include "models/cuda/device.h"
#include "models/cuda/node.h"

enum { PER_THREAD = 8 };

static dim3 flat_grid(int64_t n)
{
    int64_t per_block = (int64_t)SH_BLOCK * PER_THREAD;

    return dim3((unsigned)((n + per_block - 1) / per_block));
}

/** y_i = map(i, a_i, b_i); b may be absent, y may be a or b. */
template <typename T, class Map>
__global__ void flat(T *y, const T *a, const T *b, int64_t n, Map map)
{
    const int64_t begin = ((int64_t)blockIdx.x * SH_BLOCK + threadIdx.x) * PER_THREAD;
    const int count = n - begin < PER_THREAD ? (int)(n - begin) : PER_THREAD;
    float x[PER_THREAD] = {0}, z[PER_THREAD] = {0};

    if (count == PER_THREAD) {
        load<PER_THREAD>(a + begin, x);
        if (b != nullptr) load<PER_THREAD>(b + begin, z);
#pragma unroll
        for (int i = 0; i < PER_THREAD; i++) x[i] = map(begin + i, x[i], z[i]);
        store<PER_THREAD>(y + begin, x);
        return;
    }
    for (int i = 0; i < count; i++) {
        float second = b != nullptr ? to_f32(b[begin + i]) : 0;
        y[begin + i] = convert<T>::of(map(begin + i, to_f32(a[begin + i]), second));
    }
}

template <class Map>
static void launch_flat(const sh_node_desc *desc, const sh_kernel_args *args, const Map &map)
{
    int64_t n = sh_tensor_stored_elems(desc->in[0]);
    bool has_b = has_input(desc, 1);

    if (desc->in[0]->dtype == SH_BF16) {
        SH_LAUNCH((flat<sh_bf16, Map>), flat_grid(n), dim3(SH_BLOCK), 0, output<sh_bf16>(args, 0),
                  input<sh_bf16>(args, 0), has_b ? input<sh_bf16>(args, 1) : nullptr, n, map);
    } else {
        SH_LAUNCH((flat<float, Map>), flat_grid(n), dim3(SH_BLOCK), 0, output<float>(args, 0),
                  input<float>(args, 0), has_b ? input<float>(args, 1) : nullptr, n, map);
    }
}

/** All operands are of one type and lie alike, in whatever order. Padding stays zero in sums. */
static const char *why_not_alike(const sh_node_desc *desc)
{
    const sh_tensor_desc *x = desc->in[0];

    if (x->dtype != SH_F32 && x->dtype != SH_BF16) return "neither f32 nor bf16";
    for (int i = 0; i < desc->n_inputs + 1; i++) {
        const sh_tensor_desc *d = i < desc->n_inputs ? desc->in[i] : desc->out[0];
        if (d == NULL) continue;
        bool is_same = d->layout == x->layout || pixels_of(d) == 1;
        if (d->dtype != x->dtype || !is_same || d->layout == SH_NCHW16C)
            return "operands differ in type or layout";
        if (d->layout == SH_NHWC8 && desc->op != SH_OP_ADD) return "padding channels";
    }
    return NULL;
}

struct act_map {
    sh_act act;

    __device__ float operator()(int64_t, float x, float) const
    {
        return act_value(act, x);
    }
};

static void act(const sh_node_desc *desc, const sh_kernel_args *args)
{
    launch_flat(desc, args, act_map{desc->attrs->act});
}

struct act_grad_map {
    sh_act act;

    __device__ float operator()(int64_t, float dy, float at) const
    {
        return dy * act_slope(act, at, at);
    }
};

static void act_grad(const sh_node_desc *desc, const sh_kernel_args *args)
{
    launch_flat(desc, args, act_grad_map{desc->attrs->act});
}

struct add_map {
    float scale; /* of the first */

    __device__ float operator()(int64_t, float a, float b) const
    {
        return scale * a + b;
    }
};

static void add(const sh_node_desc *desc, const sh_kernel_args *args)
{
    launch_flat(desc, args, add_map{1});
}

static void add_scaled(const sh_node_desc *desc, const sh_kernel_args *args)
{
    launch_flat(desc, args, add_map{desc->attrs->scale});
}

/* ---- dropout ---- */

struct drop_map {
    const sh_run_scalars *now; /* on the device: a recorded launch sees those of its own run */
    uint64_t stream;
    int64_t C, n_pixels;
    float rate;
    bool is_nhwc, is_whole; /* whole images */

    __device__ float operator()(int64_t i, float x, float) const
    {
        const int64_t n_elems = C * n_pixels, n = i / n_elems, at = i % n_elems;
        const sh_rng_key key = sh_rng_core_make(now->seed + stream, SH_RNG_DROPOUT, now->step,
                                                (uint64_t)(now->first_slot + n));
        int64_t element = is_whole ? 0 : is_nhwc ? at % C * n_pixels + at / C : at;
        return sh_rng_core_uniform(key, (uint64_t)element) < rate ? 0.0f
                                                                  : x * (1.0f / (1.0f - rate));
    }
};

static drop_map drop_of(const sh_node_desc *desc, const sh_kernel_args *args, bool is_whole)
{
    const sh_tensor_desc *d = desc->in[0];

    return drop_map{args->scalars,     (uint64_t)desc->attrs->stream, d->dims[1], pixels_of(d),
                    desc->attrs->rate, d->layout == SH_NHWC,          is_whole};
}

static void dropout(const sh_node_desc *desc, const sh_kernel_args *args)
{
    launch_flat(desc, args, drop_of(desc, args, false));
}

static void path_drop(const sh_node_desc *desc, const sh_kernel_args *args)
{
    launch_flat(desc, args, drop_of(desc, args, true));
}

/* ---- copies ---- */

/** How the elements of an image lie: `stored` channels, of which C are there. */
struct placed {
    int64_t stored, n_pixels;
    bool is_nhwc;
};

/** y[i] = x at the same logical place. Consecutive threads write consecutive elements. */
template <typename From, typename To>
__global__ void relayout(To *y, const From *x, int64_t n, int64_t C, placed to, placed from)
{
    const int64_t i = item_index();

    if (i >= n) return;
    const int64_t n_elems = to.stored * to.n_pixels, image = i / n_elems, at = i % n_elems;
    const int64_t c = to.is_nhwc ? at % to.stored : at / to.n_pixels;
    const int64_t p = to.is_nhwc ? at / to.stored : at % to.n_pixels;
    const int64_t in_image = from.is_nhwc ? p * from.stored + c : c * from.n_pixels + p;
    const float value = c < C ? to_f32(x[image * from.stored * from.n_pixels + in_image]) : 0.0f;
    y[i] = convert<To>::of(value);
}

template <typename From, typename To>
static void launch_relayout(const sh_kernel_args *args, int64_t n, int64_t C, placed to,
                            placed from)
{
    SH_LAUNCH((relayout<From, To>), item_grid(n), dim3(SH_BLOCK), 0, output<To>(args, 0),
              input<From>(args, 0), n, C, to, from);
}

/* FLATTEN's rows are the images in the order (c, h, w), so the map tells both shapes. */
static placed placed_as(const sh_tensor_desc *d, const sh_tensor_desc *map)
{
    const int64_t stored = d->layout == SH_NHWC8 ? sh_tensor_stored_channels(d) : map->dims[1];

    return placed{stored, pixels_of(map), d->layout == SH_NHWC || d->layout == SH_NHWC8};
}

static void copy(const sh_node_desc *desc, const sh_kernel_args *args)
{
    const sh_tensor_desc *x = desc->in[0], *y = desc->out[0];
    const sh_tensor_desc *map = pixels_of(x) > pixels_of(y) ? x : y;
    const placed to = placed_as(y, map), from = placed_as(x, map);
    const int64_t n = sh_tensor_stored_elems(y), C = map->dims[1];

    if (x->dtype == SH_F32 && y->dtype == SH_F32)
        launch_relayout<float, float>(args, n, C, to, from);
    else if (x->dtype == SH_F32)
        launch_relayout<float, sh_bf16>(args, n, C, to, from);
    else if (y->dtype == SH_F32)
        launch_relayout<sh_bf16, float>(args, n, C, to, from);
    else
        launch_relayout<sh_bf16, sh_bf16>(args, n, C, to, from);
}

static const char *why_not_copy(const sh_node_desc *desc)
{
    const sh_tensor_desc *both[2] = {desc->in[0], desc->out[0]};

    for (int i = 0; i < 2; i++) {
        if (both[i]->dtype != SH_F32 && both[i]->dtype != SH_BF16) return "neither f32 nor bf16";
        if (both[i]->layout == SH_NCHW16C) return "blocks of channels";
    }
    return NULL;
}

const sh_cuda_op sh_cuda_act = {why_not_alike, NULL, act};
const sh_cuda_op sh_cuda_act_grad = {why_not_alike, NULL, act_grad};
const sh_cuda_op sh_cuda_add = {why_not_alike, NULL, add};
const sh_cuda_op sh_cuda_add_scaled = {why_not_alike, NULL, add_scaled};
const sh_cuda_op sh_cuda_dropout = {why_not_alike, NULL, dropout};
const sh_cuda_op sh_cuda_path_drop = {why_not_alike, NULL, path_drop};
const sh_cuda_op sh_cuda_cast = {why_not_copy, NULL, copy};
const sh_cuda_op sh_cuda_flatten = {why_not_copy, NULL, copy};
const sh_cuda_op sh_cuda_flatten_grad = {why_not_copy, NULL, copy};
