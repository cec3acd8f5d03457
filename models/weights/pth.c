// SPDX-License-Identifier: Apache-2.0
/*
 * PyTorch's two containers.
 *
 * Zip (since 1.6): NAME/data.pkl describes the object; storage k lies in NAME/data/k. NAME is
 * whatever the file was called when it was written.
 *
 * Legacy: five parts one after another - pickles of a magic number, of the protocol version 1001,
 * of a dictionary about the machine, of the object, of the list of storage keys - then, for each
 * key, 8 bytes count of elements and the elements.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "models/weights/pickle.h"
#include "models/weights/zip.h"

/* Pickled 0x1950a86a20f9469cfc6c, after the two bytes that name the pickle protocol. */
static const uint8_t legacy_magic[] = "\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
enum { MAGIC_BYTES = sizeof(legacy_magic) - 1, LEGACY_PROTOCOL = 1001 };

static bool is_zip(const uint8_t *data, size_t n_bytes)
{
    return n_bytes >= 4 && memcmp(data, "PK\3\4", 4) == 0;
}

bool sh_pth_recognise(const uint8_t *data, size_t n_bytes)
{
    return is_zip(data, n_bytes) ||
           (n_bytes >= MAGIC_BYTES + 2 && memcmp(data + 2, legacy_magic, MAGIC_BYTES) == 0);
}

/* ---- storages: every mention of one key describes the same bytes ---- */

static int compare_keys(const sh_pickle_value *x, const char *key, size_t n_key)
{
    size_t n = x->as.storage.n_key < n_key ? x->as.storage.n_key : n_key;
    int order = memcmp(x->as.storage.key, key, n);

    return order != 0 ? order : (x->as.storage.n_key > n_key) - (x->as.storage.n_key < n_key);
}

static int compare_storages(const void *a, const void *b)
{
    const sh_pickle_value *const *x = a;
    const sh_pickle_value *const *y = b;

    return compare_keys(*x, (*y)->as.storage.key, (*y)->as.storage.n_key);
}

/* How many mentions from `first` on have its key. They must agree. */
static sh_status count_mentions(const char *label, sh_pickle_value *const *storages, int64_t n,
                                int64_t first, int64_t *n_mentions)
{
    sh_status st = SH_OK;
    int64_t i = first + 1;

    for (; i < n && compare_storages(&storages[first], &storages[i]) == 0; i++)
        SH_CHECK(storages[i]->as.storage.type == storages[first]->as.storage.type &&
                     storages[i]->as.storage.n_elems == storages[first]->as.storage.n_elems,
                 SH_ERR_FORMAT, "%s: one storage is described in two ways", label);
    *n_mentions = i - first;
out:
    return st;
}

static void set_data(sh_pickle_value *const *storages, int64_t n, const uint8_t *data)
{
    for (int64_t i = 0; i < n; i++) storages[i]->as.storage.data = data;
}

/* ---- from the object to tensors ---- */

static const sh_pickle_value *dict_find(const sh_pickle_value *dict, const char *key)
{
    for (int64_t i = 0; i < dict->as.list.n; i += 2)
        if (sh_pickle_is(dict->as.list.items[i], key)) return dict->as.list.items[i + 1];
    return NULL;
}

/* Training programs wrap the state dict. Each step down leaves one of these names behind, and a
 * dictionary may contain itself, so the number of steps is bounded. */
static const sh_pickle_value *unwrap(const sh_pickle_value *object)
{
    static const char *const wrappers[] = {"state_dict", "model_state_dict", "model"};
    enum { MAX_STEPS = 4 };

    for (int step = 0; step < MAX_STEPS && object->kind == SH_PICKLE_DICT; step++) {
        const sh_pickle_value *inner = NULL;

        for (size_t i = 0; i < SH_COUNT(wrappers) && inner == NULL; i++) {
            inner = dict_find(object, wrappers[i]);
            if (inner != NULL && inner->kind != SH_PICKLE_DICT) inner = NULL;
        }
        if (inner == NULL) break;
        object = inner;
    }
    return object;
}

