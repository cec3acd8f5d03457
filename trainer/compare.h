// SPDX-License-Identifier: Apache-2.0
/**
 * Which run is better: paired differences over identical queries.
 *
 * A group is one run, or several that together cover folds; its queries are those of all its runs'
 * eval/queries.csv. Scores are averaged within each individual; a difference is taken per
 * individual and averaged; its interval resamples individuals (trainer/bootstrap.h), so that both
 * sides of a pair always move together. Not collective.
 */
#ifndef SH_TRAINER_COMPARE_H
#define SH_TRAINER_COMPARE_H

#include <stdint.h>

#include "trainer/bootstrap.h"

SH_C_BEGIN

/** One query as queries.csv has it. Strings are owned by the group. */
typedef struct sh_compared_query {
    char *name, *individual, *recording;
    int64_t n_gallery, n_matches;
    double rank1, ap; /* n_matches 0: not scored */
} sh_compared_query;

typedef struct sh_compare_group {
    char *label;                /* as given on the command line */
    sh_compared_query *queries; /* sorted by name, individual, recording */
    int64_t n, capacity;
} sh_compare_group;

/** Read the queries of runs separated by commas. A run without an evaluation, one whose model has
 *  changed since, and a query that two of the runs share are errors that say what to do. A folder
 *  that holds nothing but eval/queries.csv, with the columns name, individual, recording, gallery,
 *  matches, first_rank and ap, is compared as well: results of other software. */
SH_MUST_CHECK sh_status sh_compare_read(const char *runs, sh_compare_group *out);
void sh_compare_group_clear(sh_compare_group *group);

typedef struct sh_difference {
    double mean;           /* b - a, averaged over individuals */
    sh_interval interval;  /* NaN with fewer than SH_BOOTSTRAP_MIN individuals */
    int n_better, n_worse; /* individuals */
} sh_difference;

typedef struct sh_comparison {
    int n_individuals;
    int64_t n_queries;
    double rank1[2], map[2]; /* of a and b, per individual */
    sh_difference rank1_difference, map_difference;
} sh_comparison;

/** Compare. SH_ERR_MISMATCH, naming a query, where the two were not asked the same: other names,
 *  labels, or galleries. */
SH_MUST_CHECK sh_status sh_compare(const sh_compare_group *a, const sh_compare_group *b,
                                   uint64_t seed, sh_comparison *out);

SH_C_END

#endif
