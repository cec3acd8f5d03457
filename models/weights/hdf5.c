// SPDX-License-Identifier: Apache-2.0
#include "models/weights/hdf5.h"

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"

enum { MAX_DEPTH = 32, MAX_PATH = 1024, MAX_CONTINUATIONS = 1024 };
enum { SYMBOL_BYTES = 40, HEADER_BYTES = 16, MESSAGE_HEAD_BYTES = 8 };

/* Object header messages that are looked at. */
enum {
    MESSAGE_DATASPACE = 0x0001,
    MESSAGE_DATATYPE = 0x0003,
    MESSAGE_LAYOUT = 0x0008,
    MESSAGE_FILTERS = 0x000B,
    MESSAGE_CONTINUATION = 0x0010,
    MESSAGE_SYMBOL_TABLE = 0x0011,
};

static const uint8_t signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1A, '\n'};

typedef struct reader {
    const uint8_t *data;
    uint64_t n_bytes, base;
    const char *label;
    sh_status (*visit)(void *context, const sh_h5_dataset *dataset);
    void *context;
    uint64_t n_visits_left; /* every link takes 40 bytes of the file: more is a loop */
    char path[MAX_PATH];
} reader;

/* What the messages of an object say. */
typedef struct object {
    bool is_group, has_space, has_type, has_layout, has_filters;
    uint64_t tree, heap;
    sh_weight_view view;
    int layout_class;
    uint64_t address, n_stored_bytes;
} object;

bool sh_h5_recognise(const uint8_t *data, size_t n_bytes)
{
    return n_bytes >= sizeof(signature) && memcmp(data, signature, sizeof(signature)) == 0;
}

/* ---- bytes ---- */

/* n bytes at an address of the file. */
static sh_status locate(const reader *r, uint64_t address, uint64_t n, const char *what,
                        const uint8_t **bytes)
{
    sh_status st = SH_OK;
    uint64_t at = 0;

    SH_CHECK(!__builtin_add_overflow(address, r->base, &at) && at <= r->n_bytes &&
                 n <= r->n_bytes - at,
             SH_ERR_FORMAT, "%s: /%s: its %s lies outside the file (truncated?)", r->label, r->path,
             what);
    *bytes = r->data + at;
out:
    return st;
}

/* ---- messages ---- */

static sh_status read_dataspace(const reader *r, const uint8_t *m, uint64_t n, object *o)
{
    sh_status st = SH_OK;
    const int version = n > 0 ? m[0] : 0;
    const uint64_t begin = version == 1 ? 8 : 4;

    SH_CHECK(n >= 4 && (version == 1 || version == 2), SH_ERR_UNSUPPORTED,
             "%s: /%s: dataspace of version %d is not read", r->label, r->path, version);
    SH_CHECK(m[1] <= SH_WEIGHT_MAX_DIMS && begin + 8u * m[1] <= n, SH_ERR_FORMAT,
             "%s: /%s: a dataset of %d dimensions; at most %d are read", r->label, r->path, m[1],
             SH_WEIGHT_MAX_DIMS);
    o->view.n_dims = m[1];
    for (int i = 0; i < m[1]; i++) {
        uint64_t dim = sh_bytes_le(m + begin + 8 * i, 8);

        SH_CHECK(dim <= INT64_MAX, SH_ERR_FORMAT, "%s: /%s: impossible size", r->label, r->path);
        o->view.dims[i] = (int64_t)dim;
    }
    o->has_space = true;
out:
    return st;
}

