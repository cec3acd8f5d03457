// SPDX-License-Identifier: Apache-2.0
/** What machine this process may use: Linux only, read from /proc, /sys and the scheduler. */
#ifndef SH_BASE_CPU_H
#define SH_BASE_CPU_H

#include <stdint.h>

#include "base/status.h"

SH_C_BEGIN

/** Cores that this process may keep busy: the fewest of its CPU affinity and the CPU quotas of its
 *  control group and the groups above; a quota is rounded up. At least 1. Note that mpirun binds
 *  each of its ranks to one core unless it is told '--bind-to none' or '--map-by slot:PE=N'. */
int sh_cpu_cores_granted(void);

/** The CPU quota alone, in cores, rounded up; INT_MAX without one. */
int sh_cpu_cores_quota(void);

/** Model with family, model and stepping ("AMD EPYC, family 26 model 2 stepping 1") into
 *  text[size]; "unknown" where the kernel does not say. */
void sh_cpu_model(char *text, size_t size);

/** Instruction sets that matter to our kernels or our libraries' and that this processor has,
 *  separated by blanks ("avx2 fma avx512f avx512_bf16"), into text[size]. */
void sh_cpu_features(char *text, size_t size);

/** Sizes of the data caches ("L1d 48 KiB, L2 1024 KiB, L3 32768 KiB") into text[size]; libraries
 *  choose their blocking, and so the order of some sums, by them. */
void sh_cpu_caches(char *text, size_t size);

/** Bytes of memory that this process may use: the machine's, or its control group's limit. */
int64_t sh_cpu_memory_bytes(void);

/** The most memory that this process has had resident so far, in bytes. */
int64_t sh_cpu_peak_resident_bytes(void);

SH_C_END

#endif
