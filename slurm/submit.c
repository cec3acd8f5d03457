// SPDX-License-Identifier: Apache-2.0
#include "slurm/submit.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "slurm/journal.h"
#include "slurm/templates.h"

enum { PATH_BYTES = 4096, LINES_BYTES = 16384, MAX_TEMPLATE_BYTES = 1 << 20 };

/* ---- the request ---- */

/* A word that means itself in a script, in a directive and in a name pattern of Slurm's. */
static sh_status check_word(const char *what, const char *text)
{
    sh_status st = SH_OK;

    for (const char *c = text; *c != '\0'; c++)
        SH_CHECK(isalnum((unsigned char)*c) || strchr("/._-+=,:@~", *c) != NULL, SH_ERR_USAGE,
                 "%s \"%s\" cannot stand in a batch script because of \"%c\"; rename it", what,
                 text, *c);
out:
    return st;
}

static bool is_number(const char *text, const char **end)
{
    const char *c = text;

    while (isdigit((unsigned char)*c)) c++;
    *end = c;
    return c > text && atoi(text) > 0;
}

sh_status sh_submit_check(const sh_submit_request *r)
{
    sh_status st = SH_OK;
    const char *end = NULL;

    SH_TRY(check_word("the program", r->shoal));
    SH_TRY(check_word("the run", r->run));
    SH_TRY(check_word("the working folder", r->folder));
    SH_TRY(check_word("the job's name", r->name));
    bool counted = is_number(r->nodes, &end);

    if (counted && *end == '-') counted = is_number(end + 1, &end);
    SH_CHECK(counted && *end == '\0', SH_ERR_USAGE,
             "--nodes needs a number, or a range like 1-4, not \"%s\"", r->nodes);
    SH_CHECK(r->time == NULL ||
                 (r->time[0] != '\0' && strspn(r->time, "0123456789:-") == strlen(r->time)),
             SH_ERR_USAGE, "--time is MINUTES, HOURS:MINUTES:SECONDS or DAYS-HOURS, not \"%s\"",
             r->time);
    SH_CHECK(r->folds >= 0 && r->seeds >= 0 && r->gpus >= 0, SH_ERR_USAGE,
             "--folds, --seeds and --gpus cannot be negative");
    SH_CHECK(r->folds != 1, SH_ERR_USAGE, "--folds needs at least 2");
out:
    return st;
}

static int64_t ranks_per_node(const sh_submit_request *r, const sh_site *site)
{
    return r->gpus > 0 ? r->gpus : site->ranks_per_node;
}

int64_t sh_submit_ranks(const sh_submit_request *r, const sh_site *site)
{
    const char *dash = strchr(r->nodes, '-');

    return atoll(dash != NULL ? dash + 1 : r->nodes) * ranks_per_node(r, site);
}

static bool is_array(const sh_submit_request *r)
{
    return r->folds > 0 || r->seeds > 0;
}

static int64_t at_least_one(int64_t n)
{
    return n > 0 ? n : 1;
}

int64_t sh_submit_n_runs(const sh_submit_request *r)
{
    return at_least_one(r->folds) * at_least_one(r->seeds);
}

sh_status sh_submit_run(const sh_submit_request *r, int64_t i, char *path, char *options,
                        size_t size)
{
    sh_status st = SH_OK;
    int64_t n_seeds = at_least_one(r->seeds);
    long long fold = i / n_seeds, seed = r->first_seed + i % n_seeds;
    char name[64] = "", setting[64] = "";

    options[0] = '\0';
    if (r->folds > 0) {
        snprintf(name, sizeof(name), "fold%lld", fold);
        snprintf(options, size, "split.folds=%lld split.fold=%lld", (long long)r->folds, fold);
    }
    if (r->seeds > 0) {
        size_t used = strlen(name), set = strlen(options);

        snprintf(name + used, sizeof(name) - used, "%sseed%lld", used > 0 ? "-" : "", seed);
        snprintf(setting, sizeof(setting), "%sseed=%lld", set > 0 ? " " : "", seed);
        snprintf(options + set, size - set, "%s", setting);
    }
    if (name[0] != '\0')
        SH_TRY(sh_path_join(r->run, name, path, size));
    else
        SH_CHECK((size_t)snprintf(path, size, "%s", r->run) < size, SH_ERR_USAGE,
                 "path too long: %.200s...", r->run);
out:
    return st;
}

