// SPDX-License-Identifier: Apache-2.0
#include "slurm/job.h"

#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/exit_codes.h"
#include "base/log.h"
#include "base/process.h"
#include "slurm/journal.h"
#include "slurm/queue.h"

enum { WHY_BYTES = 512, ASK_TIMES = 60, ASK_EVERY_SECONDS = 5 };

extern char **environ;

static volatile sig_atomic_t signalled = 0;
static volatile pid_t launcher = 0;

/* Whatever Slurm says, the ranks hear "save and stop": mpirun would kill them soon after a TERM. */
static void pass_on(int number)
{
    signalled = number;
    if (launcher > 0) kill(launcher, SIGUSR1);
}

/* Run a command with this process's own input and output; *code as a shell counts. */
static sh_status run_command(const char *const *argv, int *code)
{
    sh_status st = SH_OK;
    pid_t pid = 0;
    int failure = posix_spawnp(&pid, argv[0], NULL, NULL, (char *const *)argv, environ);

    SH_CHECK(failure == 0, SH_ERR_NOT_FOUND, "cannot run %s: %s", argv[0], strerror(failure));
    launcher = pid;
    if (signalled) kill(pid, SIGUSR1); /* it came before there was anyone to tell */
    SH_TRY(sh_process_wait(pid, argv[0], code));
out:
    launcher = 0;
    return st;
}

/* ---- what an exit code means ---- */

typedef struct outcome {
    int code;
    bool again; /* would the same command go on where this one ended? */
    sh_status status;
    const char *meaning;
} outcome;

static const outcome outcomes[] = {
    {0, false, SH_OK, "done"},
    {SH_EXIT_FAILED, false, SH_ERR_IO, "failed; the log says why"},
    {SH_EXIT_USAGE, false, SH_ERR_USAGE, "wrong usage or configuration; the log says how"},
    {SH_EXIT_NO_ROOM, true, SH_ERR_STOPPED, "the disk is full; the log names the file"},
    {SH_EXIT_STOPPED, true, SH_ERR_STOPPED, "stopped on request, saved"},
    {SH_EXIT_WATCHDOG, true, SH_ERR_STOPPED, "the watchdog ended it; the log says why"},
};

/* Launchers report 128 + signal where a rank was killed, and other codes above 128 where a node or
 * a daemon of theirs was lost. */
static outcome interpret(int code, char why[WHY_BYTES])
{
    outcome o = {code, false, SH_ERR_IO, "ended with an unknown code"};

    for (size_t i = 0; i < SH_COUNT(outcomes); i++)
        if (outcomes[i].code == code) o = outcomes[i];
    snprintf(why, WHY_BYTES, "%s (code %d)", o.meaning, code);
    if (code > 128) {
        const char *signal_name = sigabbrev_np(code - 128);

        o = (outcome){code, true, SH_ERR_STOPPED, NULL};
        snprintf(why, WHY_BYTES, "%s%s (code %d)",
                 signal_name != NULL ? "killed by SIG" : "a rank or node was lost",
                 signal_name != NULL ? signal_name : "", code);
    }
    return o;
}

/* ---- this job ---- */

/* How the job names itself, and the task of its array (NULL: it is none). */
static sh_status identify(char job[SH_JOB_TEXT], const char **task)
{
    sh_status st = SH_OK;
    const char *id = getenv("SLURM_JOB_ID"), *array = getenv("SLURM_ARRAY_JOB_ID");

    *task = array != NULL ? getenv("SLURM_ARRAY_TASK_ID") : NULL;
    SH_CHECK(id != NULL, SH_ERR_USAGE,
             "shoal job runs inside a batch job only; start one with `shoal submit`");
    if (*task != NULL)
        snprintf(job, SH_JOB_TEXT, "%s_%s", array, *task);
    else
        snprintf(job, SH_JOB_TEXT, "%s", id);
out:
    return st;
}

static sh_status note_start(const sh_job_config *c, int64_t step, const char *job)
{
    const char *nodes = getenv("SLURM_JOB_NODELIST");

    return sh_journal_append(c->run, json_pack("{s:s, s:s, s:I, s:s, s:s}", "event", "start", "job",
                                               job, "step", (json_int_t)step, "nodes",
                                               nodes ? nodes : "", "log", c->log ? c->log : ""));
}

static sh_status note_end(const sh_job_config *c, const char *job, const outcome *o,
                          const char *why)
{
    sh_log_info("job %s: %s", job, why);
    return sh_journal_append(c->run,
                             json_pack("{s:s, s:s, s:i, s:b, s:s}", "event", "end", "job", job,
                                       "code", o->code, "again", o->again, "why", why));
}

/* Ask Slurm to start this job again, until there is an answer: the controller may be down for a
 * while. While Slurm itself ends a job - cancelled, preempted, requeued, out of time - the queue
 * shows another state than RUNNING, and what happens next was decided already: *wanted = false. */
static sh_status ask_for_another_start(const char *job, bool *wanted)
{
    sh_status st = SH_OK;
    sh_job_state state;

    for (int i = 0; i < ASK_TIMES; i++) {
        st = sh_queue_look(job, &state);
        *wanted = st == SH_OK && strcmp(state.state, "RUNNING") == 0;
        if (*wanted) st = sh_queue_requeue(job);
        if (st == SH_OK) break;
        sh_log_warning("job %s: %s; asking again in %d s", job, sh_error_message(),
                       ASK_EVERY_SECONDS);
        sh_clock_sleep(ASK_EVERY_SECONDS);
    }
    return st;
}

/* ---- the parts of a job ---- */

