// SPDX-License-Identifier: Apache-2.0
/**
 * Identification as retrieval: every image asks all others "which of you is my fish?", and the
 * answer is the list of gallery images by ascending Euclidean distance. Pure functions of
 * embeddings and labels. Not collective.
 *
 * Equal distances count against the network: an image of another fish stands before one of the own
 * fish, so that embeddings that are all the same score nothing.
 *
 *   rank-k  1 if an image of the own fish is among the first k
 *   AP      mean, over the images of the own fish, of (own images up to it) / (images up to it)
 *
 * Queries without any image of their fish in the gallery have no score; they are counted apart.
 */
#ifndef SH_TRAINER_RETRIEVAL_H
#define SH_TRAINER_RETRIEVAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "trainer/metrics.h"

SH_C_BEGIN

/** Images to be scored together. Nothing is owned. */
typedef struct sh_eval_set {
    int64_t n, dim;
    const float *embeddings;   /* [n, dim] */
    const int32_t *individual; /* [n], 0 .. n_individuals - 1 */
    const int32_t *recording;  /* [n], or -1 unknown */
    const uint8_t *side;       /* [n] sh_side; NULL: all unknown */
    const int64_t *time;       /* [n] seconds, or SH_NO_TIME; NULL: all unknown */
    int n_individuals;
    bool within_recording; /* no recordings are known: same-recording images may be matched, and the
                              scores are optimistic */
} sh_eval_set;

typedef enum sh_side_rule { SH_ANY_SIDE, SH_SAME_SIDE, SH_CROSS_SIDE } sh_side_rule;

/** Who stands in the gallery of a query, beyond the fixed rule: never itself, and never an image of
 *  its own fish that is not known to be of another recording. */
typedef struct sh_gallery_rule {
    sh_side_rule sides; /* same, cross: images of known side only, for queries of known side */
    const uint8_t *individuals; /* [n_individuals] 1: in the gallery; NULL: all */
} sh_gallery_rule;

/** Days between two sightings, by upper bound; the last is open. */
enum { SH_N_GAPS = 6 };
extern const char *const sh_gap_names[SH_N_GAPS];

/** What one image found. Rows are -1 where there is none; distances then are INFINITY. */
typedef struct sh_query {
    int64_t row;
    int64_t n_gallery, n_matches; /* images in its gallery; of its own fish */
    int64_t first_rank;           /* of the first right image, from 1; 0: no match possible */
    double ap;
    int64_t nearest, nearest_right, nearest_wrong; /* rows */
    float distance, right_distance, wrong_distance;
    int32_t n_others;              /* other individuals in its gallery */
    int32_t n_beating;             /* of these, with an image at or below right_distance */
    float gap_distance[SH_N_GAPS]; /* nearest right image that many days away */
} sh_query;

/** Every row is a query. Fills queries [n]. Threads share rows; results do not depend on them. */
SH_MUST_CHECK sh_status sh_retrieve(const sh_eval_set *set, const sh_gallery_rule *rule,
                                    sh_query *queries);

typedef struct sh_rank_scores {
    double rank1, rank5, rank10, map; /* NaN where no query could be scored */
    int64_t n_queries, n_unmatched;   /* scored; left without a match */
    int n_groups;                     /* with a scored query */
} sh_rank_scores;

/** Average. group [n] of each query's row: queries are averaged within their group, then the groups
 *  (an individual, or a track); NULL: plain mean. per_group, where not NULL, is [n_groups] and gets
 *  each group's scores (n_queries 0: none). */
SH_MUST_CHECK sh_status sh_rank_average(const sh_query *queries, int64_t n, const int32_t *group,
                                        int n_groups, sh_rank_scores *out,
                                        sh_rank_scores *per_group);

/** The score of a list in random order, averaged in the same way: the floor "chance". With R right
 *  images among N: E[AP] = (H_N + (R - 1) (N - H_N) / (N - 1)) / N, H_N = 1 + 1/2 + ... + 1/N. */
SH_MUST_CHECK sh_status sh_rank_chance(const sh_query *queries, int64_t n, const int32_t *group,
                                       int n_groups, sh_rank_scores *out);

/** Rank-1 that a gallery of n_fish individuals would give: the query's fish and n_fish - 1 others
 * at random; the exact expectation over all such galleries, C(others - beating, n_fish - 1) /
 *  C(others, n_fish - 1), averaged by group. NaN if no query has that many others. */
SH_MUST_CHECK sh_status sh_rank_at_gallery(const sh_query *queries, int64_t n, const int32_t *group,
                                           int n_groups, int n_fish, double *out);

/** Rank-1 of queries whose own fish was seen only `gap` days away, averaged by group. */
SH_MUST_CHECK sh_status sh_rank_at_gap(const sh_query *queries, int64_t n, const int32_t *group,
                                       int n_groups, int gap, double *rank1, int64_t *n_queries);

/** Which pairs verification counts: of one fish only where sh_retrieve would count a match, of two
 *  fish always. */
typedef struct sh_pair_rule {
    sh_side_rule sides; /* same, cross: pairs of known sides, equal or opposite */
    bool everything;    /* also one fish within one recording: a leaking curve */
} sh_pair_rule;

enum { SH_MAX_STORED_PAIRS = 1 << 22 }; /* beyond, distances are binned into 2^20 equal cells */

/** All pairs as levels. balanced: every individual weighs the same among the pairs of one fish, and
 *  every pair of individuals the same among the others; otherwise every pair of images does. */
SH_MUST_CHECK sh_status sh_retrieval_levels(const sh_eval_set *set, sh_pair_rule rule,
                                            bool balanced, sh_levels *out);

/** The pairs themselves, sorted, for resampling. Where there are more than max_pairs, a keyed
 * random part of each kind: pairs of one fish, which are few, keep up to half of the room. The
 * caller frees *pairs. */
SH_MUST_CHECK sh_status sh_retrieval_pairs(const sh_eval_set *set, sh_pair_rule rule,
                                           int64_t max_pairs, sh_pair **pairs, int64_t *n_pairs);

/** The weights of `balanced` for these pairs: same [n_individuals], diff [n_individuals]. */
void sh_retrieval_balance(const sh_eval_set *set, const sh_pair *pairs, int64_t n_pairs,
                          double *same, double *diff);

/** Squared Euclidean distance of two vectors, summed in a fixed order. */
float sh_squared_distance(const float *a, const float *b, int64_t dim);

/** The k nearest rows of gallery [n_gallery, dim] of one vector, ascending; equal distances by row.
 *  Rows with skip[row] != 0 are left out (skip may be NULL). Unused places get row -1. */
void sh_nearest(const float *query, const float *gallery, int64_t n_gallery, int64_t dim,
                const uint8_t *skip, int k, int64_t *rows, float *distances);

SH_C_END

#endif
