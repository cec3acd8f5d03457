// SPDX-License-Identifier: Apache-2.0
/* The arithmetic of the tree alone: which ranges are nodes, who adds what, and how many are held.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "comm/comm.h"
#include "comm/tree.h"

enum { MAX_SHARDS = 70 };

static float wild_float(uint64_t slot, uint64_t element)
{
    static const float scale[] = {1e-30f, 1e-3f, 0.1f, 1, 3, 7, 10, 1e3f};
    sh_rng_key key = sh_rng_make(5, SH_RNG_TEST, 0, slot);

    return sh_rng_range(key, 2 * element, -1, 1) * scale[sh_rng_below(key, 2 * element + 1, 8)];
}

/* The definition, word by word. */
static float reference_sum(const float *leaves, int lo, int hi)
{
    int half = 1;

    if (hi - lo == 1) return leaves[lo];
    while (half * 2 < hi - lo) half *= 2;
    float left = reference_sum(leaves, lo, lo + half), right = reference_sum(leaves, lo + half, hi);

    return left + right;
}

static bool reference_is_node(int lo, int hi, int begin, int end)
{
    if (lo == begin && hi == end) return true;
    if (hi - lo < 2 || begin < lo || end > hi) return false;
    int mid = sh_tree_split(lo, hi);

    return reference_is_node(lo, mid, begin, end) || reference_is_node(mid, hi, begin, end);
}

static void is_node__follows_the_definition(void **state)
{
    (void)state;
    for (int n = 1; n <= 40; n++) {
        for (int lo = 0; lo < n; lo++) {
            for (int hi = lo + 1; hi <= n; hi++)
                assert_int_equal(sh_tree_is_node(n, lo, hi), reference_is_node(0, n, lo, hi));
        }
    }
}

static void cover__is_made_of_the_largest_nodes(void **state)
{
    sh_tree_range cover[SH_TREE_MAX_COVER];

    (void)state;
    for (int n = 1; n <= MAX_SHARDS; n++) {
        for (int begin = 0; begin < n; begin++) {
            for (int end = begin + 1; end <= n; end++) {
                int n_cover = sh_tree_cover(n, begin, end, cover), at = begin;

                for (int i = 0; i < n_cover; i++) {
                    assert_int_equal(cover[i].lo, at);
                    assert_true(sh_tree_is_node(n, cover[i].lo, cover[i].hi));
                    if (i > 0) /* neighbours that could be one node would be one */
                        assert_false(sh_tree_is_node(n, cover[i - 1].lo, cover[i].hi));
                    at = cover[i].hi;
                }
                assert_int_equal(at, end);
                assert_in_range(n_cover, 1, 14);
            }
        }
    }
}

/* The additions of a plan, in place; what is left lies at the beginning. */
static int add_as_planned(float *values, const uint8_t *n_joins, int n)
{
    int depth = 0;

    for (int i = 0; i < n; i++) {
        values[depth++] = values[i];
        for (int j = 0; j < n_joins[i]; j++) {
            values[depth - 2] += values[depth - 1];
            depth--;
        }
    }
    return depth;
}

/* Sum the leaves as `size` ranks would: own subtrees first, then those of all ranks. */
static float sum_as_ranks(const float *leaves, int n, int size, int *max_depth)
{
    float subtrees[MAX_SHARDS], own[MAX_SHARDS];
    sh_tree_range ranges[MAX_SHARDS], singles[MAX_SHARDS];
    uint8_t joins[MAX_SHARDS];
    int n_subtrees = 0, n_joins, begin, end, depth;

    *max_depth = 0;
    for (int rank = 0; rank < size; rank++) {
        sh_shards_of_rank(n, size, rank, &begin, &end);
        for (int i = begin; i < end; i++) {
            own[i - begin] = leaves[i];
            singles[i - begin] = (sh_tree_range){i, i + 1};
        }
        n_joins = sh_tree_plan(n, singles, end - begin, joins, &depth);
        int n_left = add_as_planned(own, joins, end - begin);
        int n_cover = sh_tree_cover(n, begin, end, ranges + n_subtrees);

        assert_int_equal(n_cover, end - begin - n_joins);
        assert_int_equal(n_cover, n_left);
        for (int i = 0; i < n_cover; i++) subtrees[n_subtrees++] = own[i];
        if (depth > *max_depth) *max_depth = depth;
    }
    n_joins = sh_tree_plan(n, ranges, n_subtrees, joins, NULL);
    assert_int_equal(n_joins, n_subtrees - 1);
    assert_int_equal(add_as_planned(subtrees, joins, n_subtrees), 1);
    return subtrees[0];
}

