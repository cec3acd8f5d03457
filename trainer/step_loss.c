// SPDX-License-Identifier: Apache-2.0
#include "trainer/step_loss.h"

#include <math.h>
#include <stdlib.h>

/* What the losses of a batch add up to; 0 where there is none. */
typedef struct sums {
    sh_loss_stats metric;
    sh_class_stats classes;
} sums;

struct sh_step_loss {
    const sh_step_config *config;
    sh_comm *comm;
    sh_loss *metric;          /* NULL: none over embeddings */
    sh_class_loss *classes;   /* NULL: no classification */
    const sh_backend *memory; /* in which both work; NULL: the host's */

    int64_t row_begin, row_end;          /* own rows of the batch */
    int64_t dims[SH_STEP_N_OUTPUTS];     /* columns of each; 0: absent */
    float *rows[SH_STEP_N_OUTPUTS];      /* [batch, dims]: embeddings of all, logits of own rows */
    float *gradients[SH_STEP_N_OUTPUTS]; /* [own rows, dims] */
    uint8_t *choices;                    /* [batch] choices of all ranks */
    sh_class_row *class_rows;            /* [batch] of all ranks */
    sums *sums;
    /* In `memory`, the same. What stands above is then what ranks exchange, and sums, page-locked,
     * what is fetched. */
    sh_buffer *kept_rows[SH_STEP_N_OUTPUTS], *kept_gradients[SH_STEP_N_OUTPUTS];
    sh_buffer *kept_choices, *kept_class_rows, *kept_sums;
    int64_t number; /* of the step */
    int32_t *labels, *fish;
    size_t *rows_of_rank, *bytes; /* per rank; bytes: of the gather under way */
};

/* ---- in the program ---- */

/* Without a classification, the embedding as it will be used. With one, both stand on the features
 * before the neck and before they are scaled, the logits with the neck between (Luo et al. 2019).
 */
void sh_step_loss_build(const sh_step_config *config, sh_program *program, sh_value features,
                        sh_step_outputs *out)
{
    const sh_step_config *c = config;
    sh_head head = c->head;

    for (int i = 0; i < SH_STEP_N_OUTPUTS; i++) out->of[i] = out->cotangents[i] = SH_NO_VALUE;
    if (c->classes.kind != SH_CLASS_NONE) head.bn_neck = head.normalize = false;
    sh_value x = sh_net_head(program, c->net, features, &head);

    if (c->classes.kind != SH_CLASS_NONE) {
        sh_value necked = c->head.bn_neck ? sh_net_neck(program, x) : x;
        sh_value logits = sh_class_head(program, necked, "loss.weight", &c->classes);

        out->of[SH_STEP_LOGITS] = sh_program_output(program, "logits", logits);
        if (c->head.normalize && !c->only_classes) x = sh_net_normalize(program, x);
    }
    if (!c->only_classes) out->of[SH_STEP_EMBEDDING] = sh_program_output(program, "embedding", x);
}

sh_status sh_step_loss_differentiate(sh_program *program, sh_step_outputs *outputs)
{
    sh_status st = SH_OK;
    sh_value values[SH_STEP_N_OUTPUTS], cotangents[SH_STEP_N_OUTPUTS];
    int n = 0;

    for (int i = 0; i < SH_STEP_N_OUTPUTS; i++)
        if (outputs->of[i] != SH_NO_VALUE) values[n++] = outputs->of[i];
    SH_TRY(sh_program_differentiate_all(program, n, values, SH_NO_VALUE, cotangents, NULL));
    while (n-- > 0)
        for (int i = 0; i < SH_STEP_N_OUTPUTS; i++)
            if (outputs->of[i] == values[n]) outputs->cotangents[i] = cotangents[n];
out:
    return st;
}

/* Between a value of a shard's program and rows of the batch, from row `first` on. */
static sh_status copy_kept(const sh_step_loss *loss, sh_program *program, sh_buffer *arena,
                           sh_value v, sh_buffer *rows, int64_t first, bool into_program)
{
    sh_status st = SH_OK;
    const sh_tensor_desc desc = sh_program_desc(program, v);
    size_t offset = (size_t)(first * desc.dims[1]) * sizeof(float);
    void *row = loss->memory->device_ptr(rows, offset), *value = NULL;

    SH_TRY(sh_program_place(program, arena, v, &value));
    SH_TRY(loss->memory->device->copy(SH_QUEUE_COMPUTE, into_program ? value : row,
                                      into_program ? row : value, desc.dims[0] * desc.dims[1]));
out:
    return st;
}