/* Little-endian IEEE floats and signed or unsigned integers, as h5py writes numpy's. */
static const char *type_name(const uint8_t *m, uint64_t n)
{
    static const struct {
        int class, size, is_signed; /* of integers */
        int exponent_at, exponent_bits, mantissa_bits;
        const char *name;
    } types[] = {
        {1, 4, 0, 23, 8, 23, "F32"}, {1, 2, 0, 10, 5, 10, "F16"}, {1, 8, 0, 52, 11, 52, "F64"},
        {0, 8, 1, 0, 0, 0, "I64"},   {0, 4, 1, 0, 0, 0, "I32"},   {0, 2, 1, 0, 0, 0, "I16"},
        {0, 1, 1, 0, 0, 0, "I8"},    {0, 1, 0, 0, 0, 0, "U8"},
    };
    const int class = n >= 8 ? m[0] & 15 : -1;

    if (n < (class == 1 ? 20 : 12) || (m[1] & 1) != 0) return NULL; /* bit 0: big-endian */
    for (size_t i = 0; i < SH_COUNT(types); i++) {
        if (class != types[i].class || sh_bytes_le(m + 4, 4) != (uint64_t)types[i].size) continue;
        if (class == 0 && (m[1] >> 3 & 1) == types[i].is_signed) return types[i].name;
        if (class == 1 && m[12] == types[i].exponent_at && m[13] == types[i].exponent_bits &&
            m[15] == types[i].mantissa_bits)
            return types[i].name;
    }
    return NULL;
}

static sh_status read_layout(const reader *r, const uint8_t *m, uint64_t n, object *o)
{
    sh_status st = SH_OK;

    SH_CHECK(n >= 4 && m[0] == 3, SH_ERR_UNSUPPORTED,
             "%s: /%s: data layout of version %d is not read", r->label, r->path, n > 0 ? m[0] : 0);
    o->layout_class = m[1];
    o->has_layout = true;
    if (o->layout_class == 0) { /* the elements stand in the message itself */
        o->n_stored_bytes = sh_bytes_le(m + 2, 2);
        SH_CHECK(o->n_stored_bytes <= n - 4, SH_ERR_FORMAT, "%s: /%s: truncated", r->label,
                 r->path);
        o->address = (uint64_t)(m + 4 - r->data) - r->base;
    } else if (o->layout_class == 1) {
        SH_CHECK(n >= 18, SH_ERR_FORMAT, "%s: /%s: truncated layout", r->label, r->path);
        o->address = sh_bytes_le(m + 2, 8);
        o->n_stored_bytes = sh_bytes_le(m + 10, 8);
    }
out:
    return st;
}

static sh_status read_message(const reader *r, int type, const uint8_t *m, uint64_t n, object *o)
{
    sh_status st = SH_OK;

    switch (type) {
    case MESSAGE_DATASPACE: SH_TRY(read_dataspace(r, m, n, o)); break;
    case MESSAGE_LAYOUT: SH_TRY(read_layout(r, m, n, o)); break;
    case MESSAGE_FILTERS: o->has_filters = true; break;
    case MESSAGE_DATATYPE: {
        const char *name = type_name(m, n);

        o->view.type = name != NULL ? sh_elem_by_name(name) : NULL;
        o->has_type = true;
        break;
    }
    case MESSAGE_SYMBOL_TABLE:
        SH_CHECK(n >= 16, SH_ERR_FORMAT, "%s: /%s: truncated group", r->label, r->path);
        o->is_group = true;
        o->tree = sh_bytes_le(m, 8);
        o->heap = sh_bytes_le(m + 8, 8);
        break;
    default: break;
    }
out:
    return st;
}

/* One block of messages. A continuation is returned, not followed; the last one counts, and an
 * object header written by the library has one at most per block. */
static sh_status read_block(const reader *r, uint64_t address, uint64_t n_bytes, object *o,
                            uint64_t *next, uint64_t *n_next)
{
    sh_status st = SH_OK;
    const uint8_t *bytes = NULL;
    uint64_t at = 0;

    *n_next = 0;
    SH_TRY(locate(r, address, n_bytes, "object header", &bytes));
    while (n_bytes - at >= MESSAGE_HEAD_BYTES) {
        const int type = (int)sh_bytes_le(bytes + at, 2), flags = bytes[at + 4];
        const uint64_t size = sh_bytes_le(bytes + at + 2, 2);
        const uint8_t *m = bytes + at + MESSAGE_HEAD_BYTES;

        SH_CHECK(size <= n_bytes - at - MESSAGE_HEAD_BYTES, SH_ERR_FORMAT,
                 "%s: /%s: a message of %llu bytes leaves its object header", r->label, r->path,
                 (unsigned long long)size);
        SH_CHECK((flags & 2) == 0 || type != MESSAGE_DATATYPE, SH_ERR_UNSUPPORTED,
                 "%s: /%s: a named datatype is not read", r->label, r->path);
        if (type == MESSAGE_CONTINUATION && size >= 16) {
            *next = sh_bytes_le(m, 8);
            *n_next = sh_bytes_le(m + 8, 8);
        } else {
            SH_TRY(read_message(r, type, m, size, o));
        }
        at += MESSAGE_HEAD_BYTES + size;
    }
out:
    return st;
}

