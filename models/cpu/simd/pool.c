// SPDX-License-Identifier: Apache-2.0
/*
 * Pools over windows of a slab, one part of its channels after the other.
 *
 * Gradients gather in a ring of as many f32 rows as a window is high: row y of the image is row y %
 * height of the ring from the first window that reaches it to the last, and is then stored, once.
 */
#include "models/cpu/simd/parts.h"

enum { MAX_WHOLE = 3 }; /* sides of square kernels with loops of their own: 2 to this */

/* One bit or word per lane. */
#ifdef __AVX512F__
typedef __mmask16 vm;
#else
typedef vi vm;
#endif

SH_INLINE vm vec_equal(vf a, vf b)
{
#ifdef __AVX512F__
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_EQ_OQ);
#else
    return a == b;
#endif
}

SH_INLINE vf vec_where(vm mask, vf a)
{
#ifdef __AVX512F__
    return (vf)_mm512_maskz_mov_ps(mask, (__m512)a);
#else
    return vec_keep(mask, a);
#endif
}

/** Parts of lines are not worth streaming. */
SH_INLINE bool streams(const sh_cpu_window *win)
{
    return PARTS == 1 && win->stream;
}

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

/* Outputs [begin, end) of an axis whose windows lie wholly inside the image. */
typedef struct inside {
    int64_t begin, end;
} inside;

SH_INLINE inside inside_of(const sh_cpu_window *win, int axis)
{
    int64_t stride = win->stride[axis], last = win->side[axis] + win->pad[axis] - win->kernel[axis];
    inside in = {.begin = (win->pad[axis] + stride - 1) / stride,
                 .end = last < 0 ? 0 : last / stride + 1};

    if (in.end > win->out[axis]) in.end = win->out[axis];
    if (in.begin > in.end) in.begin = in.end;
    return in;
}

/* Columns of row oy whose windows lie inside; none where rows do not, or the kernel is not KxK. */
SH_INLINE inside inside_of_row(const sh_cpu_window *win, int64_t oy, const int K)
{
    inside rows = inside_of(win, 0);

    if (K == 0 || oy < rows.begin || oy >= rows.end) return (inside){0, 0};
    return inside_of(win, 1);
}

/* Pixels of a window of KxK from `first`, in an image w wide. */
SH_INLINE void load_window(const void *x, int64_t first, int64_t w, vf *e, const int K,
                           const sh_dtype dtype)
{
    SH_UNROLL
    for (int i = 0; i < K * K; i++) e[i] = vec_load(x, (first + i / K * w + i % K) * BLOCK, dtype);
}

SH_INLINE vf largest_of(const vf *e, const int n)
{
    vf a = e[0];

    SH_UNROLL
    for (int i = 1; i < n; i++) a = vec_max(a, e[i]);
    return a;
}

SH_INLINE vf sum_of(const vf *e, const int n)
{
    vf a = e[0];

    SH_UNROLL
    for (int i = 1; i < n; i++) a += e[i];
    return a;
}

/* Outputs [begin, end) of row oy, whose windows may reach over the border. */
SH_INLINE void forward_edge(const sh_cpu_window *win, const void *x, void *y, int64_t oy,
                            int64_t begin, int64_t end, const bool is_max, const sh_dtype dtype)
{
    span v = span_of(win, 0, oy);

    for (int64_t ox = begin; ox < end; ox++) {
        span h = span_of(win, 1, ox);
        vf a = is_max ? lowest(win, v, h) : vec_set(0);
        for (int ky = v.begin; ky < v.end; ky++) {
            int64_t row = (v.at + ky) * win->side[1] + h.at;
            for (int kx = h.begin; kx < h.end; kx++) {
                vf e = vec_load(x, (row + kx) * BLOCK, dtype);
                a = is_max ? vec_max(a, e) : a + e;
            }
        }
        if (!is_max) a *= share_of(win, v, h);
        vec_put(a, (oy * win->out[1] + ox) * BLOCK, y, streams(win), dtype);
    }
}

SH_INLINE void forward_inside(const sh_cpu_window *win, const void *x, void *y, int64_t oy,
                              inside in, const bool is_max, const int K, const bool stream,
                              const sh_dtype dtype)
{
    vf share = vec_set(1.0f / (float)(K * K));
    int64_t first = (oy * win->stride[0] - win->pad[0]) * win->side[1] - win->pad[1];

    for (int64_t ox = in.begin; ox < in.end; ox++) {
        vf e[MAX_WHOLE * MAX_WHOLE];
        load_window(x, first + ox * win->stride[1], win->side[1], e, K, dtype);
        vf a = is_max ? largest_of(e, K * K) : sum_of(e, K * K) * share;
        vec_put(a, (oy * win->out[1] + ox) * BLOCK, y, stream, dtype);
    }
}

