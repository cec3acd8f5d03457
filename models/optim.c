// SPDX-License-Identifier: Apache-2.0
#include "models/optim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/optim_kernels.h"
#include "models/replay.h"
#include "models/trained.h"

/* A run of slots that are updated alike. */
typedef struct segment {
    int64_t begin, end; /* elements of the params arena */
    int64_t packed;     /* where the gradient of `begin` stands in the packed vector */
    bool decay;
    float lr_scale;
} segment;

struct sh_optim {
    sh_optim_config config;
    sh_store *store;
    const sh_backend *backend;
    sh_trained trained;
    segment *segments;
    int n_segments;
    const sh_optim_kernels *kernels;
    sh_replays replays;
    sh_buffer *sums;            /* [ceil(n_params / SH_NORM_BLOCK)] f64, scratch of the norm */
    sh_buffer *now;             /* one sh_optim_now */
    sh_optim_rates *next_rates; /* of the next update; page-locked where the backend has a device */
    sh_buffer *arenas[SH_OPTIM_ARENA_COUNT];
};

const char *sh_optim_arena_name(sh_optim_arena arena)
{
    static const char *const names[] = {[SH_OPTIM_FIRST] = "first",
                                        [SH_OPTIM_SECOND] = "second",
                                        [SH_OPTIM_EMA_PARAMS] = "ema",
                                        [SH_OPTIM_EMA_STATES] = "ema_states"};

    return names[arena];
}

static int64_t arena_elems(const sh_optim *o, sh_optim_arena arena)
{
    bool adam = o->config.kind != SH_OPTIM_SGD;

    switch (arena) {
    case SH_OPTIM_FIRST: return adam || o->config.momentum > 0 ? sh_store_n_params(o->store) : 0;
    case SH_OPTIM_SECOND: return adam ? sh_store_n_params(o->store) : 0;
    case SH_OPTIM_EMA_PARAMS: return o->config.ema > 0 ? sh_store_n_params(o->store) : 0;
    case SH_OPTIM_EMA_STATES: return o->config.ema > 0 ? sh_store_n_states(o->store) : 0;
    case SH_OPTIM_ARENA_COUNT: break;
    }
    return 0;
}

/* Neighbouring trainable slots that are updated alike become one segment; gaps are zero and stay
 * zero. */
static sh_status build_segments(sh_optim *o)
{
    sh_status st = SH_OK;
    int n_slots = sh_store_n_slots(o->store);
    segment *last = NULL;

    o->n_segments = 0;
    free(o->segments);
    o->segments = calloc((size_t)n_slots + 1, sizeof(*o->segments));
    SH_CHECK(o->segments != NULL, SH_ERR_NO_MEMORY, "optimizer segments");
    for (int i = 0; i < n_slots; i++) {
        const sh_slot *slot = sh_store_slot(o->store, i);
        bool joins;

        if (slot->kind != SH_SLOT_PARAM) continue;
        if (!slot->trainable) {
            last = NULL;
            continue;
        }
        joins = last != NULL && last->decay == slot->decay && last->lr_scale == slot->lr_scale;
        if (!joins) {
            last = &o->segments[o->n_segments++];
            *last = (segment){.begin = slot->offset,
                              .packed = sh_trained_place(&o->trained, o->store, i),
                              .decay = slot->decay,
                              .lr_scale = slot->lr_scale};
        }
        last->end = slot->offset + slot->n_elems;
    }
out:
    return st;
}

static int64_t n_norm_blocks(int64_t n)
{
    return (n + SH_NORM_BLOCK - 1) / SH_NORM_BLOCK;
}

sh_status sh_optim_create(const sh_optim_config *config, sh_store *store, sh_optim **out)
{
    sh_status st = SH_OK;
    sh_optim *o = calloc(1, sizeof(*o));
    int64_t n_blocks = n_norm_blocks(sh_store_n_params(store));

    SH_CHECK(o != NULL, SH_ERR_NO_MEMORY, "optimizer");
    o->config = *config;
    o->store = store;
    o->backend = sh_store_backend(store);
    o->kernels = o->backend->optim != NULL ? o->backend->optim : &sh_optim_host;
    SH_TRY(sh_optim_refresh(o));
    SH_TRY(o->backend->alloc((size_t)(n_blocks + 1) * sizeof(double), &o->sums));
    SH_TRY(o->backend->alloc(sizeof(sh_optim_now), &o->now));
    SH_TRY(sh_backend_alloc_host(o->backend, sizeof(*o->next_rates), (void **)&o->next_rates));
    for (int a = 0; a < SH_OPTIM_ARENA_COUNT; a++) {
        int64_t n = arena_elems(o, (sh_optim_arena)a);

        if (n > 0) SH_TRY(o->backend->alloc((size_t)n * sizeof(float), &o->arenas[a]));
    }
    *out = o;
    o = NULL;
out:
    sh_optim_destroy(&o);
    return st;
}

