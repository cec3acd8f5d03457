// SPDX-License-Identifier: Apache-2.0
#include "trainer/step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "models/trained.h"
#include "trainer/patterns.h"

enum {
    MAX_SIZES = 2,             /* shards differ by at most one image */
    BUCKET_ELEMS = 512 * 1024, /* 2 MB: large enough to use the wire, small enough to overlap */
    MAX_BUCKETS = 4096,
};

/* What losses are computed from. */
enum { EMBEDDING, LOGITS, N_OUTPUTS };

/* The training program for shards of one size. */
typedef struct sized_program {
    int64_t n_images;
    sh_program *program;
    sh_value image, outputs[N_OUTPUTS], cotangents[N_OUTPUTS]; /* SH_NO_VALUE: not of this loss */
    int ready[MAX_BUCKETS]; /* node after which each bucket is complete */
} sized_program;

struct sh_step {
    sh_step_config config;
    sh_comm *comm;
    sh_store *store;
    sh_optim *optim;
    int64_t optimizer_begin;
    sh_loss *loss;             /* NULL: none over embeddings */
    sh_class_loss *class_loss; /* NULL: no classification */
    sh_reducer *reducer;
    sized_program sizes[MAX_SIZES];
    int n_sizes;

    int shard_begin, shard_end; /* own */
    int64_t row_begin, row_end; /* own rows of the batch */
    int64_t dims[N_OUTPUTS];    /* columns of each; 0: absent */
    bool two_passes;
    sh_buffer **arenas; /* [n_arenas]: one per own shard, or one for all with two passes */
    int n_arenas;
    sh_buffer *reduce;  /* what one shard contributes, in the backend's memory */
    sh_trained trained; /* what of it is exchanged; buckets are parts of the packed vector */
    int64_t bucket_bounds[MAX_BUCKETS + 1];
    int n_buckets;

    float *rows[N_OUTPUTS]; /* [batch, dims]: embeddings of all ranks, logits of the own rows */
    float *gradients[N_OUTPUTS]; /* [own rows, dims] */
    uint8_t *choices;            /* [batch] choices of all ranks */
    sh_class_row *class_rows;    /* [batch] of all ranks */
    int32_t *labels, *fish;
    size_t *rows_of_rank, *bytes; /* per rank; bytes: of the gather under way */
};

sh_status sh_step_configure(const sh_config *c, sh_step_config *out)
{
    sh_status st = SH_OK;
    const char *backend = NULL;
    sh_step_config s = {.dtype = (sh_dtype)c->dtype,
                        .batch = sh_config_batch(c),
                        .n_shards = sh_config_shards(c),
                        .loss = sh_config_loss(c),
                        .classes = sh_config_classes(c),
                        .only_classes = !sh_config_has_metric(c),
                        .classification = sh_config_classification(c),
                        .reduce = (sh_reduce_mode)c->reduce,
                        .passes = (sh_passes)c->passes,
                        .seed = (uint64_t)c->seed,
                        .freeze = c->freeze,
                        .lr_scale = c->optimizer.lr_scale};

    s.optim = (sh_optim_config){.kind = (sh_optim_kind)c->optimizer.kind,
                                .momentum = (float)c->optimizer.momentum,
                                .beta1 = (float)c->optimizer.beta1,
                                .beta2 = (float)c->optimizer.beta2,
                                .eps = (float)c->optimizer.eps,
                                .weight_decay = (float)c->optimizer.weight_decay,
                                .clip_norm = (float)c->optimizer.clip_norm,
                                .ema = (float)c->optimizer.ema};
    SH_TRY(sh_net_find(c->net, &s.net));
    SH_TRY(sh_config_head(c, &s.head));
    SH_TRY(sh_config_size(c, &s.height, &s.width));
    SH_TRY(sh_config_backend(c, &backend));
    SH_TRY(sh_backend_find(backend, &s.backend));
    *out = s;
out:
    return st;
}

/* ---- building ---- */

