// SPDX-License-Identifier: Apache-2.0
#include "trainer/bad_step.h"

#include <stdio.h>

#include "base/log.h"

enum {
    MAX_BAD = 10, /* since the session began (back), or in a row (skip): the weights are damaged */
    MANY_EMPTY = 100,
    WHY_BYTES = 768,
};

/* Why the step is bad, with the crop where it is known. */
static void describe(const sh_session *s, const sh_step_stats *stats, const sh_slot_plan *slots,
                     char why[WHY_BYTES])
{
    int n = snprintf(why, WHY_BYTES, "%s", sh_error_message());

    if (stats->bad_slot < 0 || n >= WHY_BYTES) return;
    snprintf(why + n, (size_t)(WHY_BYTES - n), ", of %s",
             sh_dataset_crop(s->dataset, slots[stats->bad_slot].crop)->name);
}

static int n_bad_before(const sh_session *s, int64_t step)
{
    int n = 0;

    if (s->config.on_bad_step == SH_BAD_BACK) return sh_skips_since(&s->skips, s->first_step);
    while (step - n > 0 && sh_skips_has(&s->skips, step - n - 1)) n++;
    return n;
}

sh_status sh_bad_step(sh_session *s, const sh_step_stats *stats, const sh_slot_plan *slots)
{
    sh_status st = SH_OK;
    char why[WHY_BYTES];
    int64_t step = s->progress.step;
    int n = n_bad_before(s, step);

    describe(s, stats, slots, why);
    SH_CHECK(s->config.on_bad_step != SH_BAD_STOP, SH_ERR_MISMATCH,
             "%s. Lower optimizer.lr, add schedule.warmup_steps or optimizer.clip_norm; or leave "
             "such steps out with on_bad_step=skip or back",
             why);
    SH_CHECK(n < MAX_BAD, SH_ERR_MISMATCH,
             "%s; so did %d steps before it, and leaving them out does not help: lower "
             "optimizer.lr, add schedule.warmup_steps or optimizer.clip_norm",
             why, n);
    sh_error_clear();
    s->go_back = s->config.on_bad_step == SH_BAD_BACK;
    sh_log_progress_end();
    if (sh_comm_rank(s->comm) == 0)
        sh_log_warning("%s; it is left out, now and in every replay%s", why,
                       s->go_back ? ", and training goes back to the newest checkpoint" : "");
    SH_TRY(sh_skips_add(s->comm, s->run, s->lock, step, why, &s->skips));
out:
    return st;
}

void sh_empty_steps_count(sh_empty_steps *empty, int64_t step, const sh_step_stats *stats)
{
    if (stats->loss.n_triplets > 0) {
        empty->n = 0;
        return;
    }
    if (empty->n++ == 0) empty->first = step;
    if (empty->n != MANY_EMPTY) return;
    sh_log_progress_end();
    sh_log_warning(
        "nothing to learn from since step %lld: %lld steps in a row without a triplet or "
        "pair. Either everything is told apart by loss.margin, or all embeddings have "
        "become alike: see the validation scores",
        (long long)empty->first, (long long)empty->n);
}
