// SPDX-License-Identifier: Apache-2.0
#include "models/optim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/tree.h"
#include "models/trained.h"

enum {
    NORM_BLOCK = 4096,   /* fixed, so that the norm does not depend on threads */
    UPDATE_BLOCK = 16384 /* elements of one task of the update */
};

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
    double *block_sums; /* [ceil(n_params / NORM_BLOCK)] scratch of the norm */
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

sh_status sh_optim_create(const sh_optim_config *config, sh_store *store, sh_optim **out)
{
    sh_status st = SH_OK;
    sh_optim *o = calloc(1, sizeof(*o));
    int64_t n_blocks = (sh_store_n_params(store) + NORM_BLOCK - 1) / NORM_BLOCK;

    SH_CHECK(o != NULL, SH_ERR_NO_MEMORY, "optimizer");
    o->config = *config;
    o->store = store;
    o->backend = sh_store_backend(store);
    SH_TRY(sh_optim_refresh(o));
    o->block_sums = calloc((size_t)n_blocks + 1, sizeof(*o->block_sums));
    SH_CHECK(o->block_sums != NULL, SH_ERR_NO_MEMORY, "optimizer norm");
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

/* Vectors of the widest kind there is; each of the eight sums adds in the same order in all of
 * them.
 */
#if defined(__x86_64__)
#define EACH_WIDTH __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define EACH_WIDTH
#endif

/* Sum of squares of up to NORM_BLOCK elements. */
EACH_WIDTH
static double sum_squares(const float *x, int64_t n)
{
    double lanes[8] = {0};
    int64_t i = 0;

    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++) lanes[k] += (double)x[i + k] * (double)x[i + k];
    for (int k = 0; i + k < n; k++) lanes[k] += (double)x[i + k] * (double)x[i + k];
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
           ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

double sh_optim_norm(const sh_optim *o, const float *reduce)
{
    int64_t n = o->trained.n_params;
    int64_t n_blocks = (n + NORM_BLOCK - 1) / NORM_BLOCK;

#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < n_blocks; b++) {
        int64_t begin = b * NORM_BLOCK, end = begin + NORM_BLOCK < n ? begin + NORM_BLOCK : n;

        o->block_sums[b] = sum_squares(reduce + begin, end - begin);
    }
    return sqrt(sh_tree_sum(o->block_sums, n_blocks));
}

/* What one update needs, as plain numbers and device pointers. */
typedef struct update {
    float *params, *states, *first, *second, *ema, *ema_states;
    const float *reduce; /* such that reduce[i] is the gradient of params[i] */
    float scale, learning_rate, step_size, root_correction;
    const sh_optim_config *config;
} update;

static void update_sgd(const update *u, int64_t begin, int64_t end, float decay)
{
    float momentum = u->config->momentum;

    for (int64_t i = begin; i < end; i++) {
        float g = u->reduce[i] * u->scale + decay * u->params[i];

        if (u->first != NULL) g = u->first[i] = momentum * u->first[i] + g;
        u->params[i] -= u->learning_rate * g;
    }
}

/* Constants of one update by Adam. */
typedef struct adam {
    float scale, l2, shrink, beta1, beta2, step_size, root_correction, eps;
} adam;

/* The same bits in every width: each operation rounds once, and none is contracted. Vectors need
 * the constants as a copy: what the pointers write could lie in the original. */
EACH_WIDTH
static void update_adam(float *restrict p, float *restrict m, float *restrict v,
                        const float *restrict grad, int64_t n, const adam constants)
{
    const adam c = constants;

    for (int64_t i = 0; i < n; i++) {
        float g = grad[i] * c.scale + c.l2 * p[i];

        m[i] = c.beta1 * m[i] + (1.0f - c.beta1) * g;
        v[i] = c.beta2 * v[i] + (1.0f - c.beta2) * (g * g);
        p[i] = p[i] * c.shrink - c.step_size * m[i] / (sqrtf(v[i]) / c.root_correction + c.eps);
    }
}

