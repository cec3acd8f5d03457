// SPDX-License-Identifier: Apache-2.0
/** Hashes, keyed draws, bf16, tensor offsets. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/rng.h"
#include "base/tensor.h"

static void crc32c__matches_the_published_check_value(void **state)
{
    (void)state;
    assert_int_equal(sh_crc32c(0, "123456789", 9), 0xE3069283u); /* RFC 3720, appendix B.4 kind */
    uint32_t parts = sh_crc32c(sh_crc32c(0, "1234", 4), "56789", 5);

    assert_int_equal(parts, 0xE3069283u);
    assert_int_equal(sh_crc32c(0, "", 0), 0);
}

static void fnv1a__matches_the_published_values(void **state)
{
    (void)state;
    assert_true(sh_fnv1a(SH_FNV1A_START, "", 0) == 0xCBF29CE484222325u);
    assert_true(sh_fnv1a(SH_FNV1A_START, "a", 1) == 0xAF63DC4C8601EC8Cu);
    assert_true(sh_fnv1a(SH_FNV1A_START, "foobar", 6) == 0x85944171F73967E8u);
}

static void hash__tells_contents_apart(void **state)
{
    char text[33], other[33];

    (void)state;
    sh_hash_format(sh_hash_content("fish", 4), text);
    sh_hash_format(sh_hash_content("fisH", 4), other);
    assert_int_equal(strlen(text), 32);
    assert_string_not_equal(text, other);
}

static void rng__depends_on_every_part_of_the_key(void **state)
{
    (void)state;
    uint64_t base = sh_rng_bits(sh_rng_make(1, SH_RNG_TEST, 2, 3), 4);

    assert_true(base == sh_rng_bits(sh_rng_make(1, SH_RNG_TEST, 2, 3), 4));
    assert_true(base != sh_rng_bits(sh_rng_make(2, SH_RNG_TEST, 2, 3), 4));
    assert_true(base != sh_rng_bits(sh_rng_make(1, SH_RNG_PAIR, 2, 3), 4));
    assert_true(base != sh_rng_bits(sh_rng_make(1, SH_RNG_TEST, 3, 3), 4));
    assert_true(base != sh_rng_bits(sh_rng_make(1, SH_RNG_TEST, 2, 4), 4));
    assert_true(base != sh_rng_bits(sh_rng_make(1, SH_RNG_TEST, 2, 3), 5));
}

static void rng__has_the_moments_of_its_distributions(void **state)
{
    enum { N = 200000 };
    sh_rng_key key = sh_rng_make(7, SH_RNG_TEST, 0, 0);
    double sum = 0, squares = 0, normal = 0, normal_squares = 0;
    int64_t faces[6] = {0};

    (void)state;
    for (int i = 0; i < N; i++) {
        double u = sh_rng_uniform(key, (uint64_t)i), z = sh_rng_normal(key, (uint64_t)i);

        assert_true(u >= 0 && u < 1);
        sum += u;
        squares += u * u;
        normal += z;
        normal_squares += z * z;
        faces[sh_rng_below(key, (uint64_t)i, 6)]++;
    }
    /* five standard errors: 0.29 / sqrt(N) and 1 / sqrt(N) */
    assert_true(fabs(sum / N - 0.5) < 5 * 0.2887 / sqrt(N));
    assert_true(fabs(squares / N - 1.0 / 3) < 5 * 0.298 / sqrt(N));
    assert_true(fabs(normal / N) < 5 / sqrt(N));
    assert_true(fabs(normal_squares / N - 1) < 5 * 1.4142 / sqrt(N));
    for (int f = 0; f < 6; f++)
        assert_true(fabs((double)faces[f] - N / 6.0) < 5 * sqrt(N * 5.0 / 36));
}

static void shuffle__is_a_permutation(void **state)
{
    int64_t items[100];
    int seen[100] = {0}, moved = 0;

    (void)state;
    for (int i = 0; i < 100; i++) items[i] = i;
    sh_rng_shuffle(sh_rng_make(1, SH_RNG_TEST, 0, 0), items, 100);
    for (int i = 0; i < 100; i++) {
        assert_in_range(items[i], 0, 99);
        seen[items[i]]++;
        moved += items[i] != i;
    }
    for (int i = 0; i < 100; i++) assert_int_equal(seen[i], 1);
    assert_true(moved > 50);
}

static void bf16__rounds_to_nearest_even(void **state)
{
    (void)state;
    assert_int_equal(sh_bf16_from_f32(1.0f), 0x3F80);
    assert_int_equal(sh_bf16_from_f32(1.0f + 0x1p-8f), 0x3F80);            /* tie: to even */
    assert_int_equal(sh_bf16_from_f32(1.0f + 0x1p-7f + 0x1p-8f), 0x3F82);  /* tie: to even */
    assert_int_equal(sh_bf16_from_f32(1.0f + 0x1p-8f + 0x1p-20f), 0x3F81); /* above the tie */
    assert_int_equal(sh_bf16_from_f32(INFINITY), 0x7F80);
    assert_true(isnan(sh_bf16_to_f32(sh_bf16_from_f32(NAN))));
    for (uint32_t b = 0; b < 0x7F80; b += 7)
        assert_int_equal(sh_bf16_from_f32(sh_bf16_to_f32((uint16_t)b)), b);
}

static void tensor__offsets_cover_the_memory_once(void **state)
{
    static const struct {
        sh_layout layout;
        int64_t n_stored; /* channels, of 19 */
    } layouts[] = {{SH_NCHW, 19}, {SH_NHWC, 19}, {SH_NHWC8, 24}, {SH_NCHW16C, 32}};

    (void)state;
    for (size_t l = 0; l < SH_COUNT(layouts); l++) {
        sh_tensor_desc d = {SH_F32, layouts[l].layout, {2, 19, 3, 5}};
        uint8_t seen[2 * 32 * 3 * 5] = {0};
        int64_t n = 0;

        assert_true(sh_tensor_stored_elems(&d) <= (int64_t)sizeof(seen));
        for (int64_t i = 0; i < 2; i++)
            for (int64_t c = 0; c < 19; c++)
                for (int64_t h = 0; h < 3; h++)
                    for (int64_t w = 0; w < 5; w++) {
                        int64_t at = sh_tensor_offset(&d, i, c, h, w);

                        assert_in_range(at, 0, sh_tensor_stored_elems(&d) - 1);
                        assert_int_equal(seen[at], 0);
                        seen[at] = 1;
                        n++;
                    }
        assert_int_equal(n, 2 * 19 * 3 * 5);
        assert_int_equal(sh_tensor_stored_channels(&d), layouts[l].n_stored);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc32c__matches_the_published_check_value),
        cmocka_unit_test(fnv1a__matches_the_published_values),
        cmocka_unit_test(hash__tells_contents_apart),
        cmocka_unit_test(rng__depends_on_every_part_of_the_key),
        cmocka_unit_test(rng__has_the_moments_of_its_distributions),
        cmocka_unit_test(shuffle__is_a_permutation),
        cmocka_unit_test(bf16__rounds_to_nearest_even),
        cmocka_unit_test(tensor__offsets_cover_the_memory_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
