// SPDX-License-Identifier: Apache-2.0
/** Measuring this machine's processor and memory, with omp_get_max_threads() threads. */
#ifndef SH_MODELS_CPU_PEAKS_H
#define SH_MODELS_CPU_PEAKS_H

#include "models/meter.h"

SH_C_BEGIN

/** Arithmetic is measured from registers. Reserves 192 MB meanwhile. */
extern const sh_meter sh_cpu_meter;

SH_C_END

#endif
