// SPDX-License-Identifier: Apache-2.0
#include "trainer/train.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/position.h"
#include "base/process.h"
#include "trainer/bad_step.h"
#include "trainer/classes.h"
#include "trainer/evaluate.h"

enum { LINE_BYTES = 512 };

static volatile sig_atomic_t stop_requested = 0;

static void on_signal(int number)
{
    stop_requested = number;
}

void sh_train_catch_signals(void)
{
    sh_process_catch_stops(on_signal);
}

static bool stop_wanted(void)
{
    return stop_requested != 0;
}

/* What epochs of a shallow stage cost, since it was entered here. */
typedef struct epoch_meter {
    int64_t step;         /* the first one */
    int n_epochs;         /* seen so far */
    double start;         /* of the epoch under way */
    int64_t n_images;     /* through the network, at its start */
    double first_seconds; /* of the first epoch, which computes the features */
} epoch_meter;

/* The loop's own state, apart from the session. */
typedef struct loop {
    sh_session *s;
    bool is_root;
    int64_t batch;
    double clock;          /* when training time was last counted */
    double checkpoint_age; /* seconds since the last checkpoint */
    double step_seconds;   /* smoothed, for the progress line; 0: no step yet */
    sh_empty_steps empty;
    epoch_meter meter;
} loop;

/* ---- records ---- */

static double accuracy(const sh_class_stats *stats)
{
    return (double)stats->n_correct / (double)stats->n_rows;
}

/* Which crops the step was made of; a step that is left out has used none of them. */
static sh_status log_slots(loop *l, int64_t step, const sh_slot_plan *slots, bool skipped)
{
    sh_status st = SH_OK;
    char line[LINE_BYTES];
    uint32_t crc = 0;

    if (!l->is_root) goto out;
    for (int64_t i = 0; i < l->batch; i++) {
        crc = sh_crc32c(crc, &slots[i].crop, sizeof(slots[i].crop));
        crc = sh_crc32c(crc, &slots[i].draw, sizeof(slots[i].draw));
    }
    snprintf(line, sizeof(line), "%lld,%lld,%08x", (long long)step,
             (long long)(skipped ? 0 : l->batch), crc);
    SH_TRY(sh_run_log_line(l->s->ledger, line));
out:
    return st;
}

static sh_status log_step(loop *l, int64_t step, double lr, const sh_step_stats *stats)
{
    sh_status st = SH_OK;
    char line[LINE_BYTES];
    sh_session *s = l->s;
    char metric[96] = "", classes[96] = "";
    int64_t per_epoch = sh_sampler_steps_per_epoch(s->sampler);

    if (!l->is_root || (step + 1) % s->config.log.every_steps != 0) goto out;
    if (sh_config_has_metric(&s->config))
        snprintf(metric, sizeof(metric), ",\"pairs\":%lld,\"triplets\":%lld,\"active\":%lld",
                 (long long)stats->loss.n_pairs, (long long)stats->loss.n_triplets,
                 (long long)stats->loss.n_active);
    if (stats->classes.n_rows > 0)
        snprintf(classes, sizeof(classes), ",\"class_loss\":%.9g,\"accuracy\":%.4f",
                 stats->classes.loss, accuracy(&stats->classes));
    snprintf(line, sizeof(line),
             "{\"step\":%lld,\"epoch\":%.4f,\"loss\":%.9g%s%s,\"lr\":%.9g,\"grad_norm\":%.9g}",
             (long long)step + 1, (double)(step + 1) / (double)(per_epoch > 0 ? per_epoch : 1),
             stats->loss.loss, metric, classes, lr, stats->grad_norm);
    SH_TRY(sh_run_log_line(s->metrics, line));
out:
    return st;
}

