// SPDX-License-Identifier: Apache-2.0
/** Colour histograms as embeddings: the floor that a network has to beat. Not collective. */
#ifndef SH_TRAINER_HISTOGRAM_H
#define SH_TRAINER_HISTOGRAM_H

#include "dataio/dataset.h"

SH_C_BEGIN

enum { SH_HISTOGRAM_DIM = 512 };

/** Hue x saturation x value in 8 x 8 x 8 equal cells over all pixels of an RGB image, as square
 *  roots of shares: Euclidean distances between such rows are Hellinger distances. out
 *  [SH_HISTOGRAM_DIM]. */
void sh_histogram_image(const sh_image *image, float *out);

/** The same for crops[n] of a dataset, into out [n, SH_HISTOGRAM_DIM]. Images are decoded at the
 *  smallest JPEG scale that keeps 64 pixels a side. */
SH_MUST_CHECK sh_status sh_histogram_crops(const sh_dataset *dataset, const int64_t *crops,
                                           int64_t n, float *out);

SH_C_END

#endif
