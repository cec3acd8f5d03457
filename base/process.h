// SPDX-License-Identifier: Apache-2.0
/** Processes: others, run to their end without a shell, and this one asked to stop. */
#ifndef SH_BASE_PROCESS_H
#define SH_BASE_PROCESS_H

#include <sys/types.h>

#include "base/status.h"

SH_C_BEGIN

typedef struct sh_process_result {
    int code;  /* exit code, or 128 + the number of the signal that ended it */
    char *out; /* what it wrote to stdout, NUL-terminated */
    char *err; /* and to stderr */
} sh_process_result;

/** Run argv[0], looked for in PATH; argv ends with NULL. Its stdin is empty. Waits; thread-safe.
 *  A program that cannot be started is SH_ERR_NOT_FOUND; one that fails is SH_OK with its code.
 *  It does not see SIGTERM: Slurm sends that to all of a job that is being requeued, the scontrol
 *  that asked for it included, and what was asked must still be answered.
 *  The caller owns *out (sh_process_result_clear). */
SH_MUST_CHECK sh_status sh_process_run(const char *const *argv, sh_process_result *out);

/** Free what a result holds; a zeroed one is fine. */
void sh_process_result_clear(sh_process_result *result);

/** Wait for a child, called `name` in messages, to end; *code as a shell counts: its exit code, or
 *  128 + the number of the signal that ended it. A signal of the caller's own does not end the
 * wait.
 */
SH_MUST_CHECK sh_status sh_process_wait(pid_t pid, const char *name, int *code);

/** From now on the signals that ask for a stop - SIGTERM, SIGUSR1, SIGINT - call `handler` instead
 * of ending this process; system calls that they interrupt go on. */
void sh_process_catch_stops(void (*handler)(int number));

SH_C_END

#endif