static sh_status read_object(const reader *r, uint64_t address, object *o)
{
    sh_status st = SH_OK;
    const uint8_t *head = NULL;
    uint64_t next = 0, n_next = 0;

    SH_TRY(locate(r, address, HEADER_BYTES, "object header", &head));
    SH_CHECK(head[0] == 1, SH_ERR_UNSUPPORTED,
             "%s: /%s: written with new-style object headers, which are not read; save it again "
             "with h5py's default settings",
             r->label, r->path);
    next = address + HEADER_BYTES;
    n_next = sh_bytes_le(head + 8, 4);
    for (int i = 0; n_next > 0; i++) {
        SH_CHECK(i < MAX_CONTINUATIONS, SH_ERR_FORMAT, "%s: /%s: endless object header", r->label,
                 r->path);
        SH_TRY(read_block(r, next, n_next, o, &next, &n_next));
    }
out:
    return st;
}

/* ---- objects ---- */

static sh_status read_dataset(reader *r, object *o)
{
    sh_status st = SH_OK;
    sh_h5_dataset dataset = {.path = r->path};
    const uint8_t *stored = NULL;

    SH_CHECK(o->has_space && o->has_type, SH_ERR_FORMAT, "%s: /%s: neither group nor dataset",
             r->label, r->path);
    if (o->view.type == NULL) goto out; /* strings and the like beside the weights */
    SH_CHECK(o->layout_class != 2 && !o->has_filters, SH_ERR_UNSUPPORTED,
             "%s: /%s: chunked or compressed datasets are not read; save the weights again without "
             "compression",
             r->label, r->path);
    if (o->n_stored_bytes > 0)
        SH_TRY(locate(r, o->address, o->n_stored_bytes, "elements", &stored));
    dataset.view = o->view;
    dataset.view.stored = stored;
    dataset.view.n_stored = (int64_t)(o->n_stored_bytes / (uint64_t)o->view.type->size);
    sh_weight_view_set_row_major(&dataset.view);
    SH_TRY(r->visit(r->context, &dataset));
out:
    return st;
}

static sh_status visit_object(reader *r, uint64_t address, int depth);

/* One symbol of a group: append its name to the path, visit it, take the name off again. */
static sh_status visit_symbol(reader *r, const uint8_t *symbol, const uint8_t *heap,
                              uint64_t n_heap, int depth)
{
    sh_status st = SH_OK;
    const size_t n_path = strlen(r->path);
    const uint64_t at = sh_bytes_le(symbol, 8);

    if (sh_bytes_le(symbol + 16, 4) == 2)
        goto out; /* a soft link: what it names is visited itself */
    SH_CHECK(r->n_visits_left > 0 && depth < MAX_DEPTH, SH_ERR_FORMAT,
             "%s: /%s: its groups contain each other", r->label, r->path);
    r->n_visits_left--;
    SH_CHECK(at < n_heap && memchr(heap + at, '\0', n_heap - at) != NULL, SH_ERR_FORMAT,
             "%s: /%s: an entry without a name", r->label, r->path);

    const char *name = (const char *)heap + at;

    SH_CHECK(n_path + strlen(name) + 2 <= sizeof(r->path), SH_ERR_FORMAT,
             "%s: /%s: names longer than %d characters", r->label, r->path, MAX_PATH);
    snprintf(r->path + n_path, sizeof(r->path) - n_path, "%s%s", n_path > 0 ? "/" : "", name);
    SH_TRY(visit_object(r, sh_bytes_le(symbol + 8, 8), depth));
    r->path[n_path] = '\0';
out:
    return st;
}

