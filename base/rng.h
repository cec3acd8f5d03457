// SPDX-License-Identifier: Apache-2.0
/**
 * Keyed random draws: a draw is a pure function of (seed, stream, step, slot, element), never of a
 * thread, a rank or the order of calls. There is no generator state, so nothing needs saving and a
 * run can be cut anywhere.
 *
 * step     training step, or epoch, or 0
 * slot     index within the global batch, or a sample's index
 * element  counts the draws made under one key
 */
#ifndef SH_BASE_RNG_H
#define SH_BASE_RNG_H

#include <stdint.h>

#include "base/status.h"

SH_C_BEGIN

/** What a draw is for. Values are part of the run's meaning: never renumber. */
typedef enum sh_rng_stream {
    SH_RNG_SPLIT = 1,     /* which individuals or recordings are held out */
    SH_RNG_SAMPLE = 2,    /* which crops fill a batch */
    SH_RNG_AUGMENT = 3,   /* how a crop is distorted */
    SH_RNG_INIT = 4,      /* initial weights */
    SH_RNG_DROPOUT = 5,   /* which activations are dropped */
    SH_RNG_MINING = 6,    /* which violating negative Algorithm 1 takes */
    SH_RNG_BOOTSTRAP = 7, /* resampled individuals */
    SH_RNG_SYNTH = 8,     /* procedural fish */
    SH_RNG_TEST = 9,      /* test inputs */
    SH_RNG_PAIR = 10,     /* contrastive pairs */
    SH_RNG_OPEN_SET = 11, /* individuals held out of the gallery */
} sh_rng_stream;

typedef struct sh_rng_key {
    uint64_t hi, lo;
} sh_rng_key;

/** The key of one family of draws. */
sh_rng_key sh_rng_make(uint64_t seed, sh_rng_stream stream, uint64_t step, uint64_t slot);

/** 64 uniform bits: draw number `element` of `key`. */
uint64_t sh_rng_bits(sh_rng_key key, uint64_t element);

/** Uniform in [0, 1), a multiple of 2^-24, exact in f32. */
float sh_rng_uniform(sh_rng_key key, uint64_t element);

/** Uniform in [lo, hi). */
float sh_rng_range(sh_rng_key key, uint64_t element, float lo, float hi);

/** Uniform in 0 .. n - 1 without modulo bias worth naming (64-bit multiply-shift). n > 0. */
uint64_t sh_rng_below(sh_rng_key key, uint64_t element, uint64_t n);

/** Standard normal (Box-Muller from draws 2e and 2e + 1). */
double sh_rng_normal(sh_rng_key key, uint64_t element);

/** Shuffle indices[n] by Fisher-Yates with draws 0 .. n - 2. */
void sh_rng_shuffle(sh_rng_key key, int64_t *indices, int64_t n);

SH_C_END

#endif