sh_status sh_step_loss_read(sh_step_loss *loss, sh_program *program, const sh_step_outputs *outputs,
                            sh_buffer *arena, int64_t first_slot)
{
    sh_status st = SH_OK;

    for (int i = 0; i < SH_STEP_N_OUTPUTS; i++) {
        sh_value v = outputs->of[i];

        if (v == SH_NO_VALUE) continue;
        if (loss->memory != NULL)
            SH_TRY(copy_kept(loss, program, arena, v, loss->kept_rows[i], first_slot, false));
        else
            SH_TRY(sh_program_read(program, arena, v, loss->rows[i] + first_slot * loss->dims[i]));
    }
out:
    return st;
}

sh_status sh_step_loss_write(const sh_step_loss *loss, sh_program *program,
                             const sh_step_outputs *outputs, int64_t first_slot, sh_buffer *arena)
{
    sh_status st = SH_OK;
    int64_t own_row = first_slot - loss->row_begin;

    for (int i = 0; i < SH_STEP_N_OUTPUTS; i++) {
        sh_value v = outputs->cotangents[i];

        if (v == SH_NO_VALUE) continue;
        if (loss->memory != NULL)
            SH_TRY(copy_kept(loss, program, arena, v, loss->kept_gradients[i], own_row, true));
        else
            SH_TRY(
                sh_program_write(program, arena, v, loss->gradients[i] + own_row * loss->dims[i]));
    }
out:
    return st;
}

/* ---- over the batch ---- */

static sh_status reserve_batch(sh_step_loss *loss)
{
    sh_status st = SH_OK;
    size_t batch = (size_t)loss->config->batch;
    size_t choice = loss->metric != NULL ? sh_loss_choice_bytes(loss->metric) : 0;
    size_t n_ranks = (size_t)sh_comm_size(loss->comm);

    for (int i = 0; i < SH_STEP_N_OUTPUTS; i++) {
        size_t row = (size_t)loss->dims[i] * sizeof(float);

        loss->rows[i] = malloc(batch * row + 1);
        loss->gradients[i] = malloc(batch * row + 1);
        SH_CHECK(loss->rows[i] && loss->gradients[i], SH_ERR_NO_MEMORY,
                 "%lld numbers of each of %zu images", (long long)loss->dims[i], batch);
    }
    SH_TRY(sh_backend_alloc_host(loss->config->backend, sizeof(*loss->sums), (void **)&loss->sums));
    *loss->sums = (sums){0};
    loss->choices = malloc(batch * choice + 1);
    loss->class_rows = malloc(batch * sizeof(*loss->class_rows));
    loss->labels = malloc(batch * sizeof(int32_t));
    loss->fish = malloc(batch * sizeof(int32_t));
    loss->rows_of_rank = calloc(n_ranks, sizeof(size_t));
    loss->bytes = calloc(n_ranks, sizeof(size_t));
    SH_CHECK(loss->choices && loss->class_rows && loss->labels && loss->fish &&
                 loss->rows_of_rank && loss->bytes,
             SH_ERR_NO_MEMORY, "losses of %zu images", batch);
out:
    return st;
}

static sh_status reserve_kept(sh_step_loss *loss)
{
    sh_status st = SH_OK;
    size_t batch = (size_t)loss->config->batch;
    size_t choice = loss->metric != NULL ? sh_loss_choice_bytes(loss->metric) : 0;

    for (int i = 0; i < SH_STEP_N_OUTPUTS; i++) {
        size_t row = (size_t)loss->dims[i] * sizeof(float);

        if (row == 0) continue;
        SH_TRY(loss->memory->alloc(batch * row, &loss->kept_rows[i]));
        SH_TRY(loss->memory->alloc(batch * row, &loss->kept_gradients[i]));
    }
    SH_TRY(loss->memory->alloc(sizeof(*loss->sums), &loss->kept_sums));
    if (choice > 0) SH_TRY(loss->memory->alloc(batch * choice, &loss->kept_choices));
    if (loss->classes != NULL)
        SH_TRY(loss->memory->alloc(batch * sizeof(sh_class_row), &loss->kept_class_rows));
out:
    return st;
}

