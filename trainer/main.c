// SPDX-License-Identifier: Apache-2.0
/** `shoal`: find the subcommand, run it, print what went wrong, choose the exit code. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cli.h"
#include "base/exit_codes.h"
#include "base/file.h"
#include "base/log.h"
#include "trainer/commands.h"

static const struct {
    const char *name;
    sh_status (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
    {"pack", sh_cmd_pack, "import images into a pack (HDF5)"},
    {"synth", sh_cmd_synth, "make a pack of synthetic fish with known truth"},
    {"inspect", sh_cmd_inspect, "what is in a pack, a run or a weights file"},
    {"train", sh_cmd_train, "train a model, or continue a run; alone, under mpirun or srun"},
    {"eval", sh_cmd_eval, "score a run on individuals it has not seen, and write its report"},
    {"embed", sh_cmd_embed, "embeddings of a pack"},
    {"identify", sh_cmd_identify, "who is it? matches images to a gallery of known fish"},
    {"import", sh_cmd_import, "put published weights into the library, for init=NAME"},
    {"export", sh_cmd_export, "a run's result as a shared backbone, safetensors or ONNX"},
    {"compare", sh_cmd_compare, "which run is better: paired differences with intervals"},
    {"submit", sh_cmd_submit, "train in Slurm jobs until the run is done"},
    {"status", sh_cmd_status, "how far runs are, from any node"},
    {"tail", sh_cmd_tail, "what the newest job of a run wrote"},
    {"job", sh_cmd_job, "what a batch script runs: start, save, go on (written by submit)"},
    {"bench", sh_cmd_bench, "measure steps, ops, data, ranks and mining against the limit"},
    {"doctor", sh_cmd_doctor, "what this machine can do, and what is missing"},
};

static void print_help(FILE *out)
{
    fprintf(out, "shoal " SHOAL_VERSION " - trains the networks that tell individual fish apart\n\n"
                 "usage: shoal COMMAND [ARGUMENT]...\n\ncommands:\n");
    for (size_t i = 0; i < SH_COUNT(commands); i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fprintf(
        out,
        "\n`shoal COMMAND --help` explains a command.\n"
        "exit codes: 0 done, 1 failed, 2 wrong usage or configuration; 74 the disk is full, 75 "
        "stopped\n"
        "on request, state is saved, and 76 ended by the watchdog: run the same command again to\n"
        "continue\n");
}

static int unknown_command(const char *word)
{
    const char *names[SH_COUNT(commands)];

    for (size_t i = 0; i < SH_COUNT(commands); i++) names[i] = commands[i].name;
    const char *closest = sh_cli_closest(word, names, (int)SH_COUNT(commands));

    sh_log_error("unknown command \"%s\"%s%s%s", word, closest ? " (did you mean " : "",
                 closest ? closest : "", closest ? "?)" : "");
    print_help(stderr);
    return SH_EXIT_USAGE;
}

/* Threads that wait by spinning starve each other when cores are shared - with the loader, with
 * other ranks, with other jobs: a step became 4 to 10 times slower (docs/decisions.md). A command
 * of one process that runs many short nodes, embedding, loses more by sleeping at each: it spins
 * for up to a millisecond (docs/decisions.md). libgomp reads its settings before main, so they are
 * set for a second start of the same program. */
static void wait_passively(int argc, char **argv)
{
    static const char *const embedding[] = {"embed", "eval", "identify"};
    const char *spins = "1000";
    char self[PATH_MAX];

    if (getenv("OMP_WAIT_POLICY") != NULL || getenv("GOMP_SPINCOUNT") != NULL) return;
    int word = argc > 2 && strcmp(argv[1], "bench") == 0 ? 2 : 1; /* a bench as what it times */

    for (size_t i = 0; argc > word && i < SH_COUNT(embedding); i++)
        if (strcmp(argv[word], embedding[i]) == 0) spins = "100000";
    if (sh_path_program(self, sizeof(self)) == SH_OK && setenv("GOMP_SPINCOUNT", spins, 1) == 0)
        execv(self, argv);
}

int main(int argc, char **argv)
{
    wait_passively(argc, argv);
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_help(argc < 2 ? stderr : stdout);
        return argc < 2 ? SH_EXIT_USAGE : EXIT_SUCCESS;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("shoal " SHOAL_VERSION);
        return EXIT_SUCCESS;
    }
    for (size_t i = 0; i < SH_COUNT(commands); i++) {
        if (strcmp(argv[1], commands[i].name) != 0) continue;
        sh_status status = commands[i].run(argc - 1, argv + 1);

        if (status != SH_OK && sh_error_message()[0] != '\0') {
            sh_log_progress_end();
            sh_log_error("%s", sh_error_message());
        }
        return sh_exit_code(status);
    }
    return unknown_command(argv[1]);
}
