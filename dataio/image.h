// SPDX-License-Identifier: Apache-2.0
/** Images from bytes: JPEG (libjpeg-turbo), PNG (libpng), PGM/PPM; always 8-bit grey or RGB out. */
#ifndef SH_DATAIO_IMAGE_H
#define SH_DATAIO_IMAGE_H

#include <stdint.h>

#include "base/hash.h"

SH_C_BEGIN

typedef enum sh_image_format {
    SH_IMAGE_UNKNOWN,
    SH_IMAGE_JPEG,
    SH_IMAGE_PNG,
    SH_IMAGE_PNM,
    SH_IMAGE_RAW, /* inside packs only: height x width x channels bytes */
} sh_image_format;

enum {
    SH_IMAGE_MAX_SIDE = 16384
}; /* larger images are refused: crops, not photographs, are read */

/** Pixels, interleaved, rows without padding. */
typedef struct sh_image {
    int width, height, channels; /* channels: 1 or 3 */
    uint8_t *pixels;             /* [height, width, channels], malloc'd, grown as needed */
    size_t capacity;             /* bytes allocated at pixels */
} sh_image;

typedef struct sh_image_info {
    sh_image_format format;
    int width, height; /* as stored, before orientation */
    int channels;      /* that decoding will give: 1 or 3 */
    int orientation;   /* EXIF 1..8; 1 where absent */
} sh_image_info;

/** Read the header only. Refuses, with the reason and the remedy, what Shoal does not read: CMYK
 * and YCCK JPEG, 16-bit PNG, TIFF, HEIC, GIF, zero or huge sizes. `label` names the image. */
SH_MUST_CHECK sh_status sh_image_probe(const void *data, size_t n_bytes, const char *label,
                                       sh_image_info *out);

/** Decode to `channels` (1, 3, or 0: as stored), EXIF orientation applied. A truncated or damaged
 *  stream is SH_ERR_FORMAT, never a grey half. min_width, min_height > 0 allow a JPEG to be decoded
 *  at 1/2, 1/4 or 1/8 size as long as both stay at least that large. image->pixels is reused. */
SH_MUST_CHECK sh_status sh_image_decode(const void *data, size_t n_bytes, const char *label,
                                        int channels, int min_width, int min_height,
                                        sh_image *image);

/** Encode: JPEG (quality 1..100) or PNG, into malloc'd *data; the caller frees. */
SH_MUST_CHECK sh_status sh_image_encode(const sh_image *image, sh_image_format format, int quality,
                                        uint8_t **data, size_t *n_bytes);

/** Hash of what is seen: XXH3-128 of the pixels, then of {width, height, channels, hi, lo} as five
 *  little-endian u64 (docs/pack.md). Equal for byte-different files of equal pixels. */
sh_hash128 sh_image_hash(const sh_image *image);

/** Scale to width x height, each output pixel the triangle-weighted mean of what it covers; the
 *  aspect is the caller's business. out must not be image. */
SH_MUST_CHECK sh_status sh_image_resize(const sh_image *image, int width, int height,
                                        sh_image *out);

/** Copy the rectangle x, y, width, height, which must lie inside. out must not be image. */
SH_MUST_CHECK sh_status sh_image_cut(const sh_image *image, int x, int y, int width, int height,
                                     sh_image *out);

/** Free the pixels and zero the struct. */
void sh_image_clear(sh_image *image);

SH_C_END

#endif
