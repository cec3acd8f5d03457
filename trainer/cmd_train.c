// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cli.h"
#include "base/exit_codes.h"
#include "base/log.h"
#include "base/position.h"
#include "comm/watchdog.h"
#include "trainer/commands.h"
#include "trainer/evaluate.h"
#include "trainer/experiment.h"
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

static sh_status train(sh_comm *comm, const char *run, const sh_config *config)
{
    sh_status st = SH_OK;
    sh_session *session = calloc(1, sizeof(*session));

    SH_CHECK(session != NULL, SH_ERR_NO_MEMORY, "session");
    sh_train_catch_signals();
    bool go_back;

    do {
        sh_position_enter(SH_AT_WORK, "start");
        st = sh_session_open(comm, run, config, session);
        sh_position_leave();
        if (st != SH_OK) goto out;
        st = sh_train(session);
        go_back = st == SH_OK && session->go_back;
        if (go_back) sh_session_close(session);
    } while (go_back);
    if (st == SH_ERR_COMM) sh_watchdog_await_verdict(comm);
    /* A rank that fails in the loop has peers waiting in a collective: end them with its message.
     */
    if (st != SH_OK && st != SH_ERR_STOPPED && sh_comm_size(comm) > 1)
        sh_comm_abort(comm, sh_exit_code(st), sh_error_message());
    bool root = sh_comm_rank(comm) == 0;

    sh_session_close(session);
    sh_position_enter(SH_AT_WORK, "operating thresholds");
    if (st == SH_OK && root) st = choose_thresholds(run, (int)config->threads);
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
    sh_experiment experiment = {0};
    const char *run = NULL;
    bool helped = false;
    const sh_flag flags[] = {
        {"--run", NULL, SH_FLAG_STRING, &run, "FOLDER", "run folder"},
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
    SH_TRY(sh_experiment_parse(&words, run, &experiment));
    config = calloc(1, sizeof(*config));
    SH_CHECK(config != NULL, SH_ERR_NO_MEMORY, "configuration");
    SH_TRY(sh_experiment_load(&experiment, config));
    SH_TRY(sh_comm_create((int)config->ranks, &comm));
    sh_log_set_rank(sh_comm_rank(comm), sh_comm_size(comm));
    SH_TRY(train(comm, experiment.run, config));
out:
    /* Of several ranks that failed alike, one speaks. */
    if (comm != NULL && sh_comm_rank(comm) != 0 && st == SH_ERR_COMM) sh_error_clear();
    if (comm != NULL && sh_comm_rank(comm) != 0 && st == SH_ERR_STOPPED) sh_error_clear();
    sh_comm_destroy(&comm);
    free(config);
    sh_experiment_clear(&experiment);
    free(words.items);
    return st;
}
