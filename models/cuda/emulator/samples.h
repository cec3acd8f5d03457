// SPDX-License-Identifier: Apache-2.0
/** Small kernels, right and wrong, that show what the emulator notices. */
#ifndef SH_MODELS_CUDA_EMULATOR_SAMPLES_H
#define SH_MODELS_CUDA_EMULATOR_SAMPLES_H

#include "models/cuda/emulator/order.h"

SH_C_BEGIN

typedef enum sh_emulator_sample {
    SH_SAMPLE_SUM,             /* out[i]: sum of 0 .. 63 by shuffles and shared memory */
    SH_SAMPLE_NO_BARRIER,      /* out[i]: what the opposite thread wrote, without a barrier */
    SH_SAMPLE_UNWRITTEN,       /* out[i]: shared memory that nobody wrote */
    SH_SAMPLE_OVERRUN,         /* writes behind its shared memory */
    SH_SAMPLE_DIVERGENT,       /* half of the threads wait at another barrier than the rest */
    SH_SAMPLE_EARLY_RETURN,    /* half of the threads return before the barrier */
    SH_SAMPLE_DIVERGENT_WARP,  /* half of a warp shuffles */
    SH_SAMPLE_TOO_MANY,        /* a block of 2048 threads */
    SH_SAMPLE_TOO_MUCH_SHARED, /* 1 MB of shared memory */
} sh_emulator_sample;

enum { SH_SAMPLE_THREADS = 64 };

/** Run one block of SH_SAMPLE_THREADS threads. */
void sh_emulator_run_sample(sh_emulator_sample sample, float out[SH_SAMPLE_THREADS]);

SH_C_END

#endif
