// SPDX-License-Identifier: Apache-2.0
#include "models/weights/weights.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "models/weights/hdf5.h"
#include "models/weights/internal.h"

/* Larger than any network that this program could train; bounds what a damaged size can ask for. */
static const size_t max_file_bytes = (size_t)16 << 30;
enum { MAX_NAME_BYTES = 4096 };

struct sh_weights {
    char *label;
    sh_weight *items;
    int64_t n_items, capacity;
    sh_weight **by_name; /* items in the order of their names */
    json_t *metadata;
    int64_t budget_elems;
};

/* ---- building a set ---- */

const char *sh_weights_label(const sh_weights *weights)
{
    return weights->label;
}

void sh_weights_set_budget(sh_weights *weights, int64_t n_elems)
{
    weights->budget_elems = n_elems;
}

void sh_weights_set_metadata(sh_weights *weights, json_t *metadata)
{
    json_decref(weights->metadata);
    weights->metadata = metadata;
}

void sh_weight_view_set_row_major(sh_weight_view *view)
{
    int64_t stride = 1;

    for (int i = view->n_dims - 1; i >= 0; i--) {
        view->strides[i] = stride;
        if (view->dims[i] > 0 && __builtin_mul_overflow(stride, view->dims[i], &stride)) stride = 0;
    }
}

/* Elements of the view; refuses what reaches outside the stored elements, and sizes that overflow.
 */
static sh_status check_view(const sh_weights *weights, const sh_weight_view *v, int64_t *n_elems)
{
    sh_status st = SH_OK;
    const char *label = weights->label;
    int n_shown = v->n_name < 200 ? (int)v->n_name : 200;
    int64_t n = 1, last = v->offset;
    bool overflow = false, negative = v->offset < 0;

    SH_CHECK(v->n_name > 0 && v->n_name <= MAX_NAME_BYTES &&
                 memchr(v->name, '\0', v->n_name) == NULL,
             SH_ERR_FORMAT, "%s: a tensor has a name of %zu bytes, or one with a NUL in it", label,
             v->n_name);
    for (int i = 0; i < v->n_dims; i++) {
        int64_t reach = 0;

        negative |= v->dims[i] < 0 || v->strides[i] < 0;
        overflow |= __builtin_mul_overflow(n, v->dims[i], &n);
        overflow |= __builtin_mul_overflow(v->dims[i] - (v->dims[i] > 0), v->strides[i], &reach);
        overflow |= __builtin_add_overflow(last, reach, &last);
    }
    SH_CHECK(!negative && !overflow, SH_ERR_FORMAT,
             "%s: tensor '%.*s' has a negative or impossible size, stride or offset", label,
             n_shown, v->name);
    SH_CHECK(n == 0 || last < v->n_stored, SH_ERR_FORMAT,
             "%s: tensor '%.*s' reaches element %lld of a storage of %lld", label, n_shown, v->name,
             (long long)last, (long long)v->n_stored);
    SH_CHECK(
        n <= weights->budget_elems, SH_ERR_FORMAT,
        "%s: tensor '%.*s' repeats stored elements so often that the file would take much more "
        "memory than its size; refused",
        label, n_shown, v->name);
    *n_elems = n;
out:
    return st;
}

static bool is_row_major(const sh_weight_view *v)
{
    sh_weight_view dense = *v;

    sh_weight_view_set_row_major(&dense);
    for (int i = 0; i < v->n_dims; i++)
        if (v->dims[i] > 1 && v->strides[i] != dense.strides[i]) return false;
    return true;
}

