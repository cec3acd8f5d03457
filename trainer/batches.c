// SPDX-License-Identifier: Apache-2.0
#include "trainer/batches.h"

#include <stdlib.h>
#include <string.h>

#include "base/position.h"
#include "base/rng.h"

struct sh_batches {
    sh_batches_config config;
    int64_t size; /* slots of a batch */
    int shard_begin, shard_end;
    sh_feed *feed;                         /* of images: a place per batch and own shard, or NULL */
    void **rows;                           /* of features: per own shard, or NULL */
    sh_slot_plan *plans[SH_BATCHES_AHEAD]; /* [size] of steps n, n + 1 */
    int slot;                              /* which of the batches in memory was begun */
};

static int slot_of(int64_t step)
{
    return (int)(step % SH_BATCHES_AHEAD);
}

static int n_own(const sh_batches *b)
{
    return b->shard_end - b->shard_begin;
}

static int place_of(const sh_batches *b, int slot, int shard)
{
    return slot * n_own(b) + shard - b->shard_begin;
}

static const sh_backend *backend_of(const sh_batches *b)
{
    return sh_step_get_config(b->config.step)->backend;
}

static sh_status reserve_rows(sh_batches *b)
{
    sh_status st = SH_OK;

    b->rows = calloc((size_t)n_own(b), sizeof(*b->rows));
    SH_CHECK(b->rows != NULL, SH_ERR_NO_MEMORY, "features of %d shards", n_own(b));
    for (int i = 0; i < n_own(b); i++) {
        sh_tensor_desc desc = sh_step_input_desc(b->config.step, b->shard_begin + i);

        SH_TRY(sh_backend_alloc_host(backend_of(b), sh_tensor_bytes(&desc), &b->rows[i]));
    }
out:
    return st;
}

static void free_rows(sh_batches *b)
{
    for (int i = 0; b->rows != NULL && i < n_own(b); i++)
        sh_backend_free_host(backend_of(b), b->rows[i]);
    free(b->rows);
}

static sh_status open_feed(sh_batches *b)
{
    sh_status st = SH_OK;
    int n_places = SH_BATCHES_AHEAD * n_own(b);
    sh_tensor_desc *blocks = calloc((size_t)n_places, sizeof(*blocks));
    const sh_feed_config config = {.backend = backend_of(b),
                                   .dataset = b->config.dataset,
                                   .loader = b->config.loader,
                                   .blocks = blocks,
                                   .n_places = n_places};

    SH_CHECK(blocks != NULL, SH_ERR_NO_MEMORY, "batches of %d shards", n_own(b));
    for (int i = 0; i < n_places; i++)
        blocks[i] = sh_step_input_desc(b->config.step, b->shard_begin + i % n_own(b));
    SH_TRY(sh_feed_create(&config, &b->feed));
out:
    free(blocks);
    return st;
}

static sh_status request(sh_batches *b, int64_t step)
{
    sh_status st = SH_OK;
    int slot = slot_of(step);

    sh_sampler_plan(b->config.sampler, step, b->plans[slot]);
    for (int shard = b->shard_begin; shard < b->shard_end && b->feed != NULL; shard++) {
        int64_t begin, end;

        sh_step_slots_of_shard(b->config.step, shard, &begin, &end);
        SH_TRY(sh_feed_request(b->feed, place_of(b, slot, shard), b->plans[slot] + begin));
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
    b->size = sh_step_get_config(config->step)->batch;
    sh_step_own_shards(config->step, &b->shard_begin, &b->shard_end);
    for (int k = 0; k < SH_BATCHES_AHEAD; k++) {
        b->plans[k] = calloc((size_t)b->size, sizeof(sh_slot_plan));
        SH_CHECK(b->plans[k] != NULL, SH_ERR_NO_MEMORY, "batch of %lld", (long long)b->size);
    }
    SH_TRY(config->features != NULL ? reserve_rows(b) : open_feed(b));
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
    sh_feed_destroy(&b->feed);
    free_rows(b);
    for (int k = 0; k < SH_BATCHES_AHEAD; k++) free(b->plans[k]);
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

sh_status sh_batches_input(void *batches, int shard, sh_input *input)
{
    sh_status st = SH_OK;
    sh_batches *b = batches;

    sh_position_enter(SH_AT_FILES, "input of shard %d", shard);
    if (b->feed == NULL) {
        *input = (sh_input){.host = b->rows[shard - b->shard_begin]};
        gather_rows(b, shard, b->rows[shard - b->shard_begin]);
        goto out;
    }
    SH_TRY(sh_feed_wait(b->feed, place_of(b, b->slot, shard), input));
    /* The next batch travels while this one is computed. */
    if (shard == b->shard_end - 1) SH_TRY(sh_feed_send(b->feed));
out:
    sh_position_leave();
    return st;
}

sh_status sh_batches_end(sh_batches *b, int64_t step)
{
    return request(b, step + SH_BATCHES_AHEAD);
}

sh_status sh_batches_settle(sh_batches *b)
{
    sh_status st = SH_OK;

    SH_CHECK(b->feed != NULL, SH_ERR_USAGE,
             "shallow training loads no images while it trains: shallow.views=0");
    SH_TRY(sh_feed_settle(b->feed));
out:
    return st;
}

void sh_batches_get_stats(const sh_batches *b, sh_loader_stats *out)
{
    *out = (sh_loader_stats){0};
    if (b->feed != NULL) sh_feed_get_stats(b->feed, out);
}
