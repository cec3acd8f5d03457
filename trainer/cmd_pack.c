// SPDX-License-Identifier: Apache-2.0
/** `shoal pack`: import images into a pack. */
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/cli.h"
#include "base/log.h"
#include "dataio/import.h"
#include "trainer/commands.h"

enum { MAX_LISTED = 20, MAX_PREVIEW = 12 };

typedef struct pack_flags {
    sh_string_list patterns;
    const char *output, *manifest, *zebrafish, *raw, *shard_size, *unmatched;
    bool dry_run, drop_duplicates;
    int64_t threads;
} pack_flags;

static int64_t cores_granted(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

/* "2GB", "500MB", "1000000": decimal units. */
static sh_status parse_size(const char *text, uint64_t *out)
{
    static const struct {
        const char *name;
        double factor;
    } units[] = {{"", 1}, {"B", 1}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}};
    sh_status st = SH_OK;
    char *end = NULL;
    double value = strtod(text, &end);

    for (size_t i = 0; i < SH_COUNT(units) && end != text; i++) {
        if (strcasecmp(end, units[i].name) != 0 || !(value * units[i].factor >= 1)) continue;
        *out = (uint64_t)(value * units[i].factor);
        goto out;
    }
    SH_FAIL(SH_ERR_USAGE, "--shard-size %s: a size like 2GB or 500MB", text);
out:
    return st;
}

static sh_status parse_raw(const char *text, sh_import_options *options)
{
    sh_status st = SH_OK;
    char end;

    SH_CHECK(sscanf(text, "%5dx%5d%c", &options->raw_height, &options->raw_width, &end) == 2 &&
                 options->raw_height > 0 && options->raw_width > 0 &&
                 options->raw_height <= SH_IMAGE_MAX_SIDE &&
                 options->raw_width <= SH_IMAGE_MAX_SIDE,
             SH_ERR_USAGE, "--raw %s: height x width in pixels, like 175x175", text);
out:
    return st;
}

static void list_some(const char *title, const sh_drop_list *list)
{
    if (list->n == 0) return;
    printf("\n%s: %" PRId64 "\n", title, list->n);
    for (int64_t i = 0; i < list->n && i < MAX_LISTED; i++)
        printf("  %s: %s\n", list->names[i], list->reasons[i]);
    if (list->n > MAX_LISTED) printf("  ... and %" PRId64 " more\n", list->n - MAX_LISTED);
}

static const char *or_dash(const char *text)
{
    return text != NULL && text[0] != '\0' ? text : "-";
}

static void print_item(const sh_import_item *item)
{
    static const char *const sides[] = {"-", "left", "right"};
    char frame[16] = "-", day[32] = "-";
    time_t time = (time_t)item->labels.time;
    struct tm tm;

    if (item->labels.frame >= 0) snprintf(frame, sizeof(frame), "%d", item->labels.frame);
    if (item->labels.time != SH_NO_TIME && gmtime_r(&time, &tm) != NULL)
        strftime(day, sizeof(day), "%Y-%m-%d", &tm);
    printf("  %-12s %-6s %-10s %-12s %-8s %-10s %-6s %s\n", or_dash(item->labels.individual),
           sides[item->labels.side], or_dash(item->labels.species), or_dash(item->labels.recording),
           or_dash(item->labels.camera), day, frame, item->name);
}

/* How many items each rule took. */
static void print_rules(const sh_import_plan *plan, const sh_string_list *patterns)
{
    static const struct {
        int rule;
        const char *title;
    } others[] = {{SH_RULE_FOLDER, "the first folder is the individual"},
                  {SH_RULE_UNMATCHED, "no pattern, kept unlabelled"},
                  {SH_RULE_TABLE, "rows of the table"}};

    printf("\nread by\n");
    for (int r = 0; r < patterns->n + (int)SH_COUNT(others); r++) {
        int rule = r < patterns->n ? r : others[r - patterns->n].rule;
        int64_t n = 0;

        for (int64_t i = 0; i < plan->n; i++) n += plan->items[i].rule == rule;
        if (n > 0 || r < patterns->n)
            printf("  %8" PRId64 "  %s\n", n,
                   r < patterns->n ? patterns->items[r] : others[r - patterns->n].title);
    }
}