/* Without a classification, the embedding as it will be used. With one, both stand on the features
 * before the neck and before they are scaled, the logits with the neck between (Luo et al. 2019).
 */
static void build_outputs(const sh_step_config *c, sized_program *s)
{
    sh_program *p = s->program;
    sh_head head = c->head;

    for (int i = 0; i < N_OUTPUTS; i++) s->outputs[i] = s->cotangents[i] = SH_NO_VALUE;
    if (c->classes.kind != SH_CLASS_NONE) head.bn_neck = head.normalize = false;
    sh_value x = sh_net_embedding(p, c->net, s->image, &head);

    if (c->classes.kind != SH_CLASS_NONE) {
        sh_value necked = c->head.bn_neck ? sh_net_neck(p, x) : x;

        s->outputs[LOGITS] =
            sh_program_output(p, "logits", sh_class_head(p, necked, "loss.weight", &c->classes));
        if (c->head.normalize && !c->only_classes) x = sh_net_normalize(p, x);
    }
    if (!c->only_classes) s->outputs[EMBEDDING] = sh_program_output(p, "embedding", x);
}

static sh_status differentiate(sized_program *s)
{
    sh_status st = SH_OK;
    sh_value outputs[N_OUTPUTS], cotangents[N_OUTPUTS];
    int n = 0;

    for (int i = 0; i < N_OUTPUTS; i++)
        if (s->outputs[i] != SH_NO_VALUE) outputs[n++] = s->outputs[i];
    SH_TRY(sh_program_differentiate_all(s->program, n, outputs, SH_NO_VALUE, cotangents, NULL));
    while (n-- > 0)
        for (int i = 0; i < N_OUTPUTS; i++)
            if (s->outputs[i] == outputs[n]) s->cotangents[i] = cotangents[n];
out:
    return st;
}

static sh_status build_program(sh_step *step, int64_t n_images)
{
    sh_status st = SH_OK;
    const sh_step_config *c = &step->config;
    sized_program *s = &step->sizes[step->n_sizes++];
    sh_program_config config = {.backend = c->backend,
                                .store = step->store,
                                .dtype = c->dtype,
                                .training = true,
                                .share = (float)n_images / (float)c->batch,
                                .prefix = ""};

    s->n_images = n_images;
    SH_TRY(sh_program_create(&config, &s->program));
    s->image = sh_program_input(s->program, "image",
                                (int64_t[4]){n_images, c->net->in_channels, c->height, c->width});
    build_outputs(c, s);
    SH_TRY(sh_patterns_mark(c->freeze, c->lr_scale, step->store));
    SH_TRY(differentiate(s));
    SH_TRY(sh_program_plan(s->program));
out:
    return st;
}

static sized_program *program_of(sh_step *step, int shard)
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
    for (int i = 0; i < N_OUTPUTS; i++)
        if (step->sizes[0].outputs[i] != SH_NO_VALUE)
            step->dims[i] =
                sh_program_desc(step->sizes[0].program, step->sizes[0].outputs[i]).dims[1];
    SH_TRY(sh_trained_collect(step->store, &step->trained));
out:
    return st;
}

/* Cut what is exchanged into buckets at slot borders; the statistics are the last bucket, ready
 * first, since the reducer exchanges from the last bucket down, as gradients become ready. */
