// SPDX-License-Identifier: Apache-2.0
#include "trainer/infer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "trainer/feed.h"

enum { BLOCKS_AHEAD = 2 }; /* blocks that the loader fills while one is computed */

struct sh_infer {
    sh_infer_config config;
    sh_store *store;
    sh_program *program;
    sh_value input, output;
    sh_buffer *arena;
    sh_tensor_desc desc; /* of a block of images, or of features */
    int64_t dim, n_images;
    bool has_weights; /* the arena holds what is made of the store's weights */
    uint8_t *host;    /* a block of images or features that were made here, as desc says */
    float *block;     /* [SH_INFER_BLOCK, dim] */
};

sh_status sh_infer_configure(const sh_config *config, int threads, sh_infer_config *out)
{
    sh_status st = SH_OK;

    *out = (sh_infer_config){.dtype = (sh_dtype)config->dtype,
                             .views = (int)config->embedding.views,
                             .graphs = config->graphs};
    SH_TRY(sh_net_find(config->net, &out->net));
    SH_TRY(sh_config_head(config, &out->head));
    SH_TRY(sh_config_loader(config, false, &out->loader));
    out->loader.threads = threads; /* and no cache: every crop is read once */
out:
    return st;
}

sh_augment sh_infer_view(int view)
{
    return (sh_augment){.flip = view & 1 ? 1 : 0, .flip_vertical = view & 2 ? 1 : 0};
}

static sh_status build_program(sh_infer *infer)
{
    sh_status st = SH_OK;
    const sh_infer_config *c = &infer->config;
    sh_program_config config = {.backend = sh_store_backend(infer->store),
                                .store = infer->store,
                                .dtype = c->dtype,
                                .training = false,
                                .unfolded = c->unfolded,
                                .share = 1,
                                .prefix = ""};
    int64_t dims[4] = {SH_INFER_BLOCK, c->net->in_channels, c->loader.height, c->loader.width};

    SH_TRY(sh_program_create(&config, &infer->program));
    infer->input = sh_program_input(infer->program, "image", dims);
    sh_value x = sh_net_features(infer->program, c->net, infer->input, &c->head);

    if (c->part == SH_INFER_HEAD) {
        sh_program_cut(infer->program, x);
        infer->input = x;
    }
    if (c->part != SH_INFER_FEATURES) x = sh_net_head(infer->program, c->net, x, &c->head);
    infer->output = sh_program_output(infer->program, "embedding", x);
    SH_TRY(sh_program_plan(infer->program));
    infer->desc = sh_program_desc(infer->program, infer->input);
    infer->dim = sh_program_desc(infer->program, infer->output).dims[1];
out:
    return st;
}

sh_status sh_infer_create(const sh_infer_config *config, sh_store *store, sh_infer **out)
{
    sh_status st = SH_OK;
    sh_infer *infer = calloc(1, sizeof(*infer));

    SH_CHECK(config->views == 1 || config->views == 2 || config->views == 4, SH_ERR_USAGE,
             "%d views of a crop: 1, 2 or 4", config->views);
    SH_CHECK(infer != NULL, SH_ERR_NO_MEMORY, "inference");
    infer->config = *config;
    infer->store = store;
    SH_TRY(build_program(infer));
    if (sh_store_params(store) == NULL) SH_TRY(sh_store_allocate(store));
    SH_TRY(sh_store_backend(store)->alloc(sh_program_arena_bytes(infer->program), &infer->arena));
    infer->host = calloc(1, sh_tensor_bytes(&infer->desc));
    SH_CHECK(infer->host != NULL, SH_ERR_NO_MEMORY, "images for inference");
    infer->block = malloc((size_t)(SH_INFER_BLOCK * infer->dim) * sizeof(float));
    SH_CHECK(infer->block != NULL, SH_ERR_NO_MEMORY, "embeddings of a block");
    *out = infer;
    infer = NULL;
out:
    sh_infer_destroy(&infer);
    return st;
}

