// SPDX-License-Identifier: Apache-2.0
/** Mining and losses in a device's memory against those of the host. */
#ifndef SH_TESTS_MODELS_LOSS_ON_DEVICE_H
#define SH_TESTS_MODELS_LOSS_ON_DEVICE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "models/loss_cases.h"
#include "models/loss_step.h"

/** Set by the program that includes this. */
static const sh_backend *device_backend;
static bool device_is_exact; /* it contracts no multiplications and additions */

static inline void check_gradient(const loss_outcome *device, const loss_outcome *host, int64_t n)
{
    double largest = 0;

    for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabsf(host->grad[i]));
    for (int64_t i = 0; i < n; i++)
        assert_true(fabs((double)device->grad[i] - host->grad[i]) <= 1e-5 * largest);
}

static inline bool is_near(double a, double b)
{
    return a == b || fabs(a - b) <= 1e-12 * fabs(b);
}

/* Sums over pairs: what a device contracts, and its exp and log, are not the host's. */
static inline void check_pair_sums(const sh_pair_sums *device, const sh_pair_sums *host, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        for (int side = 0; side < 2; side++) {
            assert_true(is_near(device[i].loss[side], host[i].loss[side]));
            assert_true(is_near(device[i].weight[side], host[i].weight[side]));
            assert_true(device[i].bound[side] == host[i].bound[side]);
            assert_int_equal(device[i].n_taken[side], host[i].n_taken[side]);
            assert_int_equal(device[i].n_active[side], host[i].n_active[side]);
        }
}

static inline void check_nearly(const sh_loss_config *config, const loss_outcome *device,
                                const loss_outcome *host, const sh_loss_batch *batch)
{
    assert_int_equal(device->stats.n_pairs, host->stats.n_pairs);
    assert_int_equal(device->stats.n_triplets, host->stats.n_triplets);
    assert_int_equal(device->stats.n_active, host->stats.n_active);
    assert_true(is_near(device->stats.loss, host->stats.loss));
    if (config->kind >= SH_LOSS_MULTI_SIMILARITY)
        check_pair_sums((const sh_pair_sums *)device->choices, (const sh_pair_sums *)host->choices,
                        batch->n);
    else if (config->kind <= SH_LOSS_ALGORITHM1)
        assert_memory_equal(device->choices, host->choices, host->choice_bytes);
    check_gradient(device, host, batch->n * batch->dim);
}

/** Choices, loss and gradient are the host's, but for what a device contracts: nothing on the
 *  emulator. */
static inline void check_against_host(const sh_loss_config *given, const sh_loss_batch *batch,
                                      int n_ranks)
{
    sh_loss_config tight = *given, *config = &tight;

    tight.max_per_label = most_per_label(batch);
    loss_outcome host = run_loss_step(NULL, config, batch, 1),
                 device = run_loss_step(device_backend, config, batch, n_ranks);

    assert_ptr_equal(sh_loss_memory(device_backend), device_backend);
    if (device_is_exact) {
        assert_memory_equal(&device.stats, &host.stats, sizeof(host.stats));
        assert_memory_equal(device.choices, host.choices, host.choice_bytes);
        assert_memory_equal(device.grad, host.grad, host.grad_bytes);
    } else {
        check_nearly(config, &device, &host, batch);
    }
    loss_outcome_free(&host);
    loss_outcome_free(&device);
}

typedef void config_visitor(const sh_loss_config *config);

static inline void for_each_config(config_visitor *visit)
{
    for (int kind = 0; kind < SH_LOSS_KINDS; kind++)
        for (int distance = SH_EUCLIDEAN; distance <= SH_COSINE; distance++) {
            bool cosine = kind == SH_LOSS_MULTI_SIMILARITY || kind == SH_LOSS_NT_XENT;

            if (cosine && distance != SH_COSINE) continue;
            visit(&(sh_loss_config){.kind = (sh_loss_kind)kind,
                                    .distance = (sh_distance)distance,
                                    .soft = (kind + distance) % 2 == 1,
                                    .margin = 0.3f,
                                    .reduction = (sh_reduction)distance,
                                    .alpha = 2,
                                    .beta = 50,
                                    .base = 0.5f,
                                    .epsilon = 0.1f,
                                    .temperature = 0.07f,
                                    .seed = 5});
        }
}

static inline void check_odd_sizes(const sh_loss_config *config)
{
    static const struct {
        int64_t n, dim;
        int n_fish, sides, n_ranks;
    } sizes[] = {{97, 19, 30, 2, 3},
                 {65, 33, 7, 1, 2},
                 {64, 130, 16, 1, 1},
                 {2, 1, 1, 1, 1},
                 {1, 3, 1, 1, 1}};

    for (size_t i = 0; i < SH_COUNT(sizes); i++) {
        loss_case c;

        case_make(&c, sizes[i].n, sizes[i].dim, sizes[i].n_fish, sizes[i].sides, 11 + i);
        check_against_host(config, &c.batch, sizes[i].n_ranks);
        case_free(&c);
    }
}

static inline void check_sizes_of_all(void)
{
    for_each_config(check_odd_sizes);
}

