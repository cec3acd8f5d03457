// SPDX-License-Identifier: Apache-2.0
/**
 * Kernels that a device's backend chooses by measuring them: chosen once for a run, by rank 0, and
 * the same on all ranks ever after, since another kernel has other bits. RUN/kernels.txt keeps
 * them.
 */
#ifndef SH_TRAINER_KERNELS_H
#define SH_TRAINER_KERNELS_H

#include "comm/comm.h"
#include "trainer/step.h"

/** Before the first program is planned. Rank 0 reads the run's choices, or, where there are none or
 *  `anew`, measures those of a whole training step; every rank takes them. *text: malloc'd, the
 *  caller frees; NULL where the backend chooses nothing. SH_ERR_MISMATCH: they cannot be used here.
 *  Collective. */
SH_MUST_CHECK sh_status sh_kernels_agree(sh_comm *comm, const char *run, bool anew,
                                         const sh_step_config *step, char **text);

/** Write them into the run. */
SH_MUST_CHECK sh_status sh_kernels_store(const char *run, const char *text);

/** One line for a fingerprint: library, device, a hash of the choices, and whether they repeat.
 *  out[size] */
void sh_kernels_describe(const char *text, bool repeatable, char *out, size_t size);

#endif
