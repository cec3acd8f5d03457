// SPDX-License-Identifier: Apache-2.0
/**
 * Who is it? Images against a gallery of known fish.
 *
 * An image's distance to a fish is its distance to that fish's nearest gallery image. A track's is
 * the mean of its images' distances to the fish: the scale stays that of single images, so that the
 * run's thresholds hold, and one blurred frame decides nothing. Fish are listed by distance.
 *
 * The verdict looks at the nearest fish alone: up to the run's `accept` distance it is known, above
 * `reject` unknown, between them somebody should look (docs/evaluation.md). Thresholds are of a
 * gallery as large as the run's validation part; a larger gallery makes more false matches.
 */
#ifndef SH_TRAINER_IDENTIFY_H
#define SH_TRAINER_IDENTIFY_H

#include "trainer/evaluate.h"

SH_C_BEGIN

typedef enum sh_verdict { SH_VERDICT_KNOWN, SH_VERDICT_LOOK, SH_VERDICT_UNKNOWN } sh_verdict;

const char *sh_verdict_name(sh_verdict verdict); /* "known", "look at it", "unknown" */

/** The verdict for the distance to the nearest fish; thresholds NULL: SH_VERDICT_LOOK. */
sh_verdict sh_verdict_of(double distance, const sh_thresholds *thresholds);

/** One fish that an image or track may be. */
typedef struct sh_match {
    int32_t individual; /* dense, of the gallery */
    double distance;
    int64_t gallery_row; /* the fish's image nearest to any of the subject's images */
    int64_t query_row;   /* that image */
} sh_match;

/** What was found for one image, or for one track. */
typedef struct sh_answer {
    int64_t first; /* its images: rows first .. first + n_images - 1 of sh_identity.order */
    int64_t n_images;
    int64_t n_repeats; /* images at distance 0 of one of the gallery: the same picture */
    int n_matches;     /* fish listed, at most `top` */
    sh_verdict verdict;
} sh_answer;

/** Embeddings to be compared. Nothing is owned. */
typedef struct sh_identify_input {
    const sh_eval_data *gallery; /* with embeddings */
    const float *queries;        /* [n_queries, gallery->dim] */
    const int32_t *track;        /* [n_queries] dense; each image alone: 0, 1, 2, ... */
    int64_t n_queries;
    int top;                         /* fish to list per answer */
    const sh_thresholds *thresholds; /* or NULL */
} sh_identify_input;

/** All answers, by track. Owned; sh_identity_clear. */
typedef struct sh_identity {
    sh_answer *answers; /* [n] */
    sh_match *matches;  /* [n, top], nearest first */
    int64_t *order;     /* [n_queries] rows of the queries, track after track */
    int64_t n;
    int top;
} sh_identity;

/** Compare. Pure; threads share tracks. */
SH_MUST_CHECK sh_status sh_identify(const sh_identify_input *input, sh_identity *out);
void sh_identity_clear(sh_identity *identity);

/** What all answers come to. */
typedef struct sh_identity_totals {
    int64_t verdicts[3]; /* answers, by sh_verdict */
    int64_t n_repeats;   /* images */
} sh_identity_totals;

sh_identity_totals sh_identity_count(const sh_identity *identity);

/** A sentence for people, of n_repeats: the one argument, a long long. */
#define SH_IDENTIFY_REPEATS                                                                        \
    "%lld of the images asked about are in the gallery too, at distance 0: their answers say "     \
    "nothing about how well new pictures are known"

/** What the tables and the page need to know. */
typedef struct sh_identify_report {
    const sh_identity *identity;
    const sh_eval_data *gallery;
    const sh_dataset *queries; /* row of a query = its crop index */
    const char *const *tracks; /* [identity->n] name of each answer's track */
    bool by_track;
    const sh_thresholds *thresholds; /* or NULL */
    const char *run;
} sh_identify_report;

/** query, track, images, rank, individual, distance, gallery_image, verdict: a line per listed
 * fish. */
SH_MUST_CHECK sh_status sh_identify_write_csv(const sh_identify_report *report, const char *path);

/** A page with each query beside its nearest fish; at most max_answers of them, those to look at
 *  first, and the page says how many there are. */
SH_MUST_CHECK sh_status sh_identify_write_html(const sh_identify_report *report,
                                               int64_t max_answers, const char *path);

SH_C_END

#endif
