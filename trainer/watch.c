// SPDX-License-Identifier: Apache-2.0
#include "trainer/watch.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "slurm/journal.h"

enum { TAIL_BYTES = 1 << 16 };

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text != NULL ? text : "";
}

const char *sh_run_phase_name(sh_run_phase phase)
{
    static const char *const names[] = {"waiting", "running", "stopped", "done"};

    return names[phase];
}

/* ---- where training is ---- */

/* The newest step line of metrics.jsonl, which may end in the middle of a line. */
static void read_metrics(const char *run, sh_run_view *v)
{
    char path[SH_RUN_PATH];
    char *tail = calloc(TAIL_BYTES + 1, 1);
    int fd = -1;
    struct stat info;

    if (tail == NULL || sh_run_path(run, "metrics.jsonl", path) != SH_OK) goto out;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info) != 0) goto out;
    off_t begin = info.st_size > TAIL_BYTES ? info.st_size - TAIL_BYTES : 0;
    ssize_t n = pread(fd, tail, TAIL_BYTES, begin);

    tail[n > 0 ? n : 0] = '\0';
    for (char *save = NULL, *line = strtok_r(tail, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        json_t *entry = json_loads(line, 0, NULL);

        if (json_object_get(entry, "loss") != NULL) {
            v->step = json_integer_value(json_object_get(entry, "step"));
            v->loss = json_number_value(json_object_get(entry, "loss"));
        }
        json_decref(entry);
    }
out:
    if (fd >= 0) close(fd);
    free(tail);
}

static sh_status read_checkpoints(const char *run, const sh_config *config, sh_run_view *v,
                                  bool *finished)
{
    sh_status st = SH_OK;
    sh_progress p[2] = {0};
    char folder[SH_RUN_PATH], path[SH_RUN_PATH];
    int n = 0;
    struct stat info;

    *finished = false;
    SH_TRY(sh_checkpoint_peek(run, p, 2, &n));
    if (n == 0) goto out;
    v->checkpoint_step = p[0].step;
    if (v->step < p[0].step) v->step = p[0].step;
    *finished = p[0].finished[0] != '\0';
    SH_TRY(sh_checkpoint_path(run, p[0].step, folder));
    SH_TRY(sh_path_join(folder, "state.json", path, sizeof(path)));
    if (stat(path, &info) == 0) v->checkpoint_age = difftime(time(NULL), info.st_mtime);
    /* With one checkpoint, p[1] is the beginning of the run. */
    double seconds = p[0].seconds - p[1].seconds;
    int64_t steps = p[0].step - p[1].step;

    if (steps <= 0 || seconds <= 0) goto out;
    v->images_per_second = (double)(steps * sh_config_batch(config)) / seconds;
    if (config->steps > 0)
        v->seconds_left = (double)(config->steps - v->step) * seconds / (double)steps;
    if (config->minutes > 0)
        v->seconds_left = fmin(isnan(v->seconds_left) ? INFINITY : v->seconds_left,
                               config->minutes * 60 - p[0].seconds);
out:
    return st;
}

static void read_manifest(const char *run, sh_run_view *v)
{
    json_t *manifest = NULL;

    if (sh_run_get_json(run, "manifest.json", &manifest) != SH_OK) {
        sh_error_clear();
        return;
    }
    const json_t *starts = json_object_get(manifest, "starts");
    const json_t *last = json_array_get(starts, json_array_size(starts) - 1);

    v->ranks = (int)json_integer_value(json_object_get(last, "ranks"));
    snprintf(v->hosts, sizeof(v->hosts), "%s", text_of(last, "host"));
    json_decref(manifest);
}

/* ---- who works on it ---- */

static sh_status look_at_job(sh_run_view *v)
{
    sh_status st = SH_OK;
    const json_t *newest = json_array_get(v->events, json_array_size(v->events) - 1);
    const json_t *start = sh_journal_last(v->events, "start");

    if (newest == NULL) goto out;
    snprintf(v->job, sizeof(v->job), "%s", text_of(newest, "job"));
    if (text_of(start, "nodes")[0] != '\0')
        snprintf(v->hosts, sizeof(v->hosts), "%s", text_of(start, "nodes"));
    if (sh_queue_look(v->job, &v->queue) != SH_OK) sh_error_clear(); /* no Slurm here: unknown */
out:
    return st;
}

static sh_status find_phase(const char *run, bool finished, sh_run_view *v)
{
    sh_status st = SH_OK;
    bool held = false;

    SH_TRY(sh_run_lock_look(run, &held));
    if (held || strcmp(v->queue.state, "RUNNING") == 0)
        v->phase = SH_RUN_RUNNING;
    else if (v->queue.state[0] != '\0')
        v->phase = SH_RUN_WAITING;
    else
        v->phase = finished ? SH_RUN_DONE : SH_RUN_STOPPED;
out:
    return st;
}

sh_status sh_watch(const char *run, sh_run_view *out)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    bool finished = false;
    sh_config *config = calloc(1, sizeof(*config));
    sh_run_view v = {.step = -1,
                     .loss = NAN,
                     .images_per_second = NAN,
                     .seconds_left = NAN,
                     .checkpoint_step = -1,
                     .checkpoint_age = NAN};

    SH_CHECK(config != NULL, SH_ERR_NO_MEMORY, "configuration");
    SH_TRY(sh_journal_read(run, &v.events));
    SH_TRY(sh_run_path(run, "config.yaml", path));
    if (sh_file_exists(path)) {
        SH_TRY(sh_run_load_config(run, config));
        v.steps = config->steps;
        read_metrics(run, &v);
        SH_TRY(read_checkpoints(run, config, &v, &finished));
        read_manifest(run, &v);
    } else {
        SH_CHECK(json_array_size(v.events) > 0, SH_ERR_NOT_FOUND,
                 "%s is not a run: it has neither config.yaml nor jobs.jsonl", run);
    }
    SH_TRY(look_at_job(&v));
    SH_TRY(find_phase(run, finished, &v));
    *out = v;
    v.events = NULL;
out:
    json_decref(v.events);
    free(config);
    return st;
}

void sh_watch_clear(sh_run_view *view)
{
    json_decref(view->events);
    view->events = NULL;
}

json_t *sh_watch_restarts(const json_t *events)
{
    const json_t *started = NULL, *ended = NULL;
    json_t *restarts = json_array(), *event;
    size_t i;

    json_array_foreach((json_t *)events, i, event)
    {
        if (strcmp(text_of(event, "event"), "end") == 0) ended = event;
        if (strcmp(text_of(event, "event"), "start") != 0) continue;
        if (started != NULL) {
            const char *why = ended != NULL ? text_of(ended, "why")
                                            : "cut short: its node failed, or it was killed";

            json_array_append_new(
                restarts,
                json_pack("{s:s, s:I, s:s}", "job", text_of(started, "job"), "step",
                          json_integer_value(json_object_get(event, "step")), "why", why));
        }
        started = event;
        ended = NULL;
    }
    return restarts;
}
