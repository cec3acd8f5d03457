// SPDX-License-Identifier: Apache-2.0
#include "trainer/step.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/position.h"
#include "trainer/step_state.h"

enum { NONE = -1, FAULT_BYTES = 256 };

static int64_t first_slot(const sh_step *step, int shard)
{
    int64_t begin, end;

    sh_step_slots_of_shard(step, shard, &begin, &end);
    return begin;
}

/* What kernels of this step need to know of it, at once for all own shards. Page-locked memory may
 * be written again: the step before has waited for its device. */
static sh_status send_scalars(sh_step *step, int64_t number)
{
    sh_status st = SH_OK;
    int n = step->shard_end - step->shard_begin;

    for (int i = 0; i < n; i++)
        step->next_scalars[i] =
            (sh_run_scalars){.seed = step->config.seed,
                             .step = (uint64_t)number,
                             .first_slot = first_slot(step, step->shard_begin + i)};
    SH_TRY(sh_backend_send(step->config.backend, step->scalars, 0, step->next_scalars,
                           (size_t)n * sizeof(*step->next_scalars)));
out:
    return st;
}

/* ---- what is launched together ---- */

/* Parts of a step, in this order. Without gaps: a key. */
typedef struct section {
    int32_t forward; /* of an own shard, or NONE */
    int32_t reads;   /* and its embeddings and logits are taken */
    int32_t chooses, applies;
    int32_t backward; /* of an own shard, or NONE */
} section;

typedef struct launch {
    sh_step *step;
    section section;
} launch;

/* Are sections recorded, instead of the programs in them? Then nothing in them may wait. */
static bool records(const sh_step *step)
{
    return step->config.graphs && step->config.backend->recorder != NULL &&
           sh_step_loss_stays(step->loss);
}

/* Does nothing that the host does come between forward phases, loss and backward phases? */
static bool is_whole(const sh_step *step)
{
    return records(step) && sh_comm_size(step->comm) == 1;
}

static sh_run_args args_of(sh_step *step, int shard)
{
    sh_run_args args = sh_step_run_args(step, shard);

    args.recorded = args.recorded && !records(step);
    return args;
}

static sh_status launch_forward(sh_step *step, int shard, bool reads)
{
    sh_status st = SH_OK;
    sh_sized_program *s = sh_step_program_of(step, shard);
    sh_run_args args = args_of(step, shard);

    SH_TRY(sh_program_run(s->program, SH_PHASE_FORWARD, &args));
    if (reads)
        SH_TRY(sh_step_loss_read(step->loss, s->program, &s->outputs, args.arena,
                                 first_slot(step, shard)));
out:
    return st;
}

static sh_status launch_backward(sh_step *step, int shard)
{
    sh_status st = SH_OK;
    sh_sized_program *s = sh_step_program_of(step, shard);
    sh_run_args args = args_of(step, shard);

    SH_TRY(sh_step_loss_write(step->loss, s->program, &s->outputs, first_slot(step, shard),
                              args.arena));
    SH_TRY(sh_program_run(s->program, SH_PHASE_BACKWARD, &args));
out:
    return st;
}

static sh_status launch_section(void *context)
{
    sh_status st = SH_OK;
    const launch *l = context;
    const section *s = &l->section;

    if (s->forward != NONE) SH_TRY(launch_forward(l->step, s->forward, s->reads));
    if (s->chooses) SH_TRY(sh_step_loss_choose(l->step->loss));
    if (s->applies) SH_TRY(sh_step_loss_apply(l->step->loss));
    if (s->backward != NONE) SH_TRY(launch_backward(l->step, s->backward));
out:
    return st;
}

static sh_status run_section(sh_step *step, section s)
{
    sh_status st = SH_OK;
    launch l = {step, s};

    if (records(step))
        SH_TRY(sh_replays_run(&step->replays, step->config.backend, &l.section, sizeof(l.section),
                              launch_section, &l));
    else
        SH_TRY(launch_section(&l));
out:
    return st;
}

