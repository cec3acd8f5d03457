// SPDX-License-Identifier: Apache-2.0
/*
 * Pools over windows of a slab.
 *
 * Gradients gather in a ring of as many f32 rows as a window is high: row y of the image is row y %
 * height of the ring from the first window that reaches it to the last, and is then stored, once.
 */
#include "models/cpu/simd/parts.h"

/** What of a window lies inside the image, in its own coordinates, and where it begins. */
typedef struct span {
    int64_t at;
    int begin, end;
} span;

SH_INLINE span span_of(const sh_cpu_window *win, int axis, int64_t out)
{
    span s = {.at = out * win->stride[axis] - win->pad[axis], .end = win->kernel[axis]};

    if (s.at < 0) s.begin = (int)-s.at;
    if (win->side[axis] - s.at < s.end) s.end = (int)(win->side[axis] - s.at);
    return s;
}

SH_INLINE vf vec_blend(vi mask, vf a, vf b)
{
    return (vf)((mask & (vi)a) | (~mask & (vi)b));
}

SH_INLINE void put_pixel(void *y, int64_t pixel, vf v, bool stream, const sh_dtype dtype)
{
    if (stream)
        vec_stream(y, pixel * LANES, v, dtype);
    else
        vec_store(y, pixel * LANES, v, dtype);
}

SH_INLINE vf share_of(const sh_cpu_window *win, span v, span h)
{
    int64_t n = win->count_padding ? (int64_t)win->kernel[0] * win->kernel[1]
                                   : (int64_t)(v.end - v.begin) * (h.end - h.begin);

    return vec_set(1.0f / (float)n);
}

/* Do the padding's zeros take part in the maximum? */
SH_INLINE bool has_zeros(const sh_cpu_window *win, span v, span h)
{
    return win->count_padding &&
           (v.end - v.begin < win->kernel[0] || h.end - h.begin < win->kernel[1]);
}

/* What a maximum begins with. */
SH_INLINE vf lowest(const sh_cpu_window *win, span v, span h)
{
    return vec_set(has_zeros(win, v, h) ? 0 : -__builtin_inff());
}

SH_INLINE void pool_forward(const sh_cpu_window *win, const void *x, void *y, const bool is_max,
                            const sh_dtype dtype)
{
    for (int64_t oy = 0; oy < win->out[0]; oy++) {
        span v = span_of(win, 0, oy);
        for (int64_t ox = 0; ox < win->out[1]; ox++) {
            span h = span_of(win, 1, ox);
            vf a = is_max ? lowest(win, v, h) : vec_set(0);
            for (int ky = v.begin; ky < v.end; ky++) {
                int64_t row = (v.at + ky) * win->side[1] + h.at;
                for (int kx = h.begin; kx < h.end; kx++) {
                    vf e = vec_load(x, (row + kx) * LANES, dtype);
                    a = is_max ? vec_max(a, e) : a + e;
                }
            }
            if (!is_max) a *= share_of(win, v, h);
            put_pixel(y, oy * win->out[1] + ox, a, win->stream, dtype);
        }
    }
}

void SH_SIMD(pool_forward)(const sh_cpu_window *win, bool is_max, const void *x, void *y)
{
    if (win->dtype == SH_BF16 && is_max)
        pool_forward(win, x, y, true, SH_BF16);
    else if (win->dtype == SH_BF16)
        pool_forward(win, x, y, false, SH_BF16);
    else if (is_max)
        pool_forward(win, x, y, true, SH_F32);
    else
        pool_forward(win, x, y, false, SH_F32);
}

SH_INLINE float *ring_row(const sh_cpu_window *win, float *ring, int64_t y)
{
    return ring + y % win->kernel[0] * win->side[1] * LANES;
}

