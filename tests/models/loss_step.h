// SPDX-License-Identifier: Apache-2.0
/** Whole steps of a loss in host memory or in a backend's. */
#ifndef SH_TESTS_MODELS_LOSS_STEP_H
#define SH_TESTS_MODELS_LOSS_STEP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "models/loss/loss.h"

typedef struct loss_outcome {
    sh_loss_stats stats;
    char *choices;
    float *grad; /* [n, dim] */
    size_t choice_bytes, grad_bytes;
} loss_outcome;

/** Where a loss has its operands: host memory, or a backend's. */
typedef struct room {
    const sh_backend *backend; /* NULL: the host's */
    sh_buffer *buffer;
    void *memory;
    size_t n_bytes;
} room;

static inline room room_make(const sh_backend *backend, const void *content, size_t n_bytes)
{
    room r = {.backend = backend, .n_bytes = n_bytes};

    if (backend == NULL) {
        r.memory = malloc(n_bytes + 1);
        assert_non_null(r.memory);
        if (content != NULL) memcpy(r.memory, content, n_bytes);
        return r;
    }
    assert_int_equal(backend->alloc(n_bytes, &r.buffer), SH_OK);
    if (content != NULL) assert_int_equal(backend->copy_in(r.buffer, 0, content, n_bytes), SH_OK);
    r.memory = backend->device_ptr(r.buffer, 0);
    return r;
}

/** Its content, malloc'd; the room is gone. */
static inline void *room_take(room *r)
{
    void *content = r->memory;

    if (r->backend == NULL) return content;
    content = malloc(r->n_bytes + 1);
    assert_non_null(content);
    assert_int_equal(r->backend->copy_out(r->buffer, 0, content, r->n_bytes), SH_OK);
    r->backend->free(&r->buffer);
    return content;
}

/** Its content into `out`; the room is gone. */
static inline void room_read(room *r, void *out)
{
    size_t n_bytes = r->n_bytes;
    void *content = room_take(r);

    memcpy(out, content, n_bytes);
    free(content);
}

/** A step of n_ranks ranks, for whom no rank's kernels see what another's left behind. */
static inline loss_outcome run_loss_step(const sh_backend *backend, const sh_loss_config *config,
                                         const sh_loss_batch *b, int n_ranks)
{
    loss_outcome o = {.grad_bytes = (size_t)(b->n * b->dim) * sizeof(float)};
    sh_loss *losses[3] = {NULL};
    sh_loss_batch batch = *b;

    for (int r = 0; r < n_ranks; r++)
        assert_int_equal(sh_loss_create(config, backend, b->n, b->dim, &losses[r]), SH_OK);
    o.choice_bytes = (size_t)b->n * sh_loss_choice_bytes(losses[0]);
    room x = room_make(backend, b->embeddings, o.grad_bytes);
    room choices = room_make(backend, NULL, o.choice_bytes);
    room stats = room_make(backend, NULL, sizeof(o.stats));
    room grad = room_make(backend, NULL, o.grad_bytes);

    batch.embeddings = x.memory;
    for (int pass = 0; pass < 2; pass++)
        for (int r = 0; r < n_ranks; r++) {
            int64_t begin = b->n * r / n_ranks, end = b->n * (r + 1) / n_ranks;
            char *own = (char *)choices.memory + (size_t)begin * (o.choice_bytes / (size_t)b->n);

            if (pass == 0) {
                assert_int_equal(sh_loss_begin(losses[r], &batch), SH_OK);
                assert_int_equal(sh_loss_choose(losses[r], &batch, begin, end, own), SH_OK);
            } else {
                assert_int_equal(sh_loss_apply(losses[r], &batch, choices.memory, begin, end,
                                               stats.memory, (float *)grad.memory + begin * b->dim),
                                 SH_OK);
            }
        }
    free(room_take(&x));
    room_read(&stats, &o.stats);
    o.choices = room_take(&choices);
    o.grad = room_take(&grad);
    for (int r = 0; r < n_ranks; r++) sh_loss_destroy(&losses[r]);
    return o;
}

static inline void loss_outcome_free(loss_outcome *o)
{
    free(o->choices);
    free(o->grad);
}

/** As many rows as any label of the batch has: sh_loss_config.max_per_label. */
static inline int64_t most_per_label(const sh_loss_batch *batch)
{
    int64_t most = 0;

    for (int64_t i = 0; i < batch->n; i++) {
        int64_t n = 0;

        for (int64_t j = 0; j < batch->n; j++) n += batch->labels[j] == batch->labels[i];
        if (n > most) most = n;
    }
    return most;
}

#endif
