// SPDX-License-Identifier: Apache-2.0
/** What tests, in C, tell the emulator and ask it. The backend that runs on it is sh_backend_cuda,
 *  linked with the emulator; its memory is the host's. */
#ifndef SH_MODELS_CUDA_EMULATOR_ORDER_H
#define SH_MODELS_CUDA_EMULATOR_ORDER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

SH_C_BEGIN

/** The order in which the threads of a block, and the blocks of a grid, take their turns. */
typedef enum sh_emulator_order {
    SH_EMULATOR_FORWARD,
    SH_EMULATOR_REVERSED,
    SH_EMULATOR_SHUFFLED, /* by a keyed draw, another one for each launch */
} sh_emulator_order;

void sh_emulator_set_order(sh_emulator_order order);

/** The first fault since the last call ("divergent barrier ..."), or NULL. Valid until the next. */
const char *sh_emulator_fault(void);

/** How often kernels of a source file (its base name, "norm.cu") were launched. */
long sh_emulator_launches(const char *base_name);

/** Let the device's clock go on by so much. A launch takes .001 ms of it; what stands in for a
 *  library says how long it would have taken. */
void sh_emulator_pass(float ms);

/** Do body(closure) in its turn: now, or, while kernels are recorded, whenever that is played, with
 *  a copy of the closure. */
void sh_emulator_queue(void (*body)(void *closure), void *closure, size_t n_bytes);

/** SH_OK, or while kernels are recorded the failure of what no device can do then. */
SH_MUST_CHECK sh_status sh_emulator_refuse(const char *what);

bool sh_emulator_is_recording(void);

/** How often recordings were played so far. */
long sh_emulator_plays(void);

/** How many kernels and copies were queued so far by themselves, in no recording. */
long sh_emulator_singles(void);

/** How often the host waited for what computes. */
long sh_emulator_waits(void);

/** What the device says that can still be allocated; everything, unless a test says otherwise. */
void sh_emulator_set_free_bytes(size_t n_bytes);

SH_C_END

#endif
