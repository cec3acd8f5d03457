// SPDX-License-Identifier: Apache-2.0
/*
 * Products of tiles for 1x1 convolutions.
 *
 * A panel holds the weights of one or two output blocks, k by k: [k][blocks * 16], or in pairs of k
 * for the bf16 dot product, [k / 2][blocks * 16][2]. A product keeps up to 14 pixels x 2 vectors of
 * outputs in registers: each weight vector loaded serves 14 pixels, each input broadcast both.
 */
#include "models/cpu/simd/rows.h"

enum { FETCH_STEPS = 8 }; /* pixels of an outer product between fetches ahead */
enum { CHUNK = 128 };     /* inputs that a product sums at a time */

/* Register tiles: 28 and 24 of 32 registers, 12 of 16 and of 16 narrower ones. */
#if defined(__AVX512F__)
enum { PIXELS = 14, BLOCKS = 2, INPUTS = 8, OUTER_BLOCKS = 3 };
#elif defined(SH_AVX2)
enum { PIXELS = 6, BLOCKS = 1, INPUTS = 4, OUTER_BLOCKS = 1 };
#else
enum { PIXELS = 3, BLOCKS = 1, INPUTS = 2, OUTER_BLOCKS = 1 };
#endif

enum { MOST = 4 }; /* vectors of outputs at a time */

void SH_SIMD(tile_load)(const void *x, sh_dtype from, int64_t pixels, const sh_cpu_affine *norm,
                        void *tile, sh_dtype to)
{
    if (from == SH_F32)
        row_load(x, pixels, norm, tile, 0, SH_F32, SH_F32);
    else if (to == SH_F32)
        row_load(x, pixels, norm, tile, 0, SH_BF16, SH_F32);
    else
        row_load(x, pixels, norm, tile, 0, SH_BF16, SH_BF16);
}

void SH_SIMD(tile_load_grad)(const void *g, const void *y, sh_dtype from, int64_t pixels,
                             const sh_cpu_bn_grad *grad, void *tile, sh_dtype to)
{
    if (from == SH_F32)
        row_load_grad(g, y, pixels, grad, tile, 0, SH_F32, SH_F32);
    else if (to == SH_F32)
        row_load_grad(g, y, pixels, grad, tile, 0, SH_BF16, SH_F32);
    else
        row_load_grad(g, y, pixels, grad, tile, 0, SH_BF16, SH_BF16);
}

/* Two pixels after one another, to [16][2]. */
SH_INLINE void pair(const uint16_t *from, uint16_t *to)
{
#ifdef __AVX512BW__
    const __m512i turns =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    _mm512_storeu_si512(to, _mm512_permutexvar_epi16(turns, _mm512_loadu_si512(from)));
#else
    for (int i = 0; i < BLOCK; i++) to[2 * i] = from[i], to[2 * i + 1] = from[BLOCK + i];
#endif
}

void SH_SIMD(tile_pair)(const void *tile, int64_t pixels, void *pairs)
{
    const uint16_t *from = tile;
    uint16_t *to = pairs, last[2 * BLOCK] = {0};
    int64_t p = 0;

    for (; p + 1 < pixels; p += 2) pair(from + p * BLOCK, to + p * BLOCK);
    if (p == pixels) return;
    memcpy(last, from + p * BLOCK, sizeof(last) / 2);
    pair(last, to + p * BLOCK);
}

int SH_SIMD(panel_blocks)(int64_t first, int64_t n_blocks)
{
    return n_blocks - first >= BLOCKS ? BLOCKS : (int)(n_blocks - first);
}

/* A square of 16 outputs x 16 k, wholly inside the weights, whose outputs or whose k are
 * contiguous; `to` is where output 0, k 0 goes, in elements, or pairs of them. */
SH_INLINE void pack_square_f32(const float *w, int64_t out_stride, int64_t k_stride, float *to,
                               int64_t wide)
{
    float square[BLOCK][BLOCK];

    if (out_stride == 1) {
        for (int k = 0; k < BLOCK; k++) memcpy(to + k * wide, w + k * k_stride, sizeof(square[k]));
        return;
    }
    for (int i = 0; i < BLOCK; i++) memcpy(square[i], w + i * out_stride, sizeof(square[i]));
    for (int k = 0; k < BLOCK; k++)
        for (int i = 0; i < BLOCK; i++) to[k * wide + i] = square[i][k];
}