/* A section that begins with the forward phase of an own shard, whose images come first. */
static sh_status forward_section(sh_step *step, section s, sh_step_input input, void *context)
{
    sh_status st = SH_OK;
    sh_sized_program *p = sh_step_program_of(step, s.forward);
    sh_input data = {.host = NULL};

    sh_position_enter(SH_AT_COMPUTE, "forward of shard %d", (int)s.forward);
    SH_TRY(input(context, s.forward, &data));
    SH_TRY(sh_input_put(&data, step->config.backend, p->program,
                        sh_step_run_args(step, s.forward).arena, p->input));
    SH_TRY(run_section(step, s));
    if (!step->config.shallow) step->n_images += p->n_images;
out:
    sh_position_leave();
    return st;
}

/* ---- forward and loss ---- */

/* The forward phases of all own shards and the loss; where nothing comes between, the backward
 * phase of the first shard too. */
static sh_status forward_all(sh_step *step, sh_step_input input, void *context,
                             sh_step_stats *stats)
{
    sh_status st = SH_OK;
    bool whole = is_whole(step);
    double start = sh_clock_seconds();

    for (int shard = step->shard_begin; shard < step->shard_end; shard++) {
        bool goes_on = whole && shard == step->shard_end - 1;
        section s = {.forward = shard,
                     .reads = true,
                     .chooses = goes_on,
                     .applies = goes_on,
                     .backward = goes_on && !step->two_passes ? step->shard_begin : NONE};

        SH_TRY(forward_section(step, s, input, context));
    }
    stats->seconds_forward = sh_clock_seconds() - start;
    if (!whole) {
        SH_TRY(sh_step_loss_gather(step->loss));
        SH_TRY(run_section(step, (section){.forward = NONE, .chooses = true, .backward = NONE}));
        SH_TRY(sh_step_loss_exchange(step->loss));
        SH_TRY(run_section(step, (section){.forward = NONE, .applies = true, .backward = NONE}));
    }
    if (!sh_step_loss_stays(step->loss)) SH_TRY(sh_step_loss_judge(step->loss, stats));
    stats->seconds_loss = sh_clock_seconds() - start - stats->seconds_forward;
out:
    return st;
}

/* ---- backward and the sum ---- */

/* Hands finished buckets of the last own shard to the reducer while its backward goes on. */
typedef struct hand_over {
    sh_step *step;
    const sh_sized_program *size;
    float *leaf;
    int next_bucket;
} hand_over;

/* Elements [begin, end) of the packed vector, from wherever they stand in the arena, to the memory
 * of `device`; NULL: to the host's. */
static sh_status copy_range(sh_step *step, const sh_device *device, float *leaf, int64_t begin,
                            int64_t end)
{
    sh_status st = SH_OK;
    const sh_backend *backend = step->config.backend;

    for (int r = 0; r < step->trained.n_ranges; r++) {
        const sh_trained_range *range = &step->trained.ranges[r];
        int64_t from = begin > range->packed ? begin : range->packed;
        int64_t to = end < range->packed + range->n ? end : range->packed + range->n;
        size_t offset = (size_t)(range->offset + from - range->packed) * sizeof(float);

        if (from >= to) continue;
        if (device != NULL)
            SH_TRY(device->copy(SH_QUEUE_COMPUTE, leaf + from,
                                backend->device_ptr(step->reduce, offset), to - from));
        else
            SH_TRY(backend->copy_out(step->reduce, offset, leaf + from,
                                     (size_t)(to - from) * sizeof(float)));
    }
out:
    return st;
}

static sh_status after_node(void *context, int node)
{
    sh_status st = SH_OK;
    hand_over *h = context;
    const int64_t *bounds = h->step->bucket_bounds;

    while (h->next_bucket >= 0 && h->size->ready[h->next_bucket] <= node) {
        int b = h->next_bucket--;

        SH_TRY(copy_range(h->step, h->step->device, h->leaf, bounds[b], bounds[b + 1]));
        SH_TRY(sh_reducer_bucket_done(h->step->reducer, b));
    }
    SH_TRY(sh_reducer_poll(h->step->reducer));
out:
    return st;
}

