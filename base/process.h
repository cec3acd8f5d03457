// SPDX-License-Identifier: Apache-2.0
/** Other programs, run to their end without a shell. */
#ifndef SH_BASE_PROCESS_H
#define SH_BASE_PROCESS_H

#include "base/status.h"

SH_C_BEGIN

typedef struct sh_process_result {
    int code;  /* exit code, or 128 + the number of the signal that ended it */
    char *out; /* what it wrote to stdout, NUL-terminated */
    char *err; /* and to stderr */
} sh_process_result;

/** Run argv[0], looked for in PATH; argv ends with NULL. Its stdin is empty. Waits; thread-safe.
 *  A program that cannot be started is SH_ERR_NOT_FOUND; one that fails is SH_OK with its code.
 *  The caller owns *out (sh_process_result_clear). */
SH_MUST_CHECK sh_status sh_process_run(const char *const *argv, sh_process_result *out);

/** Free what a result holds; a zeroed one is fine. */
void sh_process_result_clear(sh_process_result *result);

/** As a shell counts: exit code, or 128 + signal, of a status from waitpid. */
int sh_process_code(int wait_status);

SH_C_END

#endif
