// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cli.h"
#include "base/exit_codes.h"
#include "base/file.h"
#include "base/log.h"
#include "base/position.h"
#include "comm/watchdog.h"
#include "trainer/commands.h"
#include "trainer/evaluate.h"
#include "trainer/library.h"
#include "trainer/train.h"

static void print_help(void)
{
    printf("usage: shoal train [EXPERIMENT.yaml] [--run FOLDER] [key=value]...\n\n"
           "Trains a model into a run folder, or continues one: the same command goes on where a\n"
           "run was interrupted. Start it alone, or under mpirun or srun; the result has the same\n"
           "bytes on any number of ranks up to `shards`. SIGTERM and SIGUSR1 write a checkpoint\n"
           "and exit with 75.\n\n"
           "  --run FOLDER    run folder; default runs/<name of the experiment>\n"
           "  --help          this\n\n"
           "  shoal train experiments/koi.yaml --run runs/koi data=koi.h5\n"
           "  mpirun -n 2 shoal train experiments/koi.yaml --run runs/koi data=koi.h5\n\n"
           "options, in the YAML file or as key=value:\n");
    sh_options_help(sh_config_options(), stdout);
}

/* runs/<file name without its ending>. */
static void default_run(const char *yaml, char *run, size_t size)
{
    const char *slash = yaml != NULL ? strrchr(yaml, '/') : NULL;
    const char *name = yaml == NULL ? "shoal" : slash != NULL ? slash + 1 : yaml;

    snprintf(run, size, "runs/%.*s", (int)strcspn(name, "."), name);
}

/* The parts of the command line. */
typedef struct train_args {
    const char *yaml, *run;
    const char **assignments;
    int n_assignments;
    char run_buffer[SH_RUN_PATH];
} train_args;

static sh_status sort_arguments(const sh_string_list *words, train_args *args)
{
    sh_status st = SH_OK;

    args->assignments = calloc((size_t)words->n + 1, sizeof(char *));
    SH_CHECK(args->assignments != NULL, SH_ERR_NO_MEMORY, "arguments");
    for (int i = 0; i < words->n; i++) {
        if (strchr(words->items[i], '=') != NULL) {
            args->assignments[args->n_assignments++] = words->items[i];
            continue;
        }
        SH_CHECK(args->yaml == NULL, SH_ERR_USAGE,
                 "two experiments given: %s and %s (options are written key=value)", args->yaml,
                 words->items[i]);
        args->yaml = words->items[i];
    }
    if (args->run == NULL) {
        default_run(args->yaml, args->run_buffer, sizeof(args->run_buffer));
        args->run = args->run_buffer;
    }
out:
    return st;
}

/* A backbone, by folder or by its name in the library, becomes the path of its weights. */
static sh_status resolve_init(sh_config *config)
{
    sh_status st = SH_OK;
    char path[SH_LIBRARY_PATH];
    const char *init = config->init;

    if (init[0] == '\0') goto out;
    if (!sh_file_is_dir(init) && (sh_file_exists(init) || strchr(init, '/') != NULL)) goto out;
    SH_TRY(sh_library_find(init, path));
    SH_CHECK(strlen(path) < sizeof(config->init), SH_ERR_USAGE, "init: %.100s...: too long", path);
    memcpy(config->init, path, strlen(path) + 1);
out:
    return st;
}

/* With --run of an existing run and no experiment, its own configuration is the base. */
static sh_status load_config(const train_args *args, sh_config *config)
{
    char stored[SH_RUN_PATH + 16];

    snprintf(stored, sizeof(stored), "%s/config.yaml", args->run);
    bool use_stored = args->yaml == NULL && sh_file_exists(stored);

    sh_status st = sh_config_load(use_stored ? stored : args->yaml, args->assignments,
                                  args->n_assignments, config);

    if (st == SH_OK) st = resolve_init(config);
    return st == SH_OK ? sh_config_resolve_paths(config) : st;
}

/* The operating thresholds ship with the model: RUN/threshold.json. */
static sh_status choose_thresholds(const char *run, int threads)
{
    sh_thresholds thresholds;
    sh_status st = sh_thresholds_of_run(run, threads, &thresholds);

    if (st != SH_ERR_NOT_FOUND) return st;
    sh_log_warning("no operating threshold: %s", sh_error_message());
    sh_error_clear();
    return SH_OK;
}

static sh_status train(sh_comm *comm, const train_args *args, const sh_config *config)
{
    sh_status st = SH_OK;
    sh_session *session = calloc(1, sizeof(*session));

    SH_CHECK(session != NULL, SH_ERR_NO_MEMORY, "session");
    sh_position_enter(SH_AT_WORK, "start");
    st = sh_session_open(comm, args->run, config, session);
    sh_position_leave();
    if (st != SH_OK) goto out;
    st = sh_train(session);
    if (st == SH_ERR_COMM) sh_watchdog_await_verdict(comm);
    /* A rank that fails in the loop has peers waiting in a collective: end them with its message.
     */
    if (st != SH_OK && st != SH_ERR_STOPPED && sh_comm_size(comm) > 1)
        sh_comm_abort(comm, SH_EXIT_FAILED, sh_error_message());
    bool root = sh_comm_rank(comm) == 0;

    sh_session_close(session);
    sh_position_enter(SH_AT_WORK, "operating thresholds");
    if (st == SH_OK && root) st = choose_thresholds(args->run, (int)config->threads);
    sh_position_leave();
out:
    free(session);
    return st;
}

sh_status sh_cmd_train(int argc, char **argv)
{
    sh_status st = SH_OK;
    sh_string_list words = {0};
    sh_config *config = NULL;
    sh_comm *comm = NULL;
    train_args args = {0};
    bool helped = false;
    const sh_flag flags[] = {
        {"--run", NULL, SH_FLAG_STRING, &args.run, "FOLDER", "run folder"},
    };
    const sh_cli cli = {.usage = "shoal train [EXPERIMENT.yaml] [--run FOLDER] [key=value]...",
                        .flags = flags,
                        .n_flags = SH_COUNT(flags),
                        .max_args = -1};

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help();
            goto out;
        }
    }
    SH_TRY(sh_cli_parse(&cli, argc, argv, &words, &helped));
    SH_TRY(sort_arguments(&words, &args));
    config = calloc(1, sizeof(*config));
    SH_CHECK(config != NULL, SH_ERR_NO_MEMORY, "configuration");
    SH_TRY(load_config(&args, config));
    SH_TRY(sh_comm_create((int)config->ranks, &comm));
    sh_log_set_rank(sh_comm_rank(comm), sh_comm_size(comm));
    SH_TRY(train(comm, &args, config));
out:
    /* Of several ranks that failed alike, one speaks. */
    if (comm != NULL && sh_comm_rank(comm) != 0 && st == SH_ERR_COMM) sh_error_clear();
    if (comm != NULL && sh_comm_rank(comm) != 0 && st == SH_ERR_STOPPED) sh_error_clear();
    sh_comm_destroy(&comm);
    free(config);
    free(args.assignments);
    free(words.items);
    return st;
}