SH_INLINE void pack_square_bf16(const float *w, int64_t out_stride, int64_t k_stride, uint32_t *to,
                                int64_t wide)
{
    for (int i = 0; out_stride == 1 && i < BLOCK * BLOCK; i += 2 * LANES) {
        int k = i / BLOCK / 2 * 2, o = i / 2 % BLOCK;
        vu first = vec_widen(vec_to_bf16(vec_load(w, k * k_stride + o, SH_F32)));
        vu second = vec_widen(vec_to_bf16(vec_load(w, (k + 1) * k_stride + o, SH_F32)));
        first |= second << 16;
        memcpy(to + k / 2 * wide + o, &first, sizeof(first));
    }
    for (int i = 0; out_stride != 1 && i < BLOCK; i++) {
        uint16_t row[BLOCK];
        uint32_t pairs[BLOCK / 2];
        for (int k = 0; k < BLOCK; k += LANES)
            vec_store(row, k, vec_load(w, i * out_stride + k, SH_F32), SH_BF16);
        memcpy(pairs, row, sizeof(pairs));
        for (int j = 0; j < BLOCK / 2; j++) to[j * wide + i] = pairs[j];
    }
}

/* Any square, element by element; what lies outside the weights is zero. */
static void pack_edge(const float *w, int64_t n_out, int64_t n_k, int64_t out_stride,
                      int64_t k_stride, void *to, int64_t wide, sh_dtype dtype)
{
    for (int64_t i = 0; i < BLOCK; i++) {
        for (int64_t k = 0; k < BLOCK; k++) {
            float v = i < n_out && k < n_k ? w[i * out_stride + k * k_stride] : 0;
            if (dtype == SH_BF16)
                ((uint16_t *)to)[(k / 2 * wide + i) * 2 + k % 2] = sh_bf16_from_f32(v);
            else
                ((float *)to)[k * wide + i] = v;
        }
    }
}

void SH_SIMD(pack)(const float *w, int64_t n_out, int64_t n_k, int64_t out_stride, int64_t k_stride,
                   int64_t first, void *packed, sh_dtype dtype)
{
    int64_t k_end = (n_k + 15) / 16 * 16, blocks = (n_out + 15) / 16;
    int64_t wide = SH_SIMD(panel_blocks)(first, blocks) * BLOCK;
    char *panel = (char *)packed + (size_t)(first * BLOCK * k_end) * sh_dtype_size(dtype);

    for (int64_t k = 0; k < k_end; k += BLOCK) {
        for (int64_t i = 0; i < wide; i += BLOCK) {
            int64_t o = first * BLOCK + i;
            const float *from = w + o * out_stride + k * k_stride;
            bool inside = o + BLOCK <= n_out && k + BLOCK <= n_k;
            void *to =
                panel + (size_t)(k * wide + (dtype == SH_BF16 ? 2 : 1) * i) * sh_dtype_size(dtype);
            if (!inside || (out_stride != 1 && k_stride != 1))
                pack_edge(from, n_out - o, n_k - k, out_stride, k_stride, to, wide, dtype);
            else if (dtype == SH_BF16)
                pack_square_bf16(from, out_stride, k_stride, to, wide);
            else
                pack_square_f32(from, out_stride, k_stride, to, wide);
        }
    }
}

/* A register tile, c with its block stride, to its slabs by way of the first-level cache. */
static __attribute__((noinline)) void put_tile(const float *c, int64_t c_stride, int64_t pixel,
                                               int64_t pixels, int n_blocks, const sh_cpu_direct *d,
                                               sh_dtype dtype)
{
    for (int n = 0; n < n_blocks; n++, c += c_stride) {
        int64_t skip = (n * d->stride + pixel * BLOCK) * (int64_t)sh_dtype_size(dtype);
        sh_cpu_affine norm = d->norm;
        sh_cpu_finish finish = d->finish;
        if (norm.scale) norm.scale += n * BLOCK, norm.shift += n * BLOCK;
        if (finish.bias) finish.bias += n * BLOCK;
        if (finish.residual) finish.residual = (const char *)finish.residual + skip;
        if (d->sums) SH_SIMD(tile_store_grad)
        (c, pixels, (const char *)d->x + skip, (char *)d->y + skip, dtype, d->stream, &norm,
         d->mean + n * BLOCK, d->sums + n);
        else SH_SIMD(tile_store)(c, pixels, &finish, (char *)d->y + skip, dtype, d->stream,
                                 d->moments ? d->moments + n : NULL);
    }
}

