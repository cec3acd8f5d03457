// SPDX-License-Identifier: Apache-2.0
#include "models/optim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/tree.h"
#include "models/optim_kernels.h"
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
    double *block_sums; /* [ceil(n_params / SH_NORM_BLOCK)] scratch of the norm */
    const sh_optim_kernels *kernels;
    sh_buffer *device_sums; /* the same, where kernels do not write the host's memory; or NULL */
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
    o->block_sums = calloc((size_t)n_blocks + 1, sizeof(*o->block_sums));
    SH_CHECK(o->block_sums != NULL, SH_ERR_NO_MEMORY, "optimizer norm");
    for (int a = 0; a < SH_OPTIM_ARENA_COUNT; a++) {
        int64_t n = arena_elems(o, (sh_optim_arena)a);

        if (n > 0) SH_TRY(o->backend->alloc((size_t)n * sizeof(float), &o->arenas[a]));
    }
    if (o->backend->optim != NULL)
        SH_TRY(o->backend->alloc((size_t)n_blocks * sizeof(double), &o->device_sums));
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
    o->backend->free(&o->device_sums);
    free(o->block_sums);
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

sh_status sh_optim_norm(sh_optim *o, const float *reduce, double *norm)
{
    sh_status st = SH_OK;
    int64_t n_blocks = n_norm_blocks(o->trained.n_params);

    o->kernels->squares(reduce, o->trained.n_params,
                        o->device_sums != NULL ? o->backend->device_ptr(o->device_sums, 0)
                                               : o->block_sums);
    if (o->device_sums != NULL)
        SH_TRY(o->backend->copy_out(o->device_sums, 0, o->block_sums,
                                    (size_t)n_blocks * sizeof(double)));
    *norm = sqrt(sh_tree_sum(o->block_sums, n_blocks));
out:
    return st;
}

sh_status sh_optim_refresh(sh_optim *o)
{
    sh_status st = SH_OK;

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

/* What one update needs, as plain numbers and pointers that kernels can follow. */
typedef struct update {
    float *params, *states, *first, *second;
    const float *reduce; /* the packed vector */
    float scale, learning_rate, step_size, root_correction;
} update;

static void update_by_sgd(const sh_optim *o, const update *u, const segment *s)
{
    const sh_sgd c = {.scale = u->scale,
                      .decay = s->decay ? o->config.weight_decay : 0.0f,
                      .momentum = o->config.momentum,
                      .learning_rate = u->learning_rate * s->lr_scale};
    float *momentum = u->first != NULL ? u->first + s->begin : NULL;

    o->kernels->sgd(u->params + s->begin, momentum, u->reduce + s->packed, s->end - s->begin, &c);
}

static void update_by_adam(const sh_optim *o, const update *u, const segment *s)
{
    const sh_optim_config *config = &o->config;
    bool is_decoupled = config->kind == SH_OPTIM_ADAMW;
    float decay = s->decay ? config->weight_decay : 0.0f;
    const sh_adam c = {.scale = u->scale,
                       .l2 = is_decoupled ? 0.0f : decay,
                       .shrink =
                           is_decoupled ? 1.0f - u->learning_rate * s->lr_scale * decay : 1.0f,
                       .beta1 = config->beta1,
                       .beta2 = config->beta2,
                       .step_size = u->step_size * s->lr_scale,
                       .root_correction = u->root_correction,
                       .eps = config->eps};

    o->kernels->adam(u->params + s->begin, u->first + s->begin, u->second + s->begin,
                     u->reduce + s->packed, s->end - s->begin, &c);
}

static void update_states(const sh_optim *o, const update *u)
{
    for (int i = 0; i < sh_store_n_slots(o->store); i++) {
        const sh_slot *slot = sh_store_slot(o->store, i);

        if (slot->kind != SH_SLOT_STATE || !slot->trainable) continue;
        o->kernels->blend(u->states + slot->offset,
                          u->reduce + sh_trained_place(&o->trained, o->store, i), slot->n_elems,
                          slot->momentum);
    }
}

static void update_average(const sh_optim *o, const update *u)
{
    float share = 1.0f - o->config.ema;

    if (o->config.ema <= 0) return;
    o->kernels->approach(device(o, o->arenas[SH_OPTIM_EMA_PARAMS]), u->params,
                         sh_store_n_params(o->store), share);
    o->kernels->approach(device(o, o->arenas[SH_OPTIM_EMA_STATES]), u->states,
                         sh_store_n_states(o->store), share);
}

void sh_optim_update(sh_optim *o, const float *reduce, double norm, double learning_rate,
                     int64_t step)
{
    const sh_optim_config *c = &o->config;
    double t = (double)(step + 1);
    update u = {.params = device(o, sh_store_params(o->store)),
                .states = device(o, sh_store_states(o->store)),
                .first = device(o, o->arenas[SH_OPTIM_FIRST]),
                .second = device(o, o->arenas[SH_OPTIM_SECOND]),
                .reduce = reduce,
                .scale = c->clip_norm > 0 && norm > c->clip_norm ? (float)(c->clip_norm / norm) : 1,
                .learning_rate = (float)learning_rate,
                .step_size = (float)(learning_rate / (1.0 - pow(c->beta1, t))),
                .root_correction = (float)sqrt(1.0 - pow(c->beta2, t))};

    enter(o);
    for (int i = 0; i < o->n_segments; i++) {
        if (c->kind == SH_OPTIM_SGD)
            update_by_sgd(o, &u, &o->segments[i]);
        else
            update_by_adam(o, &u, &o->segments[i]);
    }
    update_states(o, &u);
    update_average(o, &u);
    leave(o);
}