static sh_status add_tensor(sh_weights *weights, const sh_pickle_value *key,
                            const sh_pickle_value *value)
{
    const sh_pickle_value *storage = value->as.tensor.storage;
    const sh_pickle_value *dims = value->as.tensor.dims;
    sh_weight_view view = {.name = key->as.string.text,
                           .n_name = key->as.string.n,
                           .type = storage->as.storage.type,
                           .stored = storage->as.storage.data,
                           .n_stored = storage->as.storage.n_elems,
                           .offset = value->as.tensor.offset,
                           .n_dims = (int)dims->as.list.n};

    for (int i = 0; i < view.n_dims; i++) {
        view.dims[i] = dims->as.list.items[i]->as.integer;
        view.strides[i] = value->as.tensor.strides->as.list.items[i]->as.integer;
    }
    return sh_weights_add(weights, &view);
}

/* Numbers beside the tensors (an epoch, a loss) are passed over. */
static sh_status add_tensors(const sh_pickle *pickle, size_t n_bytes, sh_weights *weights)
{
    sh_status st = SH_OK;
    const char *label = sh_weights_label(weights);
    const sh_pickle_value *dict = unwrap(sh_pickle_root(pickle));

    SH_CHECK(dict->kind == SH_PICKLE_DICT, SH_ERR_FORMAT,
             "%s: holds something else than a dictionary of tensors; in Python, save "
             "model.state_dict()",
             label);
    /* Tied weights are stored once and named twice or more often. */
    sh_weights_set_budget(weights, 2 * (int64_t)n_bytes + (1 << 20));
    for (int64_t i = 0; i < dict->as.list.n; i += 2) {
        const sh_pickle_value *key = dict->as.list.items[i];
        const sh_pickle_value *value = dict->as.list.items[i + 1];

        if (key->kind == SH_PICKLE_STRING && value->kind == SH_PICKLE_TENSOR)
            SH_TRY(add_tensor(weights, key, value));
    }
out:
    return st;
}

/* ---- the zip container ---- */

/* The name of the folder that holds data.pkl, with its slash. */
static sh_status find_prefix(const sh_zip *zip, const char *label, const char **prefix,
                             size_t *n_prefix, int64_t *pickle_entry)
{
    static const char suffix[] = "/data.pkl";
    const size_t n_suffix = sizeof(suffix) - 1;
    sh_status st = SH_OK;

    *pickle_entry = -1;
    for (int64_t i = 0; i < sh_zip_count(zip); i++) {
        const sh_zip_entry *entry = sh_zip_get(zip, i);

        if (entry->n_name <= n_suffix ||
            memcmp(entry->name + entry->n_name - n_suffix, suffix, n_suffix) != 0)
            continue;
        SH_CHECK(*pickle_entry < 0, SH_ERR_FORMAT, "%s: a zip archive with two data.pkl", label);
        *pickle_entry = i;
        *prefix = entry->name;
        *n_prefix = entry->n_name - (n_suffix - 1);
    }
    SH_CHECK(*pickle_entry >= 0, SH_ERR_FORMAT,
             "%s: a zip archive, but not one from torch.save: it has no data.pkl", label);
out:
    return st;
}

/* Index of prefix + name + key. */
static sh_status find_member(const sh_zip *zip, const char *prefix, size_t n_prefix,
                             const char *name, const char *key, size_t n_key, int64_t *index)
{
    sh_status st = SH_OK;
    size_t n_name = strlen(name);
    char *path = malloc(n_prefix + n_name + n_key);

    SH_CHECK(path != NULL, SH_ERR_NO_MEMORY, "name of a zip entry");
    memcpy(path, prefix, n_prefix);
    memcpy(path + n_prefix, name, n_name);
    memcpy(path + n_prefix + n_name, key, n_key);
    *index = sh_zip_find(zip, path, n_prefix + n_name + n_key);
out:
    free(path);
    return st;
}