/* Where the losses of a step work: all of them in the backend's memory, or all in the host's. */
static const sh_backend *memory_of(const sh_step_config *config)
{
    const sh_backend *memory = config->backend;

    if (!config->only_classes) memory = sh_loss_memory(memory);
    if (config->classes.kind != SH_CLASS_NONE) memory = sh_class_loss_memory(memory);
    return memory;
}

/* Which rows of the batch each rank's shards are. */
static void count_rows(sh_step_loss *loss)
{
    const sh_step_config *c = loss->config;
    int n_ranks = sh_comm_size(loss->comm);

    for (int r = 0; r < n_ranks; r++) {
        int begin, end;
        int64_t first, last, unused;

        sh_shards_of_rank(c->n_shards, n_ranks, r, &begin, &end);
        sh_items_of_shard(c->batch, c->n_shards, begin, &first, &unused);
        sh_items_of_shard(c->batch, c->n_shards, end - 1, &unused, &last);
        loss->rows_of_rank[r] = (size_t)(last - first);
        if (r == sh_comm_rank(loss->comm)) {
            loss->row_begin = first;
            loss->row_end = last;
        }
    }
}

sh_status sh_step_loss_create(const sh_step_config *config, sh_comm *comm,
                              const sh_program *program, const sh_step_outputs *outputs,
                              sh_step_loss **out)
{
    sh_status st = SH_OK;
    sh_step_loss *loss = calloc(1, sizeof(*loss));

    SH_CHECK(loss != NULL, SH_ERR_NO_MEMORY, "loss of a training step");
    loss->config = config;
    loss->comm = comm;
    for (int i = 0; i < SH_STEP_N_OUTPUTS; i++)
        if (outputs->of[i] != SH_NO_VALUE)
            loss->dims[i] = sh_program_desc(program, outputs->of[i]).dims[1];
    loss->memory = memory_of(config);
    if (!config->only_classes)
        SH_TRY(sh_loss_create(&config->loss, loss->memory, config->batch,
                              loss->dims[SH_STEP_EMBEDDING], &loss->metric));
    if (config->classes.kind != SH_CLASS_NONE)
        SH_TRY(sh_class_loss_create(&config->classes, loss->memory, config->class_weights,
                                    config->class_fish, config->batch, &loss->classes));
    SH_TRY(reserve_batch(loss));
    if (loss->memory != NULL) SH_TRY(reserve_kept(loss));
    count_rows(loss);
    *out = loss;
    loss = NULL;
out:
    sh_step_loss_destroy(&loss);
    return st;
}

void sh_step_loss_destroy(sh_step_loss **loss)
{
    sh_step_loss *l = *loss;

    if (l == NULL) return;
    for (int i = 0; i < SH_STEP_N_OUTPUTS && l->memory != NULL; i++) {
        l->memory->free(&l->kept_rows[i]);
        l->memory->free(&l->kept_gradients[i]);
    }
    if (l->memory != NULL) {
        l->memory->free(&l->kept_choices);
        l->memory->free(&l->kept_class_rows);
        l->memory->free(&l->kept_sums);
    }
    sh_backend_free_host(l->config->backend, l->sums);
    sh_loss_destroy(&l->metric);
    sh_class_loss_destroy(&l->classes);
    for (int i = 0; i < SH_STEP_N_OUTPUTS; i++) {
        free(l->rows[i]);
        free(l->gradients[i]);
    }
    free(l->choices);
    free(l->class_rows);
    free(l->labels);
    free(l->fish);
    free(l->rows_of_rank);
    free(l->bytes);
    free(l);
    *loss = NULL;
}

