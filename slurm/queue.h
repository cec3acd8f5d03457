// SPDX-License-Identifier: Apache-2.0
/** Jobs in Slurm's queue, through its own commands. */
#ifndef SH_SLURM_QUEUE_H
#define SH_SLURM_QUEUE_H

#include "base/status.h"

SH_C_BEGIN

enum { SH_JOB_TEXT = 256 };

/** A job as the queue shows it; text as Slurm writes it. */
typedef struct sh_job_state {
    char state[SH_JOB_TEXT];  /* "RUNNING", "PENDING", ...; "" where Slurm does not know the job */
    char reason[SH_JOB_TEXT]; /* why it waits */
    char time_left[SH_JOB_TEXT]; /* until its time limit */
    char nodes[SH_JOB_TEXT];     /* "n[1-4]" */
} sh_job_state;

/** Submit a batch script; its job id into job[SH_JOB_TEXT]. after: NULL, or the job that must end
 *  otherwise than well before this one starts; task: NULL, or the one task of the script's array
 *  that is meant. */
SH_MUST_CHECK sh_status sh_queue_submit(const char *script, const char *after, const char *task,
                                        char *job);

/** Ask for a job. SH_ERR_NOT_FOUND where no Slurm answers; a job that has left the queue is SH_OK
 *  with an empty state. */
SH_MUST_CHECK sh_status sh_queue_look(const char *job, sh_job_state *out);

/** Put a job back into the queue, or take it out. What Slurm answers where it refuses is the
 *  message. */
SH_MUST_CHECK sh_status sh_queue_requeue(const char *job);
SH_MUST_CHECK sh_status sh_queue_cancel(const char *job);

SH_C_END

#endif