static sh_status check_byte_order(sh_zip *zip, const char *label, const char *prefix,
                                  size_t n_prefix)
{
    sh_status st = SH_OK;
    int64_t index = -1;
    const uint8_t *text = NULL;

    SH_TRY(find_member(zip, prefix, n_prefix, "byteorder", "", 0, &index));
    if (index < 0) goto out; /* files before PyTorch 2.1, which were little-endian */
    SH_TRY(sh_zip_read(zip, index, &text));
    SH_CHECK(sh_zip_get(zip, index)->n_bytes == 6 && memcmp(text, "little", 6) == 0,
             SH_ERR_UNSUPPORTED, "%s: was written on a big-endian machine", label);
out:
    return st;
}

static sh_status parse_zip(const uint8_t *data, size_t n_bytes, sh_weights *weights)
{
    sh_status st = SH_OK;
    const char *label = sh_weights_label(weights);
    sh_zip *zip = NULL;
    sh_pickle *pickle = NULL;
    const char *prefix = NULL;
    const uint8_t *bytes = NULL;
    size_t n_prefix = 0, n_unpacked = 0;
    int64_t index = -1, n_mentions = 0;

    SH_TRY(sh_zip_open(data, n_bytes, label, &zip));
    SH_TRY(find_prefix(zip, label, &prefix, &n_prefix, &index));
    SH_TRY(check_byte_order(zip, label, prefix, n_prefix));
    SH_TRY(sh_zip_read(zip, index, &bytes));
    SH_TRY(sh_pickle_run(bytes, sh_zip_get(zip, index)->n_bytes, label, &pickle, NULL));

    sh_pickle_value **storages = sh_pickle_storages(pickle);
    int64_t n = sh_pickle_n_storages(pickle);

    if (n > 0) qsort(storages, (size_t)n, sizeof(*storages), compare_storages);
    for (int64_t i = 0; i < n; i += n_mentions) {
        const sh_pickle_value *s = storages[i];
        int n_shown = s->as.storage.n_key < 100 ? (int)s->as.storage.n_key : 100;

        SH_TRY(count_mentions(label, storages, n, i, &n_mentions));
        SH_TRY(find_member(zip, prefix, n_prefix, "data/", s->as.storage.key, s->as.storage.n_key,
                           &index));
        SH_CHECK(index >= 0, SH_ERR_FORMAT, "%s: storage '%.*s' is missing", label, n_shown,
                 s->as.storage.key);

        uint64_t n_stored = sh_zip_get(zip, index)->n_bytes;

        SH_CHECK((uint64_t)s->as.storage.n_elems == n_stored / (uint64_t)s->as.storage.type->size &&
                     n_stored % (uint64_t)s->as.storage.type->size == 0,
                 SH_ERR_FORMAT, "%s: storage '%.*s' should have %lld elements and has %llu bytes",
                 label, n_shown, s->as.storage.key, (long long)s->as.storage.n_elems,
                 (unsigned long long)n_stored);
        SH_TRY(sh_zip_read(zip, index, &bytes));
        set_data(storages + i, n_mentions, bytes);
        n_unpacked += n_stored;
    }
    SH_TRY(add_tensors(pickle, n_unpacked, weights));
out:
    sh_pickle_destroy(&pickle);
    sh_zip_destroy(&zip);
    return st;
}

/* ---- the legacy container ---- */

/* Run one of the pickles; *at moves behind it. */
static sh_status next_pickle(const uint8_t *data, size_t n_bytes, const char *label, size_t *at,
                             sh_pickle **out)
{
    sh_status st = SH_OK;
    size_t n_used = 0;

    SH_TRY(sh_pickle_run(data + *at, n_bytes - *at, label, out, &n_used));
    *at += n_used;
out:
    return st;
}

