// SPDX-License-Identifier: Apache-2.0
/**
 * Weight files: safetensors in and out, PyTorch .pth (zip and legacy containers) and Keras .h5 in.
 * The pickle inside a .pth is interpreted by a tiny machine that knows tensors, dictionaries and
 * numbers and refuses everything else by name: nothing in a file is ever executed.
 *
 * Formats are found by content, not by file name.
 */
#ifndef SH_MODELS_WEIGHTS_H
#define SH_MODELS_WEIGHTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "models/store.h"
#include "models/zoo/zoo.h"

SH_C_BEGIN

typedef struct sh_weights sh_weights; /* a set of named tensors, wholly in host memory */

typedef struct sh_weight {
    const char *name;
    int n_dims;
    int64_t dims[8];
    int64_t n_elems;
    const float *data; /* f32 row-major; f16, bf16, f64 and integers are converted on reading */
} sh_weight;

/** Read a weight file. The caller owns *out. "module.", "model." and "backbone." are dropped where
 *  more than half of the names begin so. Of a .pth, the tensors of the dictionary are taken, or of
 * the dictionary under its key "state_dict", "model_state_dict" or "model"; numbers beside them are
 * passed over. */
SH_MUST_CHECK sh_status sh_weights_read(const char *path, sh_weights **out);

/** The same from memory (fuzzing). `label` names it in messages. */
SH_MUST_CHECK sh_status sh_weights_parse(const void *data, size_t n_bytes, const char *label,
                                         sh_weights **out);
void sh_weights_destroy(sh_weights **weights);

int64_t sh_weights_count(const sh_weights *weights);
const sh_weight *sh_weights_get(const sh_weights *weights, int64_t index);
const sh_weight *sh_weights_find(const sh_weights *weights, const char *name); /* or NULL */

/** What messages call the file. */
const char *sh_weights_label(const sh_weights *weights);

/** Value of a metadata key of a safetensors file, or NULL. */
const char *sh_weights_metadata(const sh_weights *weights, const char *key);

/** Names of another package (models/weights/alias.h). */
typedef struct sh_alias sh_alias;

/** Tensors that have a slot of their name and shape, under `alias` or, with NULL, as they stand. */
int sh_weights_match(const sh_weights *weights, const sh_alias *alias, const sh_store *store);

/** Rename the set's tensors to ours where the names that another package has for `net`, whose store
 *  it is, fit better than those that they have. A package's names for another network never count:
 *  they would fit one that differs in constants only, and give wrong features. *alias (unless NULL)
 * is the table used, or NULL. Position embeddings `pos_embed` of a square grid of another size are
 * resampled (bicubic) to the store's grid, square or not. */
SH_MUST_CHECK sh_status sh_weights_adapt(sh_weights *weights, const sh_net *net,
                                         const sh_store *store, const sh_alias **alias);

/** What a load did: every name that did not fit, for the log and the manifest. */
typedef struct sh_load_report {
    int n_loaded, n_missing, n_extra, n_misshaped;
    char text[4096]; /* "missing: head.weight, head.bias; extra: _fc.weight [1000, 1280]; ..." */
} sh_load_report;

/** Copy weights into the store of a program of `net` by name, after sh_weights_adapt. Strict:
 * anything missing or mis-shaped is SH_ERR_MISMATCH listing all of it, and the store is left as it
 * was; otherwise it is only reported. A file with nothing at all that fits is SH_ERR_MISMATCH in
 * any case, naming the network that it is of where that is known. Extra tensors are reported
 * (counters num_batches_tracked only by their number), never an error. A file that says it is of
 * another network is loaded with a warning. */
SH_MUST_CHECK sh_status sh_weights_load(sh_weights *weights, const sh_net *net, sh_store *store,
                                        bool strict, sh_load_report *report);

/** One tensor to be written. dtype SH_F32, SH_BF16 or SH_I32. */
typedef struct sh_weight_out {
    const char *name;
    sh_dtype dtype;
    int n_dims;
    int64_t dims[8];
    const void *data;
} sh_weight_out;

/** Write a safetensors file, whole or not at all: tensors in the order given, metadata as
 *  n_metadata key-value pairs, bytes a pure function of the arguments. crc32c and n_bytes, where
 *  not NULL, get the file's checksum and length. */
SH_MUST_CHECK sh_status sh_weights_write(const char *path, const sh_weight_out *tensors,
                                         int64_t n_tensors, const char *const (*metadata)[2],
                                         int n_metadata, uint32_t *crc32c, uint64_t *n_bytes);

/** Write every slot of a store (params and states) under its name. */
SH_MUST_CHECK sh_status sh_weights_save(const char *path, sh_store *store,
                                        const char *const (*metadata)[2], int n_metadata,
                                        uint32_t *crc32c, uint64_t *n_bytes);

SH_C_END

#endif