/* The backward phase of the last own shard, with buckets handed over on the way; *n_left are not
 * when it ends. */
static sh_status backward_in_buckets(sh_step *step, int shard, int *n_left)
{
    sh_status st = SH_OK;
    sh_sized_program *s = sh_step_program_of(step, shard);
    sh_run_args args = sh_step_run_args(step, shard);
    hand_over h = {.step = step,
                   .size = s,
                   .leaf = sh_reducer_leaf(step->reducer),
                   .next_bucket = step->n_buckets - 1};

    args.after_node = after_node;
    args.context = &h;
    args.stops = s->stops;
    args.n_stops = s->n_stops;
    SH_TRY(sh_step_loss_write(step->loss, s->program, &s->outputs, first_slot(step, shard),
                              args.arena));
    SH_TRY(sh_program_run(s->program, SH_PHASE_BACKWARD, &args));
    *n_left = h.next_bucket + 1;
out:
    return st;
}

/* The gradients of an own shard, added to those before. The second pass repeats the forward nodes:
 * running statistics are contributed by the backward phase, so that the first leaves no trace. */
static sh_status backward_shard(sh_step *step, int shard, sh_step_input input, void *context)
{
    sh_status st = SH_OK;
    bool in_buckets = shard == step->shard_end - 1 && !is_whole(step);
    bool is_done = is_whole(step) && !step->two_passes && shard == step->shard_begin;
    section s = {.forward = step->two_passes ? shard : NONE, .backward = in_buckets ? NONE : shard};
    int n_left = step->n_buckets;

    if (step->two_passes) SH_TRY(forward_section(step, s, input, context));
    sh_position_enter(SH_AT_COMPUTE, "backward of shard %d", shard);
    if (!step->two_passes && !in_buckets && !is_done) SH_TRY(run_section(step, s));
    if (in_buckets) SH_TRY(backward_in_buckets(step, shard, &n_left));
    SH_TRY(copy_range(step, step->device, sh_reducer_leaf(step->reducer), 0,
                      in_buckets ? step->bucket_bounds[n_left] : step->trained.n));
    SH_TRY(sh_reducer_leaf_done(step->reducer));
out:
    sh_position_leave();
    return st;
}

/* ---- a bad gradient ---- */

/* The first parameter whose gradient in this shard is not finite, as text; "" if there is none. */
static sh_status look_for_bad_gradient(sh_step *step, int shard, float *gradient,
                                       char name[FAULT_BYTES])
{
    sh_status st = SH_OK;

    SH_TRY(copy_range(step, NULL, gradient, 0, step->trained.n));
    for (int i = 0; i < sh_store_n_slots(step->store) && name[0] == '\0'; i++) {
        const sh_slot *slot = sh_store_slot(step->store, i);
        int64_t place = sh_trained_place(&step->trained, step->store, i);
        int64_t n = place < 0 || slot->kind != SH_SLOT_PARAM ? 0 : slot->n_elems;

        for (int64_t k = 0; k < n && name[0] == '\0'; k++)
            if (!isfinite(gradient[place + k]))
                snprintf(name, FAULT_BYTES, "%s in shard %d (rank %d)", slot->name, shard,
                         sh_comm_rank(step->comm));
    }
out:
    return st;
}

/* Run the own shards once more, to see where the gradient went bad. The sum does not tell: partial
 * sums have been added into each other. */
