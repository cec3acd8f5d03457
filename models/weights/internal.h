// SPDX-License-Identifier: Apache-2.0
/**
 * Shared by the readers of weight files: element types, and the set of tensors being filled.
 *
 * Every reader hands its tensors to sh_weights_add as a view (type, bytes, offset, strides) of
 * bytes that it has located; all bounds and sizes are checked there, once, for every format.
 */
#ifndef SH_MODELS_WEIGHTS_INTERNAL_H
#define SH_MODELS_WEIGHTS_INTERNAL_H

#include <jansson.h>

#include "models/weights/weights.h"

SH_C_BEGIN

enum { SH_WEIGHT_MAX_DIMS = 8 };

/** How one element is stored in a file. */
typedef struct sh_elem_type {
    const char *name;                     /* in safetensors: "BF16" */
    const char *torch_storage;            /* in module torch: "BFloat16Storage" */
    int size;                             /* bytes */
    float (*load)(const uint8_t *stored); /* need not be aligned */
} sh_elem_type;

/** The type of a safetensors name, or of a torch storage class (not NUL-terminated); NULL: unknown.
 */
const sh_elem_type *sh_elem_by_name(const char *name);
const sh_elem_type *sh_elem_by_storage(const char *name, size_t n_chars);

/** A tensor as it lies in a file. */
typedef struct sh_weight_view {
    const char *name; /* need not be NUL-terminated */
    size_t n_name;
    const sh_elem_type *type;
    const uint8_t *stored; /* n_stored elements */
    int64_t n_stored;
    int64_t offset; /* elements */
    int n_dims;     /* at most SH_WEIGHT_MAX_DIMS */
    int64_t dims[SH_WEIGHT_MAX_DIMS];
    int64_t strides[SH_WEIGHT_MAX_DIMS]; /* elements */
} sh_weight_view;

/** Row-major strides for view->dims. Overflow is left to sh_weights_add, which checks sizes first.
 */
void sh_weight_view_set_row_major(sh_weight_view *view);

/** Check a view against its bytes and add its elements, converted to f32, to the set. */
SH_MUST_CHECK sh_status sh_weights_add(sh_weights *weights, const sh_weight_view *view);

/** How many elements all tensors together may still take. Files may share or repeat stored elements
 *  (tied weights, stride 0), so that a small file could ask for any amount of memory. */
void sh_weights_set_budget(sh_weights *weights, int64_t n_elems);

/** Give the set its metadata, an object of strings; takes the reference. */
void sh_weights_set_metadata(sh_weights *weights, json_t *metadata);

/** The readers. data stays the caller's. */
SH_MUST_CHECK sh_status sh_safetensors_parse(const uint8_t *data, size_t n_bytes,
                                             sh_weights *weights);
SH_MUST_CHECK sh_status sh_pth_parse(const uint8_t *data, size_t n_bytes, sh_weights *weights);

SH_MUST_CHECK sh_status sh_keras_parse(const uint8_t *data, size_t n_bytes, sh_weights *weights);

/** (Re)build the index that sh_weights_find uses, after names were added or changed. Two tensors of
 *  one name are SH_ERR_FORMAT. */
SH_MUST_CHECK sh_status sh_weights_index(sh_weights *weights);

/** Rename a tensor; sh_weights_index is due afterwards. */
SH_MUST_CHECK sh_status sh_weights_rename(sh_weights *weights, int64_t index, const char *name);

/** The elements of a tensor, to be changed. */
float *sh_weights_data(sh_weights *weights, int64_t index);

/** Give a tensor other elements and another size along one dimension; takes `data` (malloc'd). */
void sh_weights_replace(sh_weights *weights, int64_t index, int dim, int64_t size, float *data);

/** Does the content begin like a .pth of either container? */
bool sh_pth_recognise(const uint8_t *data, size_t n_bytes);

SH_C_END

#endif
