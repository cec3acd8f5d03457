// SPDX-License-Identifier: Apache-2.0
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "models/weights/internal.h"
#include "models/weights/recognise.h"

/* ---- a text of bounded length that says how much it leaves out ---- */

typedef struct listing {
    char *text;
    size_t size, n;
    const char *group; /* heading of the items being added; NULL once written */
    int n_left_out;
} listing;

static void begin_group(listing *list, const char *group)
{
    list->group = group;
}

static void add_item(listing *list, const char *fmt, ...) SH_PRINTF(2, 3);
static void add_item(listing *list, const char *fmt, ...)
{
    enum { ROOM_FOR_END = 32 }; /* "; and 1234567 more" */
    char item[512];
    va_list args;

    va_start(args, fmt);
    vsnprintf(item, sizeof(item), fmt, args);
    va_end(args);

    const char *before = list->n == 0 ? "" : list->group != NULL ? "; " : ", ";
    const char *heading = list->group != NULL ? list->group : "";

    if (list->n + strlen(before) + strlen(heading) + strlen(item) + ROOM_FOR_END > list->size) {
        list->n_left_out++;
        return;
    }
    list->n += (size_t)snprintf(list->text + list->n, list->size - list->n, "%s%s%s", before,
                                heading, item);
    list->group = NULL;
}

static void end_listing(listing *list)
{
    if (list->n_left_out > 0)
        snprintf(list->text + list->n, list->size - list->n, "; and %d more", list->n_left_out);
}

/* "[32, 3, 3, 3]" */
static void format_dims(const int64_t *dims, int n_dims, char *text, size_t size)
{
    size_t n = 0;

    snprintf(text, size, "[]");
    for (int i = 0; i < n_dims && n < size; i++)
        n += (size_t)snprintf(text + n, size - n, "%s%lld%s", i == 0 ? "[" : ", ",
                              (long long)dims[i], i == n_dims - 1 ? "]" : "");
}

/* ---- loading ---- */

static bool ends_with(const char *text, const char *end)
{
    size_t n_text = strlen(text), n_end = strlen(end);

    return n_text >= n_end && strcmp(text + n_text - n_end, end) == 0;
}

static bool same_shape(const sh_weight *weight, const sh_slot *slot)
{
    return weight->n_dims == slot->n_dims &&
           memcmp(weight->dims, slot->dims, (size_t)slot->n_dims * sizeof(slot->dims[0])) == 0;
}

static void list_missing(const sh_weights *weights, const sh_store *store, listing *list,
                         sh_load_report *report)
{
    begin_group(list, "missing: ");
    for (int i = 0; i < sh_store_n_slots(store); i++) {
        const sh_slot *slot = sh_store_slot(store, i);

        if (sh_weights_find(weights, slot->name) != NULL) continue;
        report->n_missing++;
        add_item(list, "%s", slot->name);
    }
}

static void list_misshaped(const sh_weights *weights, const sh_store *store, listing *list,
                           sh_load_report *report)
{
    begin_group(list, "of another shape: ");
    for (int i = 0; i < sh_store_n_slots(store); i++) {
        const sh_slot *slot = sh_store_slot(store, i);
        const sh_weight *weight = sh_weights_find(weights, slot->name);
        char have[128], want[128];

        if (weight == NULL) continue;
        report->n_loaded += same_shape(weight, slot);
        if (same_shape(weight, slot)) continue;
        report->n_misshaped++;
        format_dims(weight->dims, weight->n_dims, have, sizeof(have));
        format_dims(slot->dims, slot->n_dims, want, sizeof(want));
        add_item(list, "%s %s, needed %s", slot->name, have, want);
    }
}

static void list_extra(const sh_weights *weights, const sh_store *store, listing *list,
                       sh_load_report *report)
{
    int n_counters = 0;

    begin_group(list, "extra: ");
    for (int64_t i = 0; i < sh_weights_count(weights); i++) {
        const sh_weight *weight = sh_weights_get(weights, i);
        char have[128];

        if (sh_store_find(store, weight->name) >= 0) continue;
        report->n_extra++;
        if (ends_with(weight->name, "num_batches_tracked")) {
            n_counters++;
            continue;
        }
        format_dims(weight->dims, weight->n_dims, have, sizeof(have));
        add_item(list, "%.300s %s", weight->name, have);
    }
    if (n_counters > 0) add_item(list, "%d counters num_batches_tracked", n_counters);
}

