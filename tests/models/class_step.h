// SPDX-License-Identifier: Apache-2.0
/** Whole steps of a classification in host memory or in a backend's. */
#ifndef SH_TESTS_MODELS_CLASS_STEP_H
#define SH_TESTS_MODELS_CLASS_STEP_H

#include "models/loss/classes.h"
#include "models/loss_step.h"

enum { CLASS_MAX_RANKS = 5 };

/** A batch of logits [n, columns]. */
typedef struct class_inputs {
    sh_class_config config;
    const float *weights;  /* NULL: all 1 */
    const int32_t *fish;   /* NULL: all differ */
    const int32_t *labels; /* [n] */
    const float *logits;
    int64_t n;
    float weight; /* of the loss */
} class_inputs;

typedef struct class_outcome {
    sh_class_stats stats;
    sh_class_row *rows; /* [n] */
    float *grad;        /* [n, columns] */
} class_outcome;

/** A step of n_ranks ranks, for whom no rank's kernels see what another's left behind. */
static inline class_outcome run_class_step(const sh_backend *backend, const class_inputs *c,
                                           int n_ranks)
{
    class_outcome o = {0};
    int64_t columns = sh_class_columns(&c->config);
    size_t bytes = (size_t)(c->n * columns) * sizeof(float);
    const sh_backend *memory = sh_class_loss_memory(backend);
    room logits = room_make(memory, c->logits, bytes), grad = room_make(memory, NULL, bytes);
    room rows = room_make(memory, NULL, (size_t)c->n * sizeof(sh_class_row));
    room stats = room_make(memory, NULL, sizeof(o.stats));
    sh_class_loss *losses[CLASS_MAX_RANKS] = {NULL};

    assert_true(n_ranks <= CLASS_MAX_RANKS);
    for (int r = 0; r < n_ranks; r++)
        assert_int_equal(
            sh_class_loss_create(&c->config, backend, c->weights, c->fish, c->n, &losses[r]),
            SH_OK);
    for (int pass = 0; pass < 2; pass++)
        for (int r = 0; r < n_ranks; r++) {
            int64_t begin = c->n * r / n_ranks, end = c->n * (r + 1) / n_ranks;
            const float *own = (const float *)logits.memory + begin * columns;
            sh_class_row *all = rows.memory;

            if (pass == 0) {
                assert_int_equal(sh_class_loss_begin(losses[r], c->labels, c->n), SH_OK);
                assert_int_equal(sh_class_loss_choose(losses[r], own, begin, end, all + begin),
                                 SH_OK);
            } else {
                assert_int_equal(sh_class_loss_apply(losses[r], all, own, begin, end, c->weight,
                                                     stats.memory,
                                                     (float *)grad.memory + begin * columns),
                                 SH_OK);
            }
        }
    free(room_take(&logits));
    room_read(&stats, &o.stats);
    o.rows = room_take(&rows);
    o.grad = room_take(&grad);
    for (int r = 0; r < n_ranks; r++) sh_class_loss_destroy(&losses[r]);
    return o;
}

static inline void class_outcome_free(class_outcome *o)
{
    free(o->rows);
    free(o->grad);
}

#endif
