// SPDX-License-Identifier: Apache-2.0
/** Tiny writers of weight files for the tests: safetensors from a header's text, and PyTorch's
 *  pickles in the zip and the legacy container, byte for byte as torch.save lays them out. */
#ifndef SH_TESTS_MODELS_WEIGHT_FILES_H
#define SH_TESTS_MODELS_WEIGHT_FILES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

#include "models/weights/weights.h"

typedef struct bytes {
    uint8_t *data;
    size_t n, capacity;
} bytes;

static inline void put(bytes *b, const void *data, size_t n)
{
    if (b->n + n > b->capacity) {
        b->capacity = 2 * (b->n + n) + 64;
        b->data = realloc(b->data, b->capacity);
        assert_non_null(b->data);
    }
    memcpy(b->data + b->n, data, n);
    b->n += n;
}

static inline void put_number(bytes *b, uint64_t value, size_t n_bytes)
{
    put(b, &value, n_bytes);
}

static inline void put_text(bytes *b, const char *text)
{
    put(b, text, strlen(text));
}

static inline void free_bytes(bytes *b)
{
    free(b->data);
    memset(b, 0, sizeof(*b));
}

/** A safetensors file: header text, then n_data bytes of data. */
static inline bytes make_safetensors(const char *header, const void *data, size_t n_data)
{
    bytes b = {0};

    put_number(&b, strlen(header), 8);
    put_text(&b, header);
    put(&b, data, n_data);
    return b;
}

/* ---- pickles ---- */

/** A tensor over elements of a storage. */
typedef struct tensor_spec {
    const char *name;
    const char *storage_class; /* "FloatStorage" */
    const char *storage;       /* its key: "0" */
    int n_stored, offset, n_dims;
    int dims[4], strides[4];
} tensor_spec;

static inline void pickle_string(bytes *b, const char *text)
{
    put_text(b, "X");
    put_number(b, strlen(text), 4);
    put_text(b, text);
}

static inline void pickle_int(bytes *b, int value)
{
    put_text(b, "J");
    put_number(b, (uint32_t)value, 4);
}

static inline void pickle_tuple(bytes *b, int n, const int *values)
{
    put_text(b, "(");
    for (int i = 0; i < n; i++) pickle_int(b, values[i]);
    put_text(b, "t");
}

static inline void pickle_tensor(bytes *b, const tensor_spec *t, bool legacy)
{
    put_text(b, "ctorch._utils\n_rebuild_tensor_v2\n((");
    pickle_string(b, "storage");
    put_text(b, "ctorch\n");
    put_text(b, t->storage_class);
    put_text(b, "\n");
    pickle_string(b, t->storage);
    pickle_string(b, "cpu");
    pickle_int(b, t->n_stored);
    put_text(b, legacy ? "NtQ" : "tQ");
    pickle_int(b, t->offset);
    pickle_tuple(b, t->n_dims, t->dims);
    pickle_tuple(b, t->n_dims, t->strides);
    put_text(b, "\x89"
                "ccollections\nOrderedDict\n)RtR");
}

/** An OrderedDict of tensors with torch's _metadata, pushed on the stack. */
static inline void pickle_state_dict(bytes *b, int n, const tensor_spec *tensors, bool legacy)
{
    put_text(b, "ccollections\nOrderedDict\n)Rq");
    put_number(b, 0, 1);
    put_text(b, "(");
    for (int i = 0; i < n; i++) {
        pickle_string(b, tensors[i].name);
        pickle_tensor(b, &tensors[i], legacy);
    }
    put_text(b, "u}");
    pickle_string(b, "_metadata");
    put_text(b, "}sb");
}

/** A whole pickle: the state dict, inside {wrapper: ...} where wrapper is not NULL. */
static inline bytes make_pickle(int n, const tensor_spec *tensors, bool legacy, const char *wrapper)
{
    bytes b = {0};

    put(&b, "\x80\x02", 2);
    if (wrapper != NULL) {
        put_text(&b, "}(");
        pickle_string(&b, "epoch");
        pickle_int(&b, 7);
        pickle_string(&b, wrapper);
    }
    pickle_state_dict(&b, n, tensors, legacy);
    put_text(&b, wrapper != NULL ? "u." : ".");
    return b;
}

/* ---- containers ---- */

typedef struct zip_part {
    const char *name;
    const void *data;
    size_t n;
} zip_part;

typedef struct zip_style {
    bool deflate, zip64;
} zip_style;

