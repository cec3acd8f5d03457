// SPDX-License-Identifier: Apache-2.0
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "dataio/pack.h"
#include "dataio/synth.h"

enum { BLOCK = 256, PATH_BYTES = 4096 };

/* One image, drawn and encoded, waiting to be written in order. */
typedef struct drawn {
    sh_synth_truth truth;
    uint8_t *data;
    size_t n_bytes;
    sh_hash128 pixels; /* as a reader will decode them */
} drawn;

/* A block of images, and the share of one thread: every n_threads-th. */
typedef struct share {
    const sh_synth_config *config;
    drawn *block;
    int64_t first;
    int n, thread;
    sh_status status;
    char message[512];
} share;

static sh_status draw_one(const sh_synth_config *config, int64_t index, sh_image *image, drawn *out)
{
    sh_status st = SH_OK;

    SH_TRY(sh_synth_draw(config, index, image, &out->truth));
    SH_TRY(sh_image_encode(image, SH_IMAGE_JPEG, SH_SYNTH_JPEG_QUALITY, &out->data, &out->n_bytes));
    SH_TRY(sh_image_decode(out->data, out->n_bytes, out->truth.name, 0, 0, 0, image));
    out->pixels = sh_image_hash(image);
out:
    return st;
}

static void *draw_share(void *argument)
{
    share *s = argument;
    sh_image image = {0};

    for (int i = s->thread; i < s->n && s->status == SH_OK; i += s->config->threads)
        s->status = draw_one(s->config, s->first + i, &image, &s->block[i]);
    if (s->status != SH_OK) strncpy(s->message, sh_error_message(), sizeof(s->message) - 1);
    sh_image_clear(&image);
    return NULL;
}

static sh_status draw_block(const sh_synth_config *config, int64_t first, int n, drawn *block)
{
    sh_status st = SH_OK;
    int n_threads = config->threads, n_started = 0;
    share *shares = calloc((size_t)n_threads, sizeof(*shares));
    pthread_t *threads = calloc((size_t)n_threads, sizeof(*threads));

    SH_CHECK(shares != NULL && threads != NULL, SH_ERR_NO_MEMORY, "%d drawing threads", n_threads);
    for (; n_started < n_threads; n_started++) {
        shares[n_started] =
            (share){.config = config, .block = block, .first = first, .n = n, .thread = n_started};
        SH_CHECK(pthread_create(&threads[n_started], NULL, draw_share, &shares[n_started]) == 0,
                 SH_ERR_NO_MEMORY, "cannot start drawing thread %d", n_started + 1);
    }
out:
    for (int i = 0; i < n_started; i++) {
        pthread_join(threads[i], NULL);
        if (st == SH_OK && shares[i].status != SH_OK)
            st = sh_error_set(shares[i].status, "%s", shares[i].message);
    }
    free(threads);
    free(shares);
    return st;
}

static sh_status add_to_pack(sh_pack_writer *pack, const sh_synth_config *config, const drawn *d)
{
    sh_pack_crop crop = {
        .name = d->truth.name,
        .labels = {.individual = d->truth.individual,
                   .recording = d->truth.recording,
                   .camera = d->truth.camera,
                   .species = "synthetic",
                   .side = d->truth.side,
                   .time = d->truth.time,
                   .frame = d->truth.frame,
                   .split = -1},
        .format = SH_IMAGE_JPEG,
        .width = config->width,
        .height = config->height,
        .source_width = config->width,
        .source_height = config->height,
        .box = {0, 0, config->width, config->height},
        .pixels = d->pixels,
        .data = d->data,
        .n_bytes = d->n_bytes,
    };

    return sh_pack_writer_add(pack, &crop);
}

static sh_status write_block(const sh_synth_config *config, sh_pack_writer *pack,
                             const char *folder, const drawn *block, int n)
{
    sh_status st = SH_OK;
    char path[PATH_BYTES];

    for (int i = 0; i < n; i++) {
        if (pack != NULL) SH_TRY(add_to_pack(pack, config, &block[i]));
        if (folder == NULL) continue;
        SH_TRY(sh_path_join(folder, block[i].truth.name, path, sizeof(path)));
        SH_TRY(sh_file_put(path, block[i].data, block[i].n_bytes));
    }
out:
    return st;
}

sh_status sh_synth_write(const sh_synth_config *config, const char *pack, const char *folder)
{
    sh_status st = SH_OK;
    sh_pack_writer *writer = NULL;
    drawn *block = NULL;
    int64_t n_images = sh_synth_n_images(config);

    SH_TRY(sh_synth_check(config));
    block = calloc(BLOCK, sizeof(*block));
    SH_CHECK(block != NULL, SH_ERR_NO_MEMORY, "%d drawings", BLOCK);
    if (pack != NULL) SH_TRY(sh_pack_writer_create(pack, 0, &writer));
    if (folder != NULL) SH_TRY(sh_file_make_dirs(folder));
    for (int64_t first = 0; first < n_images; first += BLOCK) {
        int n = (int)(n_images - first < BLOCK ? n_images - first : BLOCK);

        SH_TRY(draw_block(config, first, n, block));
        SH_TRY(write_block(config, writer, folder, block, n));
        for (int i = 0; i < n; i++) {
            free(block[i].data);
            block[i].data = NULL;
        }
        sh_log_progress("drawn %lld of %lld fish", (long long)(first + n), (long long)n_images);
    }
    if (writer != NULL) SH_TRY(sh_pack_writer_commit(writer));
out:
    sh_log_progress_end();
    for (int i = 0; block != NULL && i < BLOCK; i++) free(block[i].data);
    free(block);
    sh_pack_writer_destroy(&writer);
    return st;
}