static void plan__gives_the_same_bits_for_any_number_of_ranks(void **state)
{
    float leaves[MAX_SHARDS];
    int n_order_matters = 0;

    (void)state;
    for (int n = 1; n <= MAX_SHARDS; n++) {
        float in_a_row = 0, expected;

        for (int i = 0; i < n; i++) in_a_row += leaves[i] = wild_float((uint64_t)n, (uint64_t)i);
        expected = reference_sum(leaves, 0, n);
        n_order_matters += in_a_row != expected;
        for (int size = 1; size <= n; size++) {
            int depth = 0, log2_n = 0;
            float sum = sum_as_ranks(leaves, n, size, &depth);

            assert_memory_equal(&sum, &expected, sizeof(sum));
            while (1 << log2_n < n) log2_n++;
            assert_true(depth <= 1 + 2 * log2_n);
        }
    }
    assert_true(n_order_matters > MAX_SHARDS / 2); /* or the equality above would mean nothing */
}

static void shares__are_contiguous_even_and_complete(void **state)
{
    (void)state;
    for (int n = 1; n <= 40; n++) {
        for (int parts = 1; parts <= n; parts++) {
            int at = 0, last = n;

            for (int part = 0; part < parts; part++) {
                int begin, end;
                int64_t begin64, end64;

                sh_shards_of_rank(n, parts, part, &begin, &end);
                sh_items_of_shard(n, parts, part, &begin64, &end64);
                assert_int_equal(begin, at);
                assert_true(begin64 == begin && end64 == end);
                assert_true(end - begin >= n / parts && end - begin <= last);
                last = end - begin; /* the larger first */
                at = end;
            }
            assert_int_equal(at, n);
        }
    }
}

static void tree_add__gives_equal_bits_at_any_offset(void **state)
{
    enum { N = 200003 }; /* long enough for threads, and no lucky length */
    float *a = malloc(N * sizeof(*a)), *b = malloc(N * sizeof(*b)), *sum = malloc(N * sizeof(*sum));
    float *part = malloc(N * sizeof(*part));

    (void)state;
    assert_true(a != NULL && b != NULL && sum != NULL && part != NULL);
    for (int i = 0; i < N; i++) {
        a[i] = wild_float(1, (uint64_t)i);
        b[i] = wild_float(2, (uint64_t)i);
    }
    sh_tree_add(sum, a, b, N);
    for (int i = 0; i < N; i++) {
        volatile float expected = a[i] + b[i];

        assert_true(sum[i] == expected);
    }
    for (int offset = 1; offset < 40; offset += 3) {
        memcpy(part, a, N * sizeof(*part));
        sh_tree_add(part + offset, part + offset, b + offset, N - 2 * offset);
        assert_memory_equal(part + offset, sum + offset, (N - 2 * (size_t)offset) * sizeof(*sum));
        assert_memory_equal(part, a, (size_t)offset * sizeof(*a));
        assert_memory_equal(part + N - offset, a + N - offset, (size_t)offset * sizeof(*a));
        memcpy(part, b, N * sizeof(*part));
        sh_tree_add(part, a, part, N);
        assert_memory_equal(part, sum, N * sizeof(*sum));
    }
    free(a);
    free(b);
    free(sum);
    free(part);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_node__follows_the_definition),
        cmocka_unit_test(cover__is_made_of_the_largest_nodes),
        cmocka_unit_test(plan__gives_the_same_bits_for_any_number_of_ranks),
        cmocka_unit_test(shares__are_contiguous_even_and_complete),
        cmocka_unit_test(tree_add__gives_equal_bits_at_any_offset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
