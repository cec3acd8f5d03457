// SPDX-License-Identifier: Apache-2.0
/** Every kernel table gives the bits of the plain one, and the plain one those of the definition.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "models/loss/tile.h"

static const sh_tile_kernels *list[SH_TILE_MAX_KERNELS];
static int n_kernels;

static float *random_rows(int64_t n, int64_t dim, float offset)
{
    sh_rng_key key = sh_rng_make(3, SH_RNG_TEST, (uint64_t)n, (uint64_t)dim);
    float *x = malloc((size_t)(n * dim) * sizeof(float));

    for (int64_t i = 0; i < n * dim; i++) x[i] = offset + (float)sh_rng_normal(key, (uint64_t)i);
    if (n > 2) memcpy(x + 2 * dim, x, (size_t)dim * sizeof(float)); /* row 2 equals row 0 */
    return x;
}

/* The definition in tile.h, from centred values. */
static float defined_d2(const sh_packed *p, const float *x, int64_t i, int64_t j)
{
    float dot = 0, ii = 0, jj = 0;

    for (int64_t k = 0; k < p->dim; k++) {
        float a = x[i * p->dim + k] - p->mean[k], b = x[j * p->dim + k] - p->mean[k];

        dot = fmaf(a, b, dot);
        ii = fmaf(a, a, ii);
        jj = fmaf(b, b, jj);
    }
    return fmaxf(0, fmaf(-2, dot, ii + jj));
}

static void check_distances(int64_t n, int64_t dim)
{
    float *x = random_rows(n, dim, 3), tile[SH_TILE_ROWS * SH_TILE_COLS];
    sh_packed p = {0};

    assert_int_equal(sh_packed_create(n, dim, &p), SH_OK);
    for (int t = 0; t < n_kernels; t++) {
        sh_packed_fill(&p, list[t], x, n, 1);
        for (int64_t row = 0; row < n; row += SH_TILE_ROWS)
            for (int64_t panel = 0; panel < p.n_panels; panel++) {
                list[t]->distances(&p, row, panel, tile, SH_TILE_COLS);
                for (int64_t r = 0; r < SH_TILE_ROWS && row + r < n; r++)
                    for (int64_t c = 0; c < SH_TILE_COLS; c++) {
                        int64_t i = row + r, j = panel * SH_TILE_COLS + c;
                        float d2 = tile[r * SH_TILE_COLS + c], pair;

                        if (j >= n) {
                            assert_true(isnan(d2));
                            continue;
                        }
                        list[t]->pairs(&p, i, &(int32_t){(int32_t)j}, 1, &pair);
                        assert_true(d2 == defined_d2(&p, x, i, j));
                        assert_true(pair == d2);
                        if (i == j) assert_true(d2 == 0);
                    }
            }
    }
    sh_packed_clear(&p);
    free(x);
}

static void distances__are_bit_for_bit_the_definition(void **state)
{
    static const int64_t dims[] = {1, 7, 16, 33, 128}, rows[] = {1, 5, 48, 49, 101};

    (void)state;
    for (size_t a = 0; a < SH_COUNT(rows); a++)
        for (size_t b = 0; b < SH_COUNT(dims); b++) check_distances(rows[a], dims[b]);
}

static void distances__of_far_off_rows_stay_accurate(void **state)
{
    int64_t n = 60, dim = 32;
    float *x = random_rows(n, dim, 100), d2;
    sh_packed p = {0};

    (void)state;
    assert_int_equal(sh_packed_create(n, dim, &p), SH_OK);
    sh_packed_fill(&p, list[0], x, n, 1);
    for (int32_t j = 1; j < n; j++) {
        double direct = list[0]->direct(x, x + j * dim, dim);

        list[0]->pairs(&p, 0, &j, 1, &d2);
        /* Norms of centred rows are near 32; uncentred they would be near 320,000. */
        assert_true(fabs(d2 - direct) <= 64 * 1e-6);
        if (j == 2) assert_true(d2 == 0);
    }
    sh_packed_clear(&p);
    free(x);
}

/* Distances with repeats, so that ties decide, and holes, as negatives alone leave them. */
static void fill_distances(float *d, int64_t n)
{
    sh_rng_key key = sh_rng_make(4, SH_RNG_TEST, 0, 0);

    for (int64_t j = 0; j < n; j++) {
        d[j] = (float)sh_rng_below(key, (uint64_t)j, 40) / 16;
        if (sh_rng_below(key, (uint64_t)(n + j), 7) == 0) d[j] = NAN;
    }
}

