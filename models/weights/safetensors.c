// SPDX-License-Identifier: Apache-2.0
/*
 * safetensors: 8 bytes length of the header (little-endian), the header (a JSON object: tensor name
 * -> dtype, shape, data_offsets [begin, end) into what follows; "__metadata__" -> strings), then
 * the elements. The data section is covered without gap or overlap.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "models/weights/internal.h"

/* 100,000 tensors; jansson's tree takes about a hundred times the text in the worst case. */
enum { MAX_HEADER_BYTES = 16 << 20 };

typedef struct entry {
    sh_weight_view view;
    int64_t begin, end; /* bytes, within the data section */
} entry;

static int compare_begins(const void *a, const void *b)
{
    const entry *x = a;
    const entry *y = b;

    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

/* An array of at most `max` integers. */
static sh_status read_integers(const char *label, const char *name, const json_t *array, int max,
                               int64_t *values, int *n)
{
    sh_status st = SH_OK;

    SH_CHECK(json_is_array(array) && json_array_size(array) <= (size_t)max, SH_ERR_FORMAT,
             "%s: tensor '%.200s': shape and data_offsets must be lists of at most %d numbers",
             label, name, max);
    *n = (int)json_array_size(array);
    for (int i = 0; i < *n; i++) {
        const json_t *item = json_array_get(array, (size_t)i);

        SH_CHECK(json_is_integer(item) && json_integer_value(item) >= 0, SH_ERR_FORMAT,
                 "%s: tensor '%.200s': shape and data_offsets must hold whole numbers", label,
                 name);
        values[i] = json_integer_value(item);
    }
out:
    return st;
}

static sh_status read_entry(const char *label, const char *name, const json_t *item, entry *e)
{
    sh_status st = SH_OK;
    int64_t offsets[2] = {0};
    int n_offsets = 0;
    const char *dtype = json_string_value(json_object_get(item, "dtype"));
    sh_weight_view *view = &e->view;

    SH_CHECK(dtype != NULL, SH_ERR_FORMAT, "%s: tensor '%.200s' has no dtype", label, name);
    view->name = name;
    view->n_name = strlen(name);
    view->type = sh_elem_by_name(dtype);
    SH_CHECK(view->type != NULL, SH_ERR_UNSUPPORTED,
             "%s: tensor '%.200s' has element type '%.40s', which is not read; save it as F32",
             label, name, dtype);
    SH_TRY(read_integers(label, name, json_object_get(item, "shape"), SH_WEIGHT_MAX_DIMS,
                         view->dims, &view->n_dims));
    SH_TRY(
        read_integers(label, name, json_object_get(item, "data_offsets"), 2, offsets, &n_offsets));
    SH_CHECK(n_offsets == 2 && offsets[0] <= offsets[1], SH_ERR_FORMAT,
             "%s: tensor '%.200s': data_offsets must be [begin, end]", label, name);
    sh_weight_view_set_row_major(view);
    e->begin = offsets[0];
    e->end = offsets[1];

    int64_t n_bytes = view->type->size;
    bool overflow = false;

    for (int i = 0; i < view->n_dims; i++)
        overflow |= __builtin_mul_overflow(n_bytes, view->dims[i], &n_bytes);
    SH_CHECK(!overflow && n_bytes == e->end - e->begin, SH_ERR_FORMAT,
             "%s: tensor '%.200s': its shape does not fill its data_offsets", label, name);
out:
    return st;
}

/* Tensors in the order of their data, which is also the order in which they were written. */
static sh_status read_entries(sh_weights *weights, json_t *header, entry *entries, int64_t *n)
{
    sh_status st = SH_OK;
    const char *name = NULL;
    json_t *item = NULL;

    *n = 0;
    json_object_foreach(header, name, item)
    {
        if (strcmp(name, "__metadata__") == 0) {
            SH_CHECK(json_is_object(item), SH_ERR_FORMAT, "%s: __metadata__ is not an object",
                     sh_weights_label(weights));
            sh_weights_set_metadata(weights, json_incref(item));
            continue;
        }
        SH_TRY(read_entry(sh_weights_label(weights), name, item, &entries[*n]));
        (*n)++;
    }
    qsort(entries, (size_t)*n, sizeof(*entries), compare_begins);
out:
    return st;
}

static sh_status add_entries(const uint8_t *data, int64_t n_data, entry *entries, int64_t n,
                             sh_weights *weights)
{
    sh_status st = SH_OK;
    const char *label = sh_weights_label(weights);
    int64_t end = 0;

    for (int64_t i = 0; i < n; i++) {
        entry *e = &entries[i];

        SH_CHECK(
            e->begin == end, SH_ERR_FORMAT,
            "%s: tensor '%.200s' begins at byte %lld where %lld is expected: its data overlaps "
            "another's or leaves a gap",
            label, e->view.name, (long long)e->begin, (long long)end);
        SH_CHECK(e->end <= n_data, SH_ERR_FORMAT,
                 "%s: tensor '%.200s' ends at byte %lld of %lld: the file is truncated", label,
                 e->view.name, (long long)e->end, (long long)n_data);
        end = e->end;
        e->view.stored = data + e->begin;
        e->view.n_stored = (e->end - e->begin) / e->view.type->size;
        SH_TRY(sh_weights_add(weights, &e->view));
    }
    SH_CHECK(end == n_data, SH_ERR_FORMAT, "%s: %lld bytes after the last tensor", label,
             (long long)(n_data - end));
out:
    return st;
}

sh_status sh_safetensors_parse(const uint8_t *data, size_t n_bytes, sh_weights *weights)
{
    sh_status st = SH_OK;
    const char *label = sh_weights_label(weights);
    json_t *header = NULL;
    entry *entries = NULL;
    json_error_t error;
    uint64_t n_header = 0;
    int64_t n_entries = 0;

    SH_CHECK(n_bytes >= 10 && data[8] == '{', SH_ERR_FORMAT,
             "%s: not a weight file that is known here (safetensors, or a PyTorch .pth)", label);
    n_header = sh_bytes_le(data, 8);
    SH_CHECK(n_header <= MAX_HEADER_BYTES, SH_ERR_FORMAT,
             "%s: a safetensors header of %llu bytes; at most %d are read", label,
             (unsigned long long)n_header, MAX_HEADER_BYTES);
    SH_CHECK(n_header <= n_bytes - 8, SH_ERR_FORMAT, "%s: truncated within its header", label);
    header = json_loadb((const char *)data + 8, (size_t)n_header, JSON_REJECT_DUPLICATES, &error);
    SH_CHECK(json_is_object(header), SH_ERR_FORMAT, "%s: safetensors header, byte %d: %s", label,
             error.position, header == NULL ? error.text : "not an object");
    entries = calloc(json_object_size(header) + 1, sizeof(*entries));
    SH_CHECK(entries != NULL, SH_ERR_NO_MEMORY, "%s: %zu tensors", label, json_object_size(header));
    SH_TRY(read_entries(weights, header, entries, &n_entries));
    sh_weights_set_budget(weights, (int64_t)n_bytes); /* no element takes less than a byte */
    SH_TRY(add_entries(data + 8 + n_header, (int64_t)(n_bytes - 8 - n_header), entries, n_entries,
                       weights));
out:
    free(entries);
    json_decref(header);
    return st;
}
