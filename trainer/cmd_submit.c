// SPDX-License-Identifier: Apache-2.0
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cli.h"
#include "base/file.h"
#include "slurm/submit.h"
#include "trainer/commands.h"
#include "trainer/experiment.h"

/* Everything that the command line says. */
typedef struct submit_args {
    const char *run, *site_path;
    bool dry_run, init_site;
    sh_submit_request request;
} submit_args;

/* `shoal submit --init-site`: a draft that the user goes through. */
static sh_status init_site(const char *path)
{
    sh_status st = SH_OK;
    char folder[SH_RUN_PATH];
    char *draft = NULL;

    SH_CHECK(!sh_file_exists(path), SH_ERR_USAGE,
             "%s is there already; remove it first, or edit it", path);
    SH_TRY(sh_site_draft(&draft));
    snprintf(folder, sizeof(folder), "%s", path);
    char *slash = strrchr(folder, '/');

    if (slash != NULL) {
        *slash = '\0';
        SH_TRY(sh_file_make_dirs(folder));
    }
    SH_TRY(sh_file_put(path, draft, strlen(draft)));
    printf("%swritten to %s: check each line, then submit\n", draft, path);
out:
    free(draft);
    return st;
}

static sh_status check_data(const sh_config *config)
{
    sh_status st = SH_OK;
    char **paths = NULL;
    int n_paths = 0;

    SH_TRY(sh_config_data_paths(config, &paths, &n_paths));
    for (int i = 0; i < n_paths; i++)
        SH_CHECK(sh_file_exists(paths[i]), SH_ERR_NOT_FOUND, "data: there is no %s", paths[i]);
out:
    sh_config_free_paths(&paths, n_paths);
    return st;
}

/* What would only show up after hours in the queue is looked at now. */
static sh_status check_request(const submit_args *args, const sh_site *site,
                               const sh_config *config)
{
    sh_status st = SH_OK;
    int64_t ranks = sh_submit_ranks(&args->request, site);
    int shards = sh_config_shards(config);
    bool exists;

    SH_TRY(sh_submit_check(&args->request));
    SH_CHECK(ranks <= shards, SH_ERR_USAGE,
             "%lld ranks for %d shards: at most one rank per shard; ask for fewer nodes, or for "
             "more shards (shards=%lld) where the run has not begun",
             (long long)ranks, shards, (long long)ranks);
    SH_TRY(check_data(config));
    if (sh_submit_n_runs(&args->request) == 1)
        SH_TRY(sh_run_check_config(args->request.run, config, &exists));
out:
    return st;
}

/* The runs that the job will write, and what each sets besides the experiment. */
static sh_status print_runs(const sh_submit_request *r)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH], options[SH_RUN_PATH];

    for (int64_t i = 0; i < sh_submit_n_runs(r); i++) {
        SH_TRY(sh_submit_run(r, i, path, options, sizeof(path)));
        printf("run %s%s%s\n", path, options[0] ? "  " : "", options);
    }
out:
    return st;
}

static sh_status submit(const submit_args *args, const sh_site *site, const sh_config *config)
{
    sh_status st = SH_OK;
    const sh_submit_request *r = &args->request;
    char job[SH_JOB_TEXT], log[SH_RUN_PATH];
    char *script = NULL;

    SH_TRY(sh_submit_script(r, site, &script));
    if (args->dry_run) {
        fputs(script, stdout);
        goto out;
    }
    SH_TRY(sh_submit_check_idle(r));
    SH_TRY(sh_file_make_private_dir(r->run));
    /* As it is now: what is edited while the job waits changes nothing. */
    SH_TRY(sh_run_put_config(r->run, "experiment.yaml", config));
    SH_TRY(sh_submit(r, script, job));
    SH_TRY(sh_submit_log(r, log, sizeof(log)));
    printf("job %s\nlog %s\n", job, log);
    SH_TRY(print_runs(r));
out:
    free(script);
    return st;
}

/* Paths as they are seen from a compute node: absolute. */
static sh_status complete(submit_args *args, const char *run, char paths[4][SH_RUN_PATH])
{
    sh_status st = SH_OK;
    sh_submit_request *r = &args->request;

    SH_CHECK(getcwd(paths[0], SH_RUN_PATH) != NULL, SH_ERR_IO, "where am I?");
    if (run[0] == '/')
        snprintf(paths[1], SH_RUN_PATH, "%s", run);
    else
        SH_TRY(sh_path_join(paths[0], run, paths[1], SH_RUN_PATH));
    SH_TRY(sh_path_join(paths[1], "experiment.yaml", paths[2], SH_RUN_PATH));
    SH_TRY(sh_path_program(paths[3], SH_RUN_PATH));
    r->folder = paths[0];
    r->run = paths[1];
    r->experiment = paths[2];
    r->shoal = paths[3];
    if (r->name == NULL) {
        const char *name = sh_path_name(r->run);

        r->name = name[0] != '\0' ? name : "shoal";
    }
out:
    return st;
}