static adam adam_of(const update *u, float decay)
{
    const sh_optim_config *c = u->config;
    bool decoupled = c->kind == SH_OPTIM_ADAMW;

    return (adam){.scale = u->scale,
                  .l2 = decoupled ? 0.0f : decay,
                  .shrink = decoupled ? 1.0f - u->learning_rate * decay : 1.0f,
                  .beta1 = c->beta1,
                  .beta2 = c->beta2,
                  .step_size = u->step_size,
                  .root_correction = u->root_correction,
                  .eps = c->eps};
}

static void update_segments(const sh_optim *o, const update *u)
{
    for (int s = 0; s < o->n_segments; s++) {
        const segment *seg = &o->segments[s];
        float decay = seg->decay ? o->config.weight_decay : 0.0f;
        update own = *u;

        own.reduce = u->reduce + (seg->packed - seg->begin);
        own.learning_rate *= seg->lr_scale;
        own.step_size *= seg->lr_scale;
#pragma omp parallel for schedule(static)
        for (int64_t begin = seg->begin; begin < seg->end; begin += UPDATE_BLOCK) {
            int64_t end = begin + UPDATE_BLOCK < seg->end ? begin + UPDATE_BLOCK : seg->end;

            if (o->config.kind == SH_OPTIM_SGD)
                update_sgd(&own, begin, end, decay);
            else
                update_adam(own.params + begin, own.first + begin, own.second + begin,
                            own.reduce + begin, end - begin, adam_of(&own, decay));
        }
    }
}

static void update_states(const sh_optim *o, const update *u)
{
    for (int s = 0; s < sh_store_n_slots(o->store); s++) {
        const sh_slot *slot = sh_store_slot(o->store, s);

        if (slot->kind != SH_SLOT_STATE || !slot->trainable) continue;
        const float *delta = u->reduce + sh_trained_place(&o->trained, o->store, s);
        float *state = u->states + slot->offset;

        for (int64_t i = 0; i < slot->n_elems; i++)
            state[i] = (1.0f - slot->momentum) * state[i] + slot->momentum * delta[i];
    }
}

/* In this form an average that has reached its value stays there to the last bit, and with it what
 * is frozen. */
static void update_average(float *average, const float *value, int64_t n, float decay)
{
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) average[i] += (1.0f - decay) * (value[i] - average[i]);
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
    memcpy(device(o, o->arenas[SH_OPTIM_EMA_PARAMS]), device(o, sh_store_params(o->store)),
           (size_t)sh_store_n_params(o->store) * sizeof(float));
    memcpy(device(o, o->arenas[SH_OPTIM_EMA_STATES]), device(o, sh_store_states(o->store)),
           (size_t)sh_store_n_states(o->store) * sizeof(float));
    leave(o);
    return SH_OK;
}

sh_status sh_optim_update(sh_optim *o, const float *reduce, double norm, double learning_rate,
                          int64_t step)
{
    const sh_optim_config *c = &o->config;
    double t = (double)(step + 1);
    update u = {.params = device(o, sh_store_params(o->store)),
                .states = device(o, sh_store_states(o->store)),
                .first = device(o, o->arenas[SH_OPTIM_FIRST]),
                .second = device(o, o->arenas[SH_OPTIM_SECOND]),
                .ema = device(o, o->arenas[SH_OPTIM_EMA_PARAMS]),
                .ema_states = device(o, o->arenas[SH_OPTIM_EMA_STATES]),
                .reduce = reduce,
                .scale = c->clip_norm > 0 && norm > c->clip_norm ? (float)(c->clip_norm / norm) : 1,
                .learning_rate = (float)learning_rate,
                .step_size = (float)(learning_rate / (1.0 - pow(c->beta1, t))),
                .root_correction = (float)sqrt(1.0 - pow(c->beta2, t)),
                .config = c};

    enter(o);
    update_segments(o, &u);
    update_states(o, &u);
    if (c->ema > 0) {
        update_average(u.ema, u.params, sh_store_n_params(o->store), c->ema);
        update_average(u.ema_states, u.states, sh_store_n_states(o->store), c->ema);
    }
    leave(o);
    return SH_OK;
}