static sh_status print_dry_run(const sh_import_plan *plan, const pack_flags *flags)
{
    sh_status st = SH_OK;
    sh_strings *individuals = NULL;
    int64_t n_labelled = 0;
    int64_t stride = plan->n > MAX_PREVIEW ? plan->n / MAX_PREVIEW : 1;
    int32_t index = 0;

    SH_TRY(sh_strings_create(&individuals));
    printf("  %-12s %-6s %-10s %-12s %-8s %-10s %-6s %s\n", "individual", "side", "species",
           "recording", "camera", "date", "frame", "name");
    for (int64_t i = 0; i < plan->n; i++) {
        const char *individual = plan->items[i].labels.individual;

        if (i % stride == 0 && i / stride < MAX_PREVIEW) print_item(&plan->items[i]);
        if (individual == NULL) continue;
        n_labelled++;
        SH_TRY(sh_strings_add(individuals, individual, &index, NULL));
    }
    if (plan->n > MAX_PREVIEW) printf("  (every %" PRId64 "th)\n", stride);
    print_rules(plan, &flags->patterns);
    list_some("left out", &plan->dropped);
    printf("\n%" PRId64 " images to import: %" PRId64 " of %d individuals, %" PRId64
           " unlabelled; %" PRId64 " files left out. Nothing was written (--dry-run).\n",
           plan->n, n_labelled, sh_strings_count(individuals), plan->n - n_labelled,
           plan->dropped.n);
out:
    sh_strings_destroy(&individuals);
    return st;
}

static sh_status make_plan(const pack_flags *flags, const sh_string_list *args,
                           sh_import_plan *plan)
{
    sh_status st = SH_OK;
    const char *table = flags->manifest != NULL ? flags->manifest : flags->zebrafish;
    sh_folder_rules rules = {
        .patterns = flags->patterns.items,
        .n_patterns = flags->patterns.n,
        .keep_unmatched = flags->unmatched != NULL,
    };

    SH_CHECK(flags->unmatched == NULL || strcmp(flags->unmatched, "unlabelled") == 0, SH_ERR_USAGE,
             "--unmatched %s: only 'unlabelled' is known", flags->unmatched);
    SH_CHECK(flags->manifest == NULL || flags->zebrafish == NULL, SH_ERR_USAGE,
             "--manifest and --zebrafish exclude each other");
    SH_CHECK(table == NULL || (args->n <= 1 && flags->patterns.n == 0), SH_ERR_USAGE,
             "with --manifest or --zebrafish: no --pattern, and at most one SOURCE, the folder of "
             "the images");
    SH_CHECK(table != NULL || args->n > 0, SH_ERR_USAGE, "name a folder of images to pack");
    const char *folder = args->n > 0 ? args->items[0] : NULL;

    if (flags->manifest != NULL)
        SH_TRY(sh_import_plan_manifest(table, folder, plan));
    else if (flags->zebrafish != NULL)
        SH_TRY(sh_import_plan_zebrafish(table, folder, plan));
    else
        SH_TRY(sh_import_plan_folders(args->items, args->n, &rules, plan));
out:
    return st;
}

static sh_status write_pack(const sh_import_plan *plan, const pack_flags *flags,
                            const sh_import_options *options)
{
    sh_status st = SH_OK;
    sh_import_report report = {0};

    SH_CHECK(plan->n > 0, SH_ERR_USAGE,
             "no image to pack: %" PRId64 " files left out (see --dry-run)", plan->dropped.n);
    SH_TRY(sh_import_run(plan, options, flags->output, &report));
    list_some("left out", &report.dropped);
    list_some("the same picture twice (kept, unless --drop-duplicates)", &report.duplicates);
    list_some("LIKELY MISLABELLED: one picture, two individuals (kept)", &report.mislabels);
    if (report.n_resized > 0)
        printf("\n%" PRId64 " images scaled to %d x %d, aspect not kept\n", report.n_resized,
               options->raw_height, options->raw_width);
    if (report.n_masks > 0) printf("\n%" PRId64 " masks\n", report.n_masks);
    printf("\n%s: %" PRId64 " images, %" PRId64 " labelled, %" PRId64 " unlabelled; %" PRId64
           " files left out, %" PRId64 " duplicates, %" PRId64 " likely mislabels\n",
           flags->output, report.n_packed, report.n_labelled, report.n_packed - report.n_labelled,
           report.dropped.n, report.duplicates.n, report.mislabels.n);
out:
    sh_import_report_clear(&report);
    return st;
}

