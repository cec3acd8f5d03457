// SPDX-License-Identifier: Apache-2.0
/**
 * Images out of parcels: base/parcel.h says how each pixel is made. Every product and sum is
 * rounded by itself, so that the result has the bytes of dataio's.
 *
 * A thread makes all channels of one input pixel; source pixels come through the caches.
 */
#include "base/parcel.h"

#include "models/cuda/device.h"
#include "models/cuda/memory.h"

/** What a thread makes: C colours, multiplied by coverage, and coverage. */
template <int C> struct pixel {
    float v[C], cover;
};

struct place {
    const unsigned char *parcel;
    int width; /* of the input */
    int x, y;
};

/** Rounded once each, where bytes must be the host's: devices contract a * b + c otherwise. */
__device__ static inline float times(float a, float b)
{
#if defined(__CUDACC__)
    return __fmul_rn(a, b);
#else
    return a * b;
#endif
}

__device__ static inline float plus(float a, float b)
{
#if defined(__CUDACC__)
    return __fadd_rn(a, b);
#else
    return a + b;
#endif
}

__device__ static inline float clamp_to(float x, float hi)
{
    x = x > 0 ? x : 0;
    return x < hi ? x : hi;
}

/** Of four neighbours, v00 v01 above v10 v11. */
__device__ static inline float interpolate(const float v[4], float fx, float fy)
{
    const float top = plus(v[0], times(fx, v[1] - v[0]));
    const float bottom = plus(v[2], times(fx, v[3] - v[2]));

    return times(plus(top, times(fy, bottom - top)), 1.0f / 255.0f);
}

/** Positions are kept one higher than in the crop, which begins at (1, 1) of its border. */
template <int C> __device__ static pixel<C> warp(const sh_parcel_image &image, const place &at)
{
    const uint8_t *pixels = at.parcel + image.pixels;
    const float(*m)[3] = image.matrix;
    const float x = (float)at.x, y = (float)at.y;
    const float from_x = plus(times(m[0][1], y), m[0][2]);
    const float from_y = plus(times(m[1][1], y), m[1][2]);
    const float sx = clamp_to(plus(from_x + 1, times(x, m[0][0])), (float)(image.width + 1));
    const float sy = clamp_to(plus(from_y + 1, times(x, m[1][0])), (float)(image.height + 1));
    const int ix = (int)sx, iy = (int)sy;
    const float fx = sx - (float)ix, fy = sy - (float)iy;
    float values[C + 1][4]; /* of the four neighbours, and at last their coverage */
    pixel<C> p;

#pragma unroll
    for (int k = 0; k < 4; k++) {
        const int px = ix - 1 + (k & 1), py = iy - 1 + (k >> 1);
        const bool inside = px >= 0 && px < image.width && py >= 0 && py < image.height;
        const uint8_t *from = pixels + ((int64_t)py * image.width + px) * C;

#pragma unroll
        for (int c = 0; c < C; c++) values[c][k] = inside ? (float)from[c] : 0.0f;
        values[C][k] = inside ? 255.0f : 0.0f;
    }
#pragma unroll
    for (int c = 0; c < C; c++) p.v[c] = interpolate(values[c], fx, fy);
    p.cover = interpolate(values[C], fx, fy);
    return p;
}

/** The weights of one input pixel along an axis: every n-th from `weight` on. */
struct taps {
    const float *weight;
    int start, n, count;
};

__device__ static inline taps taps_of(const unsigned char *parcel, const sh_parcel_axis &axis,
                                      int n, int i)
{
    const int32_t *start = reinterpret_cast<const int32_t *>(parcel + axis.at);
    const float *weight = reinterpret_cast<const float *>(start + n);
    const taps t = {weight + i, start[i], n, (int)axis.taps};

    return t;
}

