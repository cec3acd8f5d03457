// SPDX-License-Identifier: Apache-2.0
/*
 * Depthwise convolution of one slab, forward and both gradients.
 *
 * Rows are brought into small rings of f32 rows with their zero padding, normalised on the way
 * where the program asks for it, so that the loops over pixels know neither borders nor dtypes.
 * Rings stay in the first-level cache; each operand is read from memory once and each result
 * written once. The gradient of a strided convolution is one convolution per phase: pixels a stride
 * apart, each by the taps that reach it, so that nothing is multiplied by the zeros between.
 */
#include "models/cpu/simd/taps.h"

enum { MAX_SIDE = 5, MAX_PHASES = 8 }; /* depthwise.c refuses larger kernels and strides */

typedef struct ring {
    float *rows; /* [n_rows][width][16] */
    int64_t n_rows, width;
    int64_t begin; /* pixel at which loaded data begins; the border around it stays zero */
    int64_t next;  /* first row not yet loaded */
    float *slopes; /* of the rows' activation, the same shape without border; NULL: not wanted */
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

/* Ring of dy rows: column ox stands at ox + begin. */
static ring ring_of_dy(const sh_cpu_dw *dw, float *rows)
{
    int64_t border = ((int64_t)(dw->kw - 1) * dw->dilation[1] + dw->stride[1] - 1) / dw->stride[1];

    return (ring){.rows = rows,
                  .n_rows = (int64_t)(dw->kh - 1) * dw->dilation[0] / dw->stride[0] + 2,
                  .width = border + max_of(dw->ow, (dw->w - 1 + dw->pad[1]) / dw->stride[1] + 1),
                  .begin = border};
}

static int64_t ring_floats(const ring *r)
{
    return r->n_rows * r->width * BLOCK;
}

static float *ring_row(const ring *r, int64_t row)
{
    return r->rows + row % r->n_rows * r->width * BLOCK;
}

static float *slope_row(const ring *r, int64_t row)
{
    return r->slopes + (row % r->n_rows * r->width + r->begin) * BLOCK;
}

int64_t SH_SIMD(dw_rows)(const sh_cpu_dw *dw)
{
    ring x = ring_of_x(dw, NULL), dy = ring_of_dy(dw, NULL);

    return 2 * ring_floats(&x) + ring_floats(&dy) +
           (max_of(x.width, dy.width) + max_of(dw->w, dw->ow)) * BLOCK;
}

/* Rows below 0 and beyond the end are zeros. */
SH_INLINE const float *row_or_zero(const ring *r, int64_t row, int64_t n_rows, const float *zero)
{
    return row < 0 || row >= n_rows ? zero : ring_row(r, row);
}

/* While one row is worked on, the one that follows `pixels` later is on its way; at least 2 KB. */
SH_INLINE int64_t ahead_bytes(int64_t pixels, const sh_dtype dtype)
{
    return max_of(pixels * BLOCK * (dtype == SH_BF16 ? 2 : 4), 2048);
}

SH_INLINE void load_x_rows(const sh_cpu_dw *dw, const void *x, ring *r, int64_t end,
                           const sh_dtype dtype)
{
    for (; r->next < end && r->next < dw->h; r->next++) {
        const char *from = (const char *)x + r->next * dw->w * BLOCK * (dtype == SH_BF16 ? 2 : 4);
        float *to = ring_row(r, r->next) + r->begin * BLOCK;
        int64_t ahead = ahead_bytes(dw->w * dw->stride[0], dtype);
        if (r->slopes)
            row_load_silu(from, dw->w, &dw->norm, to, slope_row(r, r->next), ahead, dtype, SH_F32);
        else
            row_load(from, dw->w, &dw->norm, to, ahead, dtype, SH_F32);
    }
}

/* The first output, around which moments are taken. */
SH_INLINE void first_output(const float *const *rows, const float *weights, int64_t dilation,
                            vf *out, const int K, const sh_dtype dtype)
{
    for (int part = 0; part < PARTS; part++) {
        vf sum = {0};
        for (int i = 0; i < K * K; i++)
            sum += vec_load(rows[i / K], i % K * dilation * BLOCK + part * LANES, SH_F32) *
                   vec_load(weights, i * BLOCK + part * LANES, SH_F32);
        out[part] = vec_rounded(sum, dtype);
    }
}

SH_INLINE void dw_forward(const sh_cpu_dw *dw, const void *x, const float *weights, void *y,
                          sh_cpu_moments *m, float *scratch, const sh_dtype dtype, const int K)
{
    ring rx = ring_of_x(dw, scratch);
    float *zero = scratch + ring_floats(&rx);
    row_end e = {.y = y};
    ending end = m ? MOMENTS : dw->finish.silu ? SILU_FINISH : FINISH;

    for (int k = 0; k < PARTS; k++) {
        e.k[k].lo = vec_set(dw->finish.lo), e.k[k].hi = vec_set(dw->finish.hi);
        if (dw->finish.bias) e.k[k].shift = vec_load(dw->finish.bias, k * LANES, SH_F32);
    }
    memset(scratch, 0, sizeof(float) * (size_t)(ring_floats(&rx) + rx.width * BLOCK));
    for (int64_t oy = 0; oy < dw->oh; oy++) {
        const float *rows[5];
        int64_t top = oy * dw->stride[0] - dw->pad[0];

        load_x_rows(dw, x, &rx, top + (int64_t)(K - 1) * dw->dilation[0] + 1, dtype);
        for (int i = 0; i < K; i++)
            rows[i] = row_or_zero(&rx, top + (int64_t)i * dw->dilation[0], dw->h, zero);
        if (oy == 0) first_output(rows, weights, dw->dilation[1], e.shift, K, dtype);
        e.y = (char *)y + oy * dw->ow * BLOCK * (dtype == SH_BF16 ? 2 : 4);
        forward(rows, weights, &e, dw->ow, K, dw->stride[1], dw->dilation[1], end, dw->stream,
                dtype);
    }
    if (!m) return;
    memset(m, 0, sizeof(*m));
    for (int k = 0; k < PARTS; k++) vec_store(m->shift, k * LANES, e.shift[k], SH_F32);
    moments_add(m, e.sum, e.square, PARTS, dw->oh * dw->ow);
}

/* By runs, nothing here depends on the kernel's side. */
SH_INLINE void dw_forward_any(const sh_cpu_dw *dw, const void *x, const float *weights, void *y,
                              sh_cpu_moments *m, float *rows, const sh_dtype dtype)
{
    if (PARTS > 1)
        dw_forward(dw, x, weights, y, m, rows, dtype, dw->kh);
    else if (dw->kh == 3)
        dw_forward(dw, x, weights, y, m, rows, dtype, 3);
    else
        dw_forward(dw, x, weights, y, m, rows, dtype, 5);
}

void SH_SIMD(dw_forward)(const sh_cpu_dw *dw, const void *x, const float *weights, void *y,
                         sh_cpu_moments *m, float *rows)
{
    if (dw->dtype == SH_BF16)
        dw_forward_any(dw, x, weights, y, m, rows, SH_BF16);
    else
        dw_forward_any(dw, x, weights, y, m, rows, SH_F32);
}

/* Kernel rows that gradients of weights gather at a time, by a kernel of five: as many as registers
 * hold. */
enum { OUTER_ROWS = PARTS == 1 ? 3 : 2 };

/* R K accumulators live in registers while one part of a row of dy passes, U pixels at a time: a
 * pixel of x that is loaded serves up to U of them. */
SH_INLINE void outer_pixels(const float *const *rows, const float *dy, vf *acc, int64_t ox,
                            const int K, const int R, const int64_t stride, const int64_t dilation,
                            const int U)
{
    vf g[4];

    SH_UNROLL
    for (int u = 0; u < U; u++) g[u] = vec_load(dy, (ox + u) * BLOCK, SH_F32);
    SH_UNROLL
    for (int i = 0; i < R; i++) {
        const float *r = rows[i] + ox * stride * BLOCK;
        SH_UNROLL
        for (int u = 0; u < U; u++) {
            SH_UNROLL
            for (int j = 0; j < K; j++)
                acc[i * K + j] += g[u] * vec_load(r, (u * stride + j * dilation) * BLOCK, SH_F32);
        }
    }
}

SH_INLINE void outer_row(const float *const *rows, const float *dy, float *dweights, int64_t ow,
                         const int K, const int R, const int64_t stride, const int64_t dilation,
                         const int U)
{
    vf acc[3 * MAX_SIDE];
    int64_t ox = 0;

    SH_UNROLL
    for (int i = 0; i < R * K; i++) acc[i] = (vf){0}; /* rows are summed by themselves first */
    for (; ox + U <= ow; ox += U) outer_pixels(rows, dy, acc, ox, K, R, stride, dilation, U);
    for (; ox < ow; ox++) outer_pixels(rows, dy, acc, ox, K, R, stride, dilation, 1);
    SH_UNROLL
    for (int i = 0; i < R * K; i++)
        vec_store(dweights, i * BLOCK, vec_load(dweights, i * BLOCK, SH_F32) + acc[i], SH_F32);
}

/* Kernel rows [0, R). */
SH_INLINE void outer_any(const float *const *rows, const float *dy, float *dweights, int64_t ow,
                         const int K, const int R, int64_t stride, int64_t dilation)
{
    if (stride == 1 && dilation == 1)
        outer_row(rows, dy, dweights, ow, K, R, 1, 1, K == 3 ? 1 : 4);
    else if (stride == 2 && dilation == 1)
        outer_row(rows, dy, dweights, ow, K, R, 2, 1, K == 3 ? 1 : 2);
    else
        outer_row(rows, dy, dweights, ow, K, R, stride, dilation, 1);
}

/* Of one part; of a kernel of five OUTER_ROWS at a time. */
SH_INLINE void outer_part(const float *const *rows, const float *dy, float *dweights,
                          const sh_cpu_dw *dw)
{
    int64_t ow = dw->ow, stride = dw->stride[1], dilation = dw->dilation[1];

    if (dw->kh == 3) {
        outer_any(rows, dy, dweights, ow, 3, 3, stride, dilation);
        return;
    }
    for (int i = 0; i + OUTER_ROWS <= 5; i += OUTER_ROWS)
        outer_any(rows + i, dy, dweights + 5 * i * BLOCK, ow, 5, OUTER_ROWS, stride, dilation);
    const int left = 5 % OUTER_ROWS;
    outer_any(rows + 5 - left, dy, dweights + 5 * (5 - left) * BLOCK, ow, 5, left, stride,
              dilation);
}

/* dweights += x^T dy of row oy; rows outside the image are zeros. */
static void outer(const sh_cpu_dw *dw, const ring *rx, const float *zero, const float *dy,
                  int64_t oy, float *dweights)
{
    const float *rows[MAX_SIDE];

    for (int part = 0; part < PARTS; part++) {
        for (int i = 0; i < dw->kh; i++) {
            int64_t row = oy * dw->stride[0] - dw->pad[0] + (int64_t)i * dw->dilation[0];
            rows[i] = (row < 0 || row >= dw->h ? zero : ring_row(rx, row)) + part * LANES;
        }
        outer_part(rows, dy + part * LANES, dweights + part * LANES, dw);
    }
}

/* ---- input gradients ---- */

/* One of the pixels a stride apart of a row of dx: column first, first + stride, ... by the kernel
 * columns that reach them. Result k is the sum over taps t of pixel k + at[t] of dy's row times
 * weight t. */
typedef struct phase {
    int n_taps;
    int64_t at[MAX_SIDE];
    const float *weights; /* [kernel rows][n_taps][16] */
    int64_t n_results, first;
} phase;

/* Gives phase q. Its weights are put together at `to`; returns where they end. */
static float *make_phase(const sh_cpu_dw *dw, const ring *ry, int64_t q, const float *weights,
                         float *to, phase *out)
{
    int columns[MAX_SIDE];

    *out = (phase){
        .weights = to, .n_results = (dw->w - q + dw->stride[1] - 1) / dw->stride[1], .first = q};
    for (int j = dw->kw - 1; j >= 0; j--) {
        int64_t reached = q + dw->pad[1] - (int64_t)j * dw->dilation[1];
        if (reached % dw->stride[1] != 0) continue;
        columns[out->n_taps] = j;
        out->at[out->n_taps++] = ry->begin + reached / dw->stride[1];
    }
    for (int i = 0; i < dw->kh; i++)
        for (int t = 0; t < out->n_taps; t++, to += BLOCK)
            memcpy(to, weights + (i * dw->kw + columns[t]) * BLOCK, BLOCK * sizeof(float));
    return to;
}

/* The kernel rows that reach a row of dx, and the rows of dy that they read. */
typedef struct reach {
    int n;
    const float *rows[MAX_SIDE];
    int kernel_rows[MAX_SIDE];
} reach;

/* Rows of dy that reach input row iy. */
static reach reach_of_dx(const sh_cpu_dw *dw, const ring *ry, int64_t iy)
{
    reach r = {.n = 0};

    for (int i = 0; i < dw->kh; i++) {
        int64_t t = iy + dw->pad[0] - (int64_t)i * dw->dilation[0];
        if (t < 0 || t % dw->stride[0] != 0 || t / dw->stride[0] >= dw->oh) continue;
        r.rows[r.n] = ring_row(ry, t / dw->stride[0]);
        r.kernel_rows[r.n++] = i;
    }
    return r;
}

/* One part of P results of a phase to `line`, whose pixels are `stride` apart; T taps. */
SH_INLINE void phase_results(const phase *f, const reach *r, int64_t k, float *line, int64_t stride,
                             const int skip, const int T, const int P)
{
    vf sum[4];

    SH_UNROLL
    for (int p = 0; p < P; p++) sum[p] = (vf){0};
    for (int i = 0; i < r->n; i++) {
        const float *row = r->rows[i] + k * BLOCK + skip;
        const float *w = f->weights + r->kernel_rows[i] * T * BLOCK + skip;
        SH_UNROLL
        for (int t = 0; t < T; t++) {
            vf weight = vec_load(w, t * BLOCK, SH_F32);
            const float *from = row + f->at[t] * BLOCK;
            SH_UNROLL
            for (int p = 0; p < P; p++) sum[p] += vec_load(from, p * BLOCK, SH_F32) * weight;
        }
    }
    SH_UNROLL
    for (int p = 0; p < P; p++)
        vec_store(line, (f->first + (k + p) * stride) * BLOCK + skip, sum[p], SH_F32);
}

SH_INLINE void phase_row(const phase *f, const reach *r, float *line, int64_t stride, const int T)
{
    for (int skip = 0; skip < BLOCK; skip += LANES) {
        int64_t k = 0;
        for (; k + 4 <= f->n_results; k += 4) phase_results(f, r, k, line, stride, skip, T, 4);
        if (k + 2 <= f->n_results) phase_results(f, r, k, line, stride, skip, T, 2), k += 2;
        if (k < f->n_results) phase_results(f, r, k, line, stride, skip, T, 1);
    }
}

/* A row of dx, phase by phase. */
static void sum_phases(const sh_cpu_dw *dw, const phase *phases, const reach *r, float *line)
{
    int64_t stride = dw->stride[1];

    for (int q = 0; q < stride; q++) {
        switch (phases[q].n_taps) {
        case 0: phase_row(&phases[q], r, line, stride, 0); break;
        case 1: phase_row(&phases[q], r, line, stride, 1); break;
        case 2: phase_row(&phases[q], r, line, stride, 2); break;
        case 3: phase_row(&phases[q], r, line, stride, 3); break;
        case 4: phase_row(&phases[q], r, line, stride, 4); break;
        default: phase_row(&phases[q], r, line, stride, 5); break;
        }
    }
}

/* Where a gradient goes, and what it is made from. */
typedef struct input_grad {
    row_end end;
    ending ending;
    const float *mean;
    sh_cpu_grad_sums *sums;
    float *line;
    const float *zero;
    phase phases[MAX_PHASES];
    float weights[MAX_SIDE * MAX_SIDE * BLOCK] __attribute__((aligned(64)));
} input_grad;

static void prepare_dx(const sh_cpu_dw *dw, const ring *ry, const float *weights, input_grad *d)
{
    float *to = d->weights;

    for (int k = 0; k < PARTS; k++) d->end.sum[k] = d->end.square[k] = (vf){0};
    d->ending = !d->sums ? PLAIN : dw->norm.curve == SH_ACT_SILU ? SLOPE_GRADIENT : GRADIENT;
    if (d->sums) clamps_of(&dw->norm, d->mean, d->end.k);
    for (int q = 0; q < dw->stride[1]; q++) to = make_phase(dw, ry, q, weights, to, &d->phases[q]);
}

/* A line of results as a summed gradient. */
SH_INLINE void store_by_slopes(const float *line, int64_t pixels, row_end *e, const bool stream,
                               const sh_dtype dtype)
{
    vf s[PARTS] = {{0}}, q[PARTS] = {{0}};

    for (int64_t i = 0; i < pixels * BLOCK; i += BLOCK) {
        SH_UNROLL
        for (int k = 0; k < PARTS; k++) {
            int64_t at = i + k * LANES;
            vf g = vec_load(line, at, SH_F32) * vec_load(e->slopes, at, SH_F32);
            vec_put_grad(g, vec_load(e->x, at, dtype), at, e->y, stream, &e->k[k], &s[k], &q[k],
                         dtype);
        }
    }
    SH_UNROLL
    for (int k = 0; k < PARTS; k++) e->sum[k] += s[k], e->square[k] += q[k];
}

/* Row iy of dx. Without stride its one phase is a convolution whose results are stored from
 * registers; strided ones go by way of a line. */
SH_INLINE void dx_row(const sh_cpu_dw *dw, ring *rx, const ring *ry, int64_t iy, const void *x,
                      void *dx, input_grad *d, const sh_dtype dtype, const int K)
{
    int64_t skip = iy * dw->w * BLOCK * (dtype == SH_BF16 ? 2 : 4);
    const void *x_row = d->sums ? (const char *)x + skip : NULL;
    void *to = (char *)dx + skip;

    d->end.x = x_row, d->end.y = to;
    if (d->ending == SLOPE_GRADIENT) {
        load_x_rows(dw, x, rx, iy + 1, dtype);
        d->end.slopes = slope_row(rx, iy);
    }
    if (dw->stride[0] == 1 && dw->stride[1] == 1) {
        const float *rows[MAX_SIDE];
        for (int i = 0; i < K; i++) {
            int64_t oy = iy + dw->pad[0] - (int64_t)i * dw->dilation[0];
            rows[i] =
                (oy < 0 || oy >= dw->oh ? d->zero : ring_row(ry, oy)) + d->phases[0].at[0] * BLOCK;
        }
        forward(rows, d->weights, &d->end, dw->w, K, 1, dw->dilation[1], d->ending, dw->stream,
                dtype);
        return;
    }
    reach r = reach_of_dx(dw, ry, iy);
    sum_phases(dw, d->phases, &r, d->line);
    if (d->ending == SLOPE_GRADIENT && dw->stream)
        store_by_slopes(d->line, dw->w, &d->end, true, dtype);
    else if (d->ending == SLOPE_GRADIENT)
        store_by_slopes(d->line, dw->w, &d->end, false, dtype);
    else
        row_store_grad(d->line, dw->w, x_row, to, dw->stream, &dw->norm, d->mean, d->sums, dtype);
}

SH_INLINE void dw_backward(const sh_cpu_dw *dw, const void *g, const void *y,
                           const sh_cpu_bn_grad *grad, const void *x, const float *weights,
                           float *dweights, void *dx, const float *mean, sh_cpu_grad_sums *sums,
                           float *scratch, const sh_dtype dtype, const int K)
{
    ring rx = ring_of_x(dw, scratch), ry = ring_of_dy(dw, scratch + ring_floats(&rx));
    float *zero = ry.rows + ring_floats(&ry), *line = zero + max_of(rx.width, ry.width) * BLOCK;
    float *slopes = line + max_of(dw->w, dw->ow) * BLOCK;
    int64_t bytes = BLOCK * (dtype == SH_BF16 ? 2 : 4), iy = 0;
    input_grad d;

    memset(scratch, 0, sizeof(float) * (size_t)(line - scratch));
    d.mean = mean, d.sums = sums, d.line = line, d.zero = zero;
    if (dx) prepare_dx(dw, &ry, weights, &d);
    if (dx && d.ending == SLOPE_GRADIENT) rx.slopes = slopes;
    for (int64_t oy = 0; oy < dw->oh; oy++) {
        int64_t top = oy * dw->stride[0] - dw->pad[0], skip = oy * dw->ow * bytes;
        float *dy = ring_row(&ry, oy) + ry.begin * BLOCK;

        row_load_grad((const char *)g + skip, (const char *)y + skip, dw->ow, grad, dy,
                      ahead_bytes(dw->ow, dtype), dtype, SH_F32);
        if (dweights) {
            load_x_rows(dw, x, &rx, top + (int64_t)(K - 1) * dw->dilation[0] + 1, dtype);
            outer(dw, &rx, zero, dy, oy, dweights);
        }
        int64_t end = oy == dw->oh - 1 ? dw->h : top + dw->stride[0];
        for (; dx && iy < end && iy < dw->h; iy++) dx_row(dw, &rx, &ry, iy, x, dx, &d, dtype, K);
    }
    if (!dx || !sums) return;
    strands_add(sums->g, d.end.sum, PARTS);
    strands_add(sums->gx, d.end.square, PARTS);
}

SH_INLINE void dw_backward_any(const sh_cpu_dw *dw, const void *g, const void *y,
                               const sh_cpu_bn_grad *grad, const void *x, const float *weights,
                               float *dweights, void *dx, const float *mean, sh_cpu_grad_sums *sums,
                               float *rows, const sh_dtype dtype)
{
    if (PARTS > 1)
        dw_backward(dw, g, y, grad, x, weights, dweights, dx, mean, sums, rows, dtype, dw->kh);
    else if (dw->kh == 3)
        dw_backward(dw, g, y, grad, x, weights, dweights, dx, mean, sums, rows, dtype, 3);
    else
        dw_backward(dw, g, y, grad, x, weights, dweights, dx, mean, sums, rows, dtype, 5);
}

void SH_SIMD(dw_backward)(const sh_cpu_dw *dw, const void *g, const void *y,
                          const sh_cpu_bn_grad *grad, const void *x, const float *weights,
                          float *dweights, void *dx, const float *mean, sh_cpu_grad_sums *sums,
                          float *rows)
{
    if (dw->dtype == SH_BF16)
        dw_backward_any(dw, g, y, grad, x, weights, dweights, dx, mean, sums, rows, SH_BF16);
    else
        dw_backward_any(dw, g, y, grad, x, weights, dweights, dx, mean, sums, rows, SH_F32);
}