/* Elements of the view in row-major order. Counts like an odometer: no recursion, no division. */
static void copy_elements(const sh_weight_view *v, int64_t n_elems, float *out)
{
    const uint8_t *base = v->stored + v->offset * v->type->size;

    if (is_row_major(v)) {
        if (strcmp(v->type->name, "F32") == 0) {
            memcpy(out, base, (size_t)n_elems * sizeof(*out));
        } else {
            for (int64_t i = 0; i < n_elems; i++) out[i] = v->type->load(base + i * v->type->size);
        }
        return;
    }
    int64_t at[SH_WEIGHT_MAX_DIMS] = {0};
    int64_t position = 0;

    for (int64_t i = 0; i < n_elems; i++) {
        out[i] = v->type->load(base + position * v->type->size);
        for (int d = v->n_dims - 1; d >= 0; d--) {
            position += v->strides[d];
            if (++at[d] < v->dims[d]) break;
            position -= at[d] * v->strides[d];
            at[d] = 0;
        }
    }
}

sh_status sh_weights_add(sh_weights *weights, const sh_weight_view *view)
{
    sh_status st = SH_OK;
    char *name = NULL;
    float *data = NULL;
    int64_t n_elems = 0;

    SH_TRY(check_view(weights, view, &n_elems));
    if (weights->n_items == weights->capacity) {
        int64_t capacity = weights->capacity == 0 ? 64 : 2 * weights->capacity;
        sh_weight *items = realloc(weights->items, (size_t)capacity * sizeof(*items));

        SH_CHECK(items != NULL, SH_ERR_NO_MEMORY, "%s: list of tensors", weights->label);
        weights->items = items;
        weights->capacity = capacity;
    }
    name = strndup(view->name, view->n_name);
    data = malloc((size_t)(n_elems > 0 ? n_elems : 1) * sizeof(*data));
    SH_CHECK(name != NULL && data != NULL, SH_ERR_NO_MEMORY, "%s: tensor of %lld elements",
             weights->label, (long long)n_elems);
    if (n_elems > 0) copy_elements(view, n_elems, data);
    weights->budget_elems -= n_elems;

    sh_weight *item = &weights->items[weights->n_items++];

    *item = (sh_weight){.name = name, .n_dims = view->n_dims, .n_elems = n_elems, .data = data};
    memcpy(item->dims, view->dims, (size_t)view->n_dims * sizeof(item->dims[0]));
    name = NULL;
    data = NULL;
out:
    free(name);
    free(data);
    return st;
}

/* ---- finishing a set ---- */