static sh_status prepare(submit_args *args, const sh_string_list *words)
{
    sh_status st = SH_OK;
    sh_experiment experiment = {0};
    char(*paths)[SH_RUN_PATH] = calloc(4, sizeof(*paths));
    sh_config *config = calloc(1, sizeof(*config));
    sh_site *site = calloc(1, sizeof(*site));

    SH_CHECK(paths && config && site, SH_ERR_NO_MEMORY, "configuration");
    SH_TRY(sh_experiment_parse(words, args->run, &experiment));
    SH_TRY(sh_experiment_load(&experiment, config));
    SH_TRY(sh_site_load(args->site_path, site));
    SH_TRY(complete(args, experiment.run, paths));
    args->request.first_seed = config->seed;
    /* Threads are part of what a run's bytes depend on: they follow from the job, not the node. */
    if (config->threads == 0) config->threads = site->cpus_per_rank;
    SH_TRY(check_request(args, site, config));
    SH_TRY(submit(args, site, config));
out:
    sh_experiment_clear(&experiment);
    free(site);
    free(config);
    free(paths);
    return st;
}

sh_status sh_cmd_submit(int argc, char **argv)
{
    sh_status st = SH_OK;
    sh_string_list words = {0};
    submit_args args = {.request = {.nodes = "1"}};
    sh_submit_request *r = &args.request;
    bool helped = false;
    char site_path[SH_RUN_PATH];
    const sh_flag flags[] = {
        {"--run", NULL, SH_FLAG_STRING, &args.run, "FOLDER",
         "run folder, on storage that all nodes see; default runs/<name of the experiment>"},
        {"--nodes", "-N", SH_FLAG_STRING, &r->nodes, "N",
         "nodes, or a range like 1-4: the run goes on with what it gets; default 1"},
        {"--time", "-t", SH_FLAG_STRING, &r->time, "TIME",
         "time limit of one job, as sbatch takes it; the run goes on in further jobs"},
        {"--gpus", NULL, SH_FLAG_INT, &r->gpus, "N", "GPUs of each node, a rank for each"},
        {"--folds", NULL, SH_FLAG_INT, &r->folds, "N", "an array: a run for each of N folds"},
        {"--seeds", NULL, SH_FLAG_INT, &r->seeds, "N", "an array: a run for each of N seeds"},
        {"--name", NULL, SH_FLAG_STRING, &r->name, "NAME", "of the job; default that of the run"},
        {"--site", NULL, SH_FLAG_STRING, &args.site_path, "FILE",
         "site file; default $SHOAL_HOME/site.yaml, ~/.local/share/shoal/site.yaml"},
        {"--init-site", NULL, SH_FLAG_BOOL, &args.init_site, NULL,
         "draft the site file by asking Slurm"},
        {"--dry-run", NULL, SH_FLAG_BOOL, &args.dry_run, NULL, "print the batch script only"},
    };
    const sh_cli cli = {
        .usage = "shoal submit EXPERIMENT.yaml [key=value]... [--nodes N] [--time TIME]",
        .summary = "Trains in Slurm jobs until the run is done: a job that reaches its time limit, "
                   "is preempted or loses a node saves itself where it can and goes on from its "
                   "newest checkpoint. Takes what `shoal train` takes.",
        .flags = flags,
        .n_flags = SH_COUNT(flags),
        .max_args = -1,
        .epilogue =
            "shoal submit --init-site\n"
            "shoal submit experiments/koi.yaml data=koi.h5 shards=4 --nodes 4 --time 2:00:00\n"
            "shoal submit experiments/koi.yaml data=koi.h5 --folds 3 --seeds 3"};

    SH_TRY(sh_cli_parse(&cli, argc, argv, &words, &helped));
    if (helped) goto out;
    if (args.site_path == NULL) {
        SH_TRY(sh_site_path(site_path, sizeof(site_path)));
        args.site_path = site_path;
    }
    if (args.init_site)
        SH_TRY(init_site(args.site_path));
    else
        SH_TRY(prepare(&args, &words));
out:
    free(words.items);
    return st;
}
