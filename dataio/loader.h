// SPDX-License-Identifier: Apache-2.0
/**
 * The loader: threads that read, decode, augment and normalise crops straight into the layout that
 * the backend wants, ahead of the step.
 *
 * Every draw is keyed by (seed, SH_RNG_AUGMENT, slot's draw, element); what thread does it when
 * changes nothing.
 */
#ifndef SH_DATAIO_LOADER_H
#define SH_DATAIO_LOADER_H

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
    float hue;        /* degrees, +- */
    float flip;       /* probability of a horizontal flip */
    float flip_vertical;
    float erase;      /* probability of one erased rectangle of 2..20 % of the area */
} sh_augment;

typedef struct sh_loader_config {
    int threads;        /* >= 1 */
    int height, width;  /* of the network's input */
    int channels;       /* 1 or 3 */
    sh_fit fit;
    int min_side;       /* crops with a shorter side are counted and, in training, left out; 0: none */
    float mean[3], std[3]; /* input = (pixel / 255 - mean) / std */
    sh_augment augment;
    uint64_t seed;
    sh_dtype dtype;     /* SH_F32 or SH_BF16 */
    sh_layout layout;
    size_t cache_bytes; /* decoded crops kept in memory up to this; 0: none */
} sh_loader_config;

typedef struct sh_loader sh_loader;

/** Start the threads. Keeps a pointer to dataset. The caller owns *out. */
SH_MUST_CHECK sh_status sh_loader_create(const sh_loader_config *config, const sh_dataset *dataset,
                                         sh_loader **out);
void sh_loader_destroy(sh_loader **loader);

/** Ask for one shard's images, in order of the calls; copies slots. `pixels` is the caller's memory
 *  for sh_tensor_bytes of {dtype, layout, (n, channels, height, width)}, filled by the time that the
 *  matching sh_loader_wait returns. Any number of requests may be under way. */
SH_MUST_CHECK sh_status sh_loader_request(sh_loader *loader, const sh_slot_plan *slots, int64_t n,
                                          void *pixels);

/** Wait for the oldest request. A crop that cannot be read fails it, naming pack and crop. */
SH_MUST_CHECK sh_status sh_loader_wait(sh_loader *loader);

/** One crop through the same path without threads: for tests, evaluation of one image, pictures. */
SH_MUST_CHECK sh_status sh_loader_render(const sh_loader_config *config, const sh_image *image,
                                         uint64_t draw, void *pixels, int64_t n, int64_t index);

typedef struct sh_loader_stats {
    int64_t n_crops;
    double busy_seconds; /* thread CPU time spent in loading, all threads */
    double wait_seconds; /* time that sh_loader_wait blocked */
} sh_loader_stats;
void sh_loader_get_stats(const sh_loader *loader, sh_loader_stats *out);

SH_C_END

#endif
