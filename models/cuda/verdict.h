// SPDX-License-Identifier: Apache-2.0
/** Whether a CUDA device can be used, from what its runtime says; apart from the runtime, so that
 *  tests go through every answer without a device. */
#ifndef SH_MODELS_CUDA_VERDICT_H
#define SH_MODELS_CUDA_VERDICT_H

#include <stddef.h>

#include "base/finding.h"
#include "base/status.h"

SH_C_BEGIN

typedef enum sh_cuda_failure {
    SH_CUDA_OPENED,
    SH_CUDA_NO_DEVICE,   /* none, or none that this process may see */
    SH_CUDA_TAKEN,       /* by a process that shares it with nobody */
    SH_CUDA_FULL,        /* no memory even to begin with */
    SH_CUDA_OTHER_REASON /* for not having opened it */
} sh_cuda_failure;

typedef struct sh_cuda_facts {
    int driver;            /* newest CUDA that the driver knows, 1000 major + 10 minor; 0: none */
    int runtime;           /* CUDA of this build, likewise */
    const char *built_for; /* architectures as CMake has them, between blanks: "80-real 90" */
    const char *visible;   /* $CUDA_VISIBLE_DEVICES, or NULL */
    sh_cuda_failure failure;
    const char *error; /* the runtime's words for it */
    const char *name;  /* of the device, and the rest too, only without a failure */
    int capability;    /* 10 major + minor */
    size_t free_bytes, all_bytes;
} sh_cuda_facts;

/** The finding "cuda", needed: without a remedy the device can be used. */
void sh_cuda_verdict(const sh_cuda_facts *facts, sh_finding *out);

SH_C_END

#endif
