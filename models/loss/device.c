// SPDX-License-Identifier: Apache-2.0
/* A loss in a backend's memory: its tables of rows, its scratch, and calls of the backend's kernels
 * (kernels.h). */
#include <stdlib.h>
#include <string.h>

#include "models/loss/internal.h"

struct sh_loss_device {
    const sh_backend *backend;
    char *next;      /* what `rows` is to be; page-locked where the backend has a device */
    sh_buffer *rows; /* sh_batch_now, and behind NOW_BYTES [SH_ROW_TABLES, n] as sh_row_tables has
                        them */
    sh_buffer *scratch;
};

enum { NOW_BYTES = 64 };

_Static_assert(sizeof(sh_batch_now) <= NOW_BYTES, "what stands before the tables of rows");

sh_status sh_loss_device_create(sh_loss *loss, const sh_backend *backend, sh_loss_device **out)
{
    sh_status st = SH_OK;
    sh_loss_device *d = calloc(1, sizeof(*d));
    size_t row_bytes = NOW_BYTES + (size_t)(SH_ROW_TABLES * loss->n_max) * sizeof(int32_t);
    size_t scratch = backend->loss->scratch_bytes(&loss->config, loss->n_max, loss->dim,
                                                  loss->slots, loss->max_positives);

    SH_CHECK(d != NULL, SH_ERR_NO_MEMORY, "loss");
    d->backend = backend;
    SH_TRY(sh_backend_alloc_host(backend, row_bytes, (void **)&d->next));
    SH_TRY(backend->alloc(row_bytes, &d->rows));
    SH_TRY(backend->alloc(scratch, &d->scratch));
    loss->bytes += 2 * row_bytes + scratch;
    *out = d;
    d = NULL;
out:
    sh_loss_device_destroy(&d);
    return st;
}

void sh_loss_device_destroy(sh_loss_device **device)
{
    sh_loss_device *d = *device;

    if (d == NULL) return;
    sh_backend_free_host(d->backend, d->next);
    d->backend->free(&d->rows);
    d->backend->free(&d->scratch);
    free(d);
    *device = NULL;
}

sh_status sh_loss_device_begin(sh_loss *loss, const sh_loss_batch *batch)
{
    sh_loss_device *d = loss->device;
    const sh_groups *g = &loss->labels;
    const int32_t *tables[SH_ROW_TABLES] = {batch->labels, batch->fish, g->order,
                                            g->begin,      g->end,      g->place};
    size_t bytes = (size_t)batch->n * sizeof(int32_t);
    sh_batch_now now = {.step = batch->step};

    for (int64_t i = 0; i < batch->n; i++) {
        int64_t others = sh_groups_others(g, i);

        if (others > now.most_others) now.most_others = others;
    }
    memcpy(d->next, &now, sizeof(now));
    for (size_t i = 0; i < SH_ROW_TABLES; i++)
        memcpy(d->next + NOW_BYTES + i * bytes, tables[i], bytes);
    return sh_backend_send(d->backend, d->rows, 0, d->next, NOW_BYTES + SH_ROW_TABLES * bytes);
}

static sh_device_batch describe(const sh_loss *loss, const sh_loss_batch *batch)
{
    const sh_loss_device *d = loss->device;
    int64_t n = batch->n;
    const int32_t *tables = d->backend->device_ptr(d->rows, NOW_BYTES);

    return (sh_device_batch){
        .config = &loss->config,
        .n = n,
        .dim = loss->dim,
        .slots = loss->slots,
        .max_others = loss->max_positives,
        .rule = loss->rule,
        .embeddings = batch->embeddings,
        .rows = {d->backend->device_ptr(d->rows, 0), tables, tables + n, tables + 2 * n,
                 tables + 3 * n, tables + 4 * n, tables + 5 * n},
        .scratch = d->backend->device_ptr(d->scratch, 0),
    };
}

sh_status sh_loss_device_choose(sh_loss *loss, const sh_loss_batch *batch, int64_t begin,
                                int64_t end, void *choices)
{
    sh_device_batch b = describe(loss, batch);

    return loss->device->backend->loss->choose(&b, begin, end, choices);
}

sh_status sh_loss_device_apply(sh_loss *loss, const sh_loss_batch *batch, const void *choices,
                               int64_t begin, int64_t end, sh_loss_stats *stats, float *grad)
{
    sh_device_batch b = describe(loss, batch);

    return loss->device->backend->loss->apply(&b, choices, begin, end, stats, grad);
}
