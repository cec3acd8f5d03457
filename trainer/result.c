// SPDX-License-Identifier: Apache-2.0
#include "trainer/result.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/position.h"
#include "trainer/classes.h"
#include "trainer/evaluate.h"

enum { LINE_BYTES = 512 };

/* ---- validation ---- */

/* Embed the crops of one part, each rank a contiguous share of them; all ranks get all rows. */
static sh_status embed_part(sh_session *s, const int64_t *crops, int64_t n, float *embeddings)
{
    sh_status st = SH_OK;
    int64_t dim = sh_infer_dim(s->infer), begin, end;

    sh_comm_own_items(s->comm, n, &begin, &end);
    sh_infer_refresh(s->infer);
    if (s->shallow.val != NULL)
        SH_TRY(sh_shallow_embed(&s->shallow, crops + begin, end - begin, embeddings + begin * dim));
    else
        SH_TRY(sh_infer_run(s->infer, s->dataset, crops + begin, end - begin, NULL,
                            embeddings + begin * dim));
    SH_TRY(sh_comm_gather_items(s->comm, n, (size_t)dim * sizeof(*embeddings), embeddings));
out:
    return st;
}

/* Log what the validation part gave, and name what the best step is chosen by: the accuracy of a
 * classification where there are crops to classify, or else mAP. */
static sh_status log_score(sh_session *s, const sh_validation *v, double accuracy, double *score)
{
    sh_status st = SH_OK;
    char line[LINE_BYTES], shown[48] = "", stored[48] = "";
    double map = isfinite(v->map) ? v->map : 0;

    *score = isfinite(accuracy) ? accuracy : map;
    if (isfinite(accuracy)) {
        snprintf(shown, sizeof(shown), "accuracy %.4f, ", accuracy);
        snprintf(stored, sizeof(stored), "\"accuracy\":%.9g,", accuracy);
    }
    sh_log_progress_end();
    sh_log_info("step %lld: validation %srank-1 %.4f, mAP %.4f, AUC %.4f (%lld queries)%s",
                (long long)s->progress.step, shown, v->rank1, v->map, v->auc,
                (long long)v->n_queries, *score > s->progress.best_score ? ", best" : "");
    if (sh_comm_rank(s->comm) != 0) goto out;
    snprintf(line, sizeof(line),
             "{\"step\":%lld,\"val\":{%s\"rank1\":%.9g,\"map\":%.9g,\"auc\":%.9g}}",
             (long long)s->progress.step, stored, isfinite(v->rank1) ? v->rank1 : 0, map,
             isfinite(v->auc) ? v->auc : 0);
    SH_TRY(sh_run_log_line(s->metrics, line));
out:
    return st;
}

/* Score the result weights (*result, taken here) on the validation part, and log the score.
 * *score stays below 0 where there is no validation part. */
static sh_status score_result(sh_session *s, sh_snapshot *result, double *score)
{
    sh_status st = SH_OK;
    sh_store *store = sh_step_store(s->step);
    sh_snapshot training = {0};
    int64_t *crops = NULL, n = 0;
    float *embeddings = NULL;
    sh_validation validation;
    double accuracy = NAN;

    *score = -1;
    SH_TRY(sh_snapshot_create(store, result));
    SH_TRY(sh_snapshot_take_result(result, store, sh_step_optim(s->step)));
    SH_TRY(sh_eval_select(s->dataset, s->split.part, SH_PART_VAL, &crops, &n));
    if (n == 0) goto out;
    SH_TRY(sh_snapshot_create(store, &training));
    embeddings = malloc((size_t)(n * sh_infer_dim(s->infer)) * sizeof(float));
    SH_CHECK(embeddings != NULL, SH_ERR_NO_MEMORY, "validation embeddings");
    SH_TRY(sh_snapshot_swap_in(result, store, &training));
    sh_position_enter(SH_AT_FILES, "validation after step %lld", (long long)s->progress.step);
    st = embed_part(s, crops, n, embeddings);
    sh_position_leave();
    if (st != SH_OK) goto out;
    if (s->config.task == SH_TASK_CLASSIFY)
        SH_TRY(sh_classes_accuracy(s->sampler, s->dataset, &sh_step_get_config(s->step)->classes,
                                   store, crops, n, embeddings, sh_infer_dim(s->infer), &accuracy));
    SH_TRY(sh_snapshot_swap_in(&training, store, NULL));
    SH_TRY(sh_validate(s->dataset, crops, n, embeddings, sh_infer_dim(s->infer), &validation));
    SH_TRY(log_score(s, &validation, accuracy, score));
out:
    sh_snapshot_clear(&training);
    free(embeddings);
    free(crops);
    return st;
}

sh_status sh_result_validate(sh_session *s)
{
    sh_status st = SH_OK;
    sh_progress *p = &s->progress;
    sh_snapshot result = {0};
    double score;

    SH_TRY(score_result(s, &result, &score));
    if (score < 0) goto out; /* nothing to validate on: patience does not run out either */
    p->validations_since_best++;
    if (score > p->best_score) {
        p->best_score = score;
        p->best_step = p->step;
        p->validations_since_best = 0;
        sh_snapshot_clear(&s->best);
        s->best = result;
        result = (sh_snapshot){0};
    }
out:
    sh_snapshot_clear(&result);
    return st;
}

/* ---- the model ---- */

/* RUN/model.safetensors from these weights: nothing of time or place in it. */
static sh_status write_model(sh_session *s, const sh_snapshot *weights)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH], dim[32], hash[33];
    bool classifies = s->config.task == SH_TASK_CLASSIFY;

    if (sh_comm_rank(s->comm) != 0) goto out;
    sh_hash_format(sh_dataset_hash(s->dataset), hash);
    snprintf(dim, sizeof(dim), "%d", sh_infer_dim(s->infer));
    const char *const metadata[][2] = {{"format", "pt"},
                                       {"shoal.net", s->config.net},
                                       {"shoal.size", s->config.size},
                                       {"shoal.embedding_dim", dim},
                                       {"shoal.data_hash", hash}};

    SH_TRY(sh_run_lock_check(s->lock));
    SH_TRY(sh_run_path(s->run, "model.safetensors", path));
    /* Unless they are the result, the classes' own weights serve training alone. */
    SH_TRY(sh_snapshot_write(weights, sh_step_store(s->step), classifies ? NULL : "loss.", path,
                             metadata, SH_COUNT(metadata), NULL, NULL));
out:
    return st;
}

sh_status sh_result_write(sh_session *s)
{
    sh_status st = SH_OK;
    int64_t every = s->config.validate.every_steps;
    sh_snapshot last = {0};
    double score;

    if (every == 0 || s->progress.step % every != 0) {
        SH_TRY(score_result(s, &last, &score));
        bool has_best = s->progress.best_score >= 0;

        SH_TRY(write_model(s, has_best && score <= s->progress.best_score ? &s->best : &last));
    } else if (s->progress.best_score >= 0) {
        SH_TRY(write_model(s, &s->best));
    } else {
        SH_TRY(sh_snapshot_create(sh_step_store(s->step), &last));
        SH_TRY(sh_snapshot_take_result(&last, sh_step_store(s->step), sh_step_optim(s->step)));
        SH_TRY(write_model(s, &last));
    }
out:
    sh_snapshot_clear(&last);
    return st;
}
