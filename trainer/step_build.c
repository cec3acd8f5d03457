// SPDX-License-Identifier: Apache-2.0
/* A training step is made here: programs, buckets, memory. trainer/step.c runs it. */
#include <stdlib.h>

#include "base/cpu.h"
#include "trainer/patterns.h"
#include "trainer/step_state.h"

enum {
    BUCKET_ELEMS = 512 * 1024, /* 2 MB: large enough to use the wire, small enough to overlap */
    DEVICE_BUCKET_ELEMS = 4 * 1024 * 1024, /* links between devices are faster, and a bucket costs
                                              the host some calls */
};

/* What makes the features is read once: nothing of it may be trained then. */
static sh_status check_frozen(const sh_step *step)
{
    sh_status st = SH_OK;

    for (int i = 0; i < step->n_feature_slots; i++)
        SH_CHECK(!sh_store_slot(step->store, i)->trainable, SH_ERR_USAGE,
                 "shallow training keeps what the network makes of each crop, but %s is trained: "
                 "freeze all but the head (freeze=*,!head.*,!loss.*), or train without "
                 "shallow.views",
                 sh_store_slot(step->store, i)->name);
out:
    return st;
}

static sh_status build_program(sh_step *step, int64_t n_images)
{
    sh_status st = SH_OK;
    const sh_step_config *c = &step->config;
    sh_sized_program *s = &step->sizes[step->n_sizes++];
    sh_program_config config = {.backend = c->backend,
                                .store = step->store,
                                .dtype = c->dtype,
                                .training = true,
                                .share = (float)n_images / (float)c->batch,
                                .prefix = ""};

    s->n_images = n_images;
    SH_TRY(sh_program_create(&config, &s->program));
    s->input = sh_program_input(s->program, "image",
                                (int64_t[4]){n_images, c->net->in_channels, c->height, c->width});
    sh_value features = sh_net_features(s->program, c->net, s->input, &c->head);

    if (step->n_feature_slots == 0) step->n_feature_slots = sh_store_n_slots(step->store);
    if (c->shallow) {
        sh_program_cut(s->program, features);
        s->input = features;
    }
    sh_step_loss_build(c, s->program, features, &s->outputs);
    SH_TRY(sh_patterns_mark(c->freeze, c->lr_scale, step->store));
    if (c->shallow) SH_TRY(check_frozen(step));
    SH_TRY(sh_step_loss_differentiate(s->program, &s->outputs));
    SH_TRY(sh_program_plan(s->program));
out:
    return st;
}

sh_sized_program *sh_step_program_of(sh_step *step, int shard)
{
    int64_t begin, end;

    sh_step_slots_of_shard(step, shard, &begin, &end);
    return step->sizes[0].n_images == end - begin ? &step->sizes[0] : &step->sizes[1];
}

static sh_status build_programs(sh_step *step)
{
    sh_status st = SH_OK;

    /* All sizes of the batch, not only the own ones: every rank must find the same slots. */
    for (int shard = 0; shard < step->config.n_shards; shard++) {
        int64_t begin, end;
        bool known = false;

        sh_step_slots_of_shard(step, shard, &begin, &end);
        for (int i = 0; i < step->n_sizes; i++)
            known = known || step->sizes[i].n_images == end - begin;
        if (!known) SH_TRY(build_program(step, end - begin));
    }
    SH_TRY(sh_trained_collect(step->store, &step->trained));
out:
    return st;
}

/* Buckets go from the last one down, each after its own node and those of the buckets before. */
static void find_stops(sh_sized_program *s, int n_buckets)
{
    int last = -1;

    s->n_stops = 0;
    for (int b = n_buckets - 1; b >= 0; b--) {
        if (s->ready[b] <= last) continue;
        s->stops[s->n_stops++] = last = s->ready[b];
    }
}

/* Cut what is exchanged into buckets at slot borders; the statistics are the last bucket, ready
 * first, since the reducer exchanges from the last bucket down, as gradients become ready. */
