// SPDX-License-Identifier: Apache-2.0
/*
 * Winograd's F(2x2, 3x3): 2x2 results y of a 3x3 convolution g of 4x4 pixels d by 16 products
 * instead of 36 (Lavin, Gray 2015),
 *
 *   Y = A' [(G g G') .* (B' d B)] A,    B' = 1  0 -1  0    G =  1    0   0    A' = 1  1  1  0
 *                                            0  1  1  0        1/2  1/2 1/2        0  1 -1 -1
 *                                            0 -1  1  0        1/2 -1/2 1/2
 *                                            0  1  0 -1         0    0   1
 *
 * where .* becomes, summed over channels, a product of matrices for each of the 16 positions. The
 * factors are so small that f32 loses next to nothing; those of F(4x4, 3x3) lose two digits. The
 * gradient of the weights is the transpose of the same: G' [(B' d B) .* (A dY A')] G, summed over
 * tiles.
 */
#include "models/cpu/simd/rows.h"

enum { SIDE = 4, POSITIONS = SIDE * SIDE };

/* Four vectors at a distance `step` in d, by B'. */
SH_INLINE void turn_input(vf *d, const int step)
{
    vf d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step];

    d[0] = d0 - d2;
    d[step] = d1 + d2;
    d[2 * step] = d2 - d1;
    d[3 * step] = d1 - d3;
}

SH_INLINE void load_tile(const float *x, int64_t width, float *to, int64_t stride, const int part)
{
    vf d[POSITIONS];

    SH_UNROLL
    for (int i = 0; i < POSITIONS; i++)
        d[i] = vec_load(x, (i / SIDE * width + i % SIDE) * BLOCK + part * LANES, SH_F32);
    SH_UNROLL
    for (int i = 0; i < SIDE; i++) turn_input(d + i, SIDE);
    SH_UNROLL
    for (int i = 0; i < SIDE; i++) turn_input(d + i * SIDE, 1);
    SH_UNROLL
    for (int i = 0; i < POSITIONS; i++) vec_store(to, i * stride + part * LANES, d[i], SH_F32);
}

/* The 4x4 pixels from (row, column) on, zeros where these lie outside of the map. */
static void gather_tile(const sh_cpu_winograd *c, const float *x, int64_t row, int64_t column,
                        float *tile)
{
    memset(tile, 0, sizeof(*tile) * POSITIONS * BLOCK);
    for (int64_t i = 0; i < SIDE; i++) {
        for (int64_t j = 0; j < SIDE; j++) {
            int64_t r = row + i, s = column + j;
            if (r < 0 || r >= c->h || s < 0 || s >= c->w) continue;
            memcpy(tile + (i * SIDE + j) * BLOCK, x + (r * c->w + s) * BLOCK,
                   BLOCK * sizeof(*tile));
        }
    }
}

void SH_SIMD(winograd_load)(const sh_cpu_winograd *c, const float *x, int64_t first, int64_t n,
                            float *to, int64_t stride)
{
    float edge[POSITIONS * BLOCK];

    for (int64_t t = first; t < first + n; t++, to += BLOCK) {
        int64_t row = 2 * (t / c->tiles_x) - c->pad[0], column = 2 * (t % c->tiles_x) - c->pad[1];
        const float *from = x + (row * c->w + column) * BLOCK;
        int64_t width = c->w;
        if (row < 0 || column < 0 || row + SIDE > c->h || column + SIDE > c->w) {
            gather_tile(c, x, row, column, edge);
            from = edge;
            width = SIDE;
        }
        SH_UNROLL
        for (int part = 0; part < PARTS; part++) load_tile(from, width, to, stride, part);
    }
}

/* Four vectors at a distance `step` in m, by A': two. */
SH_INLINE void turn_output(vf *m, const int step)
{
    vf inner = m[step] + m[2 * step], outer = m[step] - m[2 * step];

    m[0] = m[0] + inner;
    m[step] = outer - m[3 * step];
}

