// SPDX-License-Identifier: Apache-2.0
#include "models/store.h"

#include <math.h>
#include <stdlib.h>

#include "base/hash.h"
#include "base/rng.h"

enum { SLOT_ALIGN_ELEMS = 16 };

struct sh_store {
    const sh_backend *backend;
    sh_slot *slots;
    int n_slots, capacity;
    int64_t n_elems[2]; /* by sh_slot_kind, padded */
    sh_buffer *buffer[2];
    bool allocated;
};

sh_status sh_store_create(const sh_backend *backend, sh_store **out)
{
    sh_status st = SH_OK;
    sh_store *store = calloc(1, sizeof(*store));

    SH_CHECK(store != NULL, SH_ERR_NO_MEMORY, "parameter store, %zu bytes", sizeof(*store));
    store->backend = backend;
    *out = store;
out:
    return st;
}

void sh_store_destroy(sh_store **store)
{
    sh_store *s = *store;

    if (s == NULL) return;
    for (int kind = 0; kind < 2; kind++) s->backend->free(&s->buffer[kind]);
    free(s->slots);
    free(s);
    *store = NULL;
}

static sh_status check_same(const sh_slot *slot, sh_slot_kind kind, int n_dims, const int64_t *dims)
{
    sh_status st = SH_OK;
    bool same = slot->kind == kind && slot->n_dims == n_dims;

    for (int i = 0; same && i < n_dims; i++) same = slot->dims[i] == dims[i];
    SH_CHECK(same, SH_ERR_MISMATCH,
             "parameter %s is used with two shapes: [%lld, ...] of %d dimensions and [%lld, ...] "
             "of %d",
             slot->name, (long long)slot->dims[0], slot->n_dims,
             (long long)(n_dims > 0 ? dims[0] : 0), n_dims);
out:
    return st;
}

sh_status sh_store_add(sh_store *store, const char *name, sh_slot_kind kind, int n_dims,
                       const int64_t *dims, int *index)
{
    sh_status st = SH_OK;
    int found = sh_store_find(store, name);
    int64_t n_elems = 1;

    if (found >= 0) {
        SH_TRY(check_same(&store->slots[found], kind, n_dims, dims));
        *index = found;
        goto out;
    }
    SH_CHECK(!store->allocated, SH_ERR_USAGE,
             "parameter %s is added after the store was allocated; build every program first",
             name);
    SH_CHECK(n_dims >= 1 && n_dims <= 4, SH_ERR_USAGE, "parameter %s has %d dimensions, not 1..4",
             name, n_dims);
    SH_CHECK(strlen(name) < sizeof(store->slots->name), SH_ERR_USAGE,
             "parameter name is too long: %s", name);
    for (int i = 0; i < n_dims; i++) {
        SH_CHECK(dims[i] > 0, SH_ERR_USAGE, "parameter %s: dimension %d is %lld", name, i,
                 (long long)dims[i]);
        n_elems *= dims[i];
    }
    if (store->n_slots == store->capacity) {
        int capacity = store->capacity == 0 ? 64 : 2 * store->capacity;
        sh_slot *slots = realloc(store->slots, (size_t)capacity * sizeof(*slots));
        SH_CHECK(slots != NULL, SH_ERR_NO_MEMORY, "parameter store, %d slots", capacity);
        store->slots = slots;
        store->capacity = capacity;
    }
    sh_slot *slot = &store->slots[store->n_slots];
    memset(slot, 0, sizeof(*slot));
    strcpy(slot->name, name);
    slot->kind = kind;
    slot->n_dims = n_dims;
    for (int i = 0; i < 4; i++) slot->dims[i] = i < n_dims ? dims[i] : 1;
    slot->n_elems = n_elems;
    slot->offset = store->n_elems[kind];
    slot->trainable = true;
    slot->lr_scale = 1;
    slot->decay = kind == SH_SLOT_PARAM && n_dims > 1;
    store->n_elems[kind] += (n_elems + SLOT_ALIGN_ELEMS - 1) / SLOT_ALIGN_ELEMS * SLOT_ALIGN_ELEMS;
    *index = store->n_slots++;
out:
    return st;
}

