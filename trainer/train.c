// SPDX-License-Identifier: Apache-2.0
#include "trainer/train.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/position.h"
#include "base/process.h"
#include "trainer/bad_step.h"
#include "trainer/result.h"

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
    sh_supply_meter supply;
    struct {
        int64_t n_checkpoints;
        double checkpoint_seconds, agree_seconds;
    } safety; /* what being able to go on has cost the loop */
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

/* Say once that steps wait for images. */
static void watch_supply(loop *l)
{
    const sh_session *s = l->s;
    sh_loader_stats stats;
    char text[SH_SUPPLY_TEXT];

    if (!l->is_root) return;
    sh_batches_get_stats(s->batches, &stats);
    if (!sh_supply_look(&l->supply, &s->supply, sh_clock_seconds(), &stats, text)) return;
    sh_log_progress_end();
    sh_log_warning("step %lld: %s", (long long)s->progress.step, text);
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
    if (st != SH_ERR_IO && st != SH_ERR_NO_ROOM) return st;
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
    double start = sh_clock_seconds();
    sh_status marked = mark_logs(l);
    sh_status st = marked == SH_OK ? save_checkpoint(l) : survive_disk(l, marked);

    l->checkpoint_age = 0;
    l->safety.n_checkpoints++;
    l->safety.checkpoint_seconds += sh_clock_seconds() - start;
    return st;
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

/* What an agreement took from `start` to now. Until the last rank arrived the others waited for
 * that one, and not for the agreement: `last_ns` is when it did. Hosts whose clocks differ cannot
 * tell: then all of it counts. */
static double agreement_seconds(double start, int64_t last_ns)
{
    double now = sh_clock_seconds(), since_last = now - 1e-9 * (double)last_ns;

    return since_last > 0 && since_last < now - start ? since_last : now - start;
}

static sh_status agree(loop *l, verdict *v)
{
    const sh_config *c = &l->s->config;
    double start = sh_clock_seconds();
    int64_t values[4] = {stop_wanted(),
                         l->is_root && c->minutes > 0 && l->s->progress.seconds >= c->minutes * 60,
                         l->is_root && checkpoint_due(l), (int64_t)(start * 1e9)};
    sh_status st = sh_comm_max(l->s->comm, values, 4);

    l->safety.agree_seconds += agreement_seconds(start, values[3]);
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
    sh_input input;
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
    watch_supply(l);
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
        if (every > 0 && s->progress.step % every == 0) SH_TRY(sh_result_validate(s));
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

static sh_status finish(loop *l, const char *reason)
{
    sh_status st = SH_OK;
    sh_session *s = l->s;

    /* The last score is no part of the checkpoint, so that a run whose limit is raised goes on as
     * if it had never stopped here. */
    SH_TRY(mark_logs(l));
    SH_TRY(sh_result_write(s));
    snprintf(s->progress.finished, sizeof(s->progress.finished), "%s", reason);
    SH_TRY(save_checkpoint(l));
    SH_TRY(await_checkpoint(l));
    sh_log_progress_end();
    sh_log_info("done: %lld steps in %.1f minutes (limit: %s); the model is %s/model.safetensors",
                (long long)s->progress.step, s->progress.seconds / 60, reason, s->run);
out:
    return st;
}

/* What scripts/measure-safety adds up. */
static void show_safety(const loop *l, double seconds)
{
    if (!l->is_root || l->safety.n_checkpoints == 0) return;
    sh_log_info(
        "safety: %lld checkpoints kept training for %.3f s and a core for %.3f s, agreement "
        "on each step for %.3f s, of %.1f s",
        (long long)l->safety.n_checkpoints, l->safety.checkpoint_seconds,
        sh_checkpointer_write_seconds(l->s->checkpointer), l->safety.agree_seconds, seconds);
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
    double before = session->progress.seconds;

    SH_TRY(run_loop(&l, &reason));
    if (session->go_back) goto out;
    SH_TRY(survive_disk(&l, await_checkpoint(&l)));
    sh_log_progress_end();
    show_safety(&l, session->progress.seconds - before);
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