void sh_infer_destroy(sh_infer **infer)
{
    sh_infer *i = *infer;

    if (i == NULL) return;
    if (i->arena != NULL) sh_store_backend(i->store)->free(&i->arena);
    sh_program_destroy(&i->program);
    free(i->host);
    free(i->block);
    free(i);
    *infer = NULL;
}

void sh_infer_refresh(sh_infer *infer)
{
    infer->has_weights = false;
}

static sh_status take_weights(sh_infer *infer)
{
    sh_status st = SH_OK;
    const sh_run_args args = {.arena = infer->arena};

    if (!infer->has_weights) SH_TRY(sh_program_run(infer->program, SH_PHASE_CONSTANTS, &args));
    infer->has_weights = true;
out:
    return st;
}

int sh_infer_dim(const sh_infer *infer)
{
    return (int)infer->dim;
}

int64_t sh_infer_n_images(const sh_infer *infer)
{
    return infer->n_images;
}

/* One block of images or features, [SH_INFER_BLOCK, ...], to infer->block; n of them count. */
static sh_status run_block(sh_infer *infer, const sh_input *input, int64_t n)
{
    sh_status st = SH_OK;
    sh_run_args args = {.arena = infer->arena, .recorded = infer->config.graphs};

    SH_TRY(sh_input_put(input, sh_store_backend(infer->store), infer->program, infer->arena,
                        infer->input));
    SH_TRY(sh_program_run(infer->program, SH_PHASE_FORWARD, &args));
    SH_TRY(sh_program_read(infer->program, infer->arena, infer->output, infer->block));
    if (infer->config.part != SH_INFER_HEAD) infer->n_images += n;
out:
    return st;
}

/* Ask for block `b` of a view: its crops, the last one repeated to fill the block. */
static sh_status request_block(sh_feed *feed, int view, const int64_t *crops, int64_t n, int64_t b)
{
    sh_slot_plan slots[SH_INFER_BLOCK] = {0};

    for (int64_t i = 0; i < SH_INFER_BLOCK; i++) {
        int64_t k = b * SH_INFER_BLOCK + i;

        slots[i].crop = crops[k < n ? k : n - 1];
        slots[i].draw = (uint64_t)view << 40 | (uint64_t)slots[i].crop;
    }
    return sh_feed_request(feed, (int)(b % BLOCKS_AHEAD), slots);
}

sh_status sh_infer_run_view(sh_infer *infer, const sh_dataset *dataset, const sh_augment *augment,
                            int view, const int64_t *crops, int64_t n, sh_infer_sink sink,
                            void *context)
{
    sh_status st = SH_OK;
    sh_feed *feed = NULL;
    const sh_tensor_desc blocks[BLOCKS_AHEAD] = {infer->desc, infer->desc};
    sh_feed_config config = {.backend = sh_store_backend(infer->store),
                             .dataset = dataset,
                             .loader = infer->config.loader,
                             .blocks = blocks,
                             .n_places = BLOCKS_AHEAD};
    int64_t n_blocks = (n + SH_INFER_BLOCK - 1) / SH_INFER_BLOCK;

    if (n == 0) goto out;
    SH_TRY(take_weights(infer));
    config.loader.augment = *augment;
    SH_TRY(sh_feed_create(&config, &feed));
    for (int64_t b = 0; b < n_blocks && b < BLOCKS_AHEAD; b++)
        SH_TRY(request_block(feed, view, crops, n, b));
    for (int64_t b = 0; b < n_blocks; b++) {
        int64_t first = b * SH_INFER_BLOCK;
        int64_t m = n - first < SH_INFER_BLOCK ? n - first : SH_INFER_BLOCK;
        sh_input input;

        SH_TRY(sh_feed_wait(feed, (int)(b % BLOCKS_AHEAD), &input));
        SH_TRY(sh_feed_send(feed));
        SH_TRY(run_block(infer, &input, m));
        if (b + BLOCKS_AHEAD < n_blocks)
            SH_TRY(request_block(feed, view, crops, n, b + BLOCKS_AHEAD));
        SH_TRY(sink(context, first, m, infer->block));
    }
out:
    sh_feed_destroy(&feed);
    return st;
}

/* ---- views of a crop, added up ---- */