/* Refuse to start a run that has got no further in several starts. */
static sh_status check_progress(const sh_job_config *c, int64_t step, int *n_starts)
{
    sh_status st = SH_OK;
    json_t *events = NULL;

    SH_TRY(sh_journal_read(c->run, &events));
    const json_t *end = sh_journal_last(events, "end");
    const char *why = json_string_value(json_object_get(end, "why"));

    *n_starts = sh_journal_starts_at(events, step);
    SH_CHECK(*n_starts < SH_JOB_STARTS, SH_ERR_MISMATCH,
             "%s was restarted %d times without a newer checkpoint (step %lld) and is not started "
             "again; the last end: %s. Remove the cause, or checkpoint more often, and submit it "
             "again",
             c->run, SH_JOB_STARTS - 1, (long long)(step < 0 ? 0 : step),
             why != NULL ? why : "unknown, its node failed or it was killed");
out:
    json_decref(events);
    return st;
}

/* Start the ranks, and once the run is done what comes after it. */
static sh_status run_ranks(const sh_job_config *c, outcome *o, char why[WHY_BYTES])
{
    sh_status st = SH_OK;
    int64_t step = 0;
    int code = 0;
    bool done = false;

    SH_TRY(run_command(c->start, &code));
    *o = interpret(code, why);
    if (code != 0) goto out;
    /* srun was seen to return 0 where a node did not answer when its ranks should have started. */
    SH_TRY(c->progress(c->run, &step, &done));
    if (!done) {
        *o = (outcome){code, true, SH_ERR_STOPPED, NULL};
        snprintf(why, WHY_BYTES, "the launcher ended well, but the run is not done");
        goto out;
    }
    SH_TRY(run_command(c->after, &code));
    if (code == 0) goto out;
    *o = interpret(code, why);
    size_t used = strlen(why);

    snprintf(why + used, WHY_BYTES - used, ", after training, in %s %s", c->after[0], c->after[1]);
out:
    return st;
}

/* Let what is left of a start that got nowhere end: Slurm was seen to requeue a job in seconds
 * while on a node that had answered all along a step still waited, for half a minute, for another
 * one; each launch there failed at once, and all restarts were spent. A signal ends the wait.
 *
 * n_starts  how often the run was started at `step`, this time included */
static sh_status wait_for_leftovers(const sh_job_config *c, int64_t step, int n_starts,
                                    const char *job)
{
    sh_status st = SH_OK;
    int64_t newest = 0;
    bool done = false;
    double seconds = SH_JOB_WAIT_SECONDS;

    SH_TRY(c->progress(c->run, &newest, &done));
    if (newest > step) goto out;
    if (n_starts >= SH_JOB_STARTS) goto out; /* the next one only says why it does not start */
    for (int i = 1; i < n_starts; i++) seconds *= 3;
    sh_log_info("job %s: no newer checkpoint since it was started: waiting %.0f s before it is "
                "started again",
                job, seconds);
    double end = sh_clock_seconds() + seconds;
    while (!signalled && sh_clock_seconds() < end) sh_clock_sleep(0.2);
out:
    return st;
}

/* The run is unfinished: see that it goes on. A successor starts however this job ended: to give
 * a chain up, both of its jobs are cancelled. */
static void arrange_next(const sh_job_config *c, const char *job, const char *task,
                         char successor[SH_JOB_TEXT], outcome *o, char why[WHY_BYTES])
{
    sh_status st = SH_OK;
    bool wanted = true;
    const char *next = c->chain != NULL ? "; its successor goes on" : "; queued again";
    size_t used = strlen(why);

    if (c->chain == NULL)
        st = ask_for_another_start(job, &wanted);
    else if (successor[0] == '\0')
        st = sh_queue_submit(c->chain, job, task, successor);
    o->again = st == SH_OK && wanted;
    if (st != SH_OK)
        next = "; Slurm did not queue it again: submit it again";
    else if (!wanted)
        next = "; Slurm ended this job: cancelled, preempted, requeued or out of time";
    if (st != SH_OK) sh_error_clear();
    snprintf(why + used, WHY_BYTES - used, "%s", next);
}

static void cancel_successor(const char *job)
{
    if (job[0] != '\0' && sh_queue_cancel(job) != SH_OK) {
        sh_log_warning("the successor %s stays in the queue: %s", job, sh_error_message());
        sh_error_clear();
    }
}

sh_status sh_job_run(const sh_job_config *c)
{
    sh_status st = SH_OK;
    char job[SH_JOB_TEXT], successor[SH_JOB_TEXT] = "", why[WHY_BYTES] = "";
    const char *task = NULL;
    outcome o = {0};
    int64_t step = 0;
    int n_starts = 0; /* at that step, before this one */
    bool done = false;

    sh_process_catch_stops(pass_on);
    SH_TRY(identify(job, &task));
    SH_TRY(c->progress(c->run, &step, &done));
    SH_TRY(check_progress(c, step, &n_starts));
    SH_TRY(note_start(c, step, job));
    if (c->chain != NULL && sh_queue_submit(c->chain, job, task, successor) != SH_OK) {
        sh_log_warning("job %s has no successor yet: %s", job, sh_error_message());
        sh_error_clear();
    }
    SH_TRY(run_ranks(c, &o, why));
    if (o.again && wait_for_leftovers(c, step, n_starts + 1, job) != SH_OK) sh_error_clear();
    if (o.again) arrange_next(c, job, task, successor, &o, why);
    if (!o.again) cancel_successor(successor);
    SH_TRY(note_end(c, job, &o, why));
    if (o.status != SH_OK) SH_FAIL(o.status, "%s: %s", c->run, why);
out:
    return st;
}