/* M pixels x N vectors; a at the first pixel. */
SH_INLINE void product_f32(const float *a, int64_t a_stride, int64_t n_k, const float *w, vf *acc,
                           const int M, const int N)
{
    for (; n_k > 0; n_k -= BLOCK, a += a_stride) {
        const int64_t end = n_k < BLOCK ? n_k : BLOCK;
        for (int64_t k = 0; k < end; k++, w += N * LANES) {
            vf weights[MOST];
            SH_UNROLL
            for (int n = 0; n < N; n++) weights[n] = vec_load(w, n * LANES, SH_F32);
            SH_UNROLL
            for (int m = 0; m < M; m++) {
                vf x = vec_set(a[m * BLOCK + k]);
                SH_UNROLL
                for (int n = 0; n < N; n++) acc[m * N + n] += x * weights[n];
            }
        }
    }
}

#ifdef __AVX512BF16__
SH_INLINE vf dot_pair(vf acc, uint32_t pair, vf w)
{
    return (vf)_mm512_dpbf16_ps((__m512)acc, (__m512bh)_mm512_set1_epi32((int)pair), (__m512bh)w);
}

SH_INLINE void product_bf16(const uint16_t *a, int64_t a_stride, int64_t n_k, const uint16_t *w,
                            vf *acc, const int M, const int N)
{
    for (; n_k > 0; n_k -= BLOCK, a += a_stride) {
        const int64_t end = n_k < BLOCK ? n_k : BLOCK;
        for (int64_t k = 0; k < end; k += 2, w += 2 * N * LANES) {
            vf w0 = (vf)_mm512_loadu_ps(w), w1 = N > 1 ? (vf)_mm512_loadu_ps(w + 2 * LANES) : w0;
            SH_UNROLL
            for (int m = 0; m < M; m++) {
                uint32_t x;
                memcpy(&x, a + m * BLOCK + k, sizeof(x));
                acc[m * N] = dot_pair(acc[m * N], x, w0);
                if (N > 1) acc[m * N + 1] = dot_pair(acc[m * N + 1], x, w1);
            }
        }
    }
}
#else
SH_INLINE void product_bf16(const uint16_t *a, int64_t a_stride, int64_t n_k, const uint16_t *w,
                            vf *acc, const int M, const int N)
{
    (void)a, (void)a_stride, (void)n_k, (void)w, (void)acc, (void)M, (void)N;
}
#endif

/* Does the product end in registers: with bias, residual and clamp alone? */
SH_INLINE bool ends_plainly(const sh_cpu_direct *d)
{
    return d->y && !d->moments && !d->sums && !d->finish.silu;
}

/* Element of vector i of a register tile of N vectors a pixel, where a block of outputs begins
 * every `stride` elements. */
SH_INLINE int64_t tile_at(int i, const int N, int64_t stride)
{
    return i % N / PARTS * stride + i / N * BLOCK + i % N % PARTS * LANES;
}

/* Pixels from `pixel` on, finished and stored. Each step goes over all registers, so that what it
 * depends on is asked once. */
SH_INLINE void finish_tile(vf *acc, int64_t pixel, const sh_cpu_direct *d, const int M, const int N,
                           const sh_dtype dtype)
{
    const sh_cpu_finish *f = &d->finish;
    vf lo = vec_set(f->lo), hi = vec_set(f->hi);
    int64_t first = pixel * BLOCK;

    if (f->bias) {
        SH_UNROLL
        for (int i = 0; i < M * N; i++) acc[i] += vec_load(f->bias, i % N * LANES, SH_F32);
    }
    if (f->residual) {
        SH_UNROLL
        for (int i = 0; i < M * N; i++)
            acc[i] += vec_load(f->residual, first + tile_at(i, N, d->stride), dtype);
    }
    SH_UNROLL
    for (int i = 0; i < M * N; i++) acc[i] = vec_min(vec_max(acc[i], lo), hi);
    if (d->stream) {
        SH_UNROLL
        for (int i = 0; i < M * N; i++)
            vec_stream(d->y, first + tile_at(i, N, d->stride), acc[i], dtype);
    } else {
        SH_UNROLL
        for (int i = 0; i < M * N; i++)
            vec_store(d->y, first + tile_at(i, N, d->stride), acc[i], dtype);
    }
}

