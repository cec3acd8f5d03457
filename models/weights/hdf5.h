// SPDX-License-Identifier: Apache-2.0
/**
 * Reads the datasets of an HDF5 file that lies in memory: as much of the format as h5py writes by
 * default, and so all of the Keras files (superblock 0 and 1, groups as symbol tables, object
 * headers of version 1, contiguous and compact datasets of floats and integers). The HDF5 library
 * is not used, because files come from strangers: here every offset is checked against the bytes
 * that are there, and nothing is followed further than a file of this size can lead. Format: "HDF5
 * File Format Specification", version 3.0, The HDF Group.
 */
#ifndef SH_MODELS_WEIGHTS_HDF5_H
#define SH_MODELS_WEIGHTS_HDF5_H

#include "models/weights/internal.h"

SH_C_BEGIN

/** A dataset as it lies in the file. The view has no name; strides are row-major. */
typedef struct sh_h5_dataset {
    const char *path; /* "conv1/conv1/kernel:0", without a leading slash */
    sh_weight_view view;
} sh_h5_dataset;

/** Does the content begin like an HDF5 file? */
bool sh_h5_recognise(const uint8_t *data, size_t n_bytes);

/** Call visit for every dataset of the file, in the order of names. `label` names the file in
 *  messages; whatever cannot be read is refused with file and object. */
SH_MUST_CHECK sh_status sh_h5_visit(const uint8_t *data, size_t n_bytes, const char *label,
                                    sh_status (*visit)(void *context, const sh_h5_dataset *dataset),
                                    void *context);

SH_C_END

#endif
