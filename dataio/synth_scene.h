// SPDX-License-Identifier: Apache-2.0
/** Inside synth: the numbers that one image is drawn from. Lengths are in fish lengths, angles in
 *  radians, colours and shares in 0 .. 1. */
#ifndef SH_DATAIO_SYNTH_SCENE_H
#define SH_DATAIO_SYNTH_SCENE_H

#include "dataio/synth.h"

enum { SYNTH_MAX_BARS = 6, SYNTH_MAX_SPOTS = 60, SYNTH_SPECKS = 160 };

typedef struct synth_bar {
    float u, width, slant, strength;
} synth_bar;

typedef struct synth_spot {
    float u, v, radius_u, radius_v, strength;
} synth_spot;

/** One side of one individual. u runs from the snout (0) to the end of the tail (1), v from the
 * back
 *  (-1) to the belly (1). */
typedef struct synth_fish {
    int n_bars, n_spots, n_specks;
    synth_bar bars[SYNTH_MAX_BARS];
    synth_spot spots[SYNTH_MAX_SPOTS + SYNTH_SPECKS]; /* spots, then specks */
    float depth;                                      /* half height of the body */
    float back[3], belly[3];
    float spot_radius, low; /* style of the spots: size, and how far down (v) they reach */
} synth_fish;

/** One recording: everything that its images share. */
typedef struct synth_water {
    float colour[3], light[3], ground[3], ground_dark[3];
    float turbidity, gradient, roughness, grain, blur, noise;
    uint64_t ground_seed;
} synth_water;

/** One image. */
typedef struct synth_pose {
    float angle, bend, length; /* length: of the fish, in image widths */
    float x, y;                /* of its middle, in image widths and heights from the centre */
    float foreshorten, exposure;
    float ground_x, ground_y; /* where the camera looks */
    bool weed;
    float weed_x, weed_slant, weed_width, weed_colour[3];
    uint64_t noise_seed;
} synth_pose;

typedef struct synth_scene {
    synth_fish fish;
    synth_water water;
    synth_pose pose;
    sh_side side;
} synth_scene;

/** Throw all dice of image `index`. */
void synth_make_scene(const sh_synth_config *config, int64_t index, synth_scene *scene,
                      sh_synth_truth *truth);

/** Paint it into image, which has its size already. scratch: synth_scratch_floats floats. */
void synth_paint(const synth_scene *scene, sh_image *image, float *scratch);
size_t synth_scratch_floats(int width, int height);

#endif
