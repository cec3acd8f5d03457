// SPDX-License-Identifier: Apache-2.0
/** Exit codes of `shoal`, 0 apart. The last two ask a batch system to start the same command again.
 */
#ifndef SH_BASE_EXIT_CODES_H
#define SH_BASE_EXIT_CODES_H

enum {
    SH_EXIT_FAILED = 1,
    SH_EXIT_USAGE = 2,
    SH_EXIT_STOPPED = 75,  /* on request, state saved */
    SH_EXIT_WATCHDOG = 76, /* a rank is gone, lost or stuck */
};

#endif