static sh_status copy_to_store(const sh_weights *weights, sh_store *store)
{
    sh_status st = SH_OK;

    for (int i = 0; i < sh_store_n_slots(store); i++) {
        const sh_slot *slot = sh_store_slot(store, i);
        const sh_weight *weight = sh_weights_find(weights, slot->name);

        if (weight != NULL && same_shape(weight, slot))
            SH_TRY(sh_store_write(store, i, weight->data));
    }
out:
    return st;
}

/* The refusal of a set of which nothing fits: it may be another network's. */
static sh_status refuse(sh_weights *weights, const sh_net *net, const sh_load_report *report)
{
    sh_status st = SH_OK;
    sh_recognised found;

    SH_CHECK(sh_weights_recognise(weights, NULL, &found) != SH_OK, SH_ERR_MISMATCH,
             "%s has nothing for %s: its tensors are those of %s, so give net=%s",
             sh_weights_label(weights), net->name, found.net->name, found.net->name);
    sh_error_clear();
    SH_FAIL(SH_ERR_MISMATCH, "%s has nothing for %s: %s", sh_weights_label(weights), net->name,
            report->text);
out:
    return st;
}

/* Files that Shoal wrote say whose they are; names and shapes alone do not tell twins apart. */
static void warn_of_twin(const sh_weights *weights, const sh_net *net)
{
    const char *run = sh_weights_metadata(weights, "shoal.net");
    const char *said = run != NULL ? run : sh_weights_metadata(weights, "net");

    if (said != NULL && strcmp(said, net->name) != 0)
        sh_log_warning("%s holds weights of %s, not of %s, which computes otherwise even where "
                       "tensors have the same names and shapes (padding, constants of batch norms, "
                       "normalisation of images): for these weights give net=%s",
                       sh_weights_label(weights), said, net->name, said);
}

sh_status sh_weights_load(sh_weights *weights, const sh_net *net, sh_store *store, bool strict,
                          sh_load_report *report)
{
    sh_status st = SH_OK;
    listing list = {.text = report->text, .size = sizeof(report->text)};

    memset(report, 0, sizeof(*report));
    SH_TRY(sh_weights_adapt(weights, net, store, NULL));
    list_misshaped(weights, store, &list, report); /* few and telling, so first */
    list_missing(weights, store, &list, report);
    list_extra(weights, store, &list, report);
    end_listing(&list);
    if (report->n_loaded == 0) SH_TRY(refuse(weights, net, report));
    SH_CHECK(!strict || report->n_missing + report->n_misshaped == 0, SH_ERR_MISMATCH,
             "%s does not fit the network: %s", sh_weights_label(weights), report->text);
    SH_TRY(copy_to_store(weights, store));
    warn_of_twin(weights, net);
out:
    return st;
}

/* ---- saving ---- */

sh_status sh_weights_save(const char *path, sh_store *store, const char *const (*metadata)[2],
                          int n_metadata, uint32_t *crc32c, uint64_t *n_bytes)
{
    sh_status st = SH_OK;
    int n = sh_store_n_slots(store);
    int64_t n_elems = 0;
    float *values = NULL;
    sh_weight_out *tensors = calloc((size_t)n + 1, sizeof(*tensors));

    for (int i = 0; i < n; i++) n_elems += sh_store_slot(store, i)->n_elems;
    values = malloc((size_t)(n_elems + 1) * sizeof(*values));
    SH_CHECK(tensors != NULL && values != NULL, SH_ERR_NO_MEMORY, "%s: %lld weights", path,
             (long long)n_elems);
    n_elems = 0;
    for (int i = 0; i < n; i++) {
        const sh_slot *slot = sh_store_slot(store, i);

        tensors[i] = (sh_weight_out){
            .name = slot->name, .dtype = SH_F32, .n_dims = slot->n_dims, .data = values + n_elems};
        memcpy(tensors[i].dims, slot->dims, sizeof(slot->dims));
        SH_TRY(sh_store_read(store, i, values + n_elems));
        n_elems += slot->n_elems;
    }
    SH_TRY(sh_weights_write(path, tensors, n, metadata, n_metadata, crc32c, n_bytes));
out:
    free(values);
    free(tensors);
    return st;
}