/* Of the 2x2 results those inside the map: `rows` x `columns`. */
SH_INLINE void store_tile(const float *from, int64_t stride, float *y, int64_t width, int64_t rows,
                          int64_t columns, const int part, vf bias, vf lo, vf hi, const bool silu,
                          const bool stream)
{
    vf m[POSITIONS];

    SH_UNROLL
    for (int i = 0; i < POSITIONS; i++) m[i] = vec_load(from, i * stride + part * LANES, SH_F32);
    SH_UNROLL
    for (int i = 0; i < SIDE; i++) turn_output(m + i, SIDE);
    SH_UNROLL
    for (int i = 0; i < 2; i++) turn_output(m + i * SIDE, 1);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            vec_put(finished(m[i * SIDE + j] + bias, lo, hi, silu),
                    (i * width + j) * BLOCK + part * LANES, y, stream, SH_F32);
}

SH_INLINE void store_tiles(const sh_cpu_winograd *c, const float *from, int64_t stride,
                           int64_t first, int64_t n, const sh_cpu_finish *f, float *y,
                           const bool silu, const bool stream)
{
    vf bias[PARTS] = {{0}}, lo = vec_set(f->lo), hi = vec_set(f->hi);

    if (f->bias) vec_load_parts(f->bias, bias);
    for (int64_t t = first; t < first + n; t++, from += BLOCK) {
        int64_t row = 2 * (t / c->tiles_x), column = 2 * (t % c->tiles_x);
        int64_t rows = c->oh - row < 2 ? 1 : 2, columns = c->ow - column < 2 ? 1 : 2;
        float *to = y + (row * c->ow + column) * BLOCK;
        SH_UNROLL
        for (int part = 0; part < PARTS; part++)
            store_tile(from, stride, to, c->ow, rows, columns, part, bias[part], lo, hi, silu,
                       stream);
    }
}

void SH_SIMD(winograd_store)(const sh_cpu_winograd *c, const float *from, int64_t stride,
                             int64_t first, int64_t n, const sh_cpu_finish *f, float *y)
{
    if (f->silu)
        store_tiles(c, from, stride, first, n, f, y, true, false);
    else if (c->stream)
        store_tiles(c, from, stride, first, n, f, y, false, true);
    else
        store_tiles(c, from, stride, first, n, f, y, false, false);
}

/* Two vectors at a distance `step` in dy, by A: four, at a distance `to_step`. */
SH_INLINE void turn_grad(const vf *dy, const int step, vf *to, const int to_step)
{
    vf a = dy[0], b = dy[step];

    to[0] = a;
    to[to_step] = a + b;
    to[2 * to_step] = a - b;
    to[3 * to_step] = -b;
}

SH_INLINE void load_grad(const float *dy, int64_t width, int64_t rows, int64_t columns, float *to,
                         int64_t stride, const int part)
{
    vf d[4], half[2 * SIDE], v[POSITIONS];

    SH_UNROLL
    for (int i = 0; i < 4; i++) {
        bool inside = i / 2 < rows && i % 2 < columns;
        d[i] = inside ? vec_load(dy, (i / 2 * width + i % 2) * BLOCK + part * LANES, SH_F32)
                      : vec_set(0);
    }
    SH_UNROLL
    for (int i = 0; i < 2; i++) turn_grad(d + i, 2, half + i, 2);
    SH_UNROLL
    for (int i = 0; i < SIDE; i++) turn_grad(half + 2 * i, 1, v + i * SIDE, 1);
    SH_UNROLL
    for (int i = 0; i < POSITIONS; i++) vec_store(to, i * stride + part * LANES, v[i], SH_F32);
}

void SH_SIMD(winograd_load_grad)(const sh_cpu_winograd *c, const float *dy, int64_t first,
                                 int64_t n, float *to, int64_t stride)
{
    for (int64_t t = first; t < first + n; t++, to += BLOCK) {
        int64_t row = 2 * (t / c->tiles_x), column = 2 * (t % c->tiles_x);
        const float *from = dy + (row * c->ow + column) * BLOCK;
        SH_UNROLL
        for (int part = 0; part < PARTS; part++)
            load_grad(from, c->ow, c->oh - row, c->ow - column, to, stride, part);
    }
}

