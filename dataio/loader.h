// SPDX-License-Identifier: Apache-2.0
/**
 * The loader: threads that read, decode, augment and normalise crops straight into the layout that
 * the backend wants, ahead of the step (docs/loading.md).
 *
 * Every draw is keyed by (seed, SH_RNG_AUGMENT, slot's draw, element); what thread does it when,
 * and whether the crop came from the cache, changes nothing.
 */
#ifndef SH_DATAIO_LOADER_H
#define SH_DATAIO_LOADER_H

#include "base/parcel.h"
#include "base/tensor.h"
#include "dataio/sampler.h"

SH_C_BEGIN

typedef enum sh_fit {
    SH_FIT_LETTERBOX, /* keep the aspect, pad with the mean colour */
    SH_FIT_STRETCH,   /* fill, aspect lost */
    SH_FIT_COVER,     /* keep the aspect, cut what sticks out */
} sh_fit;

/** Ranges of the random distortions; all zero: none. */
typedef struct sh_augment {
    float rotate;     /* degrees, +- */
    float shift;      /* fraction of the side, +- */
    float scale;      /* zoom in [1 - scale, 1 + scale] */
    float brightness; /* factor in [1 - b, 1 + b] */
    float contrast;   /* factor in [1 - c, 1 + c] around the mean */
    float saturation; /* factor in [1 - s, 1 + s] */
    float hue;        /* degrees, +-, around the grey axis */
    float flip;       /* probability of a horizontal flip */
    float flip_vertical;
    float erase; /* probability of one erased rectangle of 2..20 % of the area */
} sh_augment;

typedef struct sh_loader_config {
    int threads;       /* >= 1 */
    int height, width; /* of the network's input */
    int channels;      /* 1 or 3 */
    sh_fit fit;
    int min_side; /* crops with a shorter side are counted and, in training, left out; 0: none */
    float mean[3], std[3]; /* input = (pixel / 255 - mean) / std */
    sh_augment augment;
    uint64_t seed;
    sh_dtype dtype; /* SH_F32 or SH_BF16 */
    sh_layout layout;
    size_t cache_bytes; /* decoded crops kept in memory up to this; 0: none */
    bool parcels;       /* decode and draw, but leave the rest to a device: requests fill parcels,
                           and dtype and layout are the device's concern */
} sh_loader_config;

typedef struct sh_loader sh_loader;

/** Start the threads. Keeps a pointer to dataset. The caller owns *out. Refuses sizes, types and
 *  ranges that cannot be. */
SH_MUST_CHECK sh_status sh_loader_create(const sh_loader_config *config, const sh_dataset *dataset,
                                         sh_loader **out);

/** Stop the threads and free; requests that were not waited for are given up, their memory partly
 *  written. NULL is fine. */
void sh_loader_destroy(sh_loader **loader);

/** Ask for one shard's images, in order of the calls; copies slots. `memory` is the caller's:
 *  sh_tensor_bytes of {dtype, layout, (n, channels, height, width)}, or sh_loader_parcel_bytes
 *  aligned to SH_PARCEL_ALIGN; it is filled by the time that the matching sh_loader_wait returns.
 *  Any number of requests may be under way. */
SH_MUST_CHECK sh_status sh_loader_request(sh_loader *loader, const sh_slot_plan *slots, int64_t n,
                                          void *memory);

/** Bytes that the parcel of n images takes at most; how many it took is in it. */
size_t sh_loader_parcel_bytes(const sh_loader_config *config, int64_t n);

/** Is the oldest request complete, so that waiting for it takes no time? */
bool sh_loader_is_ready(sh_loader *loader);

/** Wait for the oldest request. A crop that cannot be read fails it, naming pack and crop; the rest
 *  of its images are filled nevertheless. One thread requests and waits. */
SH_MUST_CHECK sh_status sh_loader_wait(sh_loader *loader);

/** One decoded image through the same path without threads: for tests, evaluation of one image,
 *  pictures. It becomes number `index` of the n images at pixels. Equal to what the loader makes of
 * a crop when the image was decoded with the minimum size of sh_loader_decode_size. */
SH_MUST_CHECK sh_status sh_loader_render(const sh_loader_config *config, const sh_image *image,
                                         uint64_t draw, void *pixels, int64_t n, int64_t index);

/** The smallest size at which a crop of width x height may be decoded without the input becoming
 *  coarser, whatever is drawn: pass it to sh_image_decode. */
void sh_loader_decode_size(const sh_loader_config *config, int width, int height, int *min_width,
                           int *min_height);

/** What fitting does to the crops of one part. */
typedef struct sh_fit_counts {
    int64_t n_crops;
    int64_t n_small;     /* shorter side below min_side; not in n_crops */
    int64_t n_enlarged;  /* scaled up, along one axis at least */
    int64_t n_padded;    /* letterbox: more than a quarter of the input is padding */
    int64_t n_cut;       /* cover: more than a quarter of the crop is cut off */
    int64_t n_distorted; /* stretch: the aspect changes by more than 4 : 3 */
    int64_t n_bytes;     /* of all these crops as the cache holds them */
} sh_fit_counts;

/** Count over the crops of `part`, and take those below config->min_side out of it (they become
 *  SH_PART_NONE). Prints the counts as one info line. */
void sh_loader_fit_part(const sh_loader_config *config, const sh_dataset *dataset, sh_part part,
                        sh_split *split, sh_fit_counts *out);

typedef struct sh_loader_stats {
    int64_t n_crops;
    int64_t n_cached;    /* of these, taken from the cache */
    double busy_seconds; /* thread CPU time spent in loading, all threads */
    double wait_seconds; /* time that sh_loader_wait blocked */
    /* Wall time of the stages, all threads. */
    double read_seconds, decode_seconds, warp_seconds, colour_seconds, store_seconds;
} sh_loader_stats;

/** Of all requests that were waited for; running ones may be counted in part. */
void sh_loader_get_stats(const sh_loader *loader, sh_loader_stats *out);

SH_C_END

#endif