sh_status sh_cmd_pack(int argc, char **argv)
{
    sh_status st = SH_OK;
    pack_flags f = {.threads = cores_granted()};
    sh_string_list args = {0};
    sh_import_plan plan = {0};
    sh_import_options options = {0};
    bool helped = false;
    const sh_flag flags[] = {
        {"--output", "-o", SH_FLAG_STRING, &f.output, "FILE", "the pack to write, e.g. crops.h5"},
        {"--pattern", NULL, SH_FLAG_LIST, &f.patterns, "P",
         "what names mean, e.g. '{individual}_{side:l=left,r=right}_{date:%Y%m%d}_{*}.jpg'; "
         "fields: "
         "individual, side, species, recording, camera, date, frame, split, *; with a '/' it is "
         "matched "
         "against the path below SOURCE; may be given several times, the first match wins"},
        {"--unmatched", NULL, SH_FLAG_STRING, &f.unmatched, "unlabelled",
         "import what matches no pattern without a label instead of leaving it out"},
        {"--manifest", NULL, SH_FLAG_STRING, &f.manifest, "CSV",
         "a table with a column path, and any of individual, side, species, date, recording, "
         "camera, frame, x, y, w, h (a box, in pixels), split (train, val, test)"},
        {"--zebrafish", NULL, SH_FLAG_STRING, &f.zebrafish, "CSV",
         "annotations.csv of the AAU zebrafish set: boxes are cut out of the frames"},
        {"--dry-run", NULL, SH_FLAG_BOOL, &f.dry_run, NULL,
         "show what names are read as and what is left out; write nothing"},
        {"--raw", NULL, SH_FLAG_STRING, &f.raw, "HxW",
         "store pixels scaled to this height and width instead of the files' bytes"},
        {"--shard-size", NULL, SH_FLAG_STRING, &f.shard_size, "SIZE",
         "several files of about so many bytes of images, e.g. 2GB, and an index"},
        {"--drop-duplicates", NULL, SH_FLAG_BOOL, &f.drop_duplicates, NULL,
         "leave out pictures that equal another of the same individual"},
        {"--pattern-masks", NULL, SH_FLAG_STRING, &options.mask_folders[SH_MASK_PATTERN], "FOLDER",
         "masks of the skin's pattern: FOLDER/NAME.png for an image NAME.jpg, of its size; images "
         "without one have none"},
        {"--fish-masks", NULL, SH_FLAG_STRING, &options.mask_folders[SH_MASK_FISH], "FOLDER",
         "likewise, masks of the animal"},
        {"--threads", NULL, SH_FLAG_INT, &f.threads, "N",
         "threads that decode; default: the cores granted"},
    };
    const sh_cli cli = {
        .usage = "shoal pack SOURCE... -o crops.h5 [--pattern P]...",
        .summary = "Import images into a pack. Without a pattern, the first folder below SOURCE is "
                   "the individual; images right in SOURCE are unlabelled. Every image is decoded; "
                   "what is left out is listed, and kept in the pack (shoal inspect).",
        .flags = flags,
        .n_flags = (int)SH_COUNT(flags),
        .min_args = 0,
        .max_args = -1,
        .epilogue = "shoal pack koi/ --pattern '{individual}_C{camera}_seq{recording}_frame{frame}"
                    ".jpg' -o koi.h5",
    };

    SH_TRY(sh_cli_parse(&cli, argc, argv, &args, &helped));
    if (helped) goto out;
    SH_CHECK(f.threads >= 1 && f.threads <= 1024, SH_ERR_USAGE, "--threads: 1 to 1024");
    options.threads = (int)f.threads;
    options.drop_duplicates = f.drop_duplicates;
    if (f.raw != NULL) SH_TRY(parse_raw(f.raw, &options));
    if (f.shard_size != NULL) SH_TRY(parse_size(f.shard_size, &options.shard_bytes));
    SH_CHECK(f.dry_run || f.output != NULL, SH_ERR_USAGE, "name the pack to write with -o FILE");
    SH_TRY(make_plan(&f, &args, &plan));
    SH_TRY(f.dry_run ? print_dry_run(&plan, &f) : write_pack(&plan, &f, &options));
out:
    sh_import_plan_clear(&plan);
    free(args.items);
    free(f.patterns.items);
    return st;
}
