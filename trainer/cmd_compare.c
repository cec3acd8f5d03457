// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cli.h"
#include "trainer/commands.h"
#include "trainer/compare.h"
#include "trainer/evaluate.h"

static void print_difference(const char *name, const sh_difference *d)
{
    printf("  %-8s %+.3f", name, d->mean);
    if (!isnan(d->interval.lo))
        printf("  [%+.3f, %+.3f]  %s", d->interval.lo, d->interval.hi,
               d->interval.lo > 0   ? "better"
               : d->interval.hi < 0 ? "worse"
                                    : "no difference shown");
    printf("  (%d fish better, %d worse)\n", d->n_better, d->n_worse);
}

static void print_comparison(const char *a, const char *b, const sh_comparison *c)
{
    printf("%s\n  against %s: %d individuals, %lld queries\n", b, a, c->n_individuals,
           (long long)c->n_queries);
    printf("  rank-1   %.3f against %.3f\n  mAP      %.3f against %.3f\n", c->rank1[1], c->rank1[0],
           c->map[1], c->map[0]);
    printf("  paired differences per individual, 95 %% interval over individuals\n");
    print_difference("rank-1", &c->rank1_difference);
    print_difference("mAP", &c->map_difference);
}

static json_t *difference_object(const sh_difference *d)
{
    return json_pack("{s:o, s:[o,o], s:i, s:i}", "mean", sh_json_number(d->mean), "interval",
                     sh_json_number(d->interval.lo), sh_json_number(d->interval.hi),
                     "individuals_better", d->n_better, "individuals_worse", d->n_worse);
}

static json_t *comparison_object(const char *a, const char *b, const sh_comparison *c)
{
    return json_pack("{s:s, s:s, s:i, s:I, s:[f,f], s:[f,f], s:o, s:o}", "a", a, "b", b,
                     "individuals", c->n_individuals, "queries", (json_int_t)c->n_queries, "rank1",
                     c->rank1[0], c->rank1[1], "map", c->map[0], c->map[1], "rank1_difference",
                     difference_object(&c->rank1_difference), "map_difference",
                     difference_object(&c->map_difference));
}

sh_status sh_cmd_compare(int argc, char **argv)
{
    sh_status st = SH_OK;
    sh_string_list args = {0};
    sh_compare_group *groups = NULL;
    json_t *list = json_array();
    bool json = false, helped = false;
    int n = 0;
    const sh_flag flags[] = {
        {"--json", NULL, SH_FLAG_BOOL, &json, NULL, "print one JSON array"},
    };
    const sh_cli cli = {
        .usage = "shoal compare RUN RUN... [--json]",
        .summary = "Is a run better than the first one? Paired differences in rank-1 and AP on "
                   "the same queries, averaged per individual, with intervals over individuals. "
                   "RUN is a run folder that shoal eval has scored, or several separated by commas "
                   "that together cover folds. Runs that were tested on other images are refused.",
        .flags = flags,
        .n_flags = SH_COUNT(flags),
        .min_args = 2,
        .max_args = -1,
        .epilogue = "shoal compare runs/a runs/b\n"
                    "shoal compare runs/a0,runs/a1,runs/a2 runs/b0,runs/b1,runs/b2",
    };

    SH_TRY(sh_cli_parse(&cli, argc, argv, &args, &helped));
    if (helped) goto out;
    groups = calloc((size_t)args.n, sizeof(*groups));
    SH_CHECK(groups != NULL, SH_ERR_NO_MEMORY, "runs to compare");
    for (n = 0; n < args.n; n++) SH_TRY(sh_compare_read(args.items[n], &groups[n]));
    for (int i = 1; i < n; i++) {
        sh_comparison c;

        SH_TRY(sh_compare(&groups[0], &groups[i], 0, &c));
        if (json)
            json_array_append_new(list, comparison_object(args.items[0], args.items[i], &c));
        else
            print_comparison(args.items[0], args.items[i], &c);
    }
    if (json) {
        json_dumpf(list, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
        printf("\n");
    }
out:
    for (int i = 0; i < n; i++) sh_compare_group_clear(&groups[i]);
    free(groups);
    json_decref(list);
    free(args.items);
    return st;
}
