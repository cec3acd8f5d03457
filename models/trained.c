// SPDX-License-Identifier: Apache-2.0
#include "models/trained.h"

#include <stdlib.h>

/* Where a slot lies in the reduce arena, and where its padding ends. */
static int64_t arena_offset(const sh_store *store, const sh_slot *slot)
{
    return slot->offset + (slot->kind == SH_SLOT_STATE ? sh_store_n_params(store) : 0);
}

static int64_t arena_end(const sh_store *store, int index, sh_slot_kind kind)
{
    for (int i = index + 1; i < sh_store_n_slots(store); i++) {
        const sh_slot *next = sh_store_slot(store, i);

        if (next->kind == kind) return arena_offset(store, next);
    }
    return sh_store_n_params(store) + (kind == SH_SLOT_STATE ? sh_store_n_states(store) : 0);
}

static void add_slots(const sh_store *store, sh_slot_kind kind, sh_trained *t)
{
    for (int i = 0; i < sh_store_n_slots(store); i++) {
        const sh_slot *slot = sh_store_slot(store, i);
        sh_trained_range *last = t->n_ranges > 0 ? &t->ranges[t->n_ranges - 1] : NULL;

        if (slot->kind != kind || !slot->trainable) continue;
        int64_t offset = arena_offset(store, slot);
        int64_t n = arena_end(store, i, kind) - offset;

        if (last != NULL && last->offset + last->n == offset)
            last->n += n;
        else
            t->ranges[t->n_ranges++] = (sh_trained_range){.offset = offset, .packed = t->n, .n = n};
        t->n += n;
    }
}

sh_status sh_trained_collect(const sh_store *store, sh_trained *out)
{
    sh_status st = SH_OK;
    sh_trained t = {0};

    t.ranges = calloc((size_t)sh_store_n_slots(store) + 1, sizeof(*t.ranges));
    SH_CHECK(t.ranges != NULL, SH_ERR_NO_MEMORY, "list of trained parameters");
    add_slots(store, SH_SLOT_PARAM, &t);
    t.n_params = t.n;
    add_slots(store, SH_SLOT_STATE, &t);
    *out = t;
    t = (sh_trained){0};
out:
    sh_trained_clear(&t);
    return st;
}

void sh_trained_clear(sh_trained *trained)
{
    free(trained->ranges);
    *trained = (sh_trained){0};
}

int64_t sh_trained_place(const sh_trained *trained, const sh_store *store, int slot)
{
    int64_t offset = arena_offset(store, sh_store_slot(store, slot));

    if (!sh_store_slot(store, slot)->trainable) return -1;
    for (int r = 0; r < trained->n_ranges; r++) {
        const sh_trained_range *range = &trained->ranges[r];

        if (offset >= range->offset && offset < range->offset + range->n)
            return range->packed + offset - range->offset;
    }
    return -1;
}