/* Add n embeddings to sums; the first view begins them. */
static void add_rows(const sh_infer *infer, int view, int64_t n, const float *rows, float *sums)
{
    for (int64_t i = 0; i < n * infer->dim; i++) sums[i] = view == 0 ? rows[i] : sums[i] + rows[i];
}

static void finish_views(const sh_infer *infer, int64_t n, float *sums)
{
    if (infer->config.views == 1) return;
    for (int64_t i = 0; i < n; i++) {
        float *row = sums + i * infer->dim;
        double scale = infer->config.views;

        if (infer->config.head.normalize) {
            scale = 0;
            for (int64_t k = 0; k < infer->dim; k++) scale += (double)row[k] * row[k];
            scale = sqrt(scale);
        }
        for (int64_t k = 0; k < infer->dim; k++) row[k] = scale > 0 ? (float)(row[k] / scale) : 0;
    }
}

/* The view under way of all crops. */
typedef struct summing {
    const sh_infer *infer;
    int view;
    int64_t n;
    const char *progress;
    double start;
    float *sums;
} summing;

static sh_status add_block(void *context, int64_t first, int64_t m, const float *rows)
{
    const summing *a = context;
    int views = a->infer->config.views;

    add_rows(a->infer, a->view, m, rows, a->sums + first * a->infer->dim);
    if (a->progress != NULL && first / SH_INFER_BLOCK % 8 == 7) {
        double rate = (double)(first + m) / (sh_clock_seconds() - a->start);
        int64_t done = a->view * a->n + first + m, all = views * a->n;

        sh_log_progress("%s: %lld of %lld crops, %.0f crops/s, %.0f s left", a->progress,
                        (long long)done, (long long)all, rate, (double)(all - done) / rate);
    }
    return SH_OK;
}

sh_status sh_infer_run(sh_infer *infer, const sh_dataset *dataset, const int64_t *crops, int64_t n,
                       const char *progress, float *out)
{
    sh_status st = SH_OK;

    if (n == 0) goto out;
    for (int view = 0; view < infer->config.views; view++) {
        const sh_augment augment = sh_infer_view(view);
        summing a = {infer, view, n, progress, sh_clock_seconds(), out};

        SH_TRY(sh_infer_run_view(infer, dataset, &augment, view, crops, n, add_block, &a));
    }
    finish_views(infer, n, out);
    if (progress != NULL) sh_log_progress_end();
out:
    return st;
}

sh_status sh_infer_run_rows(sh_infer *infer, int64_t n, sh_infer_row row, const void *context,
                            float *out)
{
    sh_status st = SH_OK;
    size_t row_bytes = sh_tensor_bytes(&infer->desc) / SH_INFER_BLOCK;
    const sh_input input = {.host = infer->host};

    SH_TRY(take_weights(infer));
    for (int view = 0; view < infer->config.views; view++) {
        for (int64_t first = 0; first < n; first += SH_INFER_BLOCK) {
            int64_t m = n - first < SH_INFER_BLOCK ? n - first : SH_INFER_BLOCK;

            for (int64_t i = 0; i < m; i++)
                memcpy(infer->host + (size_t)i * row_bytes, row(context, first + i, view),
                       row_bytes);
            SH_TRY(run_block(infer, &input, m));
            add_rows(infer, view, m, infer->block, out + first * infer->dim);
        }
    }
    finish_views(infer, n, out);
out:
    return st;
}

sh_status sh_infer_run_image(sh_infer *infer, const sh_image *image, float *out)
{
    sh_status st = SH_OK;

    SH_TRY(take_weights(infer));
    for (int view = 0; view < infer->config.views; view++) {
        sh_loader_config config = infer->config.loader;
        const sh_input input = {.host = infer->host};

        config.augment = sh_infer_view(view);
        config.dtype = infer->desc.dtype;
        config.layout = infer->desc.layout;
        SH_TRY(sh_loader_render(&config, image, 0, infer->host, SH_INFER_BLOCK, 0));
        SH_TRY(run_block(infer, &input, 1));
        add_rows(infer, view, 1, infer->block, out);
    }
    finish_views(infer, 1, out);
out:
    return st;
}