SH_INLINE void pool_forward(const sh_cpu_window *win, const void *x, void *y, const bool is_max,
                            const int K, const sh_dtype dtype)
{
    for (int64_t oy = 0; oy < win->out[0]; oy++) {
        inside in = inside_of_row(win, oy, K);
        forward_edge(win, x, y, oy, 0, in.begin, is_max, dtype);
        if (K > 0 && streams(win))
            forward_inside(win, x, y, oy, in, is_max, K, true, dtype);
        else if (K > 0)
            forward_inside(win, x, y, oy, in, is_max, K, false, dtype);
        forward_edge(win, x, y, oy, in.end, win->out[1], is_max, dtype);
    }
}

/* The kernel's side where it is one of those that have loops of their own, else 0. */
SH_INLINE int whole_side(const sh_cpu_window *win)
{
    bool is_square = win->kernel[0] == win->kernel[1];

    return is_square && win->kernel[0] >= 2 && win->kernel[0] <= MAX_WHOLE ? win->kernel[0] : 0;
}

SH_INLINE void pool_forward_any(const sh_cpu_window *win, const void *x, void *y, const bool is_max,
                                const sh_dtype dtype)
{
    switch (whole_side(win)) {
    case 2: pool_forward(win, x, y, is_max, 2, dtype); break;
    case 3: pool_forward(win, x, y, is_max, 3, dtype); break;
    default: pool_forward(win, x, y, is_max, 0, dtype); break;
    }
}