void sh_optim_destroy(sh_optim **optim)
{
    sh_optim *o = *optim;

    if (o == NULL) return;
    for (int a = 0; a < SH_OPTIM_ARENA_COUNT; a++) o->backend->free(&o->arenas[a]);
    o->backend->free(&o->sums);
    o->backend->free(&o->now);
    sh_backend_free_host(o->backend, o->next_rates);
    sh_replays_clear(&o->replays, o->backend);
    free(o->segments);
    sh_trained_clear(&o->trained);
    free(o);
    *optim = NULL;
}

sh_buffer *sh_optim_arena_buffer(sh_optim *optim, sh_optim_arena arena, int64_t *n_elems)
{
    *n_elems = arena_elems(optim, arena);
    return optim->arenas[arena];
}

static float *device(const sh_optim *o, sh_buffer *buffer)
{
    return buffer != NULL ? o->backend->device_ptr(buffer, 0) : NULL;
}

static void enter(const sh_optim *o)
{
    if (o->backend->enter != NULL) o->backend->enter();
}

static void leave(const sh_optim *o)
{
    if (o->backend->leave != NULL) o->backend->leave();
}

sh_status sh_optim_refresh(sh_optim *o)
{
    sh_status st = SH_OK;

    sh_replays_clear(&o->replays, o->backend);
    sh_trained_clear(&o->trained);
    SH_TRY(sh_trained_collect(o->store, &o->trained));
    SH_TRY(build_segments(o));
out:
    return st;
}

sh_status sh_optim_reset(sh_optim *o)
{
    sh_status st = SH_OK;

    for (int a = SH_OPTIM_FIRST; a <= SH_OPTIM_SECOND; a++) {
        int64_t n = arena_elems(o, (sh_optim_arena)a);
        float *zeros = NULL;

        if (n == 0) continue;
        zeros = calloc((size_t)n, sizeof(*zeros));
        SH_CHECK(zeros != NULL, SH_ERR_NO_MEMORY, "moments of %lld parameters", (long long)n);
        st = o->backend->copy_in(o->arenas[a], 0, zeros, (size_t)n * sizeof(*zeros));
        free(zeros);
        SH_TRY(st);
    }
out:
    return st;
}

sh_status sh_optim_start_average(sh_optim *o)
{
    if (o->config.ema <= 0) return SH_OK;
    enter(o);
    o->kernels->copy(device(o, o->arenas[SH_OPTIM_EMA_PARAMS]),
                     device(o, sh_store_params(o->store)), sh_store_n_params(o->store));
    o->kernels->copy(device(o, o->arenas[SH_OPTIM_EMA_STATES]),
                     device(o, sh_store_states(o->store)), sh_store_n_states(o->store));
    leave(o);
    return SH_OK;
}

/* What one update works on. Without gaps: it is the key of a recording. */
typedef struct update {
    float *params, *states, *first, *second;
    const float *reduce; /* the packed vector */
    sh_optim_now *now;
    sh_optim_loss loss;
} update;

static void update_by_sgd(const sh_optim *o, const update *u, const segment *s)
{
    const sh_sgd c = {.decay = s->decay ? o->config.weight_decay : 0.0f,
                      .momentum = o->config.momentum,
                      .lr_scale = s->lr_scale};
    float *momentum = u->first != NULL ? u->first + s->begin : NULL;

    o->kernels->sgd(u->params + s->begin, momentum, u->reduce + s->packed, s->end - s->begin, &c,
                    u->now);
}

