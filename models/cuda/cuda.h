// SPDX-License-Identifier: Apache-2.0
/**
 * The CUDA backend: own kernels over maps with channels innermost. One process, one device: the one
 * of its local rank among those that it may see.
 *
 * Tests link the same table with the kernels on an emulator (emulator/order.h).
 */
#ifndef SH_MODELS_CUDA_CUDA_H
#define SH_MODELS_CUDA_CUDA_H

#include "models/backend.h"

SH_C_BEGIN

extern const sh_backend sh_backend_cuda;

SH_C_END

#endif
