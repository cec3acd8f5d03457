// SPDX-License-Identifier: Apache-2.0
/* Between channels in blocks of 16 and rows of pixels: squares as wide as a vector, turned in
 * registers. */
#include "models/cpu/simd/parts.h"

/* One stage of a transposition: halves of width d change places between rows i and i + d. The index
 * lists are those of __builtin_shufflevector: LANES and above come from the second row. */
#define EXCHANGE(d, FIRST, SECOND)                                                                 \
    SH_UNROLL                                                                                      \
    for (int i = 0; i < LANES; i++) {                                                              \
        if (i & (d)) continue;                                                                     \
        vf a = r[i], b = r[i + (d)];                                                               \
        r[i] = __builtin_shufflevector(a, b, FIRST);                                               \
        r[i + (d)] = __builtin_shufflevector(a, b, SECOND);                                        \
    }
#if defined(__AVX512F__)
#define FIRST_8 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define SECOND_8 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31
#define FIRST_4 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27
#define SECOND_4 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31
#define FIRST_2 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29
#define SECOND_2 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31
#define FIRST_1 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30
#define SECOND_1 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31
#elif defined(SH_AVX2)
#define FIRST_4 0, 1, 2, 3, 8, 9, 10, 11
#define SECOND_4 4, 5, 6, 7, 12, 13, 14, 15
#define FIRST_2 0, 1, 8, 9, 4, 5, 12, 13
#define SECOND_2 2, 3, 10, 11, 6, 7, 14, 15
#define FIRST_1 0, 8, 2, 10, 4, 12, 6, 14
#define SECOND_1 1, 9, 3, 11, 5, 13, 7, 15
#else
#define FIRST_2 0, 1, 4, 5
#define SECOND_2 2, 3, 6, 7
#define FIRST_1 0, 4, 2, 6
#define SECOND_1 1, 5, 3, 7
#endif

SH_INLINE void transpose(vf r[LANES])
{
#ifdef FIRST_8
    EXCHANGE(8, FIRST_8, SECOND_8);
#endif
#ifdef FIRST_4
    EXCHANGE(4, FIRST_4, SECOND_4);
#endif
    EXCHANGE(2, FIRST_2, SECOND_2);
    EXCHANGE(1, FIRST_1, SECOND_1);
}

/* Of n channels those of the part that begins at channel `first`. */
SH_INLINE int channels_from(int n, int first)
{
    return n - first < LANES ? n - first : LANES;
}

SH_INLINE float get(const void *p, int64_t i, const sh_dtype dtype)
{
    return dtype == SH_BF16 ? sh_bf16_to_f32(((const uint16_t *)p)[i]) : ((const float *)p)[i];
}

SH_INLINE void put(void *p, int64_t i, float x, const sh_dtype dtype)
{
    if (dtype == SH_BF16)
        ((uint16_t *)p)[i] = sh_bf16_from_f32(x);
    else
        ((float *)p)[i] = x;
}

SH_INLINE void to_rows(const void *x, int64_t pixels, int n_channels, void *rows,
                       const sh_dtype from, const sh_dtype to)
{
    int64_t p = 0;

    for (; p + LANES <= pixels; p += LANES) {
        for (int first = 0; first < n_channels; first += LANES) {
            vf square[LANES];
            SH_UNROLL
            for (int i = 0; i < LANES; i++) square[i] = vec_load(x, (p + i) * BLOCK + first, from);
            transpose(square);
            for (int c = 0; c < channels_from(n_channels, first); c++)
                vec_store(rows, (first + c) * pixels + p, square[c], to);
        }
    }
    for (; p < pixels; p++)
        for (int c = 0; c < n_channels; c++)
            put(rows, c * pixels + p, get(x, p * BLOCK + c, from), to);
}

SH_INLINE void from_rows(const void *rows, int64_t pixels, int n_channels, void *slab,
                         const sh_dtype from, const sh_dtype to)
{
    int64_t p = 0;

    for (; p + LANES <= pixels; p += LANES) {
        for (int first = 0; first < BLOCK; first += LANES) {
            vf square[LANES] = {{0}};
            for (int c = 0; c < channels_from(n_channels, first); c++)
                square[c] = vec_load(rows, (first + c) * pixels + p, from);
            transpose(square);
            SH_UNROLL
            for (int i = 0; i < LANES; i++) vec_store(slab, (p + i) * BLOCK + first, square[i], to);
        }
    }
    for (; p < pixels; p++)
        for (int c = 0; c < BLOCK; c++)
            put(slab, p * BLOCK + c, c < n_channels ? get(rows, c * pixels + p, from) : 0, to);
}

void SH_SIMD(slab_to_rows)(const void *x, sh_dtype from, int64_t pixels, int n_channels, void *rows,
                           sh_dtype to)
{
    if (from == SH_F32 && to == SH_F32)
        to_rows(x, pixels, n_channels, rows, SH_F32, SH_F32);
    else if (from == SH_F32)
        to_rows(x, pixels, n_channels, rows, SH_F32, SH_BF16);
    else if (to == SH_F32)
        to_rows(x, pixels, n_channels, rows, SH_BF16, SH_F32);
    else
        to_rows(x, pixels, n_channels, rows, SH_BF16, SH_BF16);
}

void SH_SIMD(slab_from_rows)(const void *rows, sh_dtype from, int64_t pixels, int n_channels,
                             void *slab, sh_dtype to)
{
    if (from == SH_F32 && to == SH_F32)
        from_rows(rows, pixels, n_channels, slab, SH_F32, SH_F32);
    else if (from == SH_F32)
        from_rows(rows, pixels, n_channels, slab, SH_F32, SH_BF16);
    else if (to == SH_F32)
        from_rows(rows, pixels, n_channels, slab, SH_BF16, SH_F32);
    else
        from_rows(rows, pixels, n_channels, slab, SH_BF16, SH_BF16);
}