static void show_progress(loop *l, const sh_step_stats *stats)
{
    const sh_config *c = &l->s->config;
    const sh_progress *p = &l->s->progress;
    double left = INFINITY;
    char limit[32] = "", remaining[32] = "?", found[64];
    bool pairs = c->loss.kind == SH_LOSS_CONTRASTIVE || c->loss.kind >= SH_LOSS_MULTI_SIMILARITY;

    if (c->steps > 0) {
        left = l->step_seconds * (double)(c->steps - p->step);
        snprintf(limit, sizeof(limit), "/%lld", (long long)c->steps);
    }
    if (c->minutes > 0) left = fmin(left, c->minutes * 60 - p->seconds);
    if (isfinite(left)) snprintf(remaining, sizeof(remaining), "%.0f s", fmax(left, 0));
    if (stats->classes.n_rows > 0)
        snprintf(found, sizeof(found), "accuracy %.2f", accuracy(&stats->classes));
    else
        snprintf(found, sizeof(found), "%lld %s%s", (long long)stats->loss.n_triplets,
                 pairs ? "pairs" : "triplets", stats->loss.n_triplets == 0 ? " (none found)" : "");
    sh_log_progress("step %lld%s  loss %.4f  %s  %.1f images/s  %s left", (long long)p->step, limit,
                    stats->loss.loss, found, (double)l->batch / l->step_seconds, remaining);
}

/* Images that went through the network on this rank, for features, steps and validation. */
static int64_t count_images(const sh_session *s)
{
    return s->shallow.n_images + sh_step_n_images(s->step) + sh_infer_n_images(s->infer);
}

/* Of a shallow stage, say what the first epoch costs and what any later one. */
static void show_epoch(loop *l)
{
    const sh_session *s = l->s;
    epoch_meter *m = &l->meter;
    int64_t per_epoch = sh_sampler_steps_per_epoch(s->sampler);
    double now = sh_clock_seconds();

    if (s->shallow.train == NULL || m->n_epochs == 2) return;
    if (s->progress.step - m->step < (m->n_epochs + 1) * per_epoch) return;
    if (m->n_epochs++ == 0) m->first_seconds = now - m->start;
    sh_log_progress_end();
    sh_log_info("shallow: epoch %d since the start here took %.2f s (%.1f %% of the first), %lld "
                "images through the network",
                m->n_epochs, now - m->start, 100 * (now - m->start) / m->first_seconds,
                (long long)(count_images(s) - m->n_images));
    m->start = now;
    m->n_images = count_images(s);
}

/* ---- validation ---- */

