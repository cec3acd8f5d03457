// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cli.h"
#include "base/file.h"
#include "slurm/job.h"
#include "trainer/checkpoint.h"
#include "trainer/commands.h"

/* The file that this process writes to, if it is one. */
static void own_log(char path[SH_RUN_PATH])
{
    ssize_t n = readlink("/proc/self/fd/1", path, SH_RUN_PATH - 1);

    path[n > 0 ? n : 0] = '\0';
}

static sh_status progress(const char *run, int64_t *step, bool *done)
{
    sh_progress newest;
    int n_found = 0;
    sh_status st = sh_checkpoint_peek(run, &newest, 1, &n_found);

    *step = n_found > 0 ? newest.step : -1;
    *done = n_found > 0 && newest.finished[0] != '\0';
    return st;
}

sh_status sh_cmd_job(int argc, char **argv)
{
    sh_status st = SH_OK;
    sh_string_list command = {0};
    sh_job_config job = {0};
    bool helped = false;
    const char **start = NULL;
    char log[SH_RUN_PATH], shoal[SH_RUN_PATH];
    const sh_flag flags[] = {
        {"--run", NULL, SH_FLAG_STRING, &job.run, "FOLDER", "run folder"},
        {"--chain", NULL, SH_FLAG_STRING, &job.chain, "SCRIPT",
         "where Slurm does not requeue: the batch script of the job that waits to go on"},
    };
    const sh_cli cli = {
        .usage = "shoal job --run FOLDER [--chain SCRIPT] -- COMMAND...",
        .summary = "Inside a batch job: starts the ranks of a run with COMMAND, tells them to save "
                   "themselves when the job has to go, evaluates the run when it is done, and sees "
                   "that it goes on in another job when it is not. `shoal submit` writes the batch "
                   "script that calls it.",
        .flags = flags,
        .n_flags = SH_COUNT(flags),
        .min_args = 1,
        .max_args = -1};

    SH_TRY(sh_cli_parse(&cli, argc, argv, &command, &helped));
    if (helped) goto out;
    SH_CHECK(job.run != NULL, SH_ERR_USAGE, "--run is missing\nusage: %s", cli.usage);
    start = calloc((size_t)command.n + 1, sizeof(*start));
    SH_CHECK(start != NULL, SH_ERR_NO_MEMORY, "arguments");
    for (int i = 0; i < command.n; i++) start[i] = command.items[i];
    SH_TRY(sh_path_program(shoal, sizeof(shoal)));
    own_log(log);

    const char *const evaluate[] = {shoal, "eval", job.run, NULL};

    job.log = log;
    job.start = start;
    job.after = evaluate;
    job.progress = progress;
    SH_TRY(sh_job_run(&job));
out:
    free(start);
    free(command.items);
    return st;
}