/* dy to the first largest element of the window, found again. */
SH_INLINE void max_backward(const sh_cpu_window *win, const void *x, vf dy, span v, span h,
                            float *ring, const sh_dtype dtype)
{
    vf best = lowest(win, v, h);
    vi where = {0}, k = {0};

    if (has_zeros(win, v, h)) where -= 1; /* none, unless larger */

    for (int ky = v.begin; ky < v.end; ky++) {
        int64_t row = (v.at + ky) * win->side[1] + h.at;
        for (int kx = h.begin; kx < h.end; kx++, k += 1) {
            vf e = vec_load(x, (row + kx) * LANES, dtype);
            vi above = e > best;
            best = vec_blend(above, e, best);
            where = (above & k) | (~above & where);
        }
    }
    k = (vi){0};
    for (int ky = v.begin; ky < v.end; ky++) {
        float *row = ring_row(win, ring, v.at + ky) + h.at * LANES;
        for (int kx = h.begin; kx < h.end; kx++, k += 1) {
            vf sum = vec_load(row, kx * LANES, SH_F32) + vec_keep(where == k, dy);
            vec_store(row, kx * LANES, sum, SH_F32);
        }
    }
}

SH_INLINE void mean_backward(const sh_cpu_window *win, vf dy, span v, span h, float *ring)
{
    vf share = dy * share_of(win, v, h);

    for (int ky = v.begin; ky < v.end; ky++) {
        float *row = ring_row(win, ring, v.at + ky) + h.at * LANES;
        for (int kx = h.begin; kx < h.end; kx++)
            vec_store(row, kx * LANES, vec_load(row, kx * LANES, SH_F32) + share, SH_F32);
    }
}

/* Rows [*stored, until) to dx; those that no window has entered are zero. */
SH_INLINE void store_rows(const sh_cpu_window *win, float *ring, int64_t entered, int64_t until,
                          int64_t *stored, void *dx, const sh_dtype dtype)
{
    int64_t w = win->side[1];

    if (until > win->side[0]) until = win->side[0];
    for (; *stored < until; ++*stored) {
        const float *row = *stored < entered ? ring_row(win, ring, *stored) : NULL;
        for (int64_t p = 0; p < w; p++)
            put_pixel(dx, *stored * w + p, row ? vec_load(row, p * LANES, SH_F32) : (vf){0},
                      win->stream, dtype);
    }
}

SH_INLINE void pool_backward(const sh_cpu_window *win, const void *x, const void *dy, void *dx,
                             float *ring, const bool is_max, const sh_dtype dtype)
{
    int64_t entered = 0, stored = 0;

    for (int64_t oy = 0; oy < win->out[0]; oy++) {
        span v = span_of(win, 0, oy);
        if (entered < v.at) entered = v.at;
        for (; entered < v.at + v.end; entered++)
            memset(ring_row(win, ring, entered), 0, (size_t)(win->side[1] * LANES) * sizeof(float));
        for (int64_t ox = 0; ox < win->out[1]; ox++) {
            span h = span_of(win, 1, ox);
            vf g = vec_load(dy, (oy * win->out[1] + ox) * LANES, dtype);
            if (is_max)
                max_backward(win, x, g, v, h, ring, dtype);
            else
                mean_backward(win, g, v, h, ring);
        }
        store_rows(win, ring, entered, v.at + win->stride[0], &stored, dx, dtype);
    }
    store_rows(win, ring, entered, win->side[0], &stored, dx, dtype);
}

void SH_SIMD(pool_backward)(const sh_cpu_window *win, bool is_max, const void *x, const void *dy,
                            void *dx, float *ring)
{
    if (win->dtype == SH_BF16 && is_max)
        pool_backward(win, x, dy, dx, ring, true, SH_BF16);
    else if (win->dtype == SH_BF16)
        pool_backward(win, x, dy, dx, ring, false, SH_BF16);
    else if (is_max)
        pool_backward(win, x, dy, dx, ring, true, SH_F32);
    else
        pool_backward(win, x, dy, dx, ring, false, SH_F32);
}
