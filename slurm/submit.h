// SPDX-License-Identifier: Apache-2.0
/** A batch script for a run, or for an array of runs over folds and seeds, and its submission. */
#ifndef SH_SLURM_SUBMIT_H
#define SH_SLURM_SUBMIT_H

#include "slurm/queue.h"
#include "slurm/site.h"

SH_C_BEGIN

/** All paths are absolute, and free of what a batch script would read otherwise (sh_submit_check).
 */
typedef struct sh_submit_request {
    const char *shoal;      /* the program */
    const char *experiment; /* configuration, resolved */
    const char *run;        /* run folder; of an array: the folder of its runs */
    const char *folder;     /* working folder of the job */
    const char *name;       /* of the job in the queue */
    const char *nodes;      /* "4", or "1-4" */
    const char *time;       /* "2:00:00"; NULL: the site's */
    int64_t gpus;           /* per node; 0: CPU nodes */
    int64_t folds, seeds;   /* 0: not an array over them */
    int64_t first_seed;
} sh_submit_request;

/** Can the request be written as a batch script? SH_ERR_USAGE says what is wrong with it. */
SH_MUST_CHECK sh_status sh_submit_check(const sh_submit_request *request);

/** Ranks that the largest allocation of the request starts. */
int64_t sh_submit_ranks(const sh_submit_request *request, const sh_site *site);

/** Runs of the request: folds x seeds, 1 without an array. */
int64_t sh_submit_n_runs(const sh_submit_request *request);

/** Folder of run i into path[size], and what it sets besides the experiment ("split.folds=3 ...",
 *  "" outside an array) into options[size]. */
SH_MUST_CHECK sh_status sh_submit_run(const sh_submit_request *request, int64_t i, char *path,
                                      char *options, size_t size);

/** Where the job writes, with Slurm's own %j for the job id. */
SH_MUST_CHECK sh_status sh_submit_log(const sh_submit_request *request, char *path, size_t size);

/** The batch script. The caller frees *script. */
SH_MUST_CHECK sh_status sh_submit_script(const sh_submit_request *request, const sh_site *site,
                                         char **script);

/** Is nobody working on the runs of the request? SH_ERR_MISMATCH names the job that is in the queue
 *  for one of them. */
SH_MUST_CHECK sh_status sh_submit_check_idle(const sh_submit_request *request);

/** Write the script to RUN/job.sbatch, submit it, and note that in the journals of its runs. */
SH_MUST_CHECK sh_status sh_submit(const sh_submit_request *request, const char *script,
                                  char job[SH_JOB_TEXT]);

SH_C_END

#endif
