// SPDX-License-Identifier: Apache-2.0
/**
 * Procedural fish with known truth, for first steps, tests and demonstrations.
 *
 * Identity lies in the pattern alone: bars and the style of the spots (size, number, how far down)
 * are an individual's, on both sides; where spots and specks lie is each side's own. All that a
 * colour histogram could use (water, light, turbidity, ground, blur, noise) belongs to the
 * recording; pose, bend, size, exposure and weeds in front belong to the single image. Every
 * individual is seen in several recordings, every recording shows several individuals. The left
 * side is seen with the head to the left.
 */
#ifndef SH_DATAIO_SYNTH_H
#define SH_DATAIO_SYNTH_H

#include "dataio/dataset.h"

SH_C_BEGIN

typedef struct sh_synth_config {
    int individuals;   /* 2 .. 99999 */
    int images;        /* of each individual, sides alternating; 1 .. 9999 */
    int recordings;    /* in all; an individual is seen in up to four of them; 1 .. 999 */
    int width, height; /* of a crop, pixels; 16 .. 2048 */
    int threads;       /* that draw; 1 .. 256; no influence on the bytes */
    uint64_t seed;
} sh_synth_config;

enum { SH_SYNTH_NAME_BYTES = 64, SH_SYNTH_JPEG_QUALITY = 90 };

/** What is known of one image. */
typedef struct sh_synth_truth {
    char name[SH_SYNTH_NAME_BYTES]; /* "fish012_left_rec03_0007.jpg" */
    char individual[16], recording[16], camera[16];
    int64_t time;  /* seconds since 1970: each recording has its day, days apart */
    int32_t frame; /* image number of the individual */
    sh_side side;
} sh_synth_truth;

SH_MUST_CHECK sh_status sh_synth_check(const sh_synth_config *config);

/** individuals * images. */
int64_t sh_synth_n_images(const sh_synth_config *config);

/** Draw image `index`. Pure in (config without threads, index); thread-safe. image->pixels is grown
 *  as needed. Either output may be NULL. */
SH_MUST_CHECK sh_status sh_synth_draw(const sh_synth_config *config, int64_t index, sh_image *image,
                                      sh_synth_truth *truth);

/** Draw all into a pack and/or a folder (created) of JPEGs; NULL: not wanted. Shows progress. */
SH_MUST_CHECK sh_status sh_synth_write(const sh_synth_config *config, const char *pack,
                                       const char *folder);

SH_C_END

#endif