sh_status sh_submit_log(const sh_submit_request *r, char *path, size_t size)
{
    return sh_path_join(r->run, "slurm-%j.log", path, size);
}

/* ---- the script ---- */

/* "run=... options=..." for each task of an array, or once. */
static sh_status write_runs(const sh_submit_request *r, char *text, size_t size)
{
    sh_status st = SH_OK;
    char path[PATH_BYTES], options[PATH_BYTES];
    FILE *out = fmemopen(text, size, "w");

    SH_CHECK(out != NULL, SH_ERR_NO_MEMORY, "batch script");
    if (is_array(r)) fprintf(out, "case $SLURM_ARRAY_TASK_ID in\n");
    for (int64_t i = 0; i < sh_submit_n_runs(r); i++) {
        SH_TRY(sh_submit_run(r, i, path, options, sizeof(path)));
        if (is_array(r))
            fprintf(out, "%lld) run=%s options='%s' ;;\n", (long long)i, path, options);
        else
            fprintf(out, "run=%s options=", path);
    }
    if (is_array(r)) fprintf(out, "esac");
    SH_CHECK(fflush(out) == 0 && ftell(out) < (long)size - 1, SH_ERR_USAGE,
             "--folds %lld --seeds %lld: too many runs for one script", (long long)r->folds,
             (long long)r->seeds);
out:
    if (out != NULL) fclose(out);
    return st;
}

/* "module load A B" from the site's list. */
static void write_modules(const sh_site *site, char *text, size_t size)
{
    snprintf(text, size, "%s%s", site->modules[0] ? "module load " : "", site->modules);
    for (char *c = text; *c != '\0'; c++)
        if (*c == '\n') *c = ' ';
}

static void write_launcher(const sh_submit_request *r, const sh_site *site, char *text, size_t size)
{
    long long ranks = ranks_per_node(r, site), cpus = site->cpus_per_rank;

    if (site->launcher == SH_LAUNCHER_MPIRUN)
        snprintf(text, size, "mpirun --map-by ppr:%lld:node --bind-to none", ranks);
    else
        snprintf(text, size,
                 "srun %s%s --kill-on-bad-exit=1 --ntasks-per-node=%lld "
                 "--cpus-per-task=%lld",
                 site->mpi[0] ? "--mpi=" : "", site->mpi, ranks, cpus);
}

static sh_status read_template(const sh_submit_request *r, const sh_site *site, const char **label,
                               char **text)
{
    sh_status st = SH_OK;
    const char *path = r->gpus > 0 ? site->gpu_template : site->cpu_template;
    size_t n_bytes = 0;

    *label = path[0] ? path : r->gpus > 0 ? "gpu.sbatch" : "cpu.sbatch";
    if (path[0] != '\0') {
        SH_TRY(sh_file_get(path, MAX_TEMPLATE_BYTES, text, &n_bytes));
    } else {
        *text = strdup(r->gpus > 0 ? sh_template_gpu : sh_template_cpu);
        SH_CHECK(*text != NULL, SH_ERR_NO_MEMORY, "batch template");
    }
out:
    return st;
}

