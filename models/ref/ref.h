// SPDX-License-Identifier: Apache-2.0
/**
 * The reference backend: plain loops with double accumulation, one kernel per op, any layout and
 * element type. It is the specification that other backends are tested against, and the fallback
 * that they may list last.
 */
#ifndef SH_MODELS_REF_REF_H
#define SH_MODELS_REF_REF_H

#include "models/backend.h"

SH_C_BEGIN

extern const sh_backend sh_backend_ref;

/** The reference kernel of an op, for other backends' lists. Host memory only. */
const sh_kernel *sh_ref_kernel(sh_op op);

SH_C_END

#endif
