// SPDX-License-Identifier: Apache-2.0
/**
 * Importing: from files to a pack, in two steps.
 *
 * A plan lists what would be imported, under which name and labels, in bytewise order of the names,
 * and what would be left out and why; it reads names and tables only, never an image. Running it
 * decodes every image - an image that cannot be decoded is left out by name, not found out about
 * in the middle of a training - and writes the pack. The pack is a pure function of the plan and
 * the files, whatever the number of threads.
 */
#ifndef SH_DATAIO_IMPORT_H
#define SH_DATAIO_IMPORT_H

#include "dataio/pack.h"
#include "dataio/strings.h"

SH_C_BEGIN

enum { SH_RULE_FOLDER = -1, SH_RULE_UNMATCHED = -2, SH_RULE_TABLE = -3 };

typedef struct sh_import_item {
    const char *path; /* of the file */
    const char *name; /* in the pack: path below the source, with "#..." for a box of an image */
    sh_labels labels;
    int32_t box[4]; /* x, y, width, height in the image; width 0: all of it */
    int rule;       /* index of the pattern that matched, or SH_RULE_... */
} sh_import_item;

typedef struct sh_import_plan {
    sh_import_item *items;
    int64_t n, capacity;
    sh_drop_list dropped;
    sh_strings *texts; /* what the items point to */
} sh_import_plan;

/** A compiled name pattern (docs/pack.md, "Names"). */
typedef struct sh_pattern sh_pattern;

/** Compile; an unknown field or a bad argument is SH_ERR_USAGE naming it. The caller owns *out. */
SH_MUST_CHECK sh_status sh_pattern_parse(const char *text, sh_pattern **out);
void sh_pattern_free(sh_pattern **pattern);

/** Match a path below the source. Where it matches, *matched and labels are set, their strings kept
 *  in texts. */
SH_MUST_CHECK sh_status sh_pattern_match(const sh_pattern *pattern, const char *path,
                                         sh_strings *texts, bool *matched, sh_labels *labels);

typedef struct sh_folder_rules {
    const char *const *patterns; /* first match wins; none: the first folder is the individual */
    int n_patterns;
    bool keep_unmatched; /* import what no pattern matches, unlabelled, instead of leaving it out */
} sh_folder_rules;

/** Plan all images below folders (or single files). The caller clears *out. */
SH_MUST_CHECK sh_status sh_import_plan_folders(const char *const *sources, int n_sources,
                                               const sh_folder_rules *rules, sh_import_plan *out);

/** Plan the rows of a CSV manifest; paths are relative to `folder`, or to the manifest where NULL.
 */
SH_MUST_CHECK sh_status sh_import_plan_manifest(const char *csv, const char *folder,
                                                sh_import_plan *out);

/** Plan the boxes of an AAU zebrafish annotations.csv; frames lie in `folder`, or where that is
 * NULL in data/ beside the CSV. */
SH_MUST_CHECK sh_status sh_import_plan_zebrafish(const char *csv, const char *folder,
                                                 sh_import_plan *out);
void sh_import_plan_clear(sh_import_plan *plan);

/** For planners: append an item (strings copied), and sort all by name; equal names are
 * SH_ERR_USAGE. */
SH_MUST_CHECK sh_status sh_import_plan_add(sh_import_plan *plan, const sh_import_item *item);
SH_MUST_CHECK sh_status sh_import_plan_sort(sh_import_plan *plan);

/** Seconds since 1970 (UTC) of "2024-05-17", "2024-05-17T08:30" or "... 08:30:59Z"; false: not one.
 */
bool sh_parse_time(const char *text, int64_t *out);

typedef struct sh_import_options {
    int threads;
    int raw_width, raw_height;            /* > 0: store pixels scaled to this size */
    uint64_t shard_bytes;                 /* 0: one file */
    bool drop_duplicates;                 /* of one individual; the first by name stays */
    const char *mask_folders[SH_N_MASKS]; /* masks by the names of their images, PNG; or NULL */
} sh_import_options;

typedef struct sh_import_report {
    int64_t n_packed, n_labelled, n_resized, n_masks;
    sh_drop_list dropped;    /* with those of the plan */
    sh_drop_list duplicates; /* the same pixels as another crop of the same individual */
    sh_drop_list mislabels;  /* the same pixels under two individuals */
} sh_import_report;

/** Decode everything with threads and write the pack. Shows progress. The caller clears *report. */
SH_MUST_CHECK sh_status sh_import_run(const sh_import_plan *plan, const sh_import_options *options,
                                      const char *pack, sh_import_report *report);
void sh_import_report_clear(sh_import_report *report);

SH_C_END

#endif