static void plan_buckets(sh_step *step)
{
    int64_t n_params = step->trained.n_params;
    int64_t begin = 0, wanted = step->device != NULL ? DEVICE_BUCKET_ELEMS : BUCKET_ELEMS;
    int n = 0;

    step->bucket_bounds[0] = 0;
    for (int i = 0; i < sh_store_n_slots(step->store); i++) {
        const sh_slot *slot = sh_store_slot(step->store, i);

        int64_t place = sh_trained_place(&step->trained, step->store, i);

        if (slot->kind != SH_SLOT_PARAM || place - begin < wanted) continue;
        if (n + 2 >= SH_STEP_MAX_BUCKETS) break;
        begin = place;
        step->bucket_bounds[++n] = begin;
    }
    step->bucket_bounds[++n] = n_params;
    if (step->trained.n > n_params) step->bucket_bounds[++n] = step->trained.n;
    step->n_buckets = n;
    for (int s = 0; s < step->n_sizes; s++)
        for (int b = 0; b < n; b++) step->sizes[s].ready[b] = -1;
    for (int i = 0; i < sh_store_n_slots(step->store); i++) {
        int64_t place = sh_trained_place(&step->trained, step->store, i);
        int b = 0;

        if (place < 0) continue;
        while (place >= step->bucket_bounds[b + 1]) b++;
        for (int s = 0; s < step->n_sizes; s++) {
            int node = sh_program_ready_node(step->sizes[s].program, i);

            if (node > step->sizes[s].ready[b]) step->sizes[s].ready[b] = node;
        }
    }
    for (int s = 0; s < step->n_sizes; s++) find_stops(&step->sizes[s], n);
}

/* Keep the activations of all own shards where they fit into half of the memory that is free now:
 * the device's, or this rank's share of the host's. */
static sh_status choose_passes(sh_step *step, size_t arena_bytes)
{
    sh_status st = SH_OK;
    const sh_device *device = step->config.backend->device;
    size_t n_own = (size_t)(step->shard_end - step->shard_begin);
    size_t room = (size_t)sh_cpu_memory_bytes() / (size_t)sh_comm_local_size(step->comm);

    if (device != NULL) SH_TRY(device->free_bytes(&room));
    step->two_passes =
        step->config.passes == SH_PASSES_TWO ||
        (step->config.passes == SH_PASSES_AUTO && n_own > 1 && arena_bytes * n_own > room / 2);
out:
    return st;
}

static sh_status reserve_arenas(sh_step *step)
{
    sh_status st = SH_OK;
    const sh_backend *backend = step->config.backend;
    size_t bytes = 0;

    for (int i = 0; i < step->n_sizes; i++) {
        size_t b = sh_program_arena_bytes(step->sizes[i].program);

        if (b > bytes) bytes = b;
    }
    SH_TRY(choose_passes(step, bytes));
    step->n_arenas = step->two_passes ? 1 : step->shard_end - step->shard_begin;
    step->arenas = calloc((size_t)step->n_arenas, sizeof(sh_buffer *));
    SH_CHECK(step->arenas != NULL, SH_ERR_NO_MEMORY, "%d arenas", step->n_arenas);
    for (int i = 0; i < step->n_arenas; i++) SH_TRY(backend->alloc(bytes, &step->arenas[i]));
out:
    return st;
}

/* Everything that depends on which parameters are trained. */
static sh_status build(sh_step *step)
{
    sh_status st = SH_OK;

    SH_TRY(build_programs(step));
    plan_buckets(step);
    SH_TRY(reserve_arenas(step));
    SH_TRY(sh_reducer_create(step->comm, step->device, step->config.reduce, step->config.n_shards,
                             step->trained.n, step->bucket_bounds, step->n_buckets,
                             &step->reducer));
out:
    return st;
}

static void tear_down(sh_step *step)
{
    sh_replays_clear(&step->replays, step->config.backend);
    for (int i = 0; i < step->n_arenas && step->arenas != NULL; i++)
        step->config.backend->free(&step->arenas[i]);
    free(step->arenas);
    step->arenas = NULL;
    step->n_arenas = 0;
    sh_reducer_destroy(&step->reducer);
    sh_trained_clear(&step->trained);
    for (int i = 0; i < step->n_sizes; i++) sh_program_destroy(&step->sizes[i].program);
    step->n_sizes = 0;
}

static sh_status reserve_scalars(sh_step *step)
{
    sh_status st = SH_OK;
    const sh_backend *backend = step->config.backend;
    size_t n_bytes = (size_t)(step->shard_end - step->shard_begin) * sizeof(*step->next_scalars);

    SH_TRY(backend->alloc(n_bytes, &step->scalars));
    SH_TRY(sh_backend_alloc_host(backend, n_bytes, (void **)&step->next_scalars));
out:
    return st;
}

static sh_status reserve_store(sh_step *step)
{
    sh_status st = SH_OK;
    const sh_backend *backend = step->config.backend;
    int64_t n = sh_store_n_params(step->store) + sh_store_n_states(step->store);

    SH_TRY(sh_store_allocate(step->store));
    SH_TRY(backend->alloc((size_t)n * sizeof(float), &step->reduce));
    if (backend->optim != NULL && step->device == NULL)
        SH_TRY(backend->alloc((size_t)n * sizeof(float), &step->sums));
out:
    return st;
}

