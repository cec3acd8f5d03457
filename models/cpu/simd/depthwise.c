// SPDX-License-Identifier: Apache-2.0
/*
 * Depthwise convolution of one slab, forward and both gradients.
 *
 * Rows are brought into small rings of f32 rows with their zero padding, normalised on the way
 * where the program asks for it, so that the loops over pixels know neither borders nor dtypes.
 * Rings stay in the first-level cache; each operand is read from memory once and each result
 * written once.
 */
#include "models/cpu/simd/rows.h"

typedef struct ring {
    float *rows; /* [n_rows][width][16] */
    int64_t n_rows, width;
    int64_t begin; /* pixel at which loaded data begins; the border around it stays zero */
    int64_t next;  /* first row not yet loaded */
} ring;

SH_INLINE int64_t max_of(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Ring of x rows: position j holds column j - pad. */
static ring ring_of_x(const sh_cpu_dw *dw, float *rows)
{
    int64_t span = (dw->ow - 1) * dw->stride[1] + (dw->kw - 1) * dw->dilation[1] + 1;

    return (ring){.rows = rows,
                  .n_rows = (int64_t)(dw->kh - 1) * dw->dilation[0] + 1,
                  .width = max_of(span, dw->pad[1] + dw->w),
                  .begin = dw->pad[1]};
}

/* Ring of dy rows: column ox stands at ox stride + begin, zeros between. */
static ring ring_of_dy(const sh_cpu_dw *dw, float *rows)
{
    int64_t border = (int64_t)(dw->kw - 1) * dw->dilation[1];

    return (ring){.rows = rows,
                  .n_rows = (int64_t)(dw->kh - 1) * dw->dilation[0] / dw->stride[0] + 2,
                  .width = border + max_of(dw->w + dw->pad[1], (dw->ow - 1) * dw->stride[1] + 1),
                  .begin = border};
}

static int64_t ring_floats(const ring *r)
{
    return r->n_rows * r->width * LANES;
}

static float *ring_row(const ring *r, int64_t row)
{
    return r->rows + row % r->n_rows * r->width * LANES;
}

int64_t SH_SIMD(dw_rows)(const sh_cpu_dw *dw)
{
    ring x = ring_of_x(dw, NULL), dy = ring_of_dy(dw, NULL);

    return ring_floats(&x) + ring_floats(&dy) +
           (max_of(x.width, dy.width) + max_of(dw->w, dw->ow)) * LANES;
}

/* Rows below 0 and beyond the end are zeros. */
SH_INLINE const float *row_or_zero(const ring *r, int64_t row, int64_t n_rows, const float *zero)
{
    return row < 0 || row >= n_rows ? zero : ring_row(r, row);
}

/* While one row is worked on, the one that follows `pixels` later is on its way; at least 2 KB. */
SH_INLINE int64_t ahead_bytes(int64_t pixels, const sh_dtype dtype)
{
    return max_of(pixels * LANES * (dtype == SH_BF16 ? 2 : 4), 2048);
}

SH_INLINE void load_x_rows(const sh_cpu_dw *dw, const void *x, ring *r, int64_t end,
                           const sh_dtype dtype)
{
    for (; r->next < end && r->next < dw->h; r->next++) {
        const char *from = (const char *)x + r->next * dw->w * LANES * (dtype == SH_BF16 ? 2 : 4);
        row_load(from, dw->w, &dw->norm, ring_row(r, r->next) + r->begin * LANES,
                 ahead_bytes(dw->w * dw->stride[0], dtype), dtype, SH_F32);
    }
}

/* Where a row of outputs goes: plainly, with moments, or as a summed gradient, led back through a
 * clamp or through SiLU. */
typedef enum ending { PLAIN, MOMENTS, GRADIENT, SILU_GRADIENT } ending;

typedef struct row_end {
    void *y;
    const void *x; /* gradients */
    clamp k;
    vf shift; /* MOMENTS */
    vf sum, square;
} row_end;

/* One row of outputs from K rows of inputs. */
SH_INLINE void forward_row(const float *const *rows, const float *weights, row_end *e, int64_t ow,
                           const int K, const int64_t stride, const int64_t dilation,
                           const ending end, const bool stream, const sh_dtype dtype)
{
    vf w[25], s = {0}, q = {0};

    SH_UNROLL
    for (int i = 0; i < K * K; i++) w[i] = vec_load(weights, i * LANES, SH_F32);
    for (int64_t ox = 0; ox < ow; ox++) {
        vf a[5];
        SH_UNROLL
        for (int i = 0; i < K; i++) {
            const float *r = rows[i] + ox * stride * LANES;
            a[i] = vec_load(r, 0, SH_F32) * w[i * K];
            SH_UNROLL
            for (int j = 1; j < K; j++)
                a[i] += vec_load(r, j * dilation * LANES, SH_F32) * w[i * K + j];
        }
        vf sum = a[0] + (a[1] + a[2]);
        if (K == 5) sum += a[3] + a[4];
        if (end == GRADIENT || end == SILU_GRADIENT)
            store_grad_pixel(sum, ox, e->x, e->y, stream, &e->k, &s, &q, end == SILU_GRADIENT,
                             dtype);
        else if (end == MOMENTS)
            store_pixel(sum, ox, e->y, stream, e->shift, &s, &q, dtype);
        else if (stream)
            vec_stream(e->y, ox * LANES, sum, dtype);
        else
            vec_store(e->y, ox * LANES, sum, dtype);
    }
    e->sum += s;
    e->square += q;
}

SH_INLINE void forward_any(const float *const *rows, const float *weights, row_end *e, int64_t ow,
                           const int K, int64_t stride, int64_t dilation, const ending end,
                           const bool stream, const sh_dtype dtype)
{
    if (stride == 1 && dilation == 1)
        forward_row(rows, weights, e, ow, K, 1, 1, end, stream, dtype);
    else
        forward_row(rows, weights, e, ow, K, stride, dilation, end, stream, dtype);
}

SH_INLINE void forward_end(const float *const *rows, const float *weights, row_end *e, int64_t ow,
                           const int K, int64_t stride, int64_t dilation, ending end, bool stream,
                           const sh_dtype dtype)
{
    if (end == PLAIN)
        forward_any(rows, weights, e, ow, K, stride, dilation, PLAIN, false, dtype);
    else if (end == MOMENTS && stream)
        forward_any(rows, weights, e, ow, K, stride, dilation, MOMENTS, true, dtype);
    else if (end == MOMENTS)
        forward_any(rows, weights, e, ow, K, stride, dilation, MOMENTS, false, dtype);
    else if (end == SILU_GRADIENT && stream)
        forward_any(rows, weights, e, ow, K, stride, dilation, SILU_GRADIENT, true, dtype);
    else if (end == SILU_GRADIENT)
        forward_any(rows, weights, e, ow, K, stride, dilation, SILU_GRADIENT, false, dtype);
    else if (stream)
        forward_any(rows, weights, e, ow, K, stride, dilation, GRADIENT, true, dtype);
    else
        forward_any(rows, weights, e, ow, K, stride, dilation, GRADIENT, false, dtype);
}

/* The first output, around which moments are taken. */
SH_INLINE vf first_output(const float *const *rows, const float *weights, int64_t dilation,
                          const int K, const sh_dtype dtype)
{
    vf sum = {0};

    for (int i = 0; i < K * K; i++)
        sum += vec_load(rows[i / K], i % K * dilation * LANES, SH_F32) *
               vec_load(weights, i * LANES, SH_F32);
    return vec_rounded(sum, dtype);
}

SH_INLINE void dw_forward(const sh_cpu_dw *dw, const void *x, const float *weights, void *y,
                          sh_cpu_moments *m, float *scratch, const sh_dtype dtype, const int K)
{
    ring rx = ring_of_x(dw, scratch);
    float *zero = scratch + ring_floats(&rx);
    row_end e = {.y = y};

    memset(scratch, 0, sizeof(float) * (size_t)(ring_floats(&rx) + rx.width * LANES));
    for (int64_t oy = 0; oy < dw->oh; oy++) {
        const float *rows[5];
        int64_t top = oy * dw->stride[0] - dw->pad[0];

        load_x_rows(dw, x, &rx, top + (int64_t)(K - 1) * dw->dilation[0] + 1, dtype);
        for (int i = 0; i < K; i++)
            rows[i] = row_or_zero(&rx, top + (int64_t)i * dw->dilation[0], dw->h, zero);
        if (oy == 0) e.shift = first_output(rows, weights, dw->dilation[1], K, dtype);
        e.y = (char *)y + oy * dw->ow * LANES * (dtype == SH_BF16 ? 2 : 4);
        forward_end(rows, weights, &e, dw->ow, K, dw->stride[1], dw->dilation[1],
                    m ? MOMENTS : PLAIN, dw->stream, dtype);
    }
    if (!m) return;
    memset(m, 0, sizeof(*m));
    vec_store(m->shift, 0, e.shift, SH_F32);
    moments_add(m, e.sum, e.square, dw->oh * dw->ow);
}

void SH_SIMD(dw_forward)(const sh_cpu_dw *dw, const void *x, const float *weights, void *y,
                         sh_cpu_moments *m, float *rows)
{
    if (dw->dtype == SH_BF16 && dw->kh == 3)
        dw_forward(dw, x, weights, y, m, rows, SH_BF16, 3);
    else if (dw->dtype == SH_BF16)
        dw_forward(dw, x, weights, y, m, rows, SH_BF16, 5);
    else if (dw->kh == 3)
        dw_forward(dw, x, weights, y, m, rows, SH_F32, 3);
    else
        dw_forward(dw, x, weights, y, m, rows, SH_F32, 5);
}

/* dweights of R kernel rows from one row of dy: R K accumulators live in registers. */
SH_INLINE void outer_row(const float *const *rows, const float *dy, float *dweights, int64_t ow,
                         const int K, const int R, const int64_t stride, const int64_t dilation)
{
    vf acc[25];

    SH_UNROLL
    for (int i = 0; i < R * K; i++) acc[i] = vec_load(dweights, i * LANES, SH_F32);
    for (int64_t ox = 0; ox < ow; ox++) {
        vf g = vec_load(dy, ox * stride * LANES, SH_F32);
        SH_UNROLL
        for (int i = 0; i < R; i++) {
            const float *r = rows[i] + ox * stride * LANES;
            SH_UNROLL
            for (int j = 0; j < K; j++)
                acc[i * K + j] += g * vec_load(r, j * dilation * LANES, SH_F32);
        }
    }
    SH_UNROLL
    for (int i = 0; i < R * K; i++) vec_store(dweights, i * LANES, acc[i], SH_F32);
}

SH_INLINE void outer_any(const float *const *rows, const float *dy, float *dweights, int64_t ow,
                         const int K, int64_t stride, int64_t dilation)
{
    if (stride == 1 && dilation == 1)
        outer_row(rows, dy, dweights, ow, K, K, 1, 1);
    else if (stride == 2 && dilation == 1)
        outer_row(rows, dy, dweights, ow, K, K, 2, 1);
    else
        outer_row(rows, dy, dweights, ow, K, K, stride, dilation);
}

SH_INLINE void load_dy_row(const sh_cpu_dw *dw, const void *g, const void *y,
                           const sh_cpu_bn_grad *grad, const ring *r, int64_t oy, float *line,
                           const sh_dtype dtype)
{
    int64_t skip = oy * dw->ow * LANES * (dtype == SH_BF16 ? 2 : 4);
    float *to = ring_row(r, oy) + r->begin * LANES;

    if (dw->stride[1] == 1) {
        row_load_grad((const char *)g + skip, (const char *)y + skip, dw->ow, grad, to,
                      ahead_bytes(dw->ow, dtype), dtype, SH_F32);
        return;
    }
    row_load_grad((const char *)g + skip, (const char *)y + skip, dw->ow, grad, line,
                  ahead_bytes(dw->ow, dtype), dtype, SH_F32);
    for (int64_t ox = 0; ox < dw->ow; ox++)
        vec_store(to, ox * dw->stride[1] * LANES, vec_load(line, ox * LANES, SH_F32), SH_F32);
}

/* Rows of dy that reach input row iy, in the order of the kernel turned round. */
SH_INLINE void rows_of_dx(const sh_cpu_dw *dw, const ring *r, int64_t iy, const float *zero,
                          const float **rows, const int K)
{
    for (int i = 0; i < K; i++) {
        int64_t t = iy + dw->pad[0] - (int64_t)(K - 1 - i) * dw->dilation[0];
        bool hit = t >= 0 && t % dw->stride[0] == 0;
        const float *row = hit ? row_or_zero(r, t / dw->stride[0], dw->oh, zero) : zero;
        rows[i] = row + dw->pad[1] * LANES;
    }
}

SH_INLINE void dw_backward(const sh_cpu_dw *dw, const void *g, const void *y,
                           const sh_cpu_bn_grad *grad, const void *x, const float *weights,
                           float *dweights, void *dx, const float *mean, sh_cpu_grad_sums *sums,
                           float *scratch, const sh_dtype dtype, const int K)
{
    ring rx = ring_of_x(dw, scratch), ry = ring_of_dy(dw, scratch + ring_floats(&rx));
    float *zero = ry.rows + ring_floats(&ry), *line = zero + max_of(rx.width, ry.width) * LANES;
    int64_t bytes = LANES * (dtype == SH_BF16 ? 2 : 4), iy = 0;
    row_end e = {.y = dx};
    vf turned[25]; /* the kernel turned round: dx is a forward convolution of the spread dy */

    memset(scratch, 0, sizeof(float) * (size_t)(line - scratch));
    const ending end_of_dx = !sums ? PLAIN : dw->norm.silu ? SILU_GRADIENT : GRADIENT;
    if (sums) e.k = clamp_of(&dw->norm, mean);
    for (int i = 0; i < K * K; i++)
        turned[i] = vec_load(weights, (int64_t)(K * K - 1 - i) * LANES, SH_F32);
    for (int64_t oy = 0; oy < dw->oh; oy++) {
        const float *rows[5];
        int64_t top = oy * dw->stride[0] - dw->pad[0];

        load_dy_row(dw, g, y, grad, &ry, oy, line, dtype);
        if (dweights) {
            load_x_rows(dw, x, &rx, top + (int64_t)(K - 1) * dw->dilation[0] + 1, dtype);
            for (int i = 0; i < K; i++)
                rows[i] = row_or_zero(&rx, top + (int64_t)i * dw->dilation[0], dw->h, zero);
            outer_any(rows, ring_row(&ry, oy) + ry.begin * LANES, dweights, dw->ow, K,
                      dw->stride[1], dw->dilation[1]);
        }
        int64_t end = oy == dw->oh - 1 ? dw->h : top + dw->stride[0];
        for (; dx && iy < end && iy < dw->h; iy++) {
            rows_of_dx(dw, &ry, iy, zero, rows, K);
            e.x = sums ? (const char *)x + iy * dw->w * bytes : NULL;
            e.y = (char *)dx + iy * dw->w * bytes;
            forward_end(rows, (const float *)turned, &e, dw->w, K, 1, dw->dilation[1], end_of_dx,
                        dw->stream, dtype);
        }
    }
    if (!sums) return;
    vec_store(sums->g, 0, vec_load(sums->g, 0, SH_F32) + e.sum, SH_F32);
    vec_store(sums->gx, 0, vec_load(sums->gx, 0, SH_F32) + e.square, SH_F32);
}

void SH_SIMD(dw_backward)(const sh_cpu_dw *dw, const void *g, const void *y,
                          const sh_cpu_bn_grad *grad, const void *x, const float *weights,
                          float *dweights, void *dx, const float *mean, sh_cpu_grad_sums *sums,
                          float *rows)
{
    if (dw->dtype == SH_BF16 && dw->kh == 3)
        dw_backward(dw, g, y, grad, x, weights, dweights, dx, mean, sums, rows, SH_BF16, 3);
    else if (dw->dtype == SH_BF16)
        dw_backward(dw, g, y, grad, x, weights, dweights, dx, mean, sums, rows, SH_BF16, 5);
    else if (dw->kh == 3)
        dw_backward(dw, g, y, grad, x, weights, dweights, dx, mean, sums, rows, SH_F32, 3);
    else
        dw_backward(dw, g, y, grad, x, weights, dweights, dx, mean, sums, rows, SH_F32, 5);
}
