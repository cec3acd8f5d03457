// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cli.h"
#include "base/file.h"
#include "trainer/commands.h"
#include "trainer/report.h"
#include "trainer/run.h"

static sh_status write_files(const char *run, const char *folder_name, const sh_eval_result *result)
{
    sh_status st = SH_OK;
    char folder[SH_RUN_PATH], report[SH_RUN_PATH];
    int64_t n_suspects = 0;

    SH_TRY(sh_run_path(run, folder_name, folder));
    SH_TRY(sh_eval_write_csv(result, folder, &n_suspects));
    SH_TRY(sh_run_put_json(folder, "eval.json", result->json));
    /* the test part makes the run's own report; anything else stays in its folder */
    bool main_report = strcmp(folder_name, "eval") == 0;

    SH_TRY(sh_run_path(main_report ? run : folder, "report.html", report));
    SH_TRY(sh_report_write(run, result, report));
    fprintf(stderr,
            "report: %s\nper query: %s/queries.csv; %lld suspected mislabels: "
            "%s/mislabels.csv\n",
            report, folder, (long long)n_suspects, folder);
out:
    return st;
}

/* Scores of embeddings made elsewhere: what shoal compare reads. */
static sh_status write_foreign(const char *into, const sh_eval_result *result)
{
    sh_status st = SH_OK;
    char folder[SH_RUN_PATH];
    int64_t n_suspects = 0;

    SH_TRY(sh_run_path(into, "eval", folder));
    SH_TRY(sh_file_make_dirs(folder));
    SH_TRY(sh_eval_write_csv(result, folder, &n_suspects));
    SH_TRY(sh_run_put_json(folder, "eval.json", result->json));
    fprintf(stderr, "per query: %s/queries.csv\n", folder);
out:
    return st;
}

sh_status sh_cmd_eval(int argc, char **argv)
{
    sh_status st = SH_OK;
    sh_string_list args = {0}, data = {0};
    sh_eval_result result = {0};
    const char *part = "test";
    const char *embeddings = NULL, *into = NULL;
    int64_t threads = 0;
    bool json = false, helped = false;
    const sh_flag flags[] = {
        {"--data", NULL, SH_FLAG_LIST, &data, "PACK",
         "score this pack instead of the run's own split; crops that the run was trained on are "
         "refused; may be repeated"},
        {"--part", NULL, SH_FLAG_STRING, &part, "PART", "test or val; default test"},
        {"--embeddings", NULL, SH_FLAG_STRING, &embeddings, "FILE",
         "score embeddings that other software made of the run's test crops (HDF5 as shoal embed "
         "writes it); needs --into"},
        {"--into", NULL, SH_FLAG_STRING, &into, "FOLDER",
         "where the scores of --embeddings go, for shoal compare"},
        {"--threads", NULL, SH_FLAG_INT, &threads, "N", "compute threads; default: all granted"},
        {"--json", NULL, SH_FLAG_BOOL, &json, NULL, "print eval.json instead of the figures"},
    };
    const sh_cli cli = {
        .usage = "shoal eval RUN [--data PACK]... [--part test|val] [--json]",
        .summary = "Scores a run on fish that it has not been trained on: identification across "
                   "recordings, verification, unknown fish, with intervals over individuals and "
                   "floors. Writes RUN/eval/eval.json, queries.csv, mislabels.csv and "
                   "RUN/report.html (with --part val: RUN/eval-val; with --data: RUN/eval-data).",
        .flags = flags,
        .n_flags = SH_COUNT(flags),
        .min_args = 1,
        .max_args = 1,
    };

    SH_TRY(sh_cli_parse(&cli, argc, argv, &args, &helped));
    if (helped) goto out;
    bool val = strcmp(part, "val") == 0;

    SH_CHECK(val || strcmp(part, "test") == 0, SH_ERR_USAGE, "--part %s: it is test or val", part);
    SH_CHECK(data.n == 0 || !val, SH_ERR_USAGE, "--part belongs to the run's split, not to --data");

    SH_CHECK((embeddings != NULL) == (into != NULL), SH_ERR_USAGE,
             "--embeddings and --into go together");
    SH_CHECK(embeddings == NULL || (data.n == 0 && !val), SH_ERR_USAGE,
             "--embeddings are of the run's test part: no --data, no --part");

    const sh_eval_options options = {.embeddings = embeddings,
                                     .run = args.items[0],
                                     .data = data.items,
                                     .n_data = data.n,
                                     .part = val ? SH_PART_VAL : SH_PART_TEST,
                                     .threads = (int)threads};

    SH_TRY(sh_eval_run(&options, &result));
    if (json)
        json_dumpf(result.json, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    else
        sh_eval_print(result.json);
    fflush(stdout);
    if (into != NULL) {
        SH_TRY(write_foreign(into, &result));
        goto out;
    }
    SH_TRY(write_files(args.items[0],
                       data.n > 0 ? "eval-data"
                       : val      ? "eval-val"
                                  : "eval",
                       &result));
out:
    sh_eval_result_clear(&result);
    free(args.items);
    free(data.items);
    return st;
}
