// SPDX-License-Identifier: Apache-2.0
/** Classifications in a device's memory against those of the host. */
#ifndef SH_TESTS_MODELS_CLASSES_ON_DEVICE_H
#define SH_TESTS_MODELS_CLASSES_ON_DEVICE_H

#include "models/class_step.h"
#include "models/loss_on_device.h"

enum { CLASS_MAX_ROWS = 70, CLASS_MAX_COLUMNS = 900 };

/** Logits and labels drawn for a case; every seventh row has no label. */
typedef struct class_data {
    int32_t labels[CLASS_MAX_ROWS], fish[CLASS_MAX_COLUMNS];
    float weights[CLASS_MAX_COLUMNS], *logits;
} class_data;

static inline class_inputs class_inputs_make(class_data *d, const sh_class_config *config,
                                             int64_t n, bool weighted, int sides)
{
    int64_t columns = sh_class_columns(config);
    sh_rng_key key = sh_rng_make(3, SH_RNG_TEST, (uint64_t)n, (uint64_t)columns);

    d->logits = malloc((size_t)(n * columns) * sizeof(float));
    assert_non_null(d->logits);
    for (int64_t i = 0; i < n * columns; i++) {
        double z = sh_rng_normal(key, (uint64_t)i);

        d->logits[i] = (float)(config->kind == SH_CLASS_ARCFACE ? tanh(z) : 3 * z);
    }
    for (int64_t i = 0; i < n; i++)
        d->labels[i] = i % 7 == 5 ? -1 : (int32_t)(i * i % config->n_classes);
    for (int64_t c = 0; c < config->n_classes; c++) {
        d->weights[c] = 0.25f * (float)(1 + c % 5);
        d->fish[c] = (int32_t)(c / sides);
    }
    return (class_inputs){.config = *config,
                          .weights = weighted ? d->weights : NULL,
                          .fish = sides > 1 ? d->fish : NULL,
                          .labels = d->labels,
                          .logits = d->logits,
                          .n = n,
                          .weight = 0.5f};
}

static inline void check_class_inputs(const class_inputs *c, int n_ranks)
{
    int64_t n = c->n * sh_class_columns(&c->config);
    class_outcome host = run_class_step(NULL, c, 1),
                  device = run_class_step(device_backend, c, n_ranks);

    assert_int_equal(device.stats.n_rows, host.stats.n_rows);
    assert_int_equal(device.stats.n_correct, host.stats.n_correct);
    if (device_is_exact) {
        assert_memory_equal(&device.stats, &host.stats, sizeof(host.stats));
        assert_memory_equal(device.rows, host.rows, (size_t)c->n * sizeof(*host.rows));
        assert_memory_equal(device.grad, host.grad, (size_t)n * sizeof(float));
    } else {
        loss_outcome of_device = {.grad = device.grad}, of_host = {.grad = host.grad};

        assert_true(is_near(device.stats.loss, host.stats.loss));
        check_gradient(&of_device, &of_host, n);
    }
    class_outcome_free(&host);
    class_outcome_free(&device);
}

static const sh_class_config class_configs[] = {
    {.kind = SH_CLASS_CROSS_ENTROPY, .n_classes = 5, .n_centres = 1},
    {.kind = SH_CLASS_CROSS_ENTROPY, .n_classes = 600, .n_centres = 1, .smoothing = 0.1f},
    {.kind = SH_CLASS_ARCFACE, .n_classes = 257, .n_centres = 1, .scale = 30, .margin = 0.5f},
    {.kind = SH_CLASS_ARCFACE,
     .n_classes = 300,
     .n_centres = 3,
     .scale = 16,
     .margin = 1.2f,
     .smoothing = 0.05f},
};

/* One class, or several of one fish; with and without weights; odd numbers of rows. */
static inline void check_class_sizes(void)
{
    static const int64_t sizes[] = {13, 1, 70};

    for (size_t i = 0; i < SH_COUNT(class_configs); i++)
        for (int s = 0; s < (int)SH_COUNT(sizes); s++) {
            class_data d;
            class_inputs c = class_inputs_make(&d, &class_configs[i], sizes[s], s != 1, 1 + s);

            check_class_inputs(&c, sizes[s] > 2 ? 3 : 1);
            free(d.logits);
        }
}

/* Equal logits everywhere; cosines beyond 1; logits far apart; no row with a label. */
static inline void check_class_edges(void)
{
    for (size_t i = 0; i < SH_COUNT(class_configs); i++)
        for (int edge = 0; edge < 4; edge++) {
            class_data d;
            class_inputs c = class_inputs_make(&d, &class_configs[i], 6, false, 1);

            for (int64_t k = 0; k < 6 * sh_class_columns(&c.config); k++)
                if (edge < 3)
                    d.logits[k] = edge == 0   ? 0.25f
                                  : edge == 1 ? 1.0000001f - (float)(k % 3)
                                              : 200 * d.logits[k];
            for (int k = 0; k < 6 && edge == 3; k++) d.labels[k] = -1;
            check_class_inputs(&c, 1);
            free(d.logits);
        }
}

static inline void check_class_not_finite(void)
{
    for (size_t i = 0; i < SH_COUNT(class_configs); i++) {
        class_data d;
        class_inputs c = class_inputs_make(&d, &class_configs[i], 4, true, 1);

        d.logits[sh_class_columns(&c.config) + 3] = NAN;
        class_outcome o = run_class_step(device_backend, &c, 1);

        assert_true(isnan(o.stats.loss));
        class_outcome_free(&o);
        free(d.logits);
    }
}

static inline void check_classes_on_device(void)
{
    check_class_sizes();
    check_class_edges();
    check_class_not_finite();
}

#endif
