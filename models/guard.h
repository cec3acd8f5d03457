// SPDX-License-Identifier: Apache-2.0
/** A backend for tests: another backend whose memory the host cannot touch. */
#ifndef SH_MODELS_GUARD_H
#define SH_MODELS_GUARD_H

#include "models/backend.h"

SH_C_BEGIN

enum { SH_GUARD_MAX = 4 };

/** `base` with buffers on pages that are inaccessible except inside kernels and explicit copies,
 *  and without host views. slot 0 .. SH_GUARD_MAX - 1 is the wrapper's place in static memory. */
const sh_backend *sh_guard_wrap(const sh_backend *base, int slot);

SH_C_END

#endif