static sh_status visit_leaf(reader *r, const uint8_t *node, const uint8_t *heap, uint64_t n_heap,
                            int depth)
{
    sh_status st = SH_OK;
    const uint8_t *symbols = NULL;
    const uint64_t n = sh_bytes_le(node + 6, 2);

    SH_TRY(
        locate(r, (uint64_t)(node + 8 - r->data) - r->base, n * SYMBOL_BYTES, "group", &symbols));
    for (uint64_t i = 0; i < n; i++)
        SH_TRY(visit_symbol(r, symbols + i * SYMBOL_BYTES, heap, n_heap, depth + 1));
out:
    return st;
}

/* A node of a group's tree: inner nodes lead to nodes of the next lower level, those of level 0 to
 * lists of symbols. */
static sh_status visit_tree(reader *r, uint64_t address, int level, const uint8_t *heap,
                            uint64_t n_heap, int depth)
{
    enum { NODE_HEAD = 24, LEVEL_UNKNOWN = -1 };
    sh_status st = SH_OK;
    const uint8_t *node = NULL, *children = NULL;

    SH_TRY(locate(r, address, 8, "group", &node));
    if (memcmp(node, "SNOD", 4) == 0 && level == 0) {
        SH_TRY(visit_leaf(r, node, heap, n_heap, depth));
        goto out;
    }
    SH_CHECK(memcmp(node, "TREE", 4) == 0 && node[4] == 0 && node[5] < MAX_DEPTH &&
                 (level == LEVEL_UNKNOWN || node[5] + 1 == level),
             SH_ERR_FORMAT, "%s: /%s: damaged group", r->label, r->path);
    SH_CHECK(r->n_visits_left > 0, SH_ERR_FORMAT, "%s: /%s: its groups contain each other",
             r->label, r->path);
    r->n_visits_left--;

    const uint64_t n = sh_bytes_le(node + 6, 2);

    SH_TRY(locate(r, address + NODE_HEAD, 16 * n + 8, "group", &children));
    for (uint64_t i = 0; i < n; i++)
        SH_TRY(visit_tree(r, sh_bytes_le(children + 16 * i + 8, 8), node[5], heap, n_heap, depth));
out:
    return st;
}

static sh_status visit_object(reader *r, uint64_t address, int depth)
{
    sh_status st = SH_OK;
    object o = {0};
    const uint8_t *heap = NULL, *names = NULL;

    SH_TRY(read_object(r, address, &o));
    if (!o.is_group) {
        SH_TRY(read_dataset(r, &o));
        goto out;
    }
    SH_TRY(locate(r, o.heap, 32, "list of names", &heap));
    SH_CHECK(memcmp(heap, "HEAP", 4) == 0, SH_ERR_FORMAT, "%s: /%s: damaged list of names",
             r->label, r->path);
    SH_TRY(locate(r, sh_bytes_le(heap + 24, 8), sh_bytes_le(heap + 8, 8), "list of names", &names));
    SH_TRY(visit_tree(r, o.tree, -1, names, sh_bytes_le(heap + 8, 8), depth));
out:
    return st;
}

sh_status sh_h5_visit(const uint8_t *data, size_t n_bytes, const char *label,
                      sh_status (*visit)(void *context, const sh_h5_dataset *dataset),
                      void *context)
{
    sh_status st = SH_OK;
    const int version = n_bytes >= 9 ? data[8] : -1;
    const size_t base_at = version == 1 ? 28 : 24;
    reader r = {.data = data,
                .n_bytes = n_bytes,
                .label = label,
                .visit = visit,
                .context = context,
                .n_visits_left = n_bytes / SYMBOL_BYTES + 2};

    SH_CHECK(version >= 0 && n_bytes >= base_at + 72, SH_ERR_FORMAT, "%s: truncated", label);
    SH_CHECK(version <= 1 && data[13] == 8 && data[14] == 8, SH_ERR_UNSUPPORTED,
             "%s: an HDF5 file of a newer format (superblock %d), which is not read; save it again "
             "with h5py's default settings",
             label, version);
    r.base = sh_bytes_le(data + base_at, 8);
    SH_CHECK(r.base <= n_bytes, SH_ERR_FORMAT, "%s: damaged superblock", label);
    SH_TRY(visit_object(&r, sh_bytes_le(data + base_at + 40, 8), 0));
out:
    return st;
}