/* The product over n_k inputs, added to c where it holds that of others; into c, or where d is
 * given into its tensor at `pixel`. */
SH_INLINE void product(const void *a, int64_t a_stride, int64_t n_k, const void *w, float *c,
                       int64_t c_stride, bool add, int64_t pixel, const sh_cpu_direct *d,
                       const int M, const int N, const sh_dtype dtype)
{
    vf acc[PIXELS * BLOCKS * PARTS];

    SH_UNROLL
    for (int i = 0; i < M * N; i++) acc[i] = (vf){0};
    if (dtype == SH_BF16)
        product_bf16(a, a_stride, n_k, w, acc, M, N);
    else
        product_f32(a, a_stride, n_k, w, acc, M, N);
    if (add) {
        SH_UNROLL
        for (int i = 0; i < M * N; i++)
            acc[i] = vec_load(c, tile_at(i, N, c_stride), SH_F32) + acc[i];
    }
    if (d) {
        finish_tile(acc, pixel, d, M, N, dtype);
        return;
    }
    SH_UNROLL
    for (int i = 0; i < M * N; i++) vec_store(c, tile_at(i, N, c_stride), acc[i], SH_F32);
}

#define PRODUCT_CASE(M)                                                                            \
    case M: product(a, a_stride, n_k, w, c, c_stride, add, pixel, d, M, N, dtype); break;

SH_INLINE void product_of(int64_t m, const void *a, int64_t a_stride, int64_t n_k, const void *w,
                          float *c, int64_t c_stride, bool add, int64_t pixel,
                          const sh_cpu_direct *d, const int N, const sh_dtype dtype)
{
    switch (m) {
        PRODUCT_CASE(1)
        PRODUCT_CASE(2)
        PRODUCT_CASE(3)
#if defined(__AVX512F__) || defined(SH_AVX2)
        PRODUCT_CASE(4)
        PRODUCT_CASE(5)
        PRODUCT_CASE(6)
#endif
#ifdef __AVX512F__
        PRODUCT_CASE(7)
        PRODUCT_CASE(8)
        PRODUCT_CASE(9)
        PRODUCT_CASE(10)
        PRODUCT_CASE(11)
        PRODUCT_CASE(12)
        PRODUCT_CASE(13)
        PRODUCT_CASE(14)
#endif
    default: break;
    }
}

/* Piece by piece, so that a line costs little more than its prefetch. */
SH_INLINE void fetch_ahead(sh_cpu_ahead *a)
{
    for (int64_t left = a->lines; left > 0 && a->piece < a->n_pieces;) {
        const char *at = a->pieces[a->piece].at + a->offset;
        int64_t lines = (a->pieces[a->piece].n_bytes - a->offset + 63) / 64;
        bool is_whole = lines <= left;

        if (!is_whole) lines = left;
        for (int64_t i = 0; i < lines; i++) __builtin_prefetch(at + i * 64, 0, 2);
        left -= lines;
        a->offset = is_whole ? 0 : a->offset + lines * 64;
        a->piece += is_whole;
    }
}

/* Pixels are dealt evenly to as few register tiles as hold them. Inputs are summed in chunks, and
 * the chunks' sums: errors grow with the chunk and the number of chunks, not with their product;
 * and a chunk's weights stay in the first-level cache while all pixels pass, between chunks in c.
 */
SH_INLINE void products(const void *a, int64_t a_stride, int64_t n_k, const void *w, int64_t pixels,
                        float *c, const sh_cpu_direct *direct, sh_cpu_ahead *ahead, const int N,
                        const sh_dtype dtype)
{
    int64_t n = (pixels + PIXELS - 1) / PIXELS, size = dtype == SH_BF16 ? 2 : 4;
    bool is_plain = ends_plainly(direct), passes_c = !direct->y || n_k > CHUNK;

    for (int64_t k = 0; k < n_k; k += CHUNK) {
        bool is_last = n_k - k <= CHUNK;
        const char *rows = (const char *)a + k / BLOCK * a_stride * size;
        const char *weights = (const char *)w + k * N * LANES * size;

        for (int64_t i = 0; i < n; i++) {
            int64_t begin = pixels * i / n, m = pixels * (i + 1) / n - begin;
            int64_t c_stride = (passes_c ? pixels : m) * BLOCK;
            float *to = passes_c ? c + begin * BLOCK : c;

            product_of(m, rows + begin * BLOCK * size, a_stride, is_last ? n_k - k : CHUNK, weights,
                       to, c_stride, k > 0, begin, is_last && is_plain ? direct : NULL, N, dtype);
            if (!is_last) continue;
            if (direct->y && !is_plain) put_tile(to, c_stride, begin, m, N / PARTS, direct, dtype);
            fetch_ahead(ahead);
        }
    }
}