static void select__takes_the_first_of_the_nearest_beyond(void **state)
{
    enum { N = 96, Q = 5 };
    const float above[Q] = {-1, 0.25f, 1.1f, 2, 2.5f};
    float d[N];

    (void)state;
    fill_distances(d, N);
    for (int t = 0; t < n_kernels; t++) {
        sh_lanes nearest[Q], farthest;

        sh_lanes_reset(&farthest, -INFINITY);
        for (int q = 0; q < Q; q++) sh_lanes_reset(&nearest[q], INFINITY);
        list[t]->select(d, 48, 1000, above, Q, nearest, &farthest);
        list[t]->select(d + 48, 48, 1048, above, Q, nearest, &farthest);
        int32_t last = -1;

        for (int j = 0; j < N; j++)
            if (!isnan(d[j]) && (last < 0 || d[j] > d[last])) last = j;
        assert_int_equal(sh_lanes_winner(&farthest, -1), 1000 + last);
        for (int q = 0; q < Q; q++) {
            int32_t best = -1;

            for (int j = 0; j < N; j++)
                if (d[j] > above[q] && (best < 0 || d[j] < d[best])) best = j;
            assert_int_equal(sh_lanes_winner(&nearest[q], 1), best < 0 ? -1 : 1000 + best);
        }
    }
}

static void gaps__have_the_same_bits_in_every_table(void **state)
{
    enum { N = 240 };
    float d[N], positives[N];

    (void)state;
    fill_distances(d, N);
    for (int j = 0; j < N; j++) positives[j] = j % 9 == 0 ? NAN : 0.01f * (float)j;
    for (int soft = 0; soft < 2; soft++) {
        sh_gap_rule rule = {.above = -0.1f, .upto = 0.5f, .margin = 0.4f, .soft = soft};
        sh_gap_sum first = {0};
        float first_weight[N] = {0};

        for (int t = n_kernels - 1; t >= 0; t--) {
            sh_gap_sum sum;
            float weight[N] = {0};

            list[t]->gaps(d, N, 1.0f, &rule, &sum);
            assert_int_equal(list[t]->count(d, N, 1.0f, &rule), sum.n_triplets);
            list[t]->weigh(d, N, positives, 1, &rule, weight);
            list[t]->weigh(d, N, positives + 50, 0, &rule, weight);
            if (t == n_kernels - 1) {
                first = sum;
                memcpy(first_weight, weight, sizeof(weight));
            }
            assert_true(sum.n_triplets > sum.n_active || soft);
            assert_true(sum.n_active > 0 && sum.loss > 0);
            assert_memory_equal(&sum, &first, sizeof(sum));
            assert_memory_equal(weight, first_weight, sizeof(weight));
        }
    }
}

static void pull__has_the_same_bits_in_every_table(void **state)
{
    static const int64_t dims[] = {1, 15, 16, 64, 100, 128};
    const int32_t others[] = {4, 1, 9, 9, 0, 7, 3};
    const float weights[] = {0.5f, -1.25f, 3e-3f, 0.7f, -0.1f, 12, 1};

    (void)state;
    for (size_t c = 0; c < SH_COUNT(dims); c++) {
        int64_t dim = dims[c];
        float *x = random_rows(10, dim, 0), first[128], g[128];
        double first_direct = 0;

        for (int t = n_kernels - 1; t >= 0; t--) {
            double direct = list[t]->direct(x, x + dim, dim), plain = 0;

            memset(g, 0, sizeof(g));
            list[t]->pull(g, x, dim, 5, others, weights, 7);
            for (int64_t k = 0; k < dim; k++) {
                float sum = 0;

                for (int i = 0; i < 7; i++)
                    sum += weights[i] * (x[5 * dim + k] - x[others[i] * dim + k]);
                assert_true(sum == g[k]);
                plain += pow((double)(x[k] - x[dim + k]), 2);
            }
            if (t == n_kernels - 1) {
                memcpy(first, g, sizeof(g));
                first_direct = direct;
            }
            assert_memory_equal(g, first, sizeof(g));
            assert_memory_equal(&direct, &first_direct, sizeof(direct));
            assert_true(fabs(direct - plain) <= 1e-12 * plain);
        }
        free(x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(distances__are_bit_for_bit_the_definition),
        cmocka_unit_test(distances__of_far_off_rows_stay_accurate),
        cmocka_unit_test(select__takes_the_first_of_the_nearest_beyond),
        cmocka_unit_test(gaps__have_the_same_bits_in_every_table),
        cmocka_unit_test(pull__has_the_same_bits_in_every_table),
    };

    n_kernels = sh_tile_kernels_list(list);
    for (int t = 0; t < n_kernels; t++) printf("kernels: %s\n", list[t]->name);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