void SH_SIMD(pool_forward)(const sh_cpu_window *win, bool is_max, const void *x, void *y)
{
    size_t part_bytes = LANES * sh_dtype_size(win->dtype);

    for (size_t skip = 0; skip < PARTS * part_bytes; skip += part_bytes) {
        const void *from = (const char *)x + skip;
        void *to = (char *)y + skip;
        if (win->dtype == SH_BF16 && is_max)
            pool_forward_any(win, from, to, true, SH_BF16);
        else if (win->dtype == SH_BF16)
            pool_forward_any(win, from, to, false, SH_BF16);
        else if (is_max)
            pool_forward_any(win, from, to, true, SH_F32);
        else
            pool_forward_any(win, from, to, false, SH_F32);
    }
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
            vf e = vec_load(x, (row + kx) * BLOCK, dtype);
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

/* The largest elements of a window: bits of the first one per lane. */
SH_INLINE void first_largest(const vf *e, vm *where, const int n)
{
    vf best = largest_of(e, n);
    vm found = vec_equal(e[0], best);

    where[0] = found;
    SH_UNROLL
    for (int i = 1; i < n; i++) {
        vm is = vec_equal(e[i], best);
        where[i] = (vm)(is & ~found);
        found |= is;
    }
}

SH_INLINE void backward_edge(const sh_cpu_window *win, const void *x, const void *dy, int64_t oy,
                             int64_t begin, int64_t end, float *ring, const bool is_max,
                             const sh_dtype dtype)
{
    span v = span_of(win, 0, oy);

    for (int64_t ox = begin; ox < end; ox++) {
        span h = span_of(win, 1, ox);
        vf g = vec_load(dy, (oy * win->out[1] + ox) * BLOCK, dtype);
        if (is_max)
            max_backward(win, x, g, v, h, ring, dtype);
        else
            mean_backward(win, g, v, h, ring);
    }
}

SH_INLINE void backward_inside(const sh_cpu_window *win, const void *x, const void *dy, int64_t oy,
                               inside in, float *ring, const bool is_max, const int K,
                               const sh_dtype dtype)
{
    vf share = vec_set(1.0f / (float)(K * K));
    int64_t top = oy * win->stride[0] - win->pad[0];
    float *rows[MAX_WHOLE];

    SH_UNROLL
    for (int i = 0; i < K; i++) rows[i] = ring_row(win, ring, top + i);
    for (int64_t ox = in.begin; ox < in.end; ox++) {
        int64_t left = ox * win->stride[1] - win->pad[1];
        vf g = vec_load(dy, (oy * win->out[1] + ox) * BLOCK, dtype);
        vf e[MAX_WHOLE * MAX_WHOLE];
        vm where[MAX_WHOLE * MAX_WHOLE];
        if (is_max) {
            load_window(x, top * win->side[1] + left, win->side[1], e, K, dtype);
            first_largest(e, where, K * K);
        }
        SH_UNROLL
        for (int i = 0; i < K * K; i++) {
            float *at = rows[i / K] + (left + i % K) * LANES;
            vf add = is_max ? vec_where(where[i], g) : g * share;
            vec_store(at, 0, vec_load(at, 0, SH_F32) + add, SH_F32);
        }
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
            vec_put(row ? vec_load(row, p * LANES, SH_F32) : (vf){0}, (*stored * w + p) * BLOCK, dx,
                    streams(win), dtype);
    }
}

SH_INLINE void pool_backward(const sh_cpu_window *win, const void *x, const void *dy, void *dx,
                             float *ring, const bool is_max, const int K, const sh_dtype dtype)
{
    int64_t entered = 0, stored = 0;

    for (int64_t oy = 0; oy < win->out[0]; oy++) {
        span v = span_of(win, 0, oy);
        inside in = inside_of_row(win, oy, K);
        if (entered < v.at) entered = v.at;
        for (; entered < v.at + v.end; entered++)
            memset(ring_row(win, ring, entered), 0, (size_t)(win->side[1] * LANES) * sizeof(float));
        backward_edge(win, x, dy, oy, 0, in.begin, ring, is_max, dtype);
        if (K > 0) backward_inside(win, x, dy, oy, in, ring, is_max, K, dtype);
        backward_edge(win, x, dy, oy, in.end, win->out[1], ring, is_max, dtype);
        store_rows(win, ring, entered, v.at + win->stride[0], &stored, dx, dtype);
    }
    store_rows(win, ring, entered, win->side[0], &stored, dx, dtype);
}

/* Pixels [begin, end) of dx, which no window has. */
SH_INLINE void put_zeros(void *dx, int64_t begin, int64_t end, const bool stream,
                         const sh_dtype dtype)
{
    for (; begin < end; begin++) vec_put((vf){0}, begin * BLOCK, dx, stream, dtype);
}

/* Windows of KxK side by side: each pixel of dx belongs to one, and needs no sum. */
SH_INLINE void max_backward_apart(const sh_cpu_window *win, const void *x, const void *dy, void *dx,
                                  const int K, const bool stream, const sh_dtype dtype)
{
    int64_t w = win->side[1], used = win->out[1] * K;

    for (int64_t oy = 0; oy < win->out[0]; oy++) {
        for (int64_t ox = 0; ox < win->out[1]; ox++) {
            int64_t first = oy * K * w + ox * K;
            vf g = vec_load(dy, (oy * win->out[1] + ox) * BLOCK, dtype), e[MAX_WHOLE * MAX_WHOLE];
            vm where[MAX_WHOLE * MAX_WHOLE];
            load_window(x, first, w, e, K, dtype);
            first_largest(e, where, K * K);
            SH_UNROLL
            for (int i = 0; i < K * K; i++)
                vec_put(vec_where(where[i], g), (first + i / K * w + i % K) * BLOCK, dx, stream,
                        dtype);
        }
        for (int64_t y = oy * K; y < (oy + 1) * K; y++)
            put_zeros(dx, y * w + used, (y + 1) * w, stream, dtype);
    }
    put_zeros(dx, win->out[0] * K * w, win->side[0] * w, stream, dtype);
}

/* Are windows of KxK side by side, none over the border? */
SH_INLINE bool are_apart(const sh_cpu_window *win, const int K)
{
    for (int axis = 0; axis < 2; axis++) {
        inside in = inside_of(win, axis);
        if (win->pad[axis] != 0 || win->stride[axis] != K || in.end < win->out[axis]) return false;
    }
    return true;
}

SH_INLINE void pool_backward_any(const sh_cpu_window *win, const void *x, const void *dy, void *dx,
                                 float *ring, const bool is_max, const sh_dtype dtype)
{
    int side = whole_side(win);

    if (is_max && side == 2 && are_apart(win, 2) && streams(win))
        max_backward_apart(win, x, dy, dx, 2, true, dtype);
    else if (is_max && side == 2 && are_apart(win, 2))
        max_backward_apart(win, x, dy, dx, 2, false, dtype);
    else if (side == 2)
        pool_backward(win, x, dy, dx, ring, is_max, 2, dtype);
    else if (side == 3)
        pool_backward(win, x, dy, dx, ring, is_max, 3, dtype);
    else
        pool_backward(win, x, dy, dx, ring, is_max, 0, dtype);
}

void SH_SIMD(pool_backward)(const sh_cpu_window *win, bool is_max, const void *x, const void *dy,
                            void *dx, float *ring)
{
    size_t part_bytes = LANES * sh_dtype_size(win->dtype);

    for (size_t skip = 0; skip < PARTS * part_bytes; skip += part_bytes) {
        const void *from = is_max ? (const char *)x + skip : NULL, *d = (const char *)dy + skip;
        void *to = (char *)dx + skip;
        if (win->dtype == SH_BF16 && is_max)
            pool_backward_any(win, from, d, to, ring, true, SH_BF16);
        else if (win->dtype == SH_BF16)
            pool_backward_any(win, from, d, to, ring, false, SH_BF16);
        else if (is_max)
            pool_backward_any(win, from, d, to, ring, true, SH_F32);
        else
            pool_backward_any(win, from, d, to, ring, false, SH_F32);
    }
}
