// SPDX-License-Identifier: Apache-2.0
#include "trainer/batches.h"

#include <stdlib.h>
#include <string.h>

#include "base/position.h"
#include "base/rng.h"

struct sh_batches {
    sh_batches_config config;
    const sh_device *device; /* that reads the input by itself; NULL: there is none */
    int64_t size;            /* slots of a batch */
    int shard_begin, shard_end;
    sh_loader *loader;                     /* NULL: features */
    sh_slot_plan *plans[SH_BATCHES_AHEAD]; /* [size] of steps n, n + 1 */
    uint8_t **input[SH_BATCHES_AHEAD];     /* per own shard */
    int n_arrived[SH_BATCHES_AHEAD];       /* its first shards, whose images are there */
    int slot;                              /* which of the batches in memory was begun */
};

static int slot_of(int64_t step)
{
    return (int)(step % SH_BATCHES_AHEAD);
}

static sh_status input_alloc(const sh_batches *b, size_t n_bytes, uint8_t **out)
{
    sh_status st = SH_OK;
    void *memory = NULL;

    if (b->device != NULL)
        SH_TRY(b->device->alloc_host(n_bytes, &memory));
    else
        memory = malloc(n_bytes);
    SH_CHECK(memory != NULL, SH_ERR_NO_MEMORY, "a shard's images, %zu bytes", n_bytes);
    *out = memory;
out:
    return st;
}

static void input_free(const sh_batches *b, uint8_t *memory)
{
    if (b->device != NULL)
        b->device->free_host(memory);
    else
        free(memory);
}

static sh_status reserve(sh_batches *b)
{
    sh_status st = SH_OK;
    int n_shards = b->shard_end - b->shard_begin;

    for (int k = 0; k < SH_BATCHES_AHEAD; k++) {
        b->plans[k] = calloc((size_t)b->size, sizeof(sh_slot_plan));
        b->input[k] = calloc((size_t)n_shards, sizeof(uint8_t *));
        SH_CHECK(b->plans[k] && b->input[k], SH_ERR_NO_MEMORY, "batch of %lld", (long long)b->size);
        for (int i = 0; i < n_shards; i++) {
            sh_tensor_desc desc = sh_step_input_desc(b->config.step, b->shard_begin + i);

            SH_TRY(input_alloc(b, sh_tensor_bytes(&desc), &b->input[k][i]));
        }
    }
out:
    return st;
}

static sh_status request(sh_batches *b, int64_t step)
{
    sh_status st = SH_OK;
    int slot = slot_of(step);

    b->n_arrived[slot] = 0;
    sh_sampler_plan(b->config.sampler, step, b->plans[slot]);
    for (int shard = b->shard_begin; shard < b->shard_end && b->loader != NULL; shard++) {
        int64_t begin, end;

        sh_step_slots_of_shard(b->config.step, shard, &begin, &end);
        SH_TRY(sh_loader_request(b->loader, b->plans[slot] + begin, end - begin,
                                 b->input[slot][shard - b->shard_begin]));
    }
out:
    return st;
}

sh_status sh_batches_create(const sh_batches_config *config, int64_t step, sh_batches **out)
{
    sh_status st = SH_OK;
    sh_batches *b = calloc(1, sizeof(*b));

    SH_CHECK(b != NULL, SH_ERR_NO_MEMORY, "batches");
    b->config = *config;
    b->device = sh_step_get_config(config->step)->backend->device;
    b->size = sh_step_get_config(config->step)->batch;
    sh_step_own_shards(config->step, &b->shard_begin, &b->shard_end);
    SH_TRY(reserve(b));
    if (config->features == NULL) {
        sh_tensor_desc desc = sh_step_input_desc(config->step, b->shard_begin);

        b->config.loader.dtype = desc.dtype;
        b->config.loader.layout = desc.layout;
        SH_TRY(sh_loader_create(&b->config.loader, config->dataset, &b->loader));
    }
    for (int64_t i = 0; i < SH_BATCHES_AHEAD; i++) SH_TRY(request(b, step + i));
    *out = b;
    b = NULL;
out:
    sh_batches_destroy(&b);
    return st;
}

void sh_batches_destroy(sh_batches **batches)
{
    sh_batches *b = *batches;

    if (b == NULL) return;
    sh_loader_destroy(&b->loader); /* its threads write into the memory below */
    for (int k = 0; k < SH_BATCHES_AHEAD; k++) {
        for (int i = 0; b->input[k] != NULL && i < b->shard_end - b->shard_begin; i++)
            input_free(b, b->input[k][i]);
        free(b->input[k]);
        free(b->plans[k]);
    }
    free(b);
    *batches = NULL;
}

const sh_slot_plan *sh_batches_begin(sh_batches *b, int64_t step)
{
    b->slot = slot_of(step);
    return b->plans[b->slot];
}

/* The rows of a shard, each of the view that its slot draws. */
static void gather_rows(const sh_batches *b, int shard, uint8_t *rows)
{
    const sh_step_config *step = sh_step_get_config(b->config.step);
    sh_tensor_desc desc = sh_step_input_desc(b->config.step, shard);
    size_t row_bytes = sh_tensor_bytes(&desc) / (size_t)desc.dims[0];
    int64_t begin, end;

    sh_step_slots_of_shard(b->config.step, shard, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        const sh_slot_plan *slot = &b->plans[b->slot][i];
        sh_rng_key key = sh_rng_make(step->seed, SH_RNG_AUGMENT, slot->draw, 1);
        int view = (int)sh_rng_below(key, 0, (uint64_t)b->config.n_views);

        memcpy(rows + (size_t)(i - begin) * row_bytes,
               sh_features_row(b->config.features, slot->crop, view), row_bytes);
    }
}

/* Requests complete in order: wait until the first n shards of a batch are there, those of older
 * batches being there already. A second pass finds them so. */
static sh_status wait_for(sh_batches *b, int slot, int n)
{
    sh_status st = SH_OK;

    for (; b->n_arrived[slot] < n; b->n_arrived[slot]++) SH_TRY(sh_loader_wait(b->loader));
out:
    return st;
}

sh_status sh_batches_input(void *batches, int shard, const void **input)
{
    sh_status st = SH_OK;
    sh_batches *b = batches;
    int index = shard - b->shard_begin;

    sh_position_enter(SH_AT_FILES, "input of shard %d", shard);

    if (b->loader == NULL)
        gather_rows(b, shard, b->input[b->slot][index]);
    else
        SH_TRY(wait_for(b, b->slot, index + 1));
    *input = b->input[b->slot][index];
out:
    sh_position_leave();
    return st;
}

sh_status sh_batches_end(sh_batches *b, int64_t step)
{
    return request(b, step + SH_BATCHES_AHEAD);
}

sh_status sh_batches_settle(sh_batches *b, sh_loader_stats *stats)
{
    sh_status st = SH_OK;

    SH_CHECK(b->loader != NULL, SH_ERR_USAGE,
             "shallow training loads no images while it trains: shallow.views=0");
    /* The oldest batch stands in the slot after that of the last one that was begun. */
    for (int i = 1; i <= SH_BATCHES_AHEAD; i++)
        SH_TRY(wait_for(b, (b->slot + i) % SH_BATCHES_AHEAD, b->shard_end - b->shard_begin));
    sh_loader_get_stats(b->loader, stats);
out:
    return st;
}
