// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cli.h"
#include "trainer/commands.h"
#include "trainer/watch.h"

/* "45 s", "12 min", "3 h 20 min" */
static const char *duration(double seconds, char text[32])
{
    if (isnan(seconds))
        snprintf(text, 32, "?");
    else if (seconds < 90)
        snprintf(text, 32, "%.0f s", fmax(seconds, 0));
    else if (seconds < 5400)
        snprintf(text, 32, "%.0f min", seconds / 60);
    else
        snprintf(text, 32, "%.0f h %.0f min", floor(seconds / 3600), fmod(seconds, 3600) / 60);
    return text;
}

static void print_restarts(const json_t *events)
{
    json_t *restarts = sh_watch_restarts(events), *restart;
    size_t i, n = json_array_size(restarts);

    if (n > 0) printf("  started again %zu time%s:\n", n, n == 1 ? "" : "s");
    json_array_foreach(restarts, i, restart)
    {
        long long step = json_integer_value(json_object_get(restart, "step"));

        printf("  job %s: %s; went on from %s %lld\n",
               json_string_value(json_object_get(restart, "job")),
               json_string_value(json_object_get(restart, "why")),
               step < 0 ? "the beginning, step" : "step", step < 0 ? 0 : step);
    }
    json_decref(restarts);
}

static void print_view(const char *run, const sh_run_view *v)
{
    char text[32];

    printf("%s: %s", run, sh_run_phase_name(v->phase));
    if (v->job[0] != '\0') printf(", job %s", v->job);
    if (v->phase == SH_RUN_WAITING) printf(" (%s)", v->queue.reason);
    if (v->phase == SH_RUN_RUNNING)
        printf(", %d rank%s on %s", v->ranks, v->ranks == 1 ? "" : "s", v->hosts);
    if (v->phase == SH_RUN_RUNNING && v->queue.time_left[0] != '\0')
        printf(", time limit in %s", v->queue.time_left);
    printf("\n");
    if (v->step >= 0) {
        printf("  step %lld", (long long)v->step);
        if (v->steps > 0) printf(" of %lld", (long long)v->steps);
        if (!isnan(v->loss)) printf(", loss %.4f", v->loss);
        if (!isnan(v->images_per_second)) printf(", %.1f images/s", v->images_per_second);
        if (v->phase != SH_RUN_DONE && !isnan(v->seconds_left))
            printf(", %s of training left", duration(v->seconds_left, text));
        printf("\n");
    }
    if (v->checkpoint_step >= 0)
        printf("  checkpoint of step %lld, %s old\n", (long long)v->checkpoint_step,
               duration(v->checkpoint_age, text));
    print_restarts(v->events);
}

static void set_number(json_t *object, const char *key, double value)
{
    json_object_set_new(object, key, isnan(value) ? json_null() : json_real(value));
}

static json_t *view_object(const char *run, const sh_run_view *v)
{
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:i, s:s, s:I, s:I, s:I, s:o}", "run", run, "phase",
                          sh_run_phase_name(v->phase), "job", v->job, "queue", v->queue.state,
                          "ranks", v->ranks, "hosts", v->hosts, "step", (json_int_t)v->step,
                          "steps", (json_int_t)v->steps, "checkpoint_step",
                          (json_int_t)v->checkpoint_step, "restarts", sh_watch_restarts(v->events));

    set_number(o, "loss", v->loss);
    set_number(o, "images_per_second", v->images_per_second);
    set_number(o, "seconds_left", v->seconds_left);
    set_number(o, "checkpoint_age", v->checkpoint_age);
    return o;
}

sh_status sh_cmd_status(int argc, char **argv)
{
    sh_status st = SH_OK;
    sh_string_list runs = {0};
    json_t *list = json_array();
    bool helped = false, json = false;
    const sh_flag flags[] = {
        {"--json", NULL, SH_FLAG_BOOL, &json, NULL, "one array of objects"},
    };
    const sh_cli cli = {
        .usage = "shoal status RUN... [--json]",
        .summary = "How far are these runs? Reads their folders and asks Slurm's queue, from any "
                   "node that sees both; the jobs notice nothing.",
        .flags = flags,
        .n_flags = SH_COUNT(flags),
        .min_args = 1,
        .max_args = -1};

    SH_TRY(sh_cli_parse(&cli, argc, argv, &runs, &helped));
    if (helped) goto out;
    for (int i = 0; i < runs.n; i++) {
        sh_run_view view;

        SH_TRY(sh_watch(runs.items[i], &view));
        if (json)
            json_array_append_new(list, view_object(runs.items[i], &view));
        else
            print_view(runs.items[i], &view);
        sh_watch_clear(&view);
    }
    if (json) {
        json_dumpf(list, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
        printf("\n");
    }
out:
    json_decref(list);
    free(runs.items);
    return st;
}
