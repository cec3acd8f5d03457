// SPDX-License-Identifier: Apache-2.0
/**
 * Parameters by name: which ones are frozen, which ones learn at another rate.
 *
 * A pattern is a glob over state-dict names: `*` any characters (dots too), `?` one, `[ab]` a set.
 * Lists are applied in order, so later patterns win; one that begins with `!` takes back:
 * "*", "!embedding.*" freezes everything but the embedding layer. A pattern that matches no name is
 * an error that lists near names.
 *
 * A batch norm whose weight (or bias, where it has no weight) is frozen uses its running statistics
 * and no longer updates them. A pattern may also name the statistics alone: "*.running_*".
 */
#ifndef SH_TRAINER_PATTERNS_H
#define SH_TRAINER_PATTERNS_H

#include "models/store.h"

/** Set trainable and lr_scale of every slot: all trained at rate 1, but for
 *
 *  freeze    patterns, one a line; NULL or "": none
 *  lr_scale  PATTERN=FACTOR, one a line; NULL or "": none
 */
SH_MUST_CHECK sh_status sh_patterns_mark(const char *freeze, const char *lr_scale, sh_store *store);

#endif
