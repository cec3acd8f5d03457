// SPDX-License-Identifier: Apache-2.0
/** Embeddings that other software made, as `shoal embed` writes them: an HDF5 file with datasets
 *  `embedding` [N, D] (any floating type) and `name` [N] (variable-length UTF-8). */
#ifndef SH_TRAINER_EMBEDDINGS_FILE_H
#define SH_TRAINER_EMBEDDINGS_FILE_H

#include "dataio/dataset.h"

/** Rows of crops[n] (dataset indices), found by name: *rows [n, *dim] f32, which the caller frees.
 *  A crop without a row is SH_ERR_MISMATCH naming the first and their number; rows of other crops
 *  are ignored. */
SH_MUST_CHECK sh_status sh_embeddings_read(const char *path, const sh_dataset *dataset,
                                           const int64_t *crops, int64_t n, float **rows,
                                           int64_t *dim);

#endif