static int compare_names(const void *a, const void *b)
{
    const sh_weight *const *x = a;
    const sh_weight *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

/* What training code puts before a network's own names: data parallelism, wrappers. */
static const char *const prefixes[] = {"module.", "model.", "backbone.", "_orig_mod."};

/* Drop a prefix that more than half of the names have; the others belong to a head beside it. */
static bool drop_prefix(sh_weights *weights, const char *prefix)
{
    const size_t n = strlen(prefix);
    int64_t n_with = 0;

    for (int64_t i = 0; i < weights->n_items; i++) {
        const char *name = weights->items[i].name;

        n_with += strncmp(name, prefix, n) == 0 && name[n] != '\0';
    }
    if (2 * n_with <= weights->n_items) return false;
    for (int64_t i = 0; i < weights->n_items; i++) {
        char *name = (char *)weights->items[i].name; /* allocated in sh_weights_add */

        if (strncmp(name, prefix, n) == 0 && name[n] != '\0')
            memmove(name, name + n, strlen(name + n) + 1);
    }
    return true;
}

static void drop_prefixes(sh_weights *weights)
{
    bool dropped = true;

    while (dropped) {
        dropped = false;
        for (size_t i = 0; i < SH_COUNT(prefixes); i++)
            dropped |= drop_prefix(weights, prefixes[i]);
    }
}

sh_status sh_weights_index(sh_weights *weights)
{
    sh_status st = SH_OK;
    int64_t n = weights->n_items;

    free(weights->by_name);
    weights->by_name = malloc((size_t)(n + 1) * sizeof(sh_weight *));
    SH_CHECK(weights->by_name != NULL, SH_ERR_NO_MEMORY, "%s: index of names", weights->label);
    for (int64_t i = 0; i < n; i++) weights->by_name[i] = &weights->items[i];
    qsort(weights->by_name, (size_t)n, sizeof(sh_weight *), compare_names);
    for (int64_t i = 1; i < n; i++)
        SH_CHECK(strcmp(weights->by_name[i - 1]->name, weights->by_name[i]->name) != 0,
                 SH_ERR_FORMAT, "%s: two tensors are named '%.200s'", weights->label,
                 weights->by_name[i]->name);
out:
    return st;
}

sh_status sh_weights_rename(sh_weights *weights, int64_t index, const char *name)
{
    sh_status st = SH_OK;
    char *copy = strdup(name);

    SH_CHECK(copy != NULL, SH_ERR_NO_MEMORY, "%s: name '%s'", weights->label, name);
    free((char *)weights->items[index].name);
    weights->items[index].name = copy;
out:
    return st;
}

float *sh_weights_data(sh_weights *weights, int64_t index)
{
    return (float *)weights->items[index].data;
}

void sh_weights_replace(sh_weights *weights, int64_t index, int dim, int64_t size, float *data)
{
    sh_weight *item = &weights->items[index];

    free((float *)item->data);
    item->data = data;
    item->n_elems = item->n_elems / item->dims[dim] * size;
    item->dims[dim] = size;
}

static sh_status finish(sh_weights *weights)
{
    sh_status st = SH_OK;

    SH_CHECK(weights->n_items > 0, SH_ERR_FORMAT, "%s: holds no tensors", weights->label);
    drop_prefixes(weights);
    SH_TRY(sh_weights_index(weights));
out:
    return st;
}

sh_status sh_weights_parse(const void *data, size_t n_bytes, const char *label, sh_weights **out)
{
    sh_status st = SH_OK;
    sh_weights *weights = calloc(1, sizeof(*weights));

    SH_CHECK(weights != NULL, SH_ERR_NO_MEMORY, "weights of %s", label);
    weights->label = strdup(label);
    SH_CHECK(weights->label != NULL, SH_ERR_NO_MEMORY, "weights of %s", label);
    if (sh_pth_recognise(data, n_bytes)) {
        SH_TRY(sh_pth_parse(data, n_bytes, weights));
    } else if (sh_h5_recognise(data, n_bytes)) {
        SH_TRY(sh_keras_parse(data, n_bytes, weights));
    } else {
        SH_TRY(sh_safetensors_parse(data, n_bytes, weights));
    }
    SH_TRY(finish(weights));
    *out = weights;
    weights = NULL;
out:
    sh_weights_destroy(&weights);
    return st;
}

sh_status sh_weights_read(const char *path, sh_weights **out)
{
    sh_status st = SH_OK;
    char *data = NULL;
    size_t n_bytes = 0;

    SH_TRY(sh_file_get(path, max_file_bytes, &data, &n_bytes));
    SH_TRY(sh_weights_parse(data, n_bytes, path, out));
out:
    free(data);
    return st;
}

void sh_weights_destroy(sh_weights **weights)
{
    sh_weights *w = *weights;

    if (w == NULL) return;
    for (int64_t i = 0; i < w->n_items; i++) {
        free((char *)w->items[i].name);
        free((float *)w->items[i].data);
    }
    json_decref(w->metadata);
    free(w->by_name);
    free(w->items);
    free(w->label);
    free(w);
    *weights = NULL;
}

/* ---- looking ---- */

int64_t sh_weights_count(const sh_weights *weights)
{
    return weights->n_items;
}

const sh_weight *sh_weights_get(const sh_weights *weights, int64_t index)
{
    return &weights->items[index];
}

const sh_weight *sh_weights_find(const sh_weights *weights, const char *name)
{
    int64_t lo = 0, hi = weights->n_items;

    while (lo < hi) {
        int64_t mid = lo + (hi - lo) / 2;
        int order = strcmp(name, weights->by_name[mid]->name);

        if (order == 0) return weights->by_name[mid];
        if (order < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

const char *sh_weights_metadata(const sh_weights *weights, const char *key)
{
    return json_string_value(json_object_get(weights->metadata, key));
}
