// SPDX-License-Identifier: Apache-2.0
#include "slurm/queue.h"

#include <stdio.h>
#include <string.h>

#include "base/process.h"

/* Run a command of Slurm's; failing is SH_ERR_IO with its own words. */
static sh_status call(const char *const *argv, sh_process_result *result)
{
    sh_status st = SH_OK;

    SH_TRY(sh_process_run(argv, result));
    result->err[strcspn(result->err, "\n")] = '\0';
    SH_CHECK(result->code == 0, SH_ERR_IO, "%s failed: %s", argv[0],
             result->err[0] ? result->err : "it gave no reason");
out:
    return st;
}

sh_status sh_queue_submit(const char *script, const char *after, const char *task, char *job)
{
    sh_status st = SH_OK;
    sh_process_result result = {0};
    char dependency[SH_JOB_TEXT + 32], array[SH_JOB_TEXT + 16];
    const char *argv[8] = {"sbatch", "--parsable"};
    int n = 2;

    if (after != NULL) {
        snprintf(dependency, sizeof(dependency), "--dependency=afternotok:%s", after);
        argv[n++] = dependency;
        argv[n++] = "--kill-on-invalid-dep=yes";
    }
    if (task != NULL) {
        snprintf(array, sizeof(array), "--array=%s", task);
        argv[n++] = array;
    }
    argv[n++] = script;
    SH_TRY(call(argv, &result));
    /* "12", or "12;cluster" */
    snprintf(job, SH_JOB_TEXT, "%.*s", (int)strcspn(result.out, ";\n"), result.out);
    SH_CHECK(job[0] != '\0', SH_ERR_FORMAT, "sbatch named no job");
out:
    sh_process_result_clear(&result);
    return st;
}

static void copy_field(char *to, char **line)
{
    const char *field = strsep(line, "|\n");

    snprintf(to, SH_JOB_TEXT, "%s", field != NULL ? field : "");
}

sh_status sh_queue_look(const char *job, sh_job_state *out)
{
    sh_status st = SH_OK;
    sh_process_result result = {0};
    const char *const argv[] = {"squeue", "-h", "-j", job, "-o", "%T|%r|%L|%N", NULL};
    sh_job_state state = {0};

    SH_TRY(sh_process_run(argv, &result));
    if (result.code != 0 && strstr(result.err, "Invalid job id") == NULL)
        SH_FAIL(SH_ERR_NOT_FOUND, "Slurm does not answer: %.200s", result.err);
    if (result.code == 0) {
        char *line = result.out;

        copy_field(state.state, &line);
        copy_field(state.reason, &line);
        copy_field(state.time_left, &line);
        copy_field(state.nodes, &line);
    }
    *out = state;
out:
    sh_process_result_clear(&result);
    return st;
}

/* A command that answers nothing. */
static sh_status command(const char *const *argv)
{
    sh_process_result result = {0};
    sh_status st = call(argv, &result);

    sh_process_result_clear(&result);
    return st;
}

sh_status sh_queue_requeue(const char *job)
{
    const char *const argv[] = {"scontrol", "requeue", job, NULL};

    return command(argv);
}

sh_status sh_queue_cancel(const char *job)
{
    const char *const argv[] = {"scancel", job, NULL};

    return command(argv);
}
