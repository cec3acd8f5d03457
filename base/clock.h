// SPDX-License-Identifier: Apache-2.0
/** Time for measuring and for budgets; never an input to what is computed. */
#ifndef SH_BASE_CLOCK_H
#define SH_BASE_CLOCK_H

#include "base/status.h"

SH_C_BEGIN

/** Monotonic seconds since an arbitrary start. */
double sh_clock_seconds(void);

/** CPU seconds used by the calling thread. */
double sh_clock_thread_cpu_seconds(void);

/** Let the calling thread sleep. */
void sh_clock_sleep(double seconds);

SH_C_END

#endif
