// SPDX-License-Identifier: Apache-2.0
/** report.html: one page about a run that anyone can open, made from its evaluation and its logs.
 */
#ifndef SH_TRAINER_REPORT_H
#define SH_TRAINER_REPORT_H

#include "trainer/evaluate_run.h"

SH_C_BEGIN

/** Write the page to `path`. Reads RUN/metrics.jsonl and RUN/config.yaml, and the pictures of the
 *  best and worst matches from the evaluated packs. Not collective. */
SH_MUST_CHECK sh_status sh_report_write(const char *run, const sh_eval_result *result,
                                        const char *path);

/** Scores, verification, thresholds, unknown fish, sides, time, floors (report_scores.c). */
void sh_report_scores(FILE *file, const json_t *evaluation);

/** Curves of the training from RUN/metrics.jsonl (report_training.c). A run without it, or lines
 *  of it that are no JSON, are said on the page. */
SH_MUST_CHECK sh_status sh_report_training(FILE *file, const char *run);

SH_C_END

#endif
