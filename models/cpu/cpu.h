// SPDX-License-Identifier: Apache-2.0
/**
 * The CPU backend: activations in SH_NCHW16C, f32 or bf16; own kernels for what MobileNets are made
 * of, oneDNN for dense convolutions, the reference for what neither does. OpenMP threads: as many
 * as omp_get_max_threads() says when a program is planned. Results depend on that number and on the
 * processor, on nothing else.
 */
#ifndef SH_MODELS_CPU_CPU_H
#define SH_MODELS_CPU_CPU_H

#include "models/backend.h"

SH_C_BEGIN

extern const sh_backend sh_backend_cpu;

SH_C_END

#endif