/* Find the storage called `key` and point all its mentions to the elements at *at. */
static sh_status place_storage(const uint8_t *data, size_t n_bytes, const char *label,
                               const sh_pickle *object, const sh_pickle_value *key, size_t *at)
{
    sh_status st = SH_OK;
    sh_pickle_value **storages = sh_pickle_storages(object);
    int64_t lo = 0, hi = sh_pickle_n_storages(object), n = hi, n_mentions = 0;
    uint64_t count = 0;

    SH_CHECK(key->kind == SH_PICKLE_STRING, SH_ERR_FORMAT, "%s: a storage key is not a string",
             label);
    while (lo < hi) { /* the first mention */
        int64_t mid = lo + (hi - lo) / 2;

        if (compare_keys(storages[mid], key->as.string.text, key->as.string.n) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    SH_CHECK(lo < n && compare_keys(storages[lo], key->as.string.text, key->as.string.n) == 0 &&
                 storages[lo]->as.storage.data == NULL,
             SH_ERR_FORMAT, "%s: a storage is listed that no tensor names, or listed twice", label);
    SH_TRY(count_mentions(label, storages, n, lo, &n_mentions));
    SH_CHECK(n_bytes - *at >= 8, SH_ERR_FORMAT, "%s: truncated before a storage", label);
    count = sh_bytes_le(data + *at, 8);
    *at += 8;
    SH_CHECK(count == (uint64_t)storages[lo]->as.storage.n_elems, SH_ERR_FORMAT,
             "%s: a storage should have %lld elements and has %llu", label,
             (long long)storages[lo]->as.storage.n_elems, (unsigned long long)count);

    size_t size = (size_t)storages[lo]->as.storage.type->size;

    SH_CHECK(count <= (n_bytes - *at) / size, SH_ERR_FORMAT, "%s: truncated within a storage",
             label);
    set_data(storages + lo, n_mentions, data + *at);
    *at += count * size;
out:
    return st;
}

static sh_status place_storages(const uint8_t *data, size_t n_bytes, const char *label,
                                const sh_pickle *object, const sh_pickle_value *keys, size_t *at)
{
    sh_status st = SH_OK;
    sh_pickle_value **storages = sh_pickle_storages(object);
    int64_t n = sh_pickle_n_storages(object);

    SH_CHECK(keys->kind == SH_PICKLE_LIST, SH_ERR_FORMAT, "%s: no list of storages", label);
    if (n > 0) qsort(storages, (size_t)n, sizeof(*storages), compare_storages);
    for (int64_t i = 0; i < keys->as.list.n; i++)
        SH_TRY(place_storage(data, n_bytes, label, object, keys->as.list.items[i], at));
    for (int64_t i = 0; i < n; i++)
        SH_CHECK(storages[i]->as.storage.data != NULL, SH_ERR_FORMAT, "%s: a storage is missing",
                 label);
out:
    return st;
}

static sh_status parse_legacy(const uint8_t *data, size_t n_bytes, sh_weights *weights)
{
    sh_status st = SH_OK;
    const char *label = sh_weights_label(weights);
    sh_pickle *protocol = NULL, *machine = NULL, *object = NULL, *keys = NULL;
    size_t at = MAGIC_BYTES + 2;

    SH_TRY(next_pickle(data, n_bytes, label, &at, &protocol));
    SH_CHECK(sh_pickle_root(protocol)->kind == SH_PICKLE_INT &&
                 sh_pickle_root(protocol)->as.integer == LEGACY_PROTOCOL,
             SH_ERR_UNSUPPORTED, "%s: an unknown version of PyTorch's legacy container", label);
    SH_TRY(next_pickle(data, n_bytes, label, &at, &machine));
    SH_TRY(next_pickle(data, n_bytes, label, &at, &object));
    SH_TRY(next_pickle(data, n_bytes, label, &at, &keys));
    SH_TRY(place_storages(data, n_bytes, label, object, sh_pickle_root(keys), &at));
    SH_TRY(add_tensors(object, n_bytes, weights));
out:
    sh_pickle_destroy(&protocol);
    sh_pickle_destroy(&machine);
    sh_pickle_destroy(&object);
    sh_pickle_destroy(&keys);
    return st;
}

sh_status sh_pth_parse(const uint8_t *data, size_t n_bytes, sh_weights *weights)
{
    return is_zip(data, n_bytes) ? parse_zip(data, n_bytes, weights)
                                 : parse_legacy(data, n_bytes, weights);
}