/* Bring the rows [batch] of `stride` bytes of all ranks together. */
static sh_status gather_rows(sh_step_loss *loss, void *rows, size_t stride)
{
    for (int r = 0; r < sh_comm_size(loss->comm); r++)
        loss->bytes[r] = loss->rows_of_rank[r] * stride;
    return sh_comm_gather_all(loss->comm, (char *)rows + (size_t)loss->row_begin * stride, rows,
                              loss->bytes);
}

/* The same for rows that may be kept in the backend's memory. */
static sh_status gather(sh_step_loss *loss, sh_buffer *kept, void *rows, size_t stride)
{
    sh_status st = SH_OK;
    size_t begin = (size_t)loss->row_begin * stride, end = (size_t)loss->row_end * stride;

    if (kept != NULL && sh_comm_size(loss->comm) == 1) goto out;
    if (kept != NULL)
        SH_TRY(loss->memory->copy_out(kept, begin, (char *)rows + begin, end - begin));
    SH_TRY(gather_rows(loss, rows, stride));
    if (kept != NULL)
        SH_TRY(loss->memory->copy_in(kept, 0, rows, (size_t)loss->config->batch * stride));
out:
    return st;
}

/* Where the loss finds rows. */
static void *place_of(const sh_step_loss *loss, sh_buffer *kept, void *rows)
{
    return kept != NULL ? loss->memory->device_ptr(kept, 0) : rows;
}

static float *gradient_of(const sh_step_loss *loss, int output)
{
    return place_of(loss, loss->kept_gradients[output], loss->gradients[output]);
}

static sums *sums_of(const sh_step_loss *loss)
{
    return place_of(loss, loss->kept_sums, loss->sums);
}

static sh_loss_batch batch_of(const sh_step_loss *loss)
{
    return (sh_loss_batch){.embeddings = place_of(loss, loss->kept_rows[SH_STEP_EMBEDDING],
                                                  loss->rows[SH_STEP_EMBEDDING]),
                           .labels = loss->labels,
                           .fish = loss->fish,
                           .n = loss->config->batch,
                           .dim = loss->dims[SH_STEP_EMBEDDING],
                           .step = (uint64_t)loss->number};
}

/* Own logits, and what rows of the batch cost their classes. */
static const float *own_logits(const sh_step_loss *loss)
{
    const float *logits =
        place_of(loss, loss->kept_rows[SH_STEP_LOGITS], loss->rows[SH_STEP_LOGITS]);

    return logits + loss->row_begin * loss->dims[SH_STEP_LOGITS];
}

static sh_class_row *class_rows_of(const sh_step_loss *loss)
{
    return place_of(loss, loss->kept_class_rows, loss->class_rows);
}

/* Are all embeddings of the batch finite? If one is not, neither is the loss over them. */
static sh_status check_rows(const sh_step_loss *loss, sh_step_stats *stats)
{
    sh_status st = SH_OK;
    int64_t dim = loss->dims[SH_STEP_EMBEDDING], n = loss->config->batch * dim, bad = 0;
    float *rows = loss->rows[SH_STEP_EMBEDDING];
    int n_shards = loss->config->n_shards, shard = 0;

    if (isfinite(stats->loss.loss)) goto out;
    if (loss->memory != NULL)
        SH_TRY(loss->memory->copy_out(loss->kept_rows[SH_STEP_EMBEDDING], 0, rows,
                                      (size_t)n * sizeof(float)));
    while (bad < n && isfinite(rows[bad])) bad++;
    if (bad == n) goto out;
    stats->bad = true;
    stats->bad_slot = bad / dim;
    for (int64_t begin, end = 0; end <= stats->bad_slot; shard++)
        sh_items_of_shard(loss->config->batch, n_shards, shard, &begin, &end);
    SH_FAIL(SH_ERR_MISMATCH,
            "step %lld went bad: the embedding of slot %lld is not finite, in shard %d (rank %d)",
            (long long)loss->number, (long long)stats->bad_slot, shard - 1,
            sh_rank_of_shard(n_shards, sh_comm_size(loss->comm), shard - 1));
out:
    return st;
}

bool sh_step_loss_stays(const sh_step_loss *loss)
{
    return loss->memory != NULL;
}