sh_status sh_submit_script(const sh_submit_request *r, const sh_site *site, char **script)
{
    sh_status st = SH_OK;
    char ranks[32], cpus[32], node_cpus[32], warn[32], gpus[32], array[64] = "",
                                                                 launcher[SH_OPTION_TEXT + 128];
    char log[PATH_BYTES], runs[LINES_BYTES], modules[SH_OPTION_LIST_TEXT + 16];
    char chain[PATH_BYTES + 16] = "";
    const char *label = NULL;
    char *text = NULL;

    SH_TRY(sh_submit_log(r, log, sizeof(log)));
    SH_TRY(write_runs(r, runs, sizeof(runs)));
    SH_TRY(read_template(r, site, &label, &text));
    write_modules(site, modules, sizeof(modules));
    write_launcher(r, site, launcher, sizeof(launcher));
    snprintf(ranks, sizeof(ranks), "%lld", (long long)ranks_per_node(r, site));
    snprintf(cpus, sizeof(cpus), "%lld", (long long)site->cpus_per_rank);
    snprintf(node_cpus, sizeof(node_cpus), "%lld",
             (long long)(ranks_per_node(r, site) * site->cpus_per_rank));
    snprintf(warn, sizeof(warn), "%lld", (long long)site->warn_seconds);
    snprintf(gpus, sizeof(gpus), "%lld", (long long)r->gpus);
    if (is_array(r)) snprintf(array, sizeof(array), "0-%lld", (long long)sh_submit_n_runs(r) - 1);
    if (!site->requeue) snprintf(chain, sizeof(chain), " --chain %s/job.sbatch", r->run);
    const sh_template_value values[] = {
        {"name", r->name},
        {"nodes", r->nodes},
        {"ranks_per_node", ranks},
        {"cpus_per_rank", cpus},
        {"cpus_per_node", node_cpus},
        {"gpus", gpus},
        {"memory", site->memory},
        {"time", r->time != NULL ? r->time : site->time},
        {"partition",
         r->gpus > 0 && site->gpu_partition[0] ? site->gpu_partition : site->partition},
        {"account", site->account},
        {"qos", site->qos},
        {"constraint", site->constraint},
        {"array", array},
        {"log", log},
        {"folder", r->folder},
        {"requeue", site->requeue ? "requeue" : "no-requeue"},
        {"warn_seconds", warn},
        {"modules", modules},
        {"setup", site->setup},
        {"runs", runs},
        {"shoal", r->shoal},
        {"chain", chain},
        {"launcher", launcher},
        {"experiment", r->experiment},
    };

    SH_TRY(sh_template_fill(label, text, values, SH_COUNT(values), script));
out:
    free(text);
    return st;
}

/* ---- submission ---- */

static sh_status check_idle(const char *run)
{
    sh_status st = SH_OK;
    json_t *events = NULL;
    sh_job_state state;

    SH_TRY(sh_journal_read(run, &events));
    const json_t *newest = json_array_get(events, json_array_size(events) - 1);
    const char *job = json_string_value(json_object_get(newest, "job"));

    if (job == NULL) goto out;
    SH_TRY(sh_queue_look(job, &state));
    SH_CHECK(state.state[0] == '\0', SH_ERR_MISMATCH,
             "job %s of %s is still in the queue (%s): wait for it, or scancel it first", job, run,
             state.state);
out:
    json_decref(events);
    return st;
}

sh_status sh_submit_check_idle(const sh_submit_request *r)
{
    sh_status st = SH_OK;
    char path[PATH_BYTES], options[PATH_BYTES];

    for (int64_t i = 0; i < sh_submit_n_runs(r); i++) {
        SH_TRY(sh_submit_run(r, i, path, options, sizeof(path)));
        SH_TRY(check_idle(path));
    }
out:
    return st;
}

sh_status sh_submit(const sh_submit_request *r, const char *script, char job[SH_JOB_TEXT])
{
    sh_status st = SH_OK;
    char path[PATH_BYTES], run[PATH_BYTES], options[PATH_BYTES], task[2 * SH_JOB_TEXT];

    SH_TRY(sh_file_make_private_dir(r->run));
    SH_TRY(sh_path_join(r->run, "job.sbatch", path, sizeof(path)));
    SH_TRY(sh_file_put(path, script, strlen(script)));
    SH_TRY(sh_queue_submit(path, NULL, NULL, job));
    for (int64_t i = 0; i < sh_submit_n_runs(r); i++) {
        SH_TRY(sh_submit_run(r, i, run, options, sizeof(run)));
        snprintf(task, sizeof(task), is_array(r) ? "%s_%lld" : "%s", job, (long long)i);
        SH_TRY(sh_journal_append(
            run, json_pack("{s:s, s:s, s:s}", "event", "submit", "job", task, "script", path)));
    }
out:
    return st;
}
