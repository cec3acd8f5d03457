// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <string.h>

#include "base/cli.h"
#include "trainer/commands.h"

static const struct {
    const char *name;
    sh_status (*run)(int argc, char **argv);
    const char *summary;
} benches[] = {
    {"step", sh_bench_step, "a whole training step against the roofline, node by node"},
    {"ops", sh_bench_ops, "single ops against peak and bandwidth"},
    {"embed", sh_bench_embed, "a network in inference, node by node"},
    {"data", sh_bench_data, "reading, decoding and augmenting"},
    {"comm", sh_bench_comm, "the exact sum over ranks against a plain all-reduce"},
    {"train", sh_bench_train,
     "a real run's rate against its step alone and its loader's core time"},
    {"mining", sh_bench_mining, "global mining with loss and gradient"},
};

static void print_help(FILE *out)
{
    fprintf(out, "usage: shoal bench WHAT [OPTION]...\n\nEach prints a table, and with --json one "
                 "object. Ratios are measured in one run.\n\n");
    for (size_t i = 0; i < SH_COUNT(benches); i++)
        fprintf(out, "  %-8s %s\n", benches[i].name, benches[i].summary);
    fprintf(out, "\n`shoal bench WHAT --help` lists its options.\n");
}

sh_status sh_cmd_bench(int argc, char **argv)
{
    sh_status st = SH_OK;
    const char *names[SH_COUNT(benches)];

    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        print_help(stdout);
        goto out;
    }
    SH_CHECK(argc > 1, SH_ERR_USAGE,
             "bench what? one of step, ops, embed, data, comm, train, mining");
    for (size_t i = 0; i < SH_COUNT(benches); i++) {
        names[i] = benches[i].name;
        if (strcmp(argv[1], benches[i].name) != 0) continue;
        SH_TRY(benches[i].run(argc - 1, argv + 1));
        goto out;
    }
    const char *closest = sh_cli_closest(argv[1], names, (int)SH_COUNT(benches));

    SH_FAIL(SH_ERR_USAGE, "unknown bench \"%s\"%s%s%s", argv[1], closest ? " (did you mean " : "",
            closest ? closest : "", closest ? "?)" : "");
out:
    return st;
}