sh_status sh_step_survey(const sh_step_config *config)
{
    sh_status st = SH_OK;
    sh_step *step = calloc(1, sizeof(*step));

    SH_CHECK(step != NULL, SH_ERR_NO_MEMORY, "training step");
    step->config = *config;
    step->config.freeze = "";
    step->config.shallow = false;
    SH_TRY(sh_store_create(config->backend, &step->store));
    SH_TRY(build_programs(step));
out:
    sh_step_destroy(&step);
    return st;
}

sh_status sh_step_create(const sh_step_config *config, sh_comm *comm, sh_step **out)
{
    sh_status st = SH_OK;
    sh_step *step = calloc(1, sizeof(*step));

    SH_CHECK(step != NULL, SH_ERR_NO_MEMORY, "training step");
    step->config = *config;
    step->comm = comm;
    if (sh_comm_sums_in(comm, config->backend->device)) step->device = config->backend->device;
    SH_CHECK(config->n_shards >= sh_comm_size(comm), SH_ERR_USAGE,
             "%d ranks but only %d shards: each rank needs at least one; use shards=%d (the result "
             "then differs from that of %d shards) or fewer ranks",
             sh_comm_size(comm), config->n_shards, sh_comm_size(comm), config->n_shards);
    sh_shards_of_rank(config->n_shards, sh_comm_size(comm), sh_comm_rank(comm), &step->shard_begin,
                      &step->shard_end);
    SH_TRY(sh_store_create(config->backend, &step->store));
    SH_TRY(build(step));
    SH_TRY(reserve_store(step));
    SH_TRY(reserve_scalars(step));
    SH_TRY(sh_step_loss_create(&step->config, comm, step->sizes[0].program, &step->sizes[0].outputs,
                               &step->loss));
    SH_TRY(sh_optim_create(&config->optim, step->store, &step->optim));
    *out = step;
    step = NULL;
out:
    sh_step_destroy(&step);
    return st;
}

void sh_step_destroy(sh_step **step)
{
    sh_step *s = *step;

    if (s == NULL) return;
    tear_down(s);
    sh_backend_free_host(s->config.backend, s->next_scalars);
    s->config.backend->free(&s->scalars);
    s->config.backend->free(&s->reduce);
    s->config.backend->free(&s->sums);
    sh_optim_destroy(&s->optim);
    sh_step_loss_destroy(&s->loss);
    sh_store_destroy(&s->store);
    free(s);
    *step = NULL;
}

sh_status sh_step_freeze(sh_step *step, const char *freeze, bool shallow, int64_t optimizer_begin)
{
    sh_status st = SH_OK;

    tear_down(step);
    step->config.freeze = freeze;
    step->config.shallow = shallow;
    step->optimizer_begin = optimizer_begin;
    SH_TRY(build(step));
    SH_TRY(sh_optim_refresh(step->optim));
out:
    return st;
}

/* ---- looking ---- */

sh_store *sh_step_store(sh_step *step)
{
    return step->store;
}

sh_optim *sh_step_optim(sh_step *step)
{
    return step->optim;
}

const sh_step_config *sh_step_get_config(const sh_step *step)
{
    return &step->config;
}

int sh_step_n_feature_slots(const sh_step *step)
{
    return step->n_feature_slots;
}

int64_t sh_step_n_images(const sh_step *step)
{
    return step->n_images;
}

void sh_step_exchanged(const sh_step *step, int64_t *n_elems, int *n_buckets)
{
    *n_elems = step->trained.n;
    *n_buckets = step->n_buckets;
}

void sh_step_own_shards(const sh_step *step, int *begin, int *end)
{
    *begin = step->shard_begin;
    *end = step->shard_end;
}

void sh_step_slots_of_shard(const sh_step *step, int shard, int64_t *begin, int64_t *end)
{
    sh_items_of_shard(step->config.batch, step->config.n_shards, shard, begin, end);
}

sh_tensor_desc sh_step_input_desc(const sh_step *step, int shard)
{
    const sh_sized_program *s = sh_step_program_of((sh_step *)step, shard);

    return sh_program_desc(s->program, s->input);
}

sh_program *sh_step_program(sh_step *step, int shard)
{
    return sh_step_program_of(step, shard)->program;
}

static sh_buffer *arena_of(sh_step *step, int shard)
{
    return step->arenas[step->two_passes ? 0 : shard - step->shard_begin];
}

sh_run_args sh_step_run_args(sh_step *step, int shard)
{
    size_t offset = (size_t)(shard - step->shard_begin) * sizeof(sh_run_scalars);

    return (sh_run_args){.arena = arena_of(step, shard),
                         .reduce = step->reduce,
                         .recorded = step->config.graphs,
                         .scalars = step->config.backend->device_ptr(step->scalars, offset)};
}
