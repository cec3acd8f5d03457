// SPDX-License-Identifier: Apache-2.0
/** Private to dataio/image*.c: one codec per file format, and what they share. */
#ifndef SH_DATAIO_IMAGE_CODEC_H
#define SH_DATAIO_IMAGE_CODEC_H

#include <stdbool.h>

#include "dataio/image.h"

/** Bytes of one image and how to name it in messages. */
typedef struct sh_image_source {
    const uint8_t *data;
    size_t n_bytes;
    const char *label;
} sh_image_source;

typedef struct sh_image_codec {
    sh_image_format format;
    bool (*matches)(const sh_image_source *source); /* by magic number */
    sh_status (*probe)(const sh_image_source *source, sh_image_info *out);

    /** Pixels as stored, without orientation. channels 0, 1, 3: a hint that may be ignored.
     *  min_width, min_height > 0 refer to the stored image. */
    sh_status (*decode)(const sh_image_source *source, int channels, int min_width, int min_height,
                        sh_image_info *info, sh_image *image);
} sh_image_codec;

extern const sh_image_codec sh_image_jpeg_codec;
extern const sh_image_codec sh_image_png_codec;
extern const sh_image_codec sh_image_pnm_codec;

/** Give image this shape and memory for it; earlier pixels are lost. */
SH_MUST_CHECK sh_status sh_image_reserve(sh_image *image, int width, int height, int channels);

/** Refuse sizes that are zero or above SH_IMAGE_MAX_SIDE. */
SH_MUST_CHECK sh_status sh_image_check_size(const sh_image_source *source, int64_t width,
                                            int64_t height);

/** EXIF orientation (1..8) from a TIFF block as in JPEG's APP1 after "Exif\0\0" and in PNG's eXIf;
 *  1 where it is absent or damaged: a picture without it is still a picture. */
int sh_exif_orientation(const uint8_t *tiff, size_t n_bytes);

/** By which of 8, 4, 2, 1 a JPEG is divided: the largest that leaves at least the wanted size; 1
 * where none is wanted (0). */
int sh_jpeg_denominator(int width, int height, int min_width, int min_height);

/** Encoders: into malloc'd *data. */
SH_MUST_CHECK sh_status sh_jpeg_encode(const sh_image *image, int quality, uint8_t **data,
                                       size_t *n_bytes);
SH_MUST_CHECK sh_status sh_png_encode(const sh_image *image, uint8_t **data, size_t *n_bytes);

#endif
