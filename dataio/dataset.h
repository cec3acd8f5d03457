// SPDX-License-Identifier: Apache-2.0
/**
 * A dataset: the crops of one or several packs, with what is known of each (docs/pack.md).
 *
 * Opening reads the tables once and looks up each pack's file offset; from then on sh_dataset_read
 * is one pread and a CRC-32C check: no HDF5 call, no lock, safe from any thread and after fork.
 */
#ifndef SH_DATAIO_DATASET_H
#define SH_DATAIO_DATASET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/hash.h"
#include "dataio/image.h"

SH_C_BEGIN

typedef struct sh_dataset sh_dataset;

typedef enum sh_side { SH_SIDE_UNKNOWN, SH_SIDE_LEFT, SH_SIDE_RIGHT } sh_side;

/** Optional pictures of which pixels are what; not every crop, and not every pack, has them. */
typedef enum sh_mask {
    SH_MASK_PATTERN, /* where the skin's pattern is */
    SH_MASK_FISH,    /* where the animal is */
    SH_N_MASKS
} sh_mask;

#define SH_NO_LABEL (-1)
#define SH_NO_TIME INT64_MIN

/** One crop. Indices refer to the dataset's string tables; -1 where unknown. */
typedef struct sh_crop {
    const char *name;   /* path below the source that it was packed from; unique in its pack */
    int32_t individual; /* sh_dataset_individual; SH_NO_LABEL: unlabelled */
    int32_t recording;  /* sh_dataset_recording: encounter, clip or track day */
    int32_t camera;     /* sh_dataset_camera */
    int32_t species;    /* sh_dataset_species */
    sh_side side;
    int64_t time;          /* seconds since 1970-01-01 UTC, or SH_NO_TIME */
    int32_t frame;         /* -1 where unknown */
    int32_t width, height; /* of the stored image after orientation */
    int32_t split;         /* as a manifest column gave it: an sh_part, or -1 */
    sh_hash128 pixels;     /* hash of the decoded pixels: equal crops are found across packs */
    int32_t pack;          /* which of the dataset's packs, in the order given */
    int32_t source_width, source_height; /* of the image that it was cut from */
    int32_t box[4];                      /* x, y, width, height in the source image */
    sh_image_format format;
} sh_crop;

/** Open packs and concatenate them; individuals, recordings, ... of equal name are one. A pack
 *  argument may be one shard's or the index's path. Every table is checked before use: a truncated,
 *  damaged or foreign file is SH_ERR_FORMAT naming file, fault and remedy. Not thread-safe with
 *  other uses of HDF5. The caller owns *out. */
SH_MUST_CHECK sh_status sh_dataset_open(const char *const *paths, int n_paths, sh_dataset **out);
void sh_dataset_close(sh_dataset **dataset);

int64_t sh_dataset_n_crops(const sh_dataset *dataset);
const sh_crop *sh_dataset_crop(const sh_dataset *dataset, int64_t index);
int sh_dataset_n_individuals(const sh_dataset *dataset);
int sh_dataset_n_recordings(const sh_dataset *dataset);
int sh_dataset_n_cameras(const sh_dataset *dataset);
int sh_dataset_n_species(const sh_dataset *dataset);
const char *sh_dataset_individual(const sh_dataset *dataset, int32_t id); /* "" for -1 */
const char *sh_dataset_recording(const sh_dataset *dataset, int32_t id);
const char *sh_dataset_camera(const sh_dataset *dataset, int32_t id);
const char *sh_dataset_species(const sh_dataset *dataset, int32_t id);

/** The packs, and their file names without folder (as split.csv has them). */
int sh_dataset_n_packs(const sh_dataset *dataset);
const char *sh_dataset_pack_name(const sh_dataset *dataset, int pack);

/** Index of a crop by pack and name, or -1. */
int64_t sh_dataset_find(const sh_dataset *dataset, int pack, const char *name);

/** Files that packing left out, and why. The strings live as long as the dataset. */
int64_t sh_dataset_n_dropped(const sh_dataset *dataset);
void sh_dataset_dropped(const sh_dataset *dataset, int64_t index, const char **name,
                        const char **reason);

/** Hash of everything that training depends on: names, labels, image bytes' checksums, in order. */
sh_hash128 sh_dataset_hash(const sh_dataset *dataset);

/** Stored bytes of a crop into *data, grown with realloc (*capacity); checks the CRC. For
 * SH_IMAGE_RAW the bytes are pixels. Thread-safe. */
SH_MUST_CHECK sh_status sh_dataset_read(const sh_dataset *dataset, int64_t index, uint8_t **data,
                                        size_t *capacity, size_t *n_bytes, sh_image_format *format);

/** Read and decode one crop. See sh_image_decode for channels, min_width, min_height. Thread-safe.
 */
SH_MUST_CHECK sh_status sh_dataset_decode(const sh_dataset *dataset, int64_t index, int channels,
                                          int min_width, int min_height, sh_image *image);

/** Whether a crop has this mask. */
bool sh_dataset_has_mask(const sh_dataset *dataset, int64_t index, sh_mask mask);

/** Read and decode a mask: grey, of the crop's full size, 0 = not. SH_ERR_NOT_FOUND where the crop
 *  has none. Thread-safe. */
SH_MUST_CHECK sh_status sh_dataset_decode_mask(const sh_dataset *dataset, int64_t index,
                                               sh_mask mask, sh_image *image);

SH_C_END

#endif
