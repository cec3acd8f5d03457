// SPDX-License-Identifier: Apache-2.0
/** Recordings of kernels: CUDA graphs (record.c), on the emulator lists (emulator/record.c). */
#ifndef SH_MODELS_CUDA_RECORD_H
#define SH_MODELS_CUDA_RECORD_H

#include "models/backend.h"

SH_C_BEGIN

extern const sh_recorder sh_cuda_recorder;

SH_C_END

#endif