/* Embed the crops of one part, each rank a contiguous share of them; all ranks get all rows. */
static sh_status embed_part(loop *l, const int64_t *crops, int64_t n, float *embeddings)
{
    sh_status st = SH_OK;
    sh_session *s = l->s;
    int64_t dim = sh_infer_dim(s->infer), begin, end;

    sh_comm_own_items(s->comm, n, &begin, &end);
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
static sh_status log_score(loop *l, const sh_validation *v, double accuracy, double *score)
{
    sh_status st = SH_OK;
    sh_session *s = l->s;
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
    if (!l->is_root) goto out;
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
static sh_status score_result(loop *l, sh_snapshot *result, double *score)
{
    sh_status st = SH_OK;
    sh_session *s = l->s;
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
    st = embed_part(l, crops, n, embeddings);
    sh_position_leave();
    if (st != SH_OK) goto out;
    if (s->config.task == SH_TASK_CLASSIFY)
        SH_TRY(sh_classes_accuracy(s->sampler, s->dataset, &sh_step_get_config(s->step)->classes,
                                   store, crops, n, embeddings, sh_infer_dim(s->infer), &accuracy));
    SH_TRY(sh_snapshot_swap_in(&training, store, NULL));
    SH_TRY(sh_validate(s->dataset, crops, n, embeddings, sh_infer_dim(s->infer), &validation));
    SH_TRY(log_score(l, &validation, accuracy, score));
out:
    sh_snapshot_clear(&training);
    free(embeddings);
    free(crops);
    return st;
}

/* A validation that the schedule asks for: the best step is kept. */
static sh_status validate(loop *l)
{
    sh_status st = SH_OK;
    sh_progress *p = &l->s->progress;
    sh_snapshot result = {0};
    double score;

    SH_TRY(score_result(l, &result, &score));
    if (score < 0) goto out; /* nothing to validate on: patience does not run out either */
    p->validations_since_best++;
    if (score > p->best_score) {
        p->best_score = score;
        p->best_step = p->step;
        p->validations_since_best = 0;
        sh_snapshot_clear(&l->s->best);
        l->s->best = result;
        result = (sh_snapshot){0};
    }
out:
    sh_snapshot_clear(&result);
    return st;
}

/* ---- checkpoints and stops ---- */

/* Note how far the logs reach at this step: loading the checkpoint cuts them back to here. */
static sh_status mark_logs(loop *l)
{
    sh_status st = SH_OK;
    sh_session *s = l->s;

    if (!l->is_root) goto out;
    SH_TRY(sh_run_log_sync(s->metrics, &s->progress.metrics_bytes));
    SH_TRY(sh_run_log_sync(s->ledger, &s->progress.ledger_bytes));
out:
    return st;
}

static sh_status await_checkpoint(loop *l)
{
    sh_status st = SH_OK;

    if (!l->is_root) goto out;
    sh_position_enter(SH_AT_FILES, "checkpoint of %s", l->s->run);
    st = sh_checkpointer_wait(l->s->checkpointer);
    sh_position_leave();
out:
    return st;
}

/* A disk that is full or away for a while costs a checkpoint, not the run: the one before is whole.
 * Everything else, above all a newer process that has taken the run over, ends it. */
static sh_status survive_disk(loop *l, sh_status st)
{
    if (st != SH_ERR_IO) return st;
    sh_log_progress_end();
    sh_log_warning("step %lld: no checkpoint: %s; training goes on, and the next one is tried when "
                   "it is due",
                   (long long)l->s->progress.step, sh_error_message());
    sh_error_clear();
    return SH_OK;
}

static sh_status save_checkpoint(loop *l)
{
    sh_status st = SH_OK;
    sh_session *s = l->s;

    if (!l->is_root) goto out;
    SH_TRY(survive_disk(l, await_checkpoint(l)));
    sh_position_enter(SH_AT_FILES, "checkpoint of %s", s->run);
    st = sh_checkpointer_save(s->checkpointer, &s->progress,
                              s->progress.best_score >= 0 ? &s->best : NULL);
    sh_position_leave();
out:
    return st;
}

static sh_status checkpoint_now(loop *l)
{
    sh_status marked = mark_logs(l);

    l->checkpoint_age = 0;
    return marked == SH_OK ? save_checkpoint(l) : survive_disk(l, marked);
}

/* What has been trained so far, on disk; at worst as far as the newest checkpoint that the disk
 * took. */
static sh_status keep_state(loop *l)
{
    sh_status st = SH_OK;

    SH_TRY(checkpoint_now(l));
    SH_TRY(survive_disk(l, await_checkpoint(l)));
out:
    return st;
}

static bool checkpoint_due(const loop *l)
{
    const sh_config *c = &l->s->config;

    if (c->checkpoint.every_steps > 0) return l->s->progress.step % c->checkpoint.every_steps == 0;
    return l->checkpoint_age >= c->checkpoint.every_minutes * 60;
}

/* What all ranks must decide alike; the clock that counts is rank 0's. */
typedef struct verdict {
    int64_t stop, time_up, checkpoint;
} verdict;

static sh_status agree(loop *l, verdict *v)
{
    const sh_config *c = &l->s->config;
    int64_t values[3] = {stop_wanted(),
                         l->is_root && c->minutes > 0 && l->s->progress.seconds >= c->minutes * 60,
                         l->is_root && checkpoint_due(l)};
    sh_status st = sh_comm_max(l->s->comm, values, 3);

    *v = (verdict){.stop = values[0], .time_up = values[1], .checkpoint = values[2]};
    return st;
}

static void count_time(loop *l)
{
    double now = sh_clock_seconds();
    double passed = now - l->clock;

    l->clock = now;
    l->s->progress.seconds += passed;
    l->checkpoint_age += passed;
}

/* Why the run is over, or NULL. */
static const char *finish_reason(const loop *l, const verdict *v)
{
    const sh_config *c = &l->s->config;
    const sh_progress *p = &l->s->progress;

    if (c->steps > 0 && p->step >= c->steps) return "steps";
    if (v->time_up) return "minutes";
    if (c->validate.patience > 0 && p->validations_since_best >= c->validate.patience)
        return "patience";
    return NULL;
}

/* ---- the loop ---- */

static sh_status enter_stage(loop *l)
{
    sh_status st = SH_OK;
    sh_session *s = l->s;
    int before = s->batches == NULL ? -1 : s->stage;
    const epoch_meter begun = {
        .step = s->progress.step, .start = sh_clock_seconds(), .n_images = count_images(s)};

    st = sh_session_enter_stage(s, stop_wanted);
    if (st == SH_ERR_STOPPED && l->step_seconds > 0) {
        sh_status kept = keep_state(l);

        st = kept == SH_OK ? st : kept;
    }
    SH_TRY(st);
    if (s->stage != before) l->meter = begun;
out:
    return st;
}

/* What a step reads was asked for, though it is left out. */
static sh_status drop_batch(loop *l)
{
    sh_status st = SH_OK;
    const void *input = NULL;
    int begin, end;

    sh_step_own_shards(l->s->step, &begin, &end);
    for (int shard = begin; shard < end; shard++)
        SH_TRY(sh_batches_input(l->s->batches, shard, &input));
out:
    return st;
}

static sh_status train_step(loop *l)
{
    sh_status st = SH_OK;
    sh_session *s = l->s;
    int64_t step = s->progress.step;
    double lr = sh_config_learning_rate(&s->config, step);
    double start = sh_clock_seconds();
    const sh_slot_plan *slots = sh_batches_begin(s->batches, step);
    sh_step_stats stats = {.bad = false};

    sh_position_enter(SH_AT_COMPUTE, "step %lld", (long long)step);
    st = sh_skips_has(&s->skips, step)
             ? drop_batch(l)
             : sh_step_run(s->step, step, lr, slots, sh_batches_input, s->batches, &stats);
    sh_position_leave();
    if (st != SH_OK && stats.bad) st = sh_bad_step(s, &stats, slots);
    if (st != SH_OK || s->go_back) goto out;
    bool skipped = sh_skips_has(&s->skips, step);

    SH_TRY(log_slots(l, step, slots, skipped));
    if (!skipped) SH_TRY(log_step(l, step, lr, &stats));
    s->progress.step++;
    SH_TRY(sh_batches_end(s->batches, step));
    if (skipped) goto out;
    if (l->is_root && sh_config_has_metric(&s->config))
        sh_empty_steps_count(&l->empty, step, &stats);
    double seconds = sh_clock_seconds() - start;

    l->step_seconds = l->step_seconds > 0 ? 0.95 * l->step_seconds + 0.05 * seconds : seconds;
    show_progress(l, &stats);
    show_epoch(l);
out:
    return st;
}

static sh_status run_loop(loop *l, const char **reason)
{
    sh_status st = SH_OK;
    sh_session *s = l->s;
    int64_t every = s->config.validate.every_steps;
    verdict v = {0};

    while (*reason == NULL) {
        SH_TRY(enter_stage(l));
        SH_TRY(train_step(l));
        if (s->go_back) goto out;
        if (every > 0 && s->progress.step % every == 0) SH_TRY(validate(l));
        count_time(l);
        SH_TRY(agree(l, &v));
        *reason = finish_reason(l, &v);
        if (v.stop && *reason == NULL) {
            SH_TRY(keep_state(l));
            SH_FAIL(SH_ERR_STOPPED,
                    "stopped on request after step %lld; the same command continues",
                    (long long)s->progress.step);
        }
        if (v.checkpoint && *reason == NULL) {
            SH_TRY(checkpoint_now(l));
        }
    }
out:
    return st;
}

/* RUN/model.safetensors from these weights: nothing of time or place in it. */
static sh_status write_model(loop *l, const sh_snapshot *weights)
{
    sh_status st = SH_OK;
    sh_session *s = l->s;
    char path[SH_RUN_PATH], dim[32], hash[33];
    bool classifies = s->config.task == SH_TASK_CLASSIFY;

    if (!l->is_root) goto out;
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

/* The result is the best step that the schedule validated, or the last one where that is better or
 * nothing was validated. The last score is no part of the checkpoint, so that a run whose limit is
 * raised goes on as if it had never stopped here. */
static sh_status finish(loop *l, const char *reason)
{
    sh_status st = SH_OK;
    sh_session *s = l->s;
    int64_t every = s->config.validate.every_steps;
    sh_snapshot last = {0};
    double score;

    SH_TRY(mark_logs(l));
    if (every == 0 || s->progress.step % every != 0) {
        SH_TRY(score_result(l, &last, &score));
        bool has_best = s->progress.best_score >= 0;

        SH_TRY(write_model(l, has_best && score <= s->progress.best_score ? &s->best : &last));
    } else if (s->progress.best_score >= 0) {
        SH_TRY(write_model(l, &s->best));
    } else {
        SH_TRY(sh_snapshot_create(sh_step_store(s->step), &last));
        SH_TRY(sh_snapshot_take_result(&last, sh_step_store(s->step), sh_step_optim(s->step)));
        SH_TRY(write_model(l, &last));
    }
    snprintf(s->progress.finished, sizeof(s->progress.finished), "%s", reason);
    SH_TRY(save_checkpoint(l));
    SH_TRY(await_checkpoint(l));
    sh_log_progress_end();
    sh_log_info("done: %lld steps in %.1f minutes (limit: %s); the model is %s/model.safetensors",
                (long long)s->progress.step, s->progress.seconds / 60, reason, s->run);
out:
    sh_snapshot_clear(&last);
    return st;
}

/* A finished run stays finished unless its limit was raised. */
static bool is_finished(const sh_session *s)
{
    const sh_progress *p = &s->progress;

    if (strcmp(p->finished, "steps") == 0) return p->step >= s->config.steps && s->config.steps > 0;
    if (strcmp(p->finished, "minutes") == 0)
        return s->config.minutes > 0 && p->seconds >= s->config.minutes * 60;
    return p->finished[0] != '\0';
}

static loop begin(sh_session *s)
{
    return (loop){.s = s,
                  .is_root = sh_comm_rank(s->comm) == 0,
                  .batch = sh_config_batch(&s->config),
                  .clock = sh_clock_seconds()};
}

sh_status sh_train(sh_session *session)
{
    sh_status st = SH_OK;
    const char *reason = NULL;
    loop l = begin(session);

    if (is_finished(session)) {
        sh_log_info("%s is finished (%s reached at step %lld); raise the limit to go on",
                    session->run, session->progress.finished, (long long)session->progress.step);
        goto out;
    }
    session->progress.finished[0] = '\0';
    if (session->resumed)
        sh_log_info("continuing %s from step %lld", session->run,
                    (long long)session->progress.step);
    SH_TRY(run_loop(&l, &reason));
    if (session->go_back) goto out;
    SH_TRY(finish(&l, reason));
out:
    return st;
}

sh_status sh_train_steps(sh_session *session, int64_t n_steps, double *seconds)
{
    sh_status st = SH_OK;
    double start;
    loop l = begin(session);

    SH_TRY(enter_stage(&l));
    /* Batches in memory are used up: from here on each step waits for its own. */
    for (int i = 0; i < SH_BATCHES_AHEAD; i++) SH_TRY(train_step(&l));
    start = sh_clock_seconds();
    for (int64_t i = 0; i < n_steps; i++) SH_TRY(train_step(&l));
    *seconds = (sh_clock_seconds() - start) / (double)n_steps;
out:
    return st;
}
