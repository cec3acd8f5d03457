// SPDX-License-Identifier: Apache-2.0
#include "models/cuda/verdict.h"

#include <stdio.h>

enum {
    LEAST_CAPABILITY = 80, /* the oldest that CMakeLists.txt compiles for */
    LEAST_FREE_MB = 2048,  /* a small network's step */
};

const char *sh_cuda_verdict(const sh_cuda_facts *f, char *found, size_t size)
{
    char versions[128];

    snprintf(versions, sizeof(versions), "built with CUDA %d.%d, driver for %d.%d",
             f->runtime / 1000, f->runtime % 1000 / 10, f->driver / 1000, f->driver % 1000 / 10);
    if (f->driver == 0) {
        snprintf(found, size, "built with CUDA %d.%d, no driver", f->runtime / 1000,
                 f->runtime % 1000 / 10);
        return "only nodes with a GPU have a driver (Slurm: --gres=gpu:1)";
    }
    if (f->driver / 1000 < f->runtime / 1000) {
        snprintf(found, size, "%s", versions);
        return "the driver is too old: ask for a newer one, or build with a CUDA that it knows";
    }
    if (f->error != NULL) {
        snprintf(found, size, "%s; %s", versions, f->error);
        return "ask for a device (Slurm: --gres=gpu:1); nvidia-smi tells what this machine has and "
               "who uses it";
    }
    snprintf(found, size, "%s, sm_%d, %zu of %zu MB free, %s", f->name, f->capability,
             f->free_bytes >> 20, f->all_bytes >> 20, versions);
    if (f->capability < LEAST_CAPABILITY)
        return "too old: this build is for sm_80 (A100) and later; sinfo -o '%f %G' lists what to "
               "ask for (Slurm: --constraint or --gres)";
    if (f->free_bytes >> 20 < LEAST_FREE_MB)
        return "others hold its memory: ask for a device of your own (Slurm: --gres=gpu:1); "
               "nvidia-smi names them";
    return NULL;
}