void SH_SIMD(tile_product)(const void *a, int64_t a_stride, int64_t n_k, const void *panel,
                           int n_blocks, int64_t pixels, float *c, const sh_cpu_direct *direct,
                           sh_dtype dtype, sh_cpu_ahead *ahead)
{
    if (DOT_BF16 && dtype == SH_BF16 && n_blocks == 2)
        products(a, a_stride, n_k, panel, pixels, c, direct, ahead, 2, SH_BF16);
    else if (DOT_BF16 && dtype == SH_BF16)
        products(a, a_stride, n_k, panel, pixels, c, direct, ahead, 1, SH_BF16);
    else if (BLOCKS > 1 && n_blocks == 2)
        products(a, a_stride, n_k, panel, pixels, c, direct, ahead, 2 * PARTS, SH_F32);
    else
        products(a, a_stride, n_k, panel, pixels, c, direct, ahead, PARTS, SH_F32);
}

/* dw[n][k .. k + INPUTS] of one input block and N vectors of outputs, those of one block or one of
 * each; steps are pixels, or pairs of them. A
 * tile is summed by itself first: errors grow with the tile and the number of tiles, not their
 * product. */
SH_INLINE void outer(const void *x, const void *dy, int64_t dy_stride, int64_t steps, float *dw,
                     int64_t dw_stride, sh_cpu_ahead *ahead, const int N, const sh_dtype dtype)
{
    vf acc[INPUTS * OUTER_BLOCKS * PARTS];
    int64_t step = dtype == SH_BF16 ? 2 * BLOCK : BLOCK;
    const int64_t d_stride = PARTS > 1 ? LANES : dy_stride;

    SH_UNROLL
    for (int i = 0; i < INPUTS * N; i++) acc[i] = (vf){0};
    for (int64_t s = 0; s < steps; s++) {
        if (s % FETCH_STEPS == 0) fetch_ahead(ahead);
#ifdef __AVX512BF16__
        if (dtype == SH_BF16) {
            const uint16_t *xs = (const uint16_t *)x + s * step;
            const uint16_t *ds = (const uint16_t *)dy + s * step;
            SH_UNROLL
            for (int k = 0; k < INPUTS; k++) {
                uint32_t pair;
                memcpy(&pair, xs + 2 * k, sizeof(pair));
                SH_UNROLL
                for (int n = 0; n < N; n++)
                    acc[k * N + n] =
                        dot_pair(acc[k * N + n], pair, (vf)_mm512_loadu_ps(ds + n * d_stride));
            }
            continue;
        }
#endif
        const float *xs = (const float *)x + s * step, *ds = (const float *)dy + s * step;
        vf d[MOST];
        SH_UNROLL
        for (int n = 0; n < N; n++) d[n] = vec_load(ds, n * d_stride, SH_F32);
        SH_UNROLL
        for (int k = 0; k < INPUTS; k++) {
            vf v = vec_set(xs[k]);
            SH_UNROLL
            for (int n = 0; n < N; n++) acc[k * N + n] += v * d[n];
        }
    }
    SH_UNROLL
    for (int n = 0; n < N; n++) {
        SH_UNROLL
        for (int k = 0; k < INPUTS; k++) {
            int64_t at = (PARTS > 1 ? n * LANES : n * dw_stride) + k * BLOCK;
            vec_store(dw, at, vec_load(dw, at, SH_F32) + acc[k * N + n], SH_F32);
        }
    }
}