static sh_status locate_bad_gradient(sh_step *step, sh_step_input input, void *context,
                                     char name[FAULT_BYTES])
{
    sh_status st = SH_OK;
    float *gradient = malloc((size_t)step->trained.n * sizeof(*gradient));

    name[0] = '\0';
    SH_CHECK(gradient != NULL, SH_ERR_NO_MEMORY, "a gradient to look into");
    for (int shard = step->shard_begin; shard < step->shard_end && name[0] == '\0'; shard++) {
        section s = {.forward = shard, .backward = shard};

        SH_TRY(forward_section(step, s, input, context));
        SH_TRY(look_for_bad_gradient(step, shard, gradient, name));
    }
out:
    free(gradient);
    return st;
}

/* SH_OK, or that the step is bad and where that began, the same on all ranks. Collective. */
static sh_status check_gradient(sh_step *step, int64_t number, sh_step_input input, void *context,
                                sh_step_stats *stats)
{
    sh_status st = SH_OK;
    char name[FAULT_BYTES];
    int size = sh_comm_size(step->comm), rank = sh_comm_rank(step->comm);

    if (!stats->bad) goto out;
    SH_CHECK(!isfinite(stats->grad_norm), SH_ERR_MISMATCH,
             "step %lld went bad: the norm of its gradient is %.4g, above bad_norm=%.4g",
             (long long)number, stats->grad_norm, step->config.optim.bad_norm);
    SH_TRY(sh_comm_agree_ok(step->comm, locate_bad_gradient(step, input, context, name)));
    int64_t found = name[0] != '\0' ? size - rank : 0; /* the maximum is the lowest rank's */

    SH_TRY(sh_comm_max(step->comm, &found, 1));
    if (found > 0) SH_TRY(sh_comm_bcast(step->comm, name, sizeof(name), size - (int)found));
    SH_FAIL(SH_ERR_MISMATCH, "step %lld went bad: the gradient is not finite, first that of %s",
            (long long)number, found > 0 ? name : "the sum over all shards");
out:
    return st;
}

/* ---- the step ---- */

/* The total, where the optimizer reads it. */
static sh_status finish_sum(sh_step *step, const float **total)
{
    sh_status st = SH_OK;
    const sh_backend *backend = step->config.backend;

    SH_TRY(sh_reducer_finish(step->reducer, total));
    if (step->sums == NULL) goto out;
    SH_TRY(backend->copy_in(step->sums, 0, *total, (size_t)step->trained.n * sizeof(float)));
    *total = backend->device_ptr(step->sums, 0);
out:
    return st;
}

sh_status sh_step_run(sh_step *step, int64_t number, double learning_rate,
                      const sh_slot_plan *slots, sh_step_input input, void *context,
                      sh_step_stats *stats)
{
    sh_status st = SH_OK;
    const float *total = NULL;
    const sh_optim_loss loss = sh_step_loss_value(step->loss);
    bool is_good;
    double t1, t2;

    *stats = (sh_step_stats){.bad_slot = -1};
    SH_TRY(send_scalars(step, number));
    SH_TRY(sh_step_loss_begin(step->loss, number, slots));
    SH_TRY(forward_all(step, input, context, stats));
    t2 = sh_clock_seconds();
    SH_TRY(sh_reducer_begin(step->reducer));
    for (int shard = step->shard_begin; shard < step->shard_end; shard++)
        SH_TRY(backward_shard(step, shard, input, context));
    t1 = sh_clock_seconds();
    stats->seconds_backward = t1 - t2;
    SH_TRY(finish_sum(step, &total));
    t2 = sh_clock_seconds();
    stats->seconds_reduce = t2 - t1;

    /* A bad step changes nothing, so that nobody waits for loss and norm before the update. */
    SH_TRY(
        sh_optim_update(step->optim, total, &loss, learning_rate, number - step->optimizer_begin));
    SH_TRY(sh_optim_read(step->optim, &stats->grad_norm, &is_good));
    if (sh_step_loss_stays(step->loss)) SH_TRY(sh_step_loss_judge(step->loss, stats));
    stats->bad = !is_good;
    SH_TRY(check_gradient(step, number, input, context, stats));
    stats->seconds_update = sh_clock_seconds() - t2;
out:
    return st;
}