/* Four vectors at a distance `step` in u, by G': three, at a distance `to_step`. */
SH_INLINE void turn_products(const vf *u, const int step, vf *to, const int to_step)
{
    vf half = vec_set(0.5f), sum = (u[step] + u[2 * step]) * half;

    to[0] = u[0] + sum;
    to[to_step] = (u[step] - u[2 * step]) * half;
    to[2 * to_step] = sum + u[3 * step];
}

void SH_SIMD(winograd_unpack)(const float *products, int64_t stride, float *taps)
{
    vf u[POSITIONS], half[3 * SIDE], g[9];

    for (int64_t at = 0; at < BLOCK; at += LANES) {
        SH_UNROLL
        for (int i = 0; i < POSITIONS; i++) u[i] = vec_load(products, i * stride + at, SH_F32);
        SH_UNROLL
        for (int i = 0; i < SIDE; i++) turn_products(u + i, SIDE, half + i, SIDE);
        SH_UNROLL
        for (int i = 0; i < 3; i++) turn_products(half + i * SIDE, 1, g + i * 3, 1);
        SH_UNROLL
        for (int i = 0; i < 9; i++) vec_store(taps, i * BLOCK + at, g[i], SH_F32);
    }
}

/* Three vectors at a distance `step` in g, by G: four, at a distance `to_step`. */
SH_INLINE void turn_weights(const vf *g, const int step, vf *to, const int to_step)
{
    vf half = vec_set(0.5f), outer = g[0] + g[2 * step];

    to[0] = g[0];
    to[to_step] = (outer + g[step]) * half;
    to[2 * to_step] = (outer - g[step]) * half;
    to[3 * to_step] = g[2 * step];
}

/* A vector of outputs, their nine taps at taps[9][BLOCK]. */
SH_INLINE void pack_vector(const float *taps, float *to, int64_t stride)
{
    vf g[9], half[3 * SIDE], u[POSITIONS];

    SH_UNROLL
    for (int i = 0; i < 9; i++) g[i] = vec_load(taps, i * BLOCK, SH_F32);
    SH_UNROLL
    for (int i = 0; i < 3; i++) turn_weights(g + i, 3, half + i, 3);
    SH_UNROLL
    for (int i = 0; i < SIDE; i++) turn_weights(half + i * 3, 1, u + i * SIDE, 1);
    SH_UNROLL
    for (int i = 0; i < POSITIONS; i++) vec_store(to, i * stride, u[i], SH_F32);
}

void SH_SIMD(winograd_pack)(const float *w, int64_t n_out, int64_t n_k, int64_t out_stride,
                            int64_t k_stride, bool turned, int64_t first, float *packed,
                            int64_t stride)
{
    int64_t k_end = (n_k + BLOCK - 1) / BLOCK * BLOCK, blocks = (n_out + BLOCK - 1) / BLOCK;
    int64_t wide = SH_SIMD(panel_blocks)(first, blocks) * BLOCK;
    float *panel = packed + first * BLOCK * k_end;

    for (int64_t o = 0; o < wide; o += BLOCK) {
        int64_t n = n_out - (first * BLOCK + o);
        for (int64_t k = 0; k < k_end; k++) {
            float taps[9][BLOCK] = {{0}};
            const float *from = w + (first * BLOCK + o) * out_stride + k * k_stride;
            for (int64_t i = 0; k < n_k && i < n && i < BLOCK; i++)
                for (int j = 0; j < 9; j++) taps[turned ? 8 - j : j][i] = from[i * out_stride + j];
            SH_UNROLL
            for (int part = 0; part < PARTS; part++)
                pack_vector(taps[0] + part * LANES, panel + k * wide + o + part * LANES, stride);
        }
    }
}