static void plan_buckets(sh_step *step)
{
    int64_t n_params = step->trained.n_params;
    int64_t begin = 0;
    int n = 0;

    step->bucket_bounds[0] = 0;
    for (int i = 0; i < sh_store_n_slots(step->store); i++) {
        const sh_slot *slot = sh_store_slot(step->store, i);

        int64_t place = sh_trained_place(&step->trained, step->store, i);

        if (slot->kind != SH_SLOT_PARAM || place - begin < BUCKET_ELEMS) continue;
        if (n + 2 >= MAX_BUCKETS) break;
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
}

/* Keep the activations of all own shards where they fit into half of the memory that is free now.
 */
static bool needs_two_passes(const sh_step *step, size_t arena_bytes)
{
    size_t n_own = (size_t)(step->shard_end - step->shard_begin);

    if (step->config.passes != SH_PASSES_AUTO) return step->config.passes == SH_PASSES_TWO;
    return n_own > 1 && arena_bytes * n_own > (size_t)sh_cpu_memory_bytes() / 2 /
                                                  (size_t)sh_comm_local_size(step->comm);
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
    step->two_passes = needs_two_passes(step, bytes);
    step->n_arenas = step->two_passes ? 1 : step->shard_end - step->shard_begin;
    step->arenas = calloc((size_t)step->n_arenas, sizeof(sh_buffer *));
    SH_CHECK(step->arenas != NULL, SH_ERR_NO_MEMORY, "%d arenas", step->n_arenas);
    for (int i = 0; i < step->n_arenas; i++) SH_TRY(backend->alloc(bytes, &step->arenas[i]));
out:
    return st;
}

static sh_status reserve_batch(sh_step *step)
{
    sh_status st = SH_OK;
    int size = sh_comm_size(step->comm);
    size_t batch = (size_t)step->config.batch;
    size_t choice = step->loss != NULL ? sh_loss_choice_bytes(step->loss) : 0;

    for (int i = 0; i < N_OUTPUTS; i++) {
        size_t row = (size_t)step->dims[i] * sizeof(float);

        step->rows[i] = malloc(batch * row + 1);
        step->gradients[i] = malloc(batch * row + 1);
        SH_CHECK(step->rows[i] && step->gradients[i], SH_ERR_NO_MEMORY,
                 "%lld numbers of each of %zu images", (long long)step->dims[i], batch);
    }
    step->choices = malloc(batch * choice + 1);
    step->class_rows = malloc(batch * sizeof(*step->class_rows));
    step->labels = malloc(batch * sizeof(int32_t));
    step->fish = malloc(batch * sizeof(int32_t));
    step->rows_of_rank = calloc((size_t)size, sizeof(size_t));
    step->bytes = calloc((size_t)size, sizeof(size_t));
    SH_CHECK(step->choices && step->class_rows && step->labels && step->fish &&
                 step->rows_of_rank && step->bytes,
             SH_ERR_NO_MEMORY, "losses of %zu images", batch);
    for (int r = 0; r < size; r++) {
        int begin, end;
        int64_t first, last, unused;

        sh_shards_of_rank(step->config.n_shards, size, r, &begin, &end);
        sh_step_slots_of_shard(step, begin, &first, &unused);
        sh_step_slots_of_shard(step, end - 1, &unused, &last);
        step->rows_of_rank[r] = (size_t)(last - first);
        if (r == sh_comm_rank(step->comm)) {
            step->row_begin = first;
            step->row_end = last;
        }
    }
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
    SH_TRY(sh_reducer_create(step->comm, step->config.reduce, step->config.n_shards,
                             step->trained.n, step->bucket_bounds, step->n_buckets,
                             &step->reducer));
out:
    return st;
}

static void tear_down(sh_step *step)
{
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

static sh_status reserve_store(sh_step *step)
{
    sh_status st = SH_OK;
    int64_t n = sh_store_n_params(step->store) + sh_store_n_states(step->store);

    SH_TRY(sh_store_allocate(step->store));
    SH_TRY(step->config.backend->alloc((size_t)n * sizeof(float), &step->reduce));
out:
    return st;
}

sh_status sh_step_create(const sh_step_config *config, sh_comm *comm, sh_step **out)
{
    sh_status st = SH_OK;
    sh_step *step = calloc(1, sizeof(*step));

    SH_CHECK(step != NULL, SH_ERR_NO_MEMORY, "training step");
    step->config = *config;
    step->comm = comm;
    SH_CHECK(config->n_shards >= sh_comm_size(comm), SH_ERR_USAGE,
             "%d ranks but only %d shards: each rank needs at least one; use shards=%d (the result "
             "then differs from that of %d shards) or fewer ranks",
             sh_comm_size(comm), config->n_shards, sh_comm_size(comm), config->n_shards);
    sh_shards_of_rank(config->n_shards, sh_comm_size(comm), sh_comm_rank(comm), &step->shard_begin,
                      &step->shard_end);
    SH_TRY(sh_store_create(config->backend, &step->store));
    SH_TRY(build(step));
    SH_TRY(reserve_store(step));
    if (!config->only_classes)
        SH_TRY(sh_loss_create(&config->loss, config->batch, step->dims[EMBEDDING], &step->loss));
    if (config->classes.kind != SH_CLASS_NONE)
        SH_TRY(sh_class_loss_create(&config->classes, config->class_weights, config->class_fish,
                                    config->batch, &step->class_loss));
    SH_TRY(reserve_batch(step));
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
    if (s->reduce != NULL) s->config.backend->free(&s->reduce);
    sh_optim_destroy(&s->optim);
    sh_loss_destroy(&s->loss);
    sh_class_loss_destroy(&s->class_loss);
    sh_store_destroy(&s->store);
    for (int i = 0; i < N_OUTPUTS; i++) {
        free(s->rows[i]);
        free(s->gradients[i]);
    }
    free(s->choices);
    free(s->class_rows);
    free(s->labels);
    free(s->fish);
    free(s->rows_of_rank);
    free(s->bytes);
    free(s);
    *step = NULL;
}

sh_status sh_step_freeze(sh_step *step, const char *freeze, int64_t optimizer_begin)
{
    sh_status st = SH_OK;
    sh_tensor_desc before = sh_step_input_desc(step, step->shard_begin), after;

    tear_down(step);
    step->config.freeze = freeze;
    step->optimizer_begin = optimizer_begin;
    SH_TRY(build(step));
    SH_TRY(sh_optim_refresh(step->optim));
    after = sh_step_input_desc(step, step->shard_begin);
    SH_CHECK(memcmp(&before, &after, sizeof(before)) == 0, SH_ERR_INTERNAL,
             "freezing changed how images are laid out");
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

int sh_step_passes(const sh_step *step)
{
    return step->two_passes ? 2 : 1;
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
    const sized_program *s = program_of((sh_step *)step, shard);

    return sh_program_desc(s->program, s->image);
}

sh_program *sh_step_program(sh_step *step, int shard)
{
    return program_of(step, shard)->program;
}

static sh_buffer *arena_of(sh_step *step, int shard)
{
    return step->arenas[step->two_passes ? 0 : shard - step->shard_begin];
}

sh_run_args sh_step_run_args(sh_step *step, int shard)
{
    int64_t begin, end;

    sh_step_slots_of_shard(step, shard, &begin, &end);
    return (sh_run_args){.arena = arena_of(step, shard),
                         .reduce = step->reduce,
                         .scalars = {.seed = step->config.seed, .first_slot = begin}};
}

/* ---- running ---- */

/* Images in, embeddings and logits out: one own shard's forward. */
static sh_status forward_shard(sh_step *step, int shard, int64_t number, sh_step_pixels pixels,
                               void *context, bool read_outputs)
{
    sh_status st = SH_OK;
    sized_program *s = program_of(step, shard);
    sh_run_args args = sh_step_run_args(step, shard);
    const void *images = NULL;

    args.scalars.step = (uint64_t)number;
    SH_TRY(pixels(context, shard, &images));
    SH_TRY(sh_program_write(s->program, args.arena, s->image, images));
    SH_TRY(sh_program_run(s->program, SH_PHASE_FORWARD, &args));
    for (int i = 0; i < N_OUTPUTS && read_outputs; i++)
        if (s->outputs[i] != SH_NO_VALUE)
            SH_TRY(sh_program_read(s->program, args.arena, s->outputs[i],
                                   step->rows[i] + args.scalars.first_slot * step->dims[i]));
out:
    return st;
}

/* Bring the rows [batch] of `stride` bytes of all ranks together. */
static sh_status gather_rows(sh_step *step, void *rows, size_t stride)
{
    for (int r = 0; r < sh_comm_size(step->comm); r++)
        step->bytes[r] = step->rows_of_rank[r] * stride;
    return sh_comm_gather_all(step->comm, (char *)rows + (size_t)step->row_begin * stride, rows,
                              step->bytes);
}

/* Gather all embeddings, mine, and compute the gradient of the own rows. */
static sh_status metric_loss(sh_step *step, int64_t number, sh_loss_stats *stats)
{
    sh_status st = SH_OK;
    int64_t begin = step->row_begin, end = step->row_end;
    size_t choice = sh_loss_choice_bytes(step->loss);
    sh_loss_batch batch = {.embeddings = step->rows[EMBEDDING],
                           .labels = step->labels,
                           .fish = step->fish,
                           .n = step->config.batch,
                           .dim = step->dims[EMBEDDING],
                           .step = (uint64_t)number};

    SH_TRY(gather_rows(step, step->rows[EMBEDDING], (size_t)batch.dim * sizeof(float)));
    SH_TRY(sh_loss_choose(step->loss, &batch, begin, end, step->choices + (size_t)begin * choice));
    if (choice > 0) SH_TRY(gather_rows(step, step->choices, choice));
    SH_TRY(sh_loss_apply(step->loss, &batch, step->choices, begin, end, stats,
                         step->gradients[EMBEDDING]));
out:
    return st;
}

/* What the own rows cost, gathered, and the gradient of the own logits. */
static sh_status class_loss(sh_step *step, sh_class_stats *stats)
{
    sh_status st = SH_OK;
    int64_t begin = step->row_begin, end = step->row_end, n = step->config.batch;
    const float *logits = step->rows[LOGITS] + begin * step->dims[LOGITS];
    float *gradient = step->gradients[LOGITS], weight = step->config.classification;

    SH_TRY(sh_class_loss_choose(step->class_loss, step->labels, n, logits, begin, end,
                                step->class_rows + begin));
    SH_TRY(gather_rows(step, step->class_rows, sizeof(*step->class_rows)));
    SH_TRY(sh_class_loss_apply(step->class_loss, step->labels, n, step->class_rows, logits, begin,
                               end, stats, gradient));
    for (int64_t i = 0; i < (end - begin) * step->dims[LOGITS]; i++) gradient[i] *= weight;
out:
    return st;
}

static sh_status global_loss(sh_step *step, int64_t number, const sh_slot_plan *slots,
                             sh_step_stats *stats)
{
    sh_status st = SH_OK;

    for (int64_t i = 0; i < step->config.batch; i++) {
        step->labels[i] = slots[i].label;
        step->fish[i] = slots[i].fish;
    }
    if (step->loss != NULL) SH_TRY(metric_loss(step, number, &stats->loss));
    if (step->class_loss != NULL) SH_TRY(class_loss(step, &stats->classes));
    stats->loss.loss += step->config.classification * stats->classes.loss;
    /* Every rank has the same numbers, so every rank leaves here together. */
    SH_CHECK(isfinite(stats->loss.loss), SH_ERR_MISMATCH,
             "the loss is not finite at step %lld: lower optimizer.lr, add schedule.warmup_steps "
             "or optimizer.clip_norm",
             (long long)number);
out:
    return st;
}

/* Hands finished buckets of the last own shard to the reducer while its backward goes on. */
typedef struct hand_over {
    sh_step *step;
    const sized_program *size;
    float *leaf;
    int next_bucket;
} hand_over;

/* Elements [begin, end) of the packed vector, from wherever they stand in the arena. */
static sh_status copy_range(sh_step *step, float *leaf, int64_t begin, int64_t end)
{
    sh_status st = SH_OK;

    for (int r = 0; r < step->trained.n_ranges; r++) {
        const sh_trained_range *range = &step->trained.ranges[r];
        int64_t from = begin > range->packed ? begin : range->packed;
        int64_t to = end < range->packed + range->n ? end : range->packed + range->n;

        if (from >= to) continue;
        SH_TRY(step->config.backend->copy_out(
            step->reduce, (size_t)(range->offset + from - range->packed) * sizeof(float),
            leaf + from, (size_t)(to - from) * sizeof(float)));
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

        SH_TRY(copy_range(h->step, h->leaf, bounds[b], bounds[b + 1]));
        SH_TRY(sh_reducer_bucket_done(h->step->reducer, b));
    }
    SH_TRY(sh_reducer_poll(h->step->reducer));
out:
    return st;
}

static sh_status backward_shard(sh_step *step, int shard, int64_t number)
{
    sh_status st = SH_OK;
    sized_program *s = program_of(step, shard);
    sh_run_args args = sh_step_run_args(step, shard);
    hand_over h = {.step = step,
                   .size = s,
                   .leaf = sh_reducer_leaf(step->reducer),
                   .next_bucket = step->n_buckets - 1};
    int64_t own_row = (int64_t)args.scalars.first_slot - step->row_begin;
    bool last = shard == step->shard_end - 1;

    args.scalars.step = (uint64_t)number;
    if (last) {
        args.after_node = after_node;
        args.context = &h;
    }
    for (int i = 0; i < N_OUTPUTS; i++)
        if (s->cotangents[i] != SH_NO_VALUE)
            SH_TRY(sh_program_write(s->program, args.arena, s->cotangents[i],
                                    step->gradients[i] + own_row * step->dims[i]));
    SH_TRY(sh_program_run(s->program, SH_PHASE_BACKWARD, &args));
    SH_TRY(copy_range(step, h.leaf, 0,
                      last ? step->bucket_bounds[h.next_bucket + 1] : step->trained.n));
    SH_TRY(sh_reducer_leaf_done(step->reducer));
out:
    return st;
}

sh_status sh_step_run(sh_step *step, int64_t number, double learning_rate,
                      const sh_slot_plan *slots, sh_step_pixels pixels, void *context,
                      sh_step_stats *stats)
{
    sh_status st = SH_OK;
    const float *total = NULL;
    double t0 = sh_clock_seconds(), t1, t2;

    *stats = (sh_step_stats){0};
    for (int shard = step->shard_begin; shard < step->shard_end; shard++)
        SH_TRY(forward_shard(step, shard, number, pixels, context, true));
    t1 = sh_clock_seconds();
    stats->seconds_forward = t1 - t0;
    SH_TRY(global_loss(step, number, slots, stats));
    t2 = sh_clock_seconds();
    stats->seconds_loss = t2 - t1;

    SH_TRY(sh_reducer_begin(step->reducer));
    for (int shard = step->shard_begin; shard < step->shard_end; shard++) {
        /* The second pass repeats the forward nodes. Running statistics are contributed by the
         * backward phase, so the first pass leaves no trace. */
        if (step->two_passes) SH_TRY(forward_shard(step, shard, number, pixels, context, false));
        SH_TRY(backward_shard(step, shard, number));
    }
    t1 = sh_clock_seconds();
    stats->seconds_backward = t1 - t2;
    SH_TRY(sh_reducer_finish(step->reducer, &total));
    t2 = sh_clock_seconds();
    stats->seconds_reduce = t2 - t1;

    stats->grad_norm = sh_optim_norm(step->optim, total);
    SH_CHECK(isfinite(stats->grad_norm), SH_ERR_MISMATCH,
             "the gradient is not finite at step %lld: lower optimizer.lr, add "
             "schedule.warmup_steps or optimizer.clip_norm",
             (long long)number);
    SH_TRY(sh_optim_update(step->optim, total, stats->grad_norm, learning_rate,
                           number - step->optimizer_begin));
    stats->seconds_update = sh_clock_seconds() - t2;
out:
    return st;
}
