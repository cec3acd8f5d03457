// SPDX-License-Identifier: Apache-2.0
/** The state of a pickle machine, and what its opcodes (pickle_ops.c) do to it. */
#ifndef SH_MODELS_WEIGHTS_PICKLE_MACHINE_H
#define SH_MODELS_WEIGHTS_PICKLE_MACHINE_H

#include "models/weights/pickle.h"

SH_C_BEGIN

typedef struct sh_pickle_block sh_pickle_block; /* values are allocated many at a time */

typedef struct sh_pickle_pointers {
    sh_pickle_value **items;
    int64_t n, capacity;
} sh_pickle_pointers;

struct sh_pickle {
    const uint8_t *data;
    size_t n_bytes, at;
    const char *label;
    sh_pickle_block *blocks;
    sh_pickle_pointers stack, memo, storages;
    int64_t *marks; /* heights of the stack */
    int64_t n_marks, marks_capacity;
    sh_pickle_value *root; /* set by STOP */
};

/** Run one opcode, its code already taken. Unknown ones are SH_ERR_UNSUPPORTED. */
SH_MUST_CHECK sh_status sh_pickle_step(sh_pickle *m, uint8_t code);

SH_MUST_CHECK sh_status sh_pickle_append(const sh_pickle *m, sh_pickle_pointers *list,
                                         sh_pickle_value *value);

/** Push a new value; *out, where out is not NULL, gets it. */
SH_MUST_CHECK sh_status sh_pickle_push(sh_pickle *m, sh_pickle_kind kind, sh_pickle_value **out);

/** The next n bytes of the program. */
SH_MUST_CHECK sh_status sh_pickle_take(sh_pickle *m, size_t n, const uint8_t **bytes);

SH_C_END

#endif
