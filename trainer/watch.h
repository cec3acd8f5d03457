// SPDX-License-Identifier: Apache-2.0
/** A run looked at from outside: its folder and the queue say how it is, its job is not touched. */
#ifndef SH_TRAINER_WATCH_H
#define SH_TRAINER_WATCH_H

#include "slurm/queue.h"
#include "trainer/checkpoint.h"

enum { SH_WATCH_TEXT = 512 };

typedef enum sh_run_phase {
    SH_RUN_WAITING, /* a job of it waits in the queue */
    SH_RUN_RUNNING, /* a job of it runs, or a process holds its lock */
    SH_RUN_STOPPED, /* unfinished, and nobody works on it */
    SH_RUN_DONE,
} sh_run_phase;

/** Numbers that are not known are NaN, -1 or "". */
typedef struct sh_run_view {
    sh_run_phase phase;
    int64_t step;             /* of the newest line in metrics.jsonl, or of the checkpoint */
    int64_t steps;            /* limit; 0: none */
    double loss;              /* at that step */
    double images_per_second; /* between the two newest checkpoints */
    double seconds_left;      /* to its limit at that rate */
    int64_t checkpoint_step;
    double checkpoint_age;     /* seconds */
    int ranks;                 /* of the newest start */
    char hosts[SH_WATCH_TEXT]; /* of the newest start: Slurm's node list, or rank 0's host */
    char job[SH_JOB_TEXT];
    sh_job_state queue; /* of that job */
    json_t *events;     /* slurm/journal.h */
} sh_run_view;

/** Look at a run. A folder that is none is SH_ERR_NOT_FOUND. The caller clears *out. */
SH_MUST_CHECK sh_status sh_watch(const char *run, sh_run_view *out);
void sh_watch_clear(sh_run_view *view);

/** Name of a phase ("running"), a static string. */
const char *sh_run_phase_name(sh_run_phase phase);

/** Every time that the run was started again, of sh_run_view.events: an array of {"job": the job
 * that ended, "step": of the checkpoint that the next start went on from, below 0: none, "why": the
 * job ended}. The caller owns it. */
json_t *sh_watch_restarts(const json_t *events);

#endif