static void update_by_adam(const sh_optim *o, const update *u, const segment *s)
{
    const sh_optim_config *config = &o->config;
    bool is_decoupled = config->kind == SH_OPTIM_ADAMW;
    float decay = s->decay ? config->weight_decay : 0.0f;
    const sh_adam c = {.l2 = is_decoupled ? 0.0f : decay,
                       .decay = is_decoupled ? decay : 0.0f,
                       .beta1 = config->beta1,
                       .beta2 = config->beta2,
                       .lr_scale = s->lr_scale,
                       .eps = config->eps};

    o->kernels->adam(u->params + s->begin, u->first + s->begin, u->second + s->begin,
                     u->reduce + s->packed, s->end - s->begin, &c, u->now);
}

static void update_states(const sh_optim *o, const update *u)
{
    for (int i = 0; i < sh_store_n_slots(o->store); i++) {
        const sh_slot *slot = sh_store_slot(o->store, i);

        if (slot->kind != SH_SLOT_STATE || !slot->trainable) continue;
        o->kernels->blend(u->states + slot->offset,
                          u->reduce + sh_trained_place(&o->trained, o->store, i), slot->n_elems,
                          slot->momentum, u->now);
    }
}

static void update_average(const sh_optim *o, const update *u)
{
    float share = 1.0f - o->config.ema;

    if (o->config.ema <= 0) return;
    o->kernels->approach(device(o, o->arenas[SH_OPTIM_EMA_PARAMS]), u->params,
                         sh_store_n_params(o->store), share, u->now);
    o->kernels->approach(device(o, o->arenas[SH_OPTIM_EMA_STATES]), u->states,
                         sh_store_n_states(o->store), share, u->now);
}

typedef struct launch {
    const sh_optim *optim;
    update update;
} launch;

/* Nothing of it depends on the step but through u->now. */
static sh_status launch_update(void *context)
{
    const launch *l = context;
    const sh_optim *o = l->optim;
    const update *u = &l->update;
    const sh_optim_limits limits = {o->config.clip_norm, o->config.bad_norm};
    double *sums = o->backend->device_ptr(o->sums, 0);

    enter(o);
    o->kernels->squares(u->reduce, o->trained.n_params, sums);
    o->kernels->judge(sums, n_norm_blocks(o->trained.n_params), &limits, &u->loss, u->now);
    for (int i = 0; i < o->n_segments; i++) {
        if (o->config.kind == SH_OPTIM_SGD)
            update_by_sgd(o, u, &o->segments[i]);
        else
            update_by_adam(o, u, &o->segments[i]);
    }
    update_states(o, u);
    update_average(o, u);
    leave(o);
    return SH_OK;
}

/* Page-locked memory may be written again: whoever reads an update's outcome has waited for it. */
static sh_status send_rates(sh_optim *o, double learning_rate, int64_t step)
{
    double t = (double)(step + 1);

    *o->next_rates =
        (sh_optim_rates){.learning_rate = (float)learning_rate,
                         .step_size = (float)(learning_rate / (1.0 - pow(o->config.beta1, t))),
                         .root_correction = (float)sqrt(1.0 - pow(o->config.beta2, t))};
    return sh_backend_send(o->backend, o->now, 0, o->next_rates, sizeof(*o->next_rates));
}

sh_status sh_optim_update(sh_optim *o, const float *reduce, const sh_optim_loss *loss,
                          double learning_rate, int64_t step)
{
    sh_status st = SH_OK;
    launch l = {o,
                {.params = device(o, sh_store_params(o->store)),
                 .states = device(o, sh_store_states(o->store)),
                 .first = device(o, o->arenas[SH_OPTIM_FIRST]),
                 .second = device(o, o->arenas[SH_OPTIM_SECOND]),
                 .reduce = reduce,
                 .now = o->backend->device_ptr(o->now, 0)}};

    if (loss != NULL) l.update.loss = *loss;
    SH_TRY(send_rates(o, learning_rate, step));
    if (o->config.recorded)
        SH_TRY(sh_replays_run(&o->replays, o->backend, &l.update, sizeof(l.update), launch_update,
                              &l));
    else
        SH_TRY(launch_update(&l));
out:
    return st;
}

sh_status sh_optim_read(sh_optim *o, double *norm, bool *good)
{
    sh_status st = SH_OK;
    sh_optim_now now;

    SH_TRY(o->backend->copy_out(o->now, 0, &now, sizeof(now)));
    *norm = now.norm;
    *good = now.good != 0;
out:
    return st;
}