sh_status sh_store_allocate(sh_store *store)
{
    sh_status st = SH_OK;

    SH_CHECK(!store->allocated, SH_ERR_USAGE, "the parameter store is already allocated");
    for (int kind = 0; kind < 2; kind++) {
        size_t n_bytes = (size_t)store->n_elems[kind] * sizeof(float);
        SH_TRY(store->backend->alloc(n_bytes > 0 ? n_bytes : 64, &store->buffer[kind]));
    }
    store->allocated = true;
out:
    return st;
}

const sh_backend *sh_store_backend(const sh_store *store)
{
    return store->backend;
}

int sh_store_n_slots(const sh_store *store)
{
    return store->n_slots;
}

const sh_slot *sh_store_slot(const sh_store *store, int index)
{
    return &store->slots[index];
}

sh_slot *sh_store_slot_mutable(sh_store *store, int index)
{
    return &store->slots[index];
}

int sh_store_find(const sh_store *store, const char *name)
{
    for (int i = 0; i < store->n_slots; i++) {
        if (strcmp(store->slots[i].name, name) == 0) return i;
    }
    return -1;
}

int64_t sh_store_n_params(const sh_store *store)
{
    return store->n_elems[SH_SLOT_PARAM];
}

int64_t sh_store_n_states(const sh_store *store)
{
    return store->n_elems[SH_SLOT_STATE];
}

sh_buffer *sh_store_params(sh_store *store)
{
    return store->buffer[SH_SLOT_PARAM];
}

sh_buffer *sh_store_states(sh_store *store)
{
    return store->buffer[SH_SLOT_STATE];
}

sh_status sh_store_write(sh_store *store, int index, const float *host)
{
    const sh_slot *slot = &store->slots[index];

    return store->backend->copy_in(store->buffer[slot->kind], (size_t)slot->offset * sizeof(float),
                                   host, (size_t)slot->n_elems * sizeof(float));
}

sh_status sh_store_read(sh_store *store, int index, float *host)
{
    const sh_slot *slot = &store->slots[index];

    return store->backend->copy_out(store->buffer[slot->kind], (size_t)slot->offset * sizeof(float),
                                    host, (size_t)slot->n_elems * sizeof(float));
}

static bool ends_with(const char *text, const char *tail)
{
    size_t n = strlen(text), m = strlen(tail);

    return n >= m && strcmp(text + n - m, tail) == 0;
}

/** What vectors begin with where that is not zero. */
static float initial_value(const sh_slot *slot)
{
    static const struct {
        const char *tail;
        float value;
    } rules[] = {{"running_var", 1}, {"weight", 1}, {".gamma", 1e-5f}, {".p", 3}};

    for (size_t i = 0; i < SH_COUNT(rules); i++) {
        if (ends_with(slot->name, rules[i].tail)) return rules[i].value;
    }
    return 0;
}

/** Initial values of one slot; see the header for the rules. */
static void fill_slot(const sh_slot *slot, uint64_t seed, float *values)
{
    uint64_t name_hash = sh_fnv1a(SH_FNV1A_START, slot->name, strlen(slot->name));
    sh_rng_key key = sh_rng_make(seed, SH_RNG_INIT, 0, name_hash);

    if (slot->n_dims < 2) {
        for (int64_t i = 0; i < slot->n_elems; i++) values[i] = initial_value(slot);
        return;
    }
    double fan_out = (double)(slot->dims[0] * slot->dims[2] * slot->dims[3]);
    double deviation = slot->n_dims == 2 ? 0.01 : slot->n_dims == 3 ? 0.02 : sqrt(2.0 / fan_out);
    for (int64_t i = 0; i < slot->n_elems; i++) {
        values[i] = (float)(deviation * sh_rng_normal(key, (uint64_t)i));
    }
}

sh_status sh_store_init(sh_store *store, uint64_t seed)
{
    sh_status st = SH_OK;
    float *values = NULL;
    int64_t n_max = 1;

    SH_CHECK(store->allocated, SH_ERR_USAGE, "the parameter store is initialised before allocated");
    for (int i = 0; i < store->n_slots; i++) {
        if (store->slots[i].n_elems > n_max) n_max = store->slots[i].n_elems;
    }
    values = malloc((size_t)n_max * sizeof(*values));
    SH_CHECK(values != NULL, SH_ERR_NO_MEMORY, "initial weights, %lld elements", (long long)n_max);
    for (int i = 0; i < store->n_slots; i++) {
        fill_slot(&store->slots[i], seed, values);
        SH_TRY(sh_store_write(store, i, values));
    }
out:
    free(values);
    return st;
}