template <int C> __device__ static pixel<C> resize(const sh_parcel_image &image, const place &at)
{
    pixel<C> p = {};

    if (at.x < image.x0 || at.x >= image.x1 || at.y < image.y0 || at.y >= image.y1) return p;
    const taps tx = taps_of(at.parcel, image.x, image.x1 - image.x0, at.x - image.x0);
    const taps ty = taps_of(at.parcel, image.y, image.y1 - image.y0, at.y - image.y0);

    for (int i = 0; i < tx.count; i++) {
        const float weight_x = tx.weight[(int64_t)i * tx.n];
        float column[C] = {};

        if (weight_x == 0) continue;
        for (int k = 0; k < ty.count; k++) {
            const float weight_y = ty.weight[(int64_t)k * ty.n];
            const uint8_t *from = at.parcel + image.pixels +
                                  ((int64_t)(ty.start + k) * image.width + tx.start + i) * C;

            if (weight_y == 0) continue;
#pragma unroll
            for (int c = 0; c < C; c++)
                column[c] = plus(column[c], times(weight_y, (float)from[c]));
        }
#pragma unroll
        for (int c = 0; c < C; c++) p.v[c] = plus(p.v[c], times(weight_x, column[c]));
    }
    p.cover = 1;
    return p;
}

template <int C> __device__ static void colour(const sh_parcel_image &image, pixel<C> &p)
{
    pixel<C> before = p;

#pragma unroll
    for (int i = 0; i < C; i++) {
        const float *m = image.colour[i];
        float v = times(m[0], before.v[0]);

#pragma unroll
        for (int k = 1; k < C; k++) v = plus(v, times(m[k], before.v[k]));
        p.v[i] = clamp_to(plus(v, times(m[3], p.cover)), p.cover);
    }
}

template <int C>
__device__ static void make(const sh_parcel &parcel, const sh_parcel_image &image, const place &at,
                            float *v)
{
    const bool erased = at.x >= image.erase_x0 && at.x < image.erase_x1 && at.y >= image.erase_y0 &&
                        at.y < image.erase_y1;

    if (image.kind == SH_PARCEL_READY) {
        const float *ready = reinterpret_cast<const float *>(at.parcel + image.pixels) +
                             ((int64_t)at.y * at.width + at.x) * C;

        for (int c = 0; c < C; c++) v[c] = ready[c];
        return;
    }
    pixel<C> p = image.kind == SH_PARCEL_WARP ? warp<C>(image, at) : resize<C>(image, at);

    if (image.has_colour) colour<C>(image, p);
#pragma unroll
    for (int c = 0; c < C; c++)
        v[c] =
            erased ? 0.0f : times(plus(p.v[c], -times(parcel.mean[c], p.cover)), parcel.scale[c]);
}

/** out [n_images, height, width, Stored], zero behind C */
template <typename T, int C, int Stored>
__global__ void __launch_bounds__(SH_BLOCK)
    render(T *out, const sh_parcel *parcel, int64_t n_images, int height, int width)
{
    const int64_t i = item_index(), n_pixels = (int64_t)height * width;

    if (i >= n_images * n_pixels) return;
    const int at_pixel = (int)(i % n_pixels);
    const sh_parcel_image *images = reinterpret_cast<const sh_parcel_image *>(parcel + 1);
    const place at = {reinterpret_cast<const unsigned char *>(parcel), width, at_pixel % width,
                      at_pixel / width};
    float v[Stored] = {0};

    make<C>(*parcel, images[i / n_pixels], at, v);
    if constexpr (Stored % 8 == 0) {
        store<Stored>(out + i * Stored, v);
    } else {
#pragma unroll
        for (int c = 0; c < C; c++) out[i * C + c] = convert<T>::of(v[c]);
    }
}

template <typename T, int C, int Stored>
static void launch(sh_queue queue, const void *parcel, const sh_tensor_desc *d, void *out)
{
    const int64_t n = d->dims[0] * d->dims[2] * d->dims[3];

    SH_LAUNCH_ON(queue, (render<T, C, Stored>), item_grid(n), dim3(SH_BLOCK), 0,
                 static_cast<T *>(out), static_cast<const sh_parcel *>(parcel), d->dims[0],
                 (int)d->dims[2], (int)d->dims[3]);
}

extern "C" sh_status sh_cuda_render(sh_queue queue, const void *parcel,
                                    const sh_tensor_desc *images, void *out)
{
    const bool colours = images->dims[1] == 3;

    if (images->layout == SH_NHWC8)
        launch<sh_bf16, 3, 8>(queue, parcel, images, out);
    else if (images->dtype == SH_BF16)
        (colours ? launch<sh_bf16, 3, 3> : launch<sh_bf16, 1, 1>)(queue, parcel, images, out);
    else
        (colours ? launch<float, 3, 3> : launch<float, 1, 1>)(queue, parcel, images, out);
    return sh_cuda_launched("render");
}
