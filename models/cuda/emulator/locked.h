// SPDX-License-Identifier: Apache-2.0
/** Page-locked memory on the emulator, and waiting for what computes: for memory.c. */
#ifndef SH_MODELS_CUDA_EMULATOR_LOCKED_H
#define SH_MODELS_CUDA_EMULATOR_LOCKED_H

#include "base/device.h"

/* The slots of sh_device. */
sh_status sh_emulator_alloc_host(size_t n_bytes, void **memory);
void sh_emulator_free_host(void *memory);
sh_status sh_emulator_send(sh_queue queue, void *to, const void *host, size_t n_bytes);
sh_status sh_emulator_fetch(sh_queue queue, void *host, const void *from, size_t n_bytes);

/** The host waits for what computes: what was fetched is there. SH_ERR_INTERNAL where memory that
 *  was sent is not what it was. `what` waits, for people. */
SH_MUST_CHECK sh_status sh_emulator_wait(const char *what);

#endif
