// SPDX-License-Identifier: Apache-2.0
/** Exit codes of `shoal`, 0 apart. The last three ask a batch system to start the same command
 * again.
 */
#ifndef SH_BASE_EXIT_CODES_H
#define SH_BASE_EXIT_CODES_H

#include "base/status.h"

enum {
    SH_EXIT_FAILED = 1,
    SH_EXIT_USAGE = 2,
    SH_EXIT_NO_ROOM = 74,  /* the disk or a quota is full */
    SH_EXIT_STOPPED = 75,  /* on request, state saved */
    SH_EXIT_WATCHDOG = 76, /* a rank is gone, lost or stuck */
};

/** The code of a process that ends with `status`. */
static inline int sh_exit_code(sh_status status)
{
    switch (status) {
    case SH_OK: return 0;
    case SH_ERR_USAGE: return SH_EXIT_USAGE;
    case SH_ERR_NO_ROOM: return SH_EXIT_NO_ROOM;
    case SH_ERR_STOPPED: return SH_EXIT_STOPPED;
    default: return SH_EXIT_FAILED;
    }
}

#endif
