// SPDX-License-Identifier: Apache-2.0
/** What this machine can do at most, measured: the limits that benches compare with. */
#ifndef SH_MODELS_CPU_PEAKS_H
#define SH_MODELS_CPU_PEAKS_H

#include "base/status.h"

SH_C_BEGIN

/** With omp_get_max_threads() threads. A multiply-add counts as two operations. */
typedef struct sh_cpu_peaks {
    double f32_flops, bf16_flops;   /* per second, from registers */
    double read_bytes, triad_bytes; /* per second, from memory: reading; reading two streams and
                                       writing a third past the caches */
    double bytes;                   /* mean of the two: what a mix of both can expect */
} sh_cpu_peaks;

/** Measure for about a second; best of several tries. Reserves 192 MB meanwhile. */
SH_MUST_CHECK sh_status sh_cpu_measure_peaks(sh_cpu_peaks *out);

/** Push everything out of this machine's caches. Needs sh_cpu_flush_create's memory. */
typedef struct sh_cpu_flush sh_cpu_flush;
SH_MUST_CHECK sh_status sh_cpu_flush_create(sh_cpu_flush **out);
void sh_cpu_flush_run(sh_cpu_flush *flush);
void sh_cpu_flush_destroy(sh_cpu_flush **flush);

SH_C_END

#endif
