// SPDX-License-Identifier: Apache-2.0
/** The sum over shards against a plain evaluation of the tree on one process; wherever it is made,
 *  and however it travels. */
#ifndef SH_TESTS_COMM_REDUCER_SUITE_H
#define SH_TESTS_COMM_REDUCER_SUITE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "comm/agree.h"
#include "comm/comm.h"

enum { MAX_SHARDS = 17, MAX_ELEMS = 5003, LARGE_ELEMS = 300007, MAX_BUCKETS = 9 };

static sh_comm *comm;
static const sh_device *device; /* NULL: the host's memory */

static void (*settle)(void); /* wait for the device's queue of computing, or NULL */

static int shards_step = 1; /* from one number of shards to the next */

/* What leaves are copied from on a device: it may do so late. */
static float sources[MAX_SHARDS][LARGE_ELEMS];

typedef enum handing { AT_THE_END, EARLY_DOWNWARDS, EARLY_SHUFFLED } handing;

static float wild_leaf(int step, int shard, int64_t i)
{
    sh_rng_key key = sh_rng_make(11, SH_RNG_TEST, (uint64_t)step, (uint64_t)shard);
    uint32_t bits = (uint32_t)sh_rng_bits(key, (uint64_t)i);
    uint32_t exponent = 97 + (bits >> 23) % 60; /* 2^-30 .. 2^29, and now and then a denormal */
    float value;

    if (i % 101 == 0) exponent = 0;
    bits = (bits & 0x807FFFFFu) | exponent << 23;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static float small_integer_leaf(int step, int shard, int64_t i)
{
    return (float)((step + 3 * shard + i) % 1000);
}

typedef float (*leaf_fn)(int step, int shard, int64_t i);

static float reference_sum(leaf_fn leaf, int step, int64_t i, int lo, int hi)
{
    int half = 1;

    if (hi - lo == 1) return leaf(step, lo, i);
    while (half * 2 < hi - lo) half *= 2;
    float left = reference_sum(leaf, step, i, lo, lo + half);
    float right = reference_sum(leaf, step, i, lo + half, hi);

    return left + right;
}

static float sum_in_a_row(leaf_fn leaf, int step, int64_t i, int n_shards)
{
    float sum = 0;

    for (int s = 0; s < n_shards; s++) sum += leaf(step, s, i);
    return sum;
}

/* Uneven bounds, some buckets empty. */
static void make_bounds(int64_t n_elems, int n_buckets, int64_t *bounds)
{
    sh_rng_key key = sh_rng_make(12, SH_RNG_TEST, (uint64_t)n_elems, (uint64_t)n_buckets);

    bounds[0] = 0;
    for (int b = 1; b < n_buckets; b++) {
        int64_t room = n_elems - bounds[b - 1];
        bool empty = b % 4 == 3;

        bounds[b] = bounds[b - 1];
        if (!empty) bounds[b] += (int64_t)sh_rng_below(key, (uint64_t)b, (uint64_t)room / 2 + 1);
    }
    bounds[n_buckets] = n_elems;
}

/* A shard's contribution between two elements, by the host or by the device's queue. */
static sh_status fill_leaf(sh_reducer *reducer, leaf_fn leaf, int step, int shard, int64_t begin,
                           int64_t end)
{
    float *v = sh_reducer_leaf(reducer);
    float *to = device != NULL ? sources[shard] : v;

    for (int64_t i = begin; i < end; i++) to[i] = leaf(step, shard, i);
    if (device == NULL || end == begin) return SH_OK;
    return device->copy(SH_QUEUE_COMPUTE, v + begin, to + begin, end - begin);
}

/* The last leaf bucket by bucket; each bucket is written only just before it goes. */
static sh_status hand_over_early(sh_reducer *reducer, handing how, leaf_fn leaf, int step,
                                 int shard, const int64_t *bounds, int n_buckets)
{
    sh_status st = SH_OK;
    int64_t order[MAX_BUCKETS];

    for (int b = 0; b < n_buckets; b++) order[b] = n_buckets - 1 - b;
    if (how == EARLY_SHUFFLED) /* each rank in an order of its own */
        sh_rng_shuffle(sh_rng_make(13, SH_RNG_TEST, (uint64_t)step, (uint64_t)sh_comm_rank(comm)),
                       order, n_buckets);
    for (int b = 0; b < n_buckets; b++) {
        SH_TRY(fill_leaf(reducer, leaf, step, shard, bounds[order[b]], bounds[order[b] + 1]));
        if (b == n_buckets - 1) break; /* the last one is left to leaf_done */
        SH_TRY(sh_reducer_bucket_done(reducer, (int)order[b]));
        SH_TRY(sh_reducer_poll(reducer));
    }
out:
    return st;
}

static sh_status run_step(sh_reducer *reducer, handing how, leaf_fn leaf, int step, int n_shards,
                          int64_t n_elems, const int64_t *bounds, int n_buckets,
                          const float **total)
{
    sh_status st = SH_OK;
    int begin, end;

    sh_shards_of_rank(n_shards, sh_comm_size(comm), sh_comm_rank(comm), &begin, &end);
    SH_TRY(sh_reducer_begin(reducer));
    for (int s = begin; s < end; s++) {
        if (s == end - 1 && how != AT_THE_END) {
            SH_TRY(hand_over_early(reducer, how, leaf, step, s, bounds, n_buckets));
        } else {
            SH_TRY(fill_leaf(reducer, leaf, step, s, 0, n_elems));
        }
        SH_TRY(sh_reducer_leaf_done(reducer));
    }
    SH_TRY(sh_reducer_finish(reducer, total));
    if (settle != NULL) settle();
out:
    return st;
}

/* Elements of a few steps that are not the reference's bits; -1 where a call failed. */
static int count_wrong(sh_reduce_mode mode, leaf_fn leaf, int n_shards, int64_t n_elems,
                       int n_buckets)
{
    sh_status st = SH_OK;
    int64_t bounds[MAX_BUCKETS + 1];
    sh_reducer *reducer = NULL;
    int n_wrong = 0;

    make_bounds(n_elems, n_buckets, bounds);
    SH_TRY(sh_reducer_create(comm, device, mode, n_shards, n_elems, bounds, n_buckets, &reducer));
    for (int step = 0; step < 3; step++) {
        const float *total = NULL;

        SH_TRY(run_step(reducer, (handing)step, leaf, step, n_shards, n_elems, bounds, n_buckets,
                        &total));
        for (int64_t i = 0; i < n_elems; i++) {
            float expected = reference_sum(leaf, step, i, 0, n_shards);

            n_wrong += memcmp(&total[i], &expected, sizeof(expected)) != 0;
        }
    }
out:
    sh_reducer_destroy(&reducer);
    if (st != SH_OK) print_error("%s\n", sh_error_message());
    return st == SH_OK ? n_wrong : -1;
}

static void exact__equals_the_tree_for_every_number_of_shards(void **state)
{
    static const int64_t lengths[] = {1, 13, 257, MAX_ELEMS};
    int n_wrong = 0;

    (void)state;
    for (int n_shards = sh_comm_size(comm); n_shards <= MAX_SHARDS; n_shards += shards_step) {
        for (size_t i = 0; i < SH_COUNT(lengths); i++) {
            int n = count_wrong(SH_REDUCE_EXACT, wild_leaf, n_shards, lengths[i],
                                n_shards % 2 ? MAX_BUCKETS : 2);

            n_wrong += n != 0;
        }
    }
    assert_true(all_ranks_agree(n_wrong == 0));
}

static void exact__is_told_apart_from_another_order(void **state)
{
    int n_differ = 0;

    (void)state;
    for (int64_t i = 0; i < 1000; i++)
        n_differ += reference_sum(wild_leaf, 0, i, 0, 7) != sum_in_a_row(wild_leaf, 0, i, 7);
    assert_true(all_ranks_agree(n_differ > 10));
}

static void fast__adds_integers_exactly(void **state)
{
    int n_wrong = 0;

    (void)state;
    for (int n_shards = sh_comm_size(comm); n_shards <= MAX_SHARDS; n_shards += 3)
        n_wrong += count_wrong(SH_REDUCE_FAST, small_integer_leaf, n_shards, 1021, 7) != 0;
    assert_true(all_ranks_agree(n_wrong == 0));
}

/* Some floats whose sum rounds, of one magnitude. */
static float plain_leaf(int step, int shard, int64_t i)
{
    return sh_rng_range(sh_rng_make(14, SH_RNG_TEST, (uint64_t)step, (uint64_t)shard), (uint64_t)i,
                        0.5f, 1);
}

static void fast__rounds_little_and_is_the_same_on_all_ranks(void **state)
{
    enum { N = 1021, N_SHARDS = 13 };
    static const int64_t bounds[] = {0, 500, N};
    sh_reducer *reducer = NULL;
    const float *total = NULL;
    float first[N];
    bool ok =
        sh_reducer_create(comm, device, SH_REDUCE_FAST, N_SHARDS, N, bounds, 2, &reducer) == SH_OK;

    (void)state;
    ok = ok &&
         run_step(reducer, EARLY_DOWNWARDS, plain_leaf, 0, N_SHARDS, N, bounds, 2, &total) == SH_OK;
    for (int64_t i = 0; ok && i < N; i++) {
        double sum = 0;

        for (int s = 0; s < N_SHARDS; s++) sum += plain_leaf(0, s, i);
        ok = fabs(total[i] - sum) < 1e-6 * sum;
    }
    if (ok) memcpy(first, total, sizeof(first));
    ok = ok && sh_comm_bcast(comm, first, sizeof(first), 0) == SH_OK;
    ok = ok && memcmp(first, total, sizeof(first)) == 0;
    sh_reducer_destroy(&reducer);
    assert_true(all_ranks_agree(ok));
}

static void large_vector__is_summed_in_few_copies(void **state)
{
    enum { N = LARGE_ELEMS };
    static const int64_t bounds[] = {0, 100000, N};
    int n_shards = 8, n_wrong = 0;
    sh_reducer *reducer = NULL;
    const float *total = NULL;
    sh_status st =
        sh_reducer_create(comm, device, SH_REDUCE_EXACT, n_shards, N, bounds, 2, &reducer);

    (void)state;
    if (st == SH_OK)
        st = run_step(reducer, EARLY_DOWNWARDS, wild_leaf, 1, n_shards, N, bounds, 2, &total);
    for (int64_t i = 0; st == SH_OK && i < N; i += 17) {
        float expected = reference_sum(wild_leaf, 1, i, 0, n_shards);

        n_wrong += memcmp(&total[i], &expected, sizeof(expected)) != 0;
    }
    double copies = st == SH_OK ? (double)sh_reducer_bytes(reducer) / (4.0 * N) : 0;

    sh_reducer_destroy(&reducer);
    assert_true(all_ranks_agree(st == SH_OK && n_wrong == 0));
    assert_true(all_ranks_agree(copies >= 1 && copies < 4.7));
}

static void create__refuses_more_ranks_than_shards(void **state)
{
    static const int64_t bounds[] = {0, 10};
    sh_reducer *reducer = NULL;
    int n_shards = sh_comm_size(comm) - 1;
    sh_status st =
        sh_reducer_create(comm, device, SH_REDUCE_EXACT, n_shards, 10, bounds, 1, &reducer);

    (void)state;
    assert_true(all_ranks_agree(st == SH_ERR_USAGE && reducer == NULL &&
                                strstr(sh_error_message(), "set shards=") != NULL));
}

static void create__refuses_arguments_that_differ(void **state)
{
    static const int64_t bounds[] = {0, 4, 10}, other[] = {0, 5, 10};
    sh_reducer *reducer = NULL;
    bool odd = sh_comm_rank(comm) == 1;
    sh_status st =
        sh_reducer_create(comm, device, SH_REDUCE_EXACT, 8, 10, odd ? other : bounds, 2, &reducer);
    bool ok = sh_comm_size(comm) == 1 ? st == SH_OK : st == SH_ERR_MISMATCH && reducer == NULL;

    (void)state;
    sh_reducer_destroy(&reducer);
    assert_true(all_ranks_agree(ok));
}

static void calls_out_of_order__are_refused(void **state)
{
    static const int64_t bounds[] = {0, 4, 10};
    int n_shards = 2 * sh_comm_size(comm), step = 0;
    sh_reducer *reducer = NULL;
    const float *total = NULL;
    sh_status st =
        sh_reducer_create(comm, device, SH_REDUCE_EXACT, n_shards, 10, bounds, 2, &reducer);
    bool ok = st == SH_OK;

    (void)state;
    ok = ok && sh_reducer_leaf_done(reducer) == SH_ERR_INTERNAL;
    ok = ok && sh_reducer_begin(reducer) == SH_OK;
    ok = ok && sh_reducer_begin(reducer) == SH_ERR_INTERNAL;
    ok = ok && sh_reducer_bucket_done(reducer, 0) == SH_ERR_INTERNAL; /* not the last own shard */
    ok = ok && sh_reducer_finish(reducer, &total) == SH_ERR_INTERNAL;
    for (int i = 0; ok && i < 2; i++) {
        memset(sh_reducer_leaf(reducer), 0, 10 * sizeof(float));
        if (i == 1) {
            ok = ok && sh_reducer_bucket_done(reducer, 1) == SH_OK;
            ok = ok && sh_reducer_bucket_done(reducer, 1) == SH_ERR_INTERNAL;
            ok = ok && sh_reducer_bucket_done(reducer, 2) == SH_ERR_INTERNAL;
        }
        ok = ok && sh_reducer_leaf_done(reducer) == SH_OK;
    }
    ok = ok && sh_reducer_leaf_done(reducer) == SH_ERR_INTERNAL;
    /* None of the refusals has done harm: */
    ok = ok && sh_reducer_finish(reducer, &total) == SH_OK && total[9] == 0;
    ok = all_ranks_agree(ok);
    ok = ok && run_step(reducer, AT_THE_END, small_integer_leaf, step, n_shards, 10, bounds, 2,
                        &total) == SH_OK;
    ok = ok && total[9] == reference_sum(small_integer_leaf, step, 9, 0, n_shards);
    sh_reducer_destroy(&reducer);
    assert_true(all_ranks_agree(ok));
}

/** The suite's teardown. */
static int leave(void **state)
{
    (void)state;
    sh_comm_destroy(&comm);
    return 0;
}

#define REDUCER_SUITE                                                                              \
    cmocka_unit_test(exact__equals_the_tree_for_every_number_of_shards),                           \
        cmocka_unit_test(exact__is_told_apart_from_another_order),                                 \
        cmocka_unit_test(fast__adds_integers_exactly),                                             \
        cmocka_unit_test(fast__rounds_little_and_is_the_same_on_all_ranks),                        \
        cmocka_unit_test(large_vector__is_summed_in_few_copies),                                   \
        cmocka_unit_test(create__refuses_more_ranks_than_shards),                                  \
        cmocka_unit_test(create__refuses_arguments_that_differ),                                   \
        cmocka_unit_test(calls_out_of_order__are_refused)

#endif