sh_status sh_step_loss_begin(sh_step_loss *loss, int64_t number, const sh_slot_plan *slots)
{
    sh_status st = SH_OK;

    for (int64_t i = 0; i < loss->config->batch; i++) {
        loss->labels[i] = slots[i].label;
        loss->fish[i] = slots[i].fish;
    }
    loss->number = number;
    sh_loss_batch batch = batch_of(loss);

    if (loss->metric != NULL) SH_TRY(sh_loss_begin(loss->metric, &batch));
    if (loss->classes != NULL) SH_TRY(sh_class_loss_begin(loss->classes, loss->labels, batch.n));
out:
    return st;
}

sh_status sh_step_loss_gather(sh_step_loss *loss)
{
    size_t row_bytes = (size_t)loss->dims[SH_STEP_EMBEDDING] * sizeof(float);

    if (loss->metric == NULL) return SH_OK;
    return gather(loss, loss->kept_rows[SH_STEP_EMBEDDING], loss->rows[SH_STEP_EMBEDDING],
                  row_bytes);
}

sh_status sh_step_loss_choose(sh_step_loss *loss)
{
    sh_status st = SH_OK;
    int64_t begin = loss->row_begin, end = loss->row_end;

    if (loss->metric != NULL) {
        size_t choice = sh_loss_choice_bytes(loss->metric);
        char *choices = place_of(loss, loss->kept_choices, loss->choices);
        sh_loss_batch batch = batch_of(loss);

        SH_TRY(sh_loss_choose(loss->metric, &batch, begin, end, choices + (size_t)begin * choice));
    }
    if (loss->classes != NULL)
        SH_TRY(sh_class_loss_choose(loss->classes, own_logits(loss), begin, end,
                                    class_rows_of(loss) + begin));
out:
    return st;
}

sh_status sh_step_loss_exchange(sh_step_loss *loss)
{
    sh_status st = SH_OK;
    size_t choice = loss->metric != NULL ? sh_loss_choice_bytes(loss->metric) : 0;

    if (choice > 0) SH_TRY(gather(loss, loss->kept_choices, loss->choices, choice));
    if (loss->classes != NULL)
        SH_TRY(gather(loss, loss->kept_class_rows, loss->class_rows, sizeof(sh_class_row)));
out:
    return st;
}

sh_status sh_step_loss_apply(sh_step_loss *loss)
{
    sh_status st = SH_OK;
    int64_t begin = loss->row_begin, end = loss->row_end;

    if (loss->metric != NULL) {
        sh_loss_batch batch = batch_of(loss);

        SH_TRY(sh_loss_apply(loss->metric, &batch,
                             place_of(loss, loss->kept_choices, loss->choices), begin, end,
                             &sums_of(loss)->metric, gradient_of(loss, SH_STEP_EMBEDDING)));
    }
    if (loss->classes != NULL)
        SH_TRY(sh_class_loss_apply(loss->classes, class_rows_of(loss), own_logits(loss), begin, end,
                                   loss->config->classification, &sums_of(loss)->classes,
                                   gradient_of(loss, SH_STEP_LOGITS)));
    if (loss->memory != NULL)
        SH_TRY(sh_backend_fetch(loss->memory, loss->kept_sums, 0, loss->sums, sizeof(*loss->sums)));
out:
    return st;
}

sh_optim_loss sh_step_loss_value(const sh_step_loss *loss)
{
    const sums *s = loss->memory != NULL ? sums_of(loss) : NULL;

    if (s == NULL) return (sh_optim_loss){0};
    return (sh_optim_loss){.terms = {&s->metric.loss, &s->classes.loss},
                           .weight = loss->config->classification};
}

sh_status sh_step_loss_judge(const sh_step_loss *loss, sh_step_stats *stats)
{
    sh_status st = SH_OK;

    stats->loss = loss->sums->metric;
    stats->classes = loss->sums->classes;
    /* Every rank has the same numbers, so every rank leaves here together. */
    SH_TRY(check_rows(loss, stats));
    stats->loss.loss += loss->config->classification * stats->classes.loss;
    stats->bad = !isfinite(stats->loss.loss);
    SH_CHECK(!stats->bad, SH_ERR_MISMATCH, "step %lld went bad: its loss is not finite",
             (long long)loss->number);
out:
    return st;
}
