// SPDX-License-Identifier: Apache-2.0
/**
 * Inside a batch job: start the ranks of a run, save it when the job has to go, and see that it
 * goes on. This process is the job's batch "shell": Slurm's signals reach it first.
 *
 *   start   the run's journal gets a line. Where the run was already started SH_JOB_STARTS times
 *           from the newest checkpoint without getting further, nothing is started again.
 *   USR1    (the time limit is near), TERM (preemption, requeue, scancel): passed to the launcher
 *           as USR1, so that the ranks save a checkpoint and end with 75.
 *   end     what the exit code means is noted. A start that left no newer checkpoint is followed by
 *           a wait: on nodes that were lost for a moment something of it may live on, and would be
 *           in the way of the next one. A run that was interrupted goes on: Slurm is asked
 *           to requeue the job, or the job's successor, which waits for an end that is not good,
 *           may start. Where Slurm itself is ending the job (scancel, preemption) that is left to
 *           Slurm.
 */
#ifndef SH_SLURM_JOB_H
#define SH_SLURM_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

SH_C_BEGIN

enum {
    SH_JOB_STARTS = 4,       /* the first one and three restarts */
    SH_JOB_WAIT_SECONDS = 5, /* before the first restart of a start that got nowhere; then thrice
                                as long each time */
};

typedef struct sh_job_config {
    const char *run;          /* run folder */
    const char *log;          /* where the job's output goes, for the journal; may be NULL */
    const char *chain;        /* batch script of the job's successor; NULL: jobs are requeued */
    const char *const *start; /* command that starts the ranks, NULL-terminated */
    const char *const *after; /* command to run once the run is done */
    /* the step of the run's newest checkpoint, -1: there is none; has the run reached its limit? */
    sh_status (*progress)(const char *run, int64_t *step, bool *done);
} sh_job_config;

/** Run the job of this process's environment (SLURM_JOB_ID). SH_ERR_STOPPED: the run is unfinished
 *  and goes on later; any other failure needs somebody, and the message says why. */
SH_MUST_CHECK sh_status sh_job_run(const sh_job_config *config);

SH_C_END

#endif
