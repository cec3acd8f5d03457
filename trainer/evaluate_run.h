// SPDX-License-Identifier: Apache-2.0
/** `shoal eval`: the test part of a run, or another pack, scored under the rules of
 *  docs/evaluation.md. Not collective. */
#ifndef SH_TRAINER_EVALUATE_RUN_H
#define SH_TRAINER_EVALUATE_RUN_H

#include "dataio/split.h"
#include "trainer/evaluate.h"

SH_C_BEGIN

typedef struct sh_eval_options {
    const char *run;
    const char *const *data; /* other packs to score; n_data 0: the run's own */
    int n_data;
    sh_part part;           /* of the run's split: SH_PART_TEST or SH_PART_VAL */
    int threads;            /* 0: all granted */
    const char *embeddings; /* file of embeddings made elsewhere, scored in place of the run's; or
                               NULL. No thresholds then, and no floors of networks. */
} sh_eval_options;

/** Everything that the files and the report are made of. Owned; sh_eval_result_clear. */
typedef struct sh_eval_result {
    json_t *json;            /* eval.json */
    sh_dataset *run_dataset; /* the run's packs, with their split */
    sh_split split;
    sh_dataset *other; /* the packs of --data, or NULL */
    sh_eval_data data; /* the crops that the headline is about, with embeddings */
    sh_query *queries; /* [data.n] */
} sh_eval_result;

/** Embed, rank, score, compute floors. Writes RUN/threshold.json if it is not there. */
SH_MUST_CHECK sh_status sh_eval_run(const sh_eval_options *options, sh_eval_result *out);
void sh_eval_result_clear(sh_eval_result *result);

/** FOLDER/queries.csv: one line per query (see the header line), and FOLDER/mislabels.csv: crops
 *  whose nearest neighbours agree on another fish. *n_suspects: lines of the latter. Where fish of
 *  the part were trained on, classes.csv and confusion.csv too (trainer/evaluate_known.h). */
SH_MUST_CHECK sh_status sh_eval_write_csv(const sh_eval_result *result, const char *folder,
                                          int64_t *n_suspects);

/** The figures in words and columns on stdout. */
void sh_eval_print(const json_t *evaluation);

SH_C_END

#endif
