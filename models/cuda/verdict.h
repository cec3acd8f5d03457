// SPDX-License-Identifier: Apache-2.0
/** Whether a CUDA device can be used, from what its runtime says; apart from the runtime, so that
 *  tests go through every answer without a device. */
#ifndef SH_MODELS_CUDA_VERDICT_H
#define SH_MODELS_CUDA_VERDICT_H

#include <stddef.h>

#include "base/status.h"

SH_C_BEGIN

typedef struct sh_cuda_facts {
    int driver;        /* newest CUDA that the driver knows, 1000 major + 10 minor; 0: none */
    int runtime;       /* CUDA of this build, likewise */
    const char *error; /* why no device could be opened, or NULL */
    const char *name;  /* of the device, and the rest too, only without an error */
    int capability;    /* 10 major + minor */
    size_t free_bytes, all_bytes;
} sh_cuda_facts;

/** Describe it in `found`. NULL: it can be used; otherwise what to do, a static string. */
const char *sh_cuda_verdict(const sh_cuda_facts *facts, char *found, size_t size);

SH_C_END

#endif
