// SPDX-License-Identifier: Apache-2.0
/**
 * The fingerprint of a computation: everything outside the configuration and the data that may
 * change a bit of its result. Ranks of a job compare it before they start (sh_comm_agree_text); a
 * run keeps it, so that a resume elsewhere is noticed (docs/exactness.md).
 */
#ifndef SH_BASE_FINGERPRINT_H
#define SH_BASE_FINGERPRINT_H

#include "base/status.h"

SH_C_BEGIN

/**
 * Write the fingerprint into text[size], one fact per line, "name: value\n":
 *
 *   shoal, compiler, processor, instructions, caches, threads, C library, environment,
 *   then one line for each of libraries[n_libraries] as given ("oneDNN: 2.6.3", "MPI: ...")
 *
 * threads is the number of threads per rank that the run uses, not the number of cores that happen
 * to be free: the former may choose a kernel, the latter does not. `environment` has the variables
 * that make libraries choose other kernels (DNNL_MAX_CPU_ISA and the like), or "-".
 * Too small a buffer is SH_ERR_INTERNAL.
 */
SH_MUST_CHECK sh_status sh_fingerprint_text(int threads, const char *const *libraries,
                                            int n_libraries, char *text, size_t size);

SH_C_END

#endif