static inline bytes zip_pack(const zip_part *part, bool deflated)
{
    bytes b = {0};

    if (!deflated) {
        put(&b, part->data, part->n);
        return b;
    }
    z_stream stream = {0};
    b.capacity = part->n + 1000;
    b.data = malloc(b.capacity);
    assert_non_null(b.data);
    assert_int_equal(deflateInit2(&stream, 6, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    stream.next_in = (Bytef *)part->data;
    stream.avail_in = (uInt)part->n;
    stream.next_out = b.data;
    stream.avail_out = (uInt)b.capacity;
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    b.n = stream.total_out;
    deflateEnd(&stream);
    return b;
}

/** Fields that the local and the central record share, from "version needed" to the extra's length.
 */
static inline void zip_common(bytes *b, const zip_part *part, size_t n_packed, zip_style style,
                              size_t n_extra)
{
    put_number(b, 45, 2);
    put_number(b, 0, 2);
    put_number(b, style.deflate ? 8 : 0, 2);
    put_number(b, 0, 4);
    put_number(b, crc32(0, part->data, (uInt)part->n), 4);
    put_number(b, style.zip64 ? 0xFFFFFFFFu : n_packed, 4);
    put_number(b, style.zip64 ? 0xFFFFFFFFu : part->n, 4);
    put_number(b, strlen(part->name), 2);
    put_number(b, n_extra, 2);
}

static inline void zip_central(bytes *b, const zip_part *part, size_t n_packed, zip_style style,
                               size_t offset)
{
    put(b, "PK\1\2\55\0", 6);
    zip_common(b, part, n_packed, style, style.zip64 ? 28 : 0);
    put_number(b, 0, 2 + 2 + 2);
    put_number(b, 0, 4);
    put_number(b, style.zip64 ? 0xFFFFFFFFu : offset, 4);
    put_text(b, part->name);
    if (style.zip64) {
        put_number(b, 1, 2);
        put_number(b, 24, 2);
        put_number(b, part->n, 8);
        put_number(b, n_packed, 8);
        put_number(b, offset, 8);
    }
}

static inline bytes make_zip(int n, const zip_part *parts, zip_style style)
{
    bytes b = {0}, directory = {0};

    for (int i = 0; i < n; i++) {
        bytes packed = zip_pack(&parts[i], style.deflate);

        zip_central(&directory, &parts[i], packed.n, style, b.n);
        put(&b, "PK\3\4", 4);
        zip_common(&b, &parts[i], packed.n, (zip_style){.deflate = style.deflate}, 0);
        put_text(&b, parts[i].name);
        put(&b, packed.data, packed.n);
        free_bytes(&packed);
    }
    size_t start = b.n;

    put(&b, directory.data, directory.n);
    if (style.zip64) {
        size_t end64 = b.n;

        put(&b, "PK\6\6", 4);
        put_number(&b, 44, 8);
        put_number(&b, 45 | 45 << 16, 4);
        put_number(&b, 0, 8);
        put_number(&b, (uint64_t)n, 8);
        put_number(&b, (uint64_t)n, 8);
        put_number(&b, directory.n, 8);
        put_number(&b, start, 8);
        put(&b, "PK\6\7\0\0\0\0", 8);
        put_number(&b, end64, 8);
        put_number(&b, 1, 4);
    }
    put(&b, "PK\5\6\0\0\0\0", 8);
    put_number(&b, style.zip64 ? 0xFFFF : (uint64_t)n, 2);
    put_number(&b, style.zip64 ? 0xFFFF : (uint64_t)n, 2);
    put_number(&b, style.zip64 ? 0xFFFFFFFFu : directory.n, 4);
    put_number(&b, style.zip64 ? 0xFFFFFFFFu : start, 4);
    put_number(&b, 0, 2);
    free_bytes(&directory);
    return b;
}

/** A storage of a file: its key, the size of an element, the elements. */
typedef struct storage_spec {
    const char *key;
    size_t elem_bytes, n;
    const void *data;
} storage_spec;

static inline bytes make_zip_pth(const bytes *pickle, int n, const storage_spec *storages,
                                 zip_style style)
{
    zip_part parts[10] = {{"net/data.pkl", pickle->data, pickle->n},
                          {"net/byteorder", "little", 6},
                          {"net/version", "3\n", 2}};
    char names[7][32];

    assert_true(n <= 7);
    for (int i = 0; i < n; i++) {
        snprintf(names[i], sizeof(names[i]), "net/data/%s", storages[i].key);
        parts[3 + i] =
            (zip_part){names[i], storages[i].data, storages[i].n * storages[i].elem_bytes};
    }
    return make_zip(3 + n, parts, style);
}

static inline bytes make_legacy_pth(const bytes *pickle, int n, const storage_spec *storages)
{
    bytes b = {0};

    put(&b, "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
    put(&b, "\x80\x02M\xe9\x03.", 6);
    put(&b, "\x80\x02}q\x00(", 6);
    pickle_string(&b, "little_endian");
    put(&b, "\x88u.", 3);
    put(&b, pickle->data, pickle->n);
    put(&b, "\x80\x02](", 4);
    for (int i = 0; i < n; i++) pickle_string(&b, storages[i].key);
    put(&b, "e.", 2);
    for (int i = 0; i < n; i++) {
        put_number(&b, storages[i].n, 8);
        put(&b, storages[i].data, storages[i].n * storages[i].elem_bytes);
    }
    return b;
}

#endif
