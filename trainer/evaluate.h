// SPDX-License-Identifier: Apache-2.0
/**
 * Honest scores of embeddings: which crops count, under which rules (docs/evaluation.md).
 *
 * Not collective: one process evaluates. Sections of the result are JSON objects, so that what is
 * printed, stored (eval.json) and drawn (report.html) is one and the same.
 */
#ifndef SH_TRAINER_EVALUATE_H
#define SH_TRAINER_EVALUATE_H

#include <jansson.h>

#include "dataio/dataset.h"
#include "trainer/retrieval.h"

SH_C_BEGIN

/** Labelled crops of a dataset, with dense labels. */
typedef struct sh_eval_data {
    const sh_dataset *dataset; /* not owned */
    int64_t n, dim;
    int64_t *crops;      /* [n] dataset indices */
    int64_t *rows;       /* [n] places in the list that was given */
    int32_t *individual; /* [n] dense */
    int32_t *recording;  /* [n] the dataset's */
    int32_t *track;      /* [n] dense: individual x recording */
    uint8_t *side;       /* [n] sh_side */
    int64_t *time;       /* [n] */
    int32_t *fish;       /* [n_individuals] the dataset's individual */
    float *embeddings;   /* [n, dim]; NULL until set */
    int64_t *duplicates; /* [n_duplicates] dataset indices that were left out */
    int64_t n_duplicates;
    int n_individuals, n_tracks, n_recordings;
    bool within_recording; /* no crop has a recording */
    bool has_sides, has_times;
} sh_eval_data;

/** Take crops[n] (dataset indices). Left out are unlabelled crops, and all but the first of crops
 * of one individual with equal pixels: the same photograph under two recordings would be a match
 * that proves nothing. Keeps a pointer to dataset. */
SH_MUST_CHECK sh_status sh_eval_data_create(const sh_dataset *dataset, const int64_t *crops,
                                            int64_t n, sh_eval_data *out);
void sh_eval_data_clear(sh_eval_data *data);

/** The same crops with these embeddings [n, dim] (the data's own, or a floor's). */
sh_eval_set sh_eval_data_set(const sh_eval_data *data, const float *embeddings, int64_t dim);

const char *sh_eval_data_name(const sh_eval_data *data, int32_t individual);

/** Indices of the labelled crops of one part of a split; the caller frees *crops. */
SH_MUST_CHECK sh_status sh_eval_select(const sh_dataset *dataset, const uint8_t *part, int wanted,
                                       int64_t **crops, int64_t *n);

typedef struct sh_validation {
    double rank1, map,
        auc; /* per individual, across recordings; NaN where nothing could be scored */
    int64_t n_queries;
} sh_validation;

/** The quick score for checkpoint choice: embeddings [n, dim] of crops[n]. O(n^2 dim). */
SH_MUST_CHECK sh_status sh_validate(const sh_dataset *dataset, const int64_t *crops, int64_t n,
                                    const float *embeddings, int64_t dim, sh_validation *out);

/* ---- operating thresholds ---- */

/** Decisions by distance, chosen on validation individuals.
 *
 *  pair            two crops are one fish up to here, at `rate` false matches per pair of two fish
 *  accept, reject  searching a gallery, the nearest image is the fish up to `accept`, and the fish
 *                  is unknown above `reject`; between them somebody should look. They are the
 *                  distance with `rate` false matches per search of an unknown fish, and the one
 *                  that refuses SH_THRESHOLD_MISSES of the known: the smaller is accept. */
typedef struct sh_thresholds {
    double rate;
    double pair, accept, reject;
    double pair_misses;             /* share of pairs of one fish above `pair` */
    double search_misses;           /* known fish farther than `accept` from their own images */
    int n_individuals;              /* that validated */
    int64_t n_pairs_of_individuals; /* rate < 1 / this: the rate itself is not estimable */
    int64_t n_images;
} sh_thresholds;

#define SH_THRESHOLD_MISSES 0.05

/** SH_ERR_NOT_FOUND where the data allows no threshold (no pair of one fish, or of two). */
SH_MUST_CHECK sh_status sh_thresholds_choose(const sh_eval_set *validation, double rate,
                                             sh_thresholds *out);

/** RUN/threshold.json, chosen on the run's validation individuals with the run's model: read it, or
 *  make it where it is absent or belongs to another model.safetensors. threads as in
 *  sh_embedder_create. SH_ERR_NOT_FOUND where the run's split has no validation individuals. */
SH_MUST_CHECK sh_status sh_thresholds_of_run(const char *run, int threads, sh_thresholds *out);

/* ---- sections of the result; each returns a new reference in *out ---- */

/** Rank-1/5/10 and mAP per individual (with intervals), per track and per image. per_fish
 *  [n_individuals], where not NULL, gets the scores of each. */
SH_MUST_CHECK sh_status sh_eval_identification(const sh_eval_data *data, const sh_query *queries,
                                               uint64_t seed, json_t **out,
                                               sh_rank_scores *per_fish);

/** AUC, TPR at rates, equal error, sweep and curve; balanced over individuals with intervals, and
 *  over pairs of images. */
SH_MUST_CHECK sh_status sh_eval_verification(const sh_eval_data *data, const sh_eval_set *set,
                                             uint64_t seed, json_t **out);

/** What the thresholds do on these crops. */
SH_MUST_CHECK sh_status sh_eval_thresholds(const sh_eval_set *set, const sh_query *queries,
                                           const sh_thresholds *thresholds, json_t **out);

/** Unknown fish: a keyed third of the individuals is held out of the gallery, each third in turn.
 *  thresholds may be NULL. */
SH_MUST_CHECK sh_status sh_eval_unknown(const sh_eval_set *set, const sh_thresholds *thresholds,
                                        uint64_t seed, json_t **out);

/** Rank-1 against gallery size; by side; by days between sightings. json null where unknown. */
SH_MUST_CHECK sh_status sh_eval_gallery(const sh_eval_data *data, const sh_query *queries,
                                        json_t **out);
SH_MUST_CHECK sh_status sh_eval_sides(const sh_eval_data *data, const sh_eval_set *set,
                                      json_t **out);
SH_MUST_CHECK sh_status sh_eval_time(const sh_eval_data *data, const sh_query *queries,
                                     json_t **out);

/** A floor: the same scores of other embeddings; with embeddings NULL, chance. */
SH_MUST_CHECK sh_status sh_eval_floor(const sh_eval_data *data, const float *embeddings,
                                      int64_t dim, json_t **out);

/** Per fish: crops, recordings, scores, and the fish it is most often taken for. */
SH_MUST_CHECK sh_status sh_eval_individuals(const sh_eval_data *data, const sh_query *queries,
                                            const sh_rank_scores *per_fish, json_t **out);

/** Hash of the content of RUN/model.safetensors, as 32 hex digits and a NUL: what an evaluation or
 * a threshold belongs to. */
SH_MUST_CHECK sh_status sh_eval_model_hash(const char *run, char text[33]);

/** A number, or null where it is not finite (JSON knows neither NaN nor infinity). */
json_t *sh_json_number(double value);

SH_C_END

#endif
