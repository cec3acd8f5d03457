// SPDX-License-Identifier: Apache-2.0
#include "models/loss/class_device.h"

#include <stdlib.h>
#include <string.h>

struct sh_class_device {
    const sh_class_config *config;
    const sh_backend *backend;
    int32_t *next_labels; /* page-locked where the backend has a device */
    int64_t n;            /* rows of the batch */
    sh_buffer *weights;   /* [n_classes], or NULL */
    sh_buffer *fish;      /* [n_classes], or NULL */
    sh_buffer *labels, *scratch;
};

/* A copy of n_bytes in the backend's memory, or NULL for NULL. */
static sh_status copy_of(const sh_backend *backend, const void *from, size_t n_bytes,
                         sh_buffer **out)
{
    sh_status st = SH_OK;

    if (from == NULL) goto out;
    SH_TRY(backend->alloc(n_bytes, out));
    SH_TRY(backend->copy_in(*out, 0, from, n_bytes));
out:
    return st;
}

sh_status sh_class_device_create(const sh_class_config *config, const sh_backend *backend,
                                 const float *class_weights, const int32_t *class_fish,
                                 int64_t n_max, sh_class_device **out)
{
    sh_status st = SH_OK;
    sh_class_device *d = calloc(1, sizeof(*d));
    size_t n_classes = (size_t)config->n_classes;
    size_t label_bytes = (size_t)n_max * sizeof(int32_t);

    SH_CHECK(d != NULL, SH_ERR_NO_MEMORY, "classification");
    d->config = config;
    d->backend = backend;
    SH_TRY(sh_backend_alloc_host(backend, label_bytes, (void **)&d->next_labels));
    SH_TRY(copy_of(backend, class_weights, n_classes * sizeof(float), &d->weights));
    SH_TRY(copy_of(backend, class_fish, n_classes * sizeof(int32_t), &d->fish));
    SH_TRY(backend->alloc(label_bytes, &d->labels));
    SH_TRY(backend->alloc(backend->classes->scratch_bytes(n_max), &d->scratch));
    *out = d;
    d = NULL;
out:
    sh_class_device_destroy(&d);
    return st;
}

void sh_class_device_destroy(sh_class_device **device)
{
    sh_class_device *d = *device;

    if (d == NULL) return;
    d->backend->free(&d->weights);
    d->backend->free(&d->fish);
    d->backend->free(&d->labels);
    d->backend->free(&d->scratch);
    sh_backend_free_host(d->backend, d->next_labels);
    free(d);
    *device = NULL;
}

sh_status sh_class_device_begin(sh_class_device *d, const int32_t *labels, int64_t n)
{
    size_t bytes = (size_t)n * sizeof(int32_t);

    d->n = n;
    memcpy(d->next_labels, labels, bytes);
    return sh_backend_send(d->backend, d->labels, 0, d->next_labels, bytes);
}

static sh_class_batch describe(const sh_class_device *d)
{
    const sh_backend *backend = d->backend;

    return (sh_class_batch){
        .config = d->config,
        .weights = d->weights != NULL ? backend->device_ptr(d->weights, 0) : NULL,
        .fish = d->fish != NULL ? backend->device_ptr(d->fish, 0) : NULL,
        .labels = backend->device_ptr(d->labels, 0),
        .n = d->n,
        .scratch = backend->device_ptr(d->scratch, 0),
    };
}

sh_status sh_class_device_choose(sh_class_device *d, const float *logits, int64_t row_begin,
                                 int64_t row_end, sh_class_row *rows)
{
    sh_class_batch batch = describe(d);

    return d->backend->classes->choose(&batch, logits, row_begin, row_end, rows);
}

sh_status sh_class_device_apply(sh_class_device *d, const sh_class_row *rows, const float *logits,
                                int64_t row_begin, int64_t row_end, float weight,
                                sh_class_stats *stats, float *grad)
{
    sh_class_batch batch = describe(d);

    return d->backend->classes->apply(&batch, rows, logits, row_begin, row_end, weight, stats,
                                      grad);
}
