// SPDX-License-Identifier: Apache-2.0
/**
 * Telling known individuals apart: classification of test crops whose fish were trained on. It
 * makes sense where a split by recording or time puts other sightings of one fish into training and
 * test; crops of fish that were not trained on are left out and counted.
 *
 * Two ways: by the nearest mean of the training embeddings of each fish (Euclidean; burnpiro's
 * farm animals), and by the class weights that a classification has learnt. Of the query's own fish
 * the mean takes the training crops that are known to be of another recording (all of them where no
 * crop has a recording); a fish of which nothing is left then has no mean of its own, and the query
 * is counted as one without a match.
 */
#ifndef SH_TRAINER_EVALUATE_KNOWN_H
#define SH_TRAINER_EVALUATE_KNOWN_H

#include "trainer/evaluate_run.h"

SH_C_BEGIN

/** Training crops of a run, embedded: the gallery of known fish. */
typedef struct sh_known_gallery {
    const int64_t *crops;    /* [n] of the dataset of the queries */
    const float *embeddings; /* [n, dim] */
    int64_t n;
} sh_known_gallery;

/** How many of the individuals of `data` occur in crops[n]. */
int sh_known_count(const sh_eval_data *data, const int64_t *crops, int64_t n);

/** Classify every crop of `data` whose individual the gallery has, by nearest mean: accuracy, macro
 *  precision, recall and F1, each class's own, and the confusion matrix as [truth, taken for,
 *  count]. Accuracy per individual has an interval over individuals. *out is a new reference;
 *  JSON null where no individual is known. */
SH_MUST_CHECK sh_status sh_eval_known_means(const sh_eval_data *data,
                                            const sh_known_gallery *gallery, uint64_t seed,
                                            json_t **out);

/** The same by the weights of a classification.
 *
 *  classes    RUN/classes.csv: the individual of each label
 *  weights    [n_columns, dim] row-major
 *  n_columns  a multiple of the labels: centres of a class stand side by side
 *  cosine     compare by angle (ArcFace) instead of by product */
SH_MUST_CHECK sh_status sh_eval_known_classes(const sh_eval_data *data, const char *classes,
                                              const float *weights, int64_t n_columns, bool cosine,
                                              uint64_t seed, json_t **out);

/** The column of class weights [n_columns, dim] with the largest logit for an embedding x [dim]; of
 *  equals the first. */
int64_t sh_known_column(const float *x, const float *weights, int64_t n_columns, int64_t dim,
                        bool cosine);

/** FOLDER/classes.csv (a line per class: crops, precision, recall, F1) and FOLDER/confusion.csv (a
 *  matrix, rows are truths) of a section made above. */
SH_MUST_CHECK sh_status sh_known_write_csv(const json_t *section, const char *folder);

/** In words, and as HTML. JSON null prints nothing. */
void sh_known_print(const json_t *section);
void sh_known_report(const json_t *section, FILE *html);

SH_C_END

#endif
