// SPDX-License-Identifier: Apache-2.0
/* A loss in a backend's memory: its tables of rows, its scratch, and calls of the backend's kernels
 * (kernels.h). */
#include <stdlib.h>
#include <string.h>

#include "models/loss/internal.h"

struct sh_loss_device {
    const sh_backend *backend;
    int32_t *rows;     /* [SH_ROW_TABLES, n] the host's copy of row_tables */
    int64_t n;         /* of the batch that it has; 0: of none */
    sh_buffer *tables; /* [SH_ROW_TABLES, n] as sh_row_tables has them */
    sh_buffer *sums;   /* one sh_loss_sums */
    sh_buffer *scratch;
};

sh_status sh_loss_device_create(sh_loss *loss, const sh_backend *backend, sh_loss_device **out)
{
    sh_status st = SH_OK;
    sh_loss_device *d = calloc(1, sizeof(*d));
    size_t table_bytes = (size_t)(SH_ROW_TABLES * loss->n_max) * sizeof(int32_t);
    size_t scratch = backend->loss->scratch_bytes(&loss->config, loss->n_max, loss->dim,
                                                  loss->slots, loss->max_positives);

    SH_CHECK(d != NULL, SH_ERR_NO_MEMORY, "loss");
    d->backend = backend;
    d->rows = malloc(table_bytes);
    SH_CHECK(d->rows != NULL, SH_ERR_NO_MEMORY, "loss of %lld rows", (long long)loss->n_max);
    SH_TRY(backend->alloc(table_bytes, &d->tables));
    SH_TRY(backend->alloc(sizeof(sh_loss_sums), &d->sums));
    SH_TRY(backend->alloc(scratch, &d->scratch));
    loss->bytes += 2 * table_bytes + sizeof(sh_loss_sums) + scratch;
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
    d->backend->free(&d->tables);
    d->backend->free(&d->sums);
    d->backend->free(&d->scratch);
    free(d->rows);
    free(d);
    *device = NULL;
}

/* Rows and groups of this batch on the device; choose and apply of one batch share them. */
static sh_status put_tables(const sh_loss *loss, const sh_loss_batch *batch)
{
    sh_status st = SH_OK;
    sh_loss_device *d = loss->device;
    const sh_groups *g = &loss->labels;
    const int32_t *tables[SH_ROW_TABLES] = {batch->labels, batch->fish, g->order,
                                            g->begin,      g->end,      g->place};
    size_t bytes = (size_t)batch->n * sizeof(int32_t);

    if (d->n == batch->n && memcmp(d->rows, batch->labels, bytes) == 0 &&
        memcmp(d->rows + batch->n, batch->fish, bytes) == 0)
        goto out;
    for (int i = 0; i < SH_ROW_TABLES; i++) memcpy(d->rows + i * batch->n, tables[i], bytes);
    d->n = 0;
    SH_TRY(d->backend->copy_in(d->tables, 0, d->rows, SH_ROW_TABLES * bytes));
    d->n = batch->n;
out:
    return st;
}

static sh_device_batch describe(const sh_loss *loss, const sh_loss_batch *batch)
{
    const sh_loss_device *d = loss->device;
    int64_t n = batch->n;
    const int32_t *tables = d->backend->device_ptr(d->tables, 0);
    sh_device_batch b = {
        .config = &loss->config,
        .n = n,
        .dim = loss->dim,
        .slots = loss->slots,
        .rule = loss->rule,
        .step = batch->step,
        .embeddings = batch->embeddings,
        .rows = {tables, tables + n, tables + 2 * n, tables + 3 * n, tables + 4 * n,
                 tables + 5 * n},
        .scratch = d->backend->device_ptr(d->scratch, 0),
    };

    for (int64_t i = 0; i < n; i++) {
        int64_t others = sh_groups_others(&loss->labels, i);

        if (others > b.most_others) b.most_others = others;
    }
    return b;
}

sh_status sh_loss_device_choose(sh_loss *loss, const sh_loss_batch *batch, int64_t begin,
                                int64_t end, void *choices)
{
    sh_status st = SH_OK;

    SH_TRY(put_tables(loss, batch));
    sh_device_batch b = describe(loss, batch);

    SH_TRY(loss->device->backend->loss->choose(&b, begin, end, choices));
out:
    return st;
}

sh_status sh_loss_device_apply(sh_loss *loss, const sh_loss_batch *batch, const void *choices,
                               int64_t begin, int64_t end, sh_loss_stats *stats, float *grad)
{
    sh_status st = SH_OK;
    const sh_backend *backend = loss->device->backend;
    sh_loss_sums sums = {0};

    SH_TRY(put_tables(loss, batch));
    sh_device_batch b = describe(loss, batch);

    SH_TRY(backend->loss->apply(&b, choices, begin, end, backend->device_ptr(loss->device->sums, 0),
                                grad));
    SH_TRY(backend->copy_out(loss->device->sums, 0, &sums, sizeof(sums)));
    *stats = (sh_loss_stats){.loss = sums.loss,
                             .n_pairs = sums.n_pairs,
                             .n_triplets = sums.n_triplets,
                             .n_active = sums.n_active};
out:
    return st;
}