/* Coordinates of a few values: many rows are equally far away, and some are equal. */
static inline void check_ties(const sh_loss_config *config)
{
    loss_case c;

    case_make(&c, 90, 3, 11, 1, 3);
    for (int64_t i = 0; i < 90 * 3; i++) c.x[i] = roundf(c.x[i] * 2) / 2;
    check_against_host(config, &c.batch, 2);
    case_free(&c);
}

static inline void check_ties_of_all(void)
{
    for_each_config(check_ties);
}

/* All fish of one row, one fish of all rows, all rows the same: then all choose one negative. */
static inline void check_edges(const sh_loss_config *config)
{
    for (int edge = 0; edge < 3; edge++) {
        loss_case c;

        case_make(&c, 20, 6, edge == 0 ? 20 : edge == 1 ? 1 : 5, 1, 1);
        for (int64_t i = 0; i < 20 * 6 && edge == 2; i++) c.x[i] = 0.25f;
        check_against_host(config, &c.batch, 2);
        case_free(&c);
    }
}

static inline void check_edges_of_all(void)
{
    for_each_config(check_edges);
}

/* Three fish, each a heap of rows, and one row in their midst that is the nearest negative to all
 * of them: more slots with one negative than a block sorts. */
static inline void check_one_negative_of_all(void)
{
    enum { N = 97, PER_FISH = 32, N_SLOTS = 3 * PER_FISH * (PER_FISH - 1) };
    sh_loss_config config = {.kind = SH_LOSS_SEMI_HARD, .distance = SH_SQUARED, .margin = 100};
    loss_case c;
    int64_t n_hub = 0;

    case_make(&c, N, 3, 1, 1, 5);
    for (int i = 0; i < N; i++) {
        c.labels[i] = c.fish[i] = i / PER_FISH;
        for (int k = 0; k < 3; k++)
            c.x[i * 3 + k] = i < N - 1 ? 0.1f * c.x[i * 3 + k] + (i / PER_FISH == k ? 8 : 0) : 2;
    }
    check_against_host(&config, &c.batch, 1);
    loss_outcome host = run_loss_step(NULL, &config, &c.batch, 1);

    for (size_t at = 0; at < host.choice_bytes / sizeof(sh_triplet); at++)
        n_hub += ((const sh_triplet *)host.choices)[at].negative == N - 1;
    assert_int_equal(n_hub, N_SLOTS);
    loss_outcome_free(&host);
    case_free(&c);
}

static inline void check_not_finite(const sh_loss_config *config)
{
    loss_case c;

    case_make(&c, 20, 6, 5, 1, 1);
    c.x[13 * 6 + 2] = INFINITY;
    loss_outcome o = run_loss_step(device_backend, config, &c.batch, 2);

    assert_true(isnan(o.stats.loss));
    for (int i = 0; i < 20 * 6; i++) assert_true(isnan(o.grad[i]));
    loss_outcome_free(&o);
    case_free(&c);
}

static inline void check_not_finite_of_all(void)
{
    for_each_config(check_not_finite);
}

/* A loss object meets batches of other sizes and labels, one after another. */
static inline void check_batches(void)
{
    sh_loss_config config = {.kind = SH_LOSS_BATCH_HARD, .margin = 0.5f};
    sh_loss *loss = NULL;

    assert_int_equal(sh_loss_create(&config, device_backend, 80, 5, &loss), SH_OK);
    for (int i = 0; i < 4; i++) {
        loss_case c;

        case_make(&c, i % 2 == 0 ? 80 : 41, 5, 5 + i, 1, (uint64_t)i);
        loss_outcome fresh = run_loss_step(device_backend, &config, &c.batch, 1);
        room x = room_make(device_backend, c.x, fresh.grad_bytes);
        room choices = room_make(device_backend, NULL, fresh.choice_bytes);
        room grad = room_make(device_backend, NULL, fresh.grad_bytes);
        room stats = room_make(device_backend, NULL, sizeof(sh_loss_stats));

        c.batch.embeddings = x.memory;
        assert_int_equal(sh_loss_begin(loss, &c.batch), SH_OK);
        assert_int_equal(sh_loss_choose(loss, &c.batch, 0, c.batch.n, choices.memory), SH_OK);
        assert_int_equal(
            sh_loss_apply(loss, &c.batch, choices.memory, 0, c.batch.n, stats.memory, grad.memory),
            SH_OK);
        loss_outcome again = {.choices = room_take(&choices), .grad = room_take(&grad)};

        room_read(&stats, &again.stats);
        assert_memory_equal(&again.stats, &fresh.stats, sizeof(again.stats));
        assert_memory_equal(again.choices, fresh.choices, fresh.choice_bytes);
        assert_memory_equal(again.grad, fresh.grad, fresh.grad_bytes);
        free(room_take(&x));
        loss_outcome_free(&again);
        loss_outcome_free(&fresh);
        case_free(&c);
    }
    sh_loss_destroy(&loss);
}

static inline void check_losses_on_device(void)
{
    check_sizes_of_all();
    check_ties_of_all();
    check_edges_of_all();
    check_one_negative_of_all();
    check_not_finite_of_all();
    check_batches();
}

#endif
