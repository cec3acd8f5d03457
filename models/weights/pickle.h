// SPDX-License-Identifier: Apache-2.0
/**
 * A pickle machine that can only build data: numbers, strings, tuples, lists, dictionaries, and
 * descriptions of tensors over storages. A pickle is a program for Python's unpickler; here, a
 * global is looked up in a table of four functions and ten storage classes, and any other, and any
 * opcode that torch.save does not write for tensors, ends the reading by name. Nothing is executed.
 *
 * Memory is linear in the pickle's bytes, and nothing recurses, so depth costs nothing. Values may
 * be shared and may contain themselves: whoever walks them bounds the walk.
 */
#ifndef SH_MODELS_WEIGHTS_PICKLE_H
#define SH_MODELS_WEIGHTS_PICKLE_H

#include "models/weights/internal.h"

SH_C_BEGIN

typedef struct sh_pickle sh_pickle;

typedef enum sh_pickle_kind {
    SH_PICKLE_NONE,
    SH_PICKLE_BOOL,
    SH_PICKLE_INT,
    SH_PICKLE_REAL,
    SH_PICKLE_STRING,
    SH_PICKLE_TUPLE,
    SH_PICKLE_LIST,
    SH_PICKLE_DICT,
    SH_PICKLE_FUNCTION, /* one of the four functions */
    SH_PICKLE_CLASS,    /* a torch storage class */
    SH_PICKLE_STORAGE,
    SH_PICKLE_TENSOR,
} sh_pickle_kind;

typedef struct sh_pickle_value sh_pickle_value;

struct sh_pickle_value {
    sh_pickle_kind kind;
    union {
        int64_t integer; /* also BOOL */
        double real;
        struct {
            const char *text; /* within the pickle's bytes; no NUL after it */
            size_t n;
        } string;
        struct { /* TUPLE, LIST; DICT has key, value, key, value ... in order of insertion */
            sh_pickle_value **items;
            int64_t n, capacity;
        } list;
        int function;
        struct { /* CLASS, STORAGE */
            const sh_elem_type *type;
            const char *key;
            size_t n_key;
            int64_t n_elems;
            const uint8_t *data; /* filled in by the container's reader */
        } storage;
        struct {
            sh_pickle_value *storage, *dims, *strides; /* dims, strides: tuples of integers */
            int64_t offset;
        } tensor;
    } as;
};

/** Run the pickle at the start of data, which must outlive *out. *n_used, where not NULL, gets the
 *  bytes up to and including its STOP. The caller owns *out. */
SH_MUST_CHECK sh_status sh_pickle_run(const uint8_t *data, size_t n_bytes, const char *label,
                                      sh_pickle **out, size_t *n_used);
void sh_pickle_destroy(sh_pickle **pickle);

/** What the pickle describes. */
const sh_pickle_value *sh_pickle_root(const sh_pickle *pickle);

/** Every storage that was named, once per mention. */
int64_t sh_pickle_n_storages(const sh_pickle *pickle);
sh_pickle_value **sh_pickle_storages(const sh_pickle *pickle);

/** Is it this string? */
bool sh_pickle_is(const sh_pickle_value *value, const char *text);

SH_C_END

#endif
