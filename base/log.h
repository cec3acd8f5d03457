// SPDX-License-Identifier: Apache-2.0
/**
 * Log lines on stderr: "shoal: warning: ...", with "[rank 3] " when there are several ranks.
 * Results that a user asked for go to stdout with printf; everything else goes here.
 */
#ifndef SH_BASE_LOG_H
#define SH_BASE_LOG_H

#include <stdbool.h>

#include "base/status.h"

SH_C_BEGIN

typedef enum sh_log_level { SH_LOG_ERROR, SH_LOG_WARNING, SH_LOG_INFO } sh_log_level;

/** Tell the log which rank this is. With n_ranks > 1, info lines of ranks other than 0 are dropped.
 */
void sh_log_set_rank(int rank, int n_ranks);

/** Write one line (no trailing newline in fmt). Thread-safe; a line is never torn. */
void sh_log(sh_log_level level, const char *fmt, ...) SH_PRINTF(2, 3);

#define sh_log_error(...) sh_log(SH_LOG_ERROR, __VA_ARGS__)
#define sh_log_warning(...) sh_log(SH_LOG_WARNING, __VA_ARGS__)
#define sh_log_info(...) sh_log(SH_LOG_INFO, __VA_ARGS__)

/** A line that is rewritten in place on a terminal, and logged at most every 10 s elsewhere. */
void sh_log_progress(const char *fmt, ...) SH_PRINTF(1, 2);

/** End the progress line, if one stands; later lines start fresh. */
void sh_log_progress_end(void);

SH_C_END

#endif