SH_INLINE void outers(const void *x, int64_t x_stride, int64_t in_blocks, const void *dy,
                      int64_t dy_stride, int64_t steps, float *dw, sh_cpu_ahead *ahead, const int N,
                      const sh_dtype dtype)
{
    int64_t size = dtype == SH_BF16 ? 2 : 4, per_input = dtype == SH_BF16 ? 2 : 1;
    int64_t dw_stride = in_blocks * BLOCK * BLOCK;

    for (int64_t b = 0; b < in_blocks; b++)
        for (int64_t k = 0; k < BLOCK; k += INPUTS)
            outer((const char *)x + (b * x_stride + k * per_input) * size, dy, dy_stride, steps,
                  dw + (b * BLOCK + k) * BLOCK, dw_stride, ahead, N, dtype);
}

/* Three output blocks at a time; four are two and two. */
SH_INLINE int64_t outer_blocks(int64_t left)
{
    if (OUTER_BLOCKS == 1) return 1;
    return left >= OUTER_BLOCKS && left != 4 ? OUTER_BLOCKS : left >= 2 ? 2 : 1;
}

int64_t SH_SIMD(product_tiles)(int64_t pixels, int64_t n_blocks)
{
    return (pixels + PIXELS - 1) / PIXELS * ((n_blocks + BLOCKS - 1) / BLOCKS);
}

int64_t SH_SIMD(outer_tiles)(int64_t pixels, int64_t in_blocks, int64_t out_blocks, sh_dtype dtype)
{
    int64_t n = 0, steps = dtype == SH_BF16 ? (pixels + 1) / 2 : pixels;

    for (int64_t left = out_blocks; left > 0; left -= outer_blocks(left)) n++;
    return n * in_blocks * (BLOCK / INPUTS) * ((steps + FETCH_STEPS - 1) / FETCH_STEPS);
}

void SH_SIMD(tile_outer)(const void *x, int64_t x_stride, int64_t in_blocks, const void *dy,
                         int64_t dy_stride, int64_t out_blocks, int64_t pixels, float *dw,
                         sh_dtype dtype, sh_cpu_ahead *ahead)
{
    int64_t steps = dtype == SH_BF16 ? (pixels + 1) / 2 : pixels;
    int64_t size = dtype == SH_BF16 ? 2 : 4;

    for (int64_t o = 0; o < out_blocks;) {
        const void *d = (const char *)dy + o * dy_stride * size;
        float *to = dw + o * in_blocks * BLOCK * BLOCK;
        int64_t n = outer_blocks(out_blocks - o);
        if (DOT_BF16 && dtype == SH_BF16 && n == 3)
            outers(x, x_stride, in_blocks, d, dy_stride, steps, to, ahead, 3, SH_BF16);
        else if (DOT_BF16 && dtype == SH_BF16 && n == 2)
            outers(x, x_stride, in_blocks, d, dy_stride, steps, to, ahead, 2, SH_BF16);
        else if (DOT_BF16 && dtype == SH_BF16)
            outers(x, x_stride, in_blocks, d, dy_stride, steps, to, ahead, 1, SH_BF16);
        else if (OUTER_BLOCKS > 1 && n == 3)
            outers(x, x_stride, in_blocks, d, dy_stride, steps, to, ahead, 3, SH_F32);
        else if (OUTER_BLOCKS > 1 && n == 2)
            outers(x, x_stride, in_blocks, d, dy_stride, steps, to, ahead, 2, SH_F32);
        else
            outers(x, x_stride, in_blocks, d, dy_stride, steps, to, ahead, PARTS, SH_F32);
        o += n;
    }
}

void SH_SIMD(tile_store)(const float *c, int64_t pixels, const sh_cpu_finish *finish, void *y,
                         sh_dtype dtype, bool stream, sh_cpu_moments *m)
{
    if (dtype == SH_BF16)
        row_store(c, pixels, finish, y, stream, m, SH_BF16);
    else
        row_store(c, pixels, finish, y, stream, m, SH_F32);
}

void SH_SIMD(tile_store_grad)(const float *c, int64_t pixels, const void *x, void *dx,
                              sh_dtype dtype, bool stream, const sh_cpu_affine *norm,
                              const float *mean, sh_cpu_grad_sums *sums)
{
    if (dtype == SH_BF16)
        row_store_grad(c, pixels, x, dx, stream, norm, mean, sums, SH_BF16);
    else
        row_store_grad(c, pixels, x, dx, stream, norm, mean, sums, SH_F32);
}
