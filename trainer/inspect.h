// SPDX-License-Identifier: Apache-2.0
/** Parts of `shoal inspect` that look at folders. */
#ifndef SH_TRAINER_INSPECT_H
#define SH_TRAINER_INSPECT_H

#include <stdbool.h>

#include "base/status.h"

/** A run: step, best step, figures, options that differ from the defaults, sizes of the split. What
 *  is not there yet is left out; a folder that is no run is SH_ERR_NOT_FOUND. */
SH_MUST_CHECK sh_status sh_inspect_run(const char *run, bool json);

/** A shared backbone: its card, after its checksum was found right. */
SH_MUST_CHECK sh_status sh_inspect_backbone(const char *folder, bool json);

#endif
