// SPDX-License-Identifier: Apache-2.0
/**
 * The writer gathers image bytes in a nameless spool file, since HDF5 wants the length of a
 * contiguous dataset before its first byte; tables wait in memory. A full shard becomes a file
 * beside its final name; commit renames all of them, the index last.
 */
#include "dataio/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "dataio/pack_file.h"

enum { PATH_BYTES = 4096 };

struct sh_pack_writer {
    char path[PATH_BYTES];
    uint64_t shard_bytes;
    sh_strings *names;    /* of all shards */
    sh_pack_tables shard; /* being gathered; its labels still in order of addition */
    int64_t capacity;     /* of shard.records */
    int spool_fd;
    uint64_t spool_bytes;
    sh_pack_tables index; /* shards done so far, and what was dropped */
    int64_t shards_capacity;
    bool committed;
};

static sh_status open_spool(sh_pack_writer *w)
{
    sh_status st = SH_OK;
    char path[PATH_BYTES + 32];

    snprintf(path, sizeof(path), "%s.tmp.%ld.images", w->path, (long)getpid());
    w->spool_fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    SH_CHECK(w->spool_fd >= 0, SH_ERR_IO, "cannot create %s: %s", path, strerror(errno));
    unlink(path); /* gone with the process, however that ends */
out:
    return st;
}

static sh_status begin_shard(sh_pack_writer *w)
{
    sh_status st = SH_OK;

    sh_pack_tables_clear(&w->shard);
    w->capacity = 0;
    w->spool_bytes = 0;
    SH_CHECK(ftruncate(w->spool_fd, 0) == 0, SH_ERR_IO, "cannot empty the spool of %s: %s", w->path,
             strerror(errno));
    SH_TRY(sh_strings_create(&w->shard.names));
    for (int t = 0; t < SH_N_TABLES; t++) SH_TRY(sh_strings_create(&w->shard.labels[t]));
out:
    return st;
}

sh_status sh_pack_writer_create(const char *path, uint64_t shard_bytes, sh_pack_writer **out)
{
    sh_status st = SH_OK;
    sh_pack_writer *w = calloc(1, sizeof(*w));

    SH_CHECK(w != NULL, SH_ERR_NO_MEMORY, "a pack writer");
    w->spool_fd = -1;
    w->shard_bytes = shard_bytes;
    /* Room for the suffixes of shards and temporary files. */
    SH_CHECK(snprintf(w->path, sizeof(w->path), "%s", path) < PATH_BYTES - 64, SH_ERR_USAGE,
             "path too long: %.200s...", path);
    SH_CHECK(!sh_file_is_dir(path), SH_ERR_USAGE, "%s is a folder: name a file for the pack", path);
    SH_TRY(sh_strings_create(&w->names));
    SH_TRY(open_spool(w));
    SH_TRY(begin_shard(w));
    *out = w;
    w = NULL;
out:
    sh_pack_writer_destroy(&w);
    return st;
}

/* "crops.h5" -> "crops-0003.h5" for shard 3; shard < 0: the path itself. */
static void final_path(const sh_pack_writer *w, int64_t shard, char out[PATH_BYTES])
{
    const char *slash = strrchr(w->path, '/'), *dot = strrchr(w->path, '.');
    int stem =
        dot != NULL && (slash == NULL || dot > slash) ? (int)(dot - w->path) : (int)strlen(w->path);

    if (shard < 0)
        snprintf(out, PATH_BYTES, "%s", w->path);
    else
        snprintf(out, PATH_BYTES, "%.*s-%04lld%s", stem, w->path, (long long)shard, w->path + stem);
}

static void temporary_path(const sh_pack_writer *w, int64_t shard, char out[PATH_BYTES])
{
    char path[PATH_BYTES];

    final_path(w, shard, path);
    snprintf(out, PATH_BYTES, "%.*s.tmp.%ld", PATH_BYTES - 32, path, (long)getpid());
}

/* Sort each label table bytewise, so that indices do not depend on the order of addition. */
static sh_status sort_labels(sh_pack_tables *tables)
{
    sh_status st = SH_OK;
    int32_t *order = NULL, *rank = NULL;
    sh_strings *sorted = NULL;

    for (int t = 0; t < SH_N_TABLES; t++) {
        int32_t n = sh_strings_count(tables->labels[t]), index = 0;

        SH_TRY(sh_strings_sort(tables->labels[t], &order));
        SH_TRY(sh_strings_create(&sorted));
        rank = malloc(((size_t)n + 1) * sizeof(*rank));
        SH_CHECK(rank != NULL, SH_ERR_NO_MEMORY, "%d names", n);
        for (int32_t i = 0; i < n; i++) {
            rank[order[i]] = i;
            SH_TRY(
                sh_strings_add(sorted, sh_strings_get(tables->labels[t], order[i]), &index, NULL));
        }
        for (int64_t i = 0; i < tables->n_crops; i++) {
            int32_t *label = &tables->records[i].labels[t];

            if (*label >= 0) *label = rank[*label];
        }
        sh_strings_destroy(&tables->labels[t]);
        tables->labels[t] = sorted;
        sorted = NULL;
        free(order);
        free(rank);
        order = rank = NULL;
    }
out:
    sh_strings_destroy(&sorted);
    free(order);
    free(rank);
    return st;
}

static sh_status finish_shard(sh_pack_writer *w)
{
    sh_status st = SH_OK;
    char path[PATH_BYTES], temporary[PATH_BYTES];
    sh_seal seal;
    int64_t shard = w->index.n_shards;

    if (shard == w->shards_capacity) {
        int64_t capacity = 2 * shard + 8;
        sh_pack_shard *shards = realloc(w->index.shards, (size_t)capacity * sizeof(*shards));

        SH_CHECK(shards != NULL, SH_ERR_NO_MEMORY, "%lld shards", (long long)capacity);
        w->index.shards = shards;
        w->shards_capacity = capacity;
    }
    final_path(w, shard, path);
    temporary_path(w, shard, temporary);

    w->index.shards[shard] =
        (sh_pack_shard){.file = strdup(sh_path_name(path)), .n_crops = w->shard.n_crops};
    w->index.n_shards++;
    SH_CHECK(w->index.shards[shard].file != NULL, SH_ERR_NO_MEMORY, "a shard's name");
    SH_TRY(sort_labels(&w->shard));
    SH_TRY(sh_pack_file_write(temporary, SH_PACK_CROPS, &w->shard, w->spool_fd, w->spool_bytes,
                              &seal));
    w->index.shards[shard].file_bytes = seal.file_bytes;
    w->index.shards[shard].rest_crc32c = seal.rest_crc32c;
    SH_TRY(begin_shard(w));
out:
    return st;
}

static sh_status add_label(sh_strings *table, const char *text, int32_t *index)
{
    sh_status st = SH_OK;

    *index = SH_NO_LABEL;
    if (text == NULL || text[0] == '\0') goto out;
    SH_CHECK(sh_is_utf8(text) && strlen(text) <= SH_PACK_MAX_NAME, SH_ERR_USAGE,
             "the label '%.100s' is no UTF-8 or longer than %d bytes: rename it", text,
             SH_PACK_MAX_NAME);
    SH_TRY(sh_strings_add(table, text, index, NULL));
out:
    return st;
}

static sh_status append_to_spool(sh_pack_writer *w, const void *data, size_t n_bytes)
{
    sh_status st = SH_OK;

    for (size_t done = 0; done < n_bytes;) {
        ssize_t n = pwrite(w->spool_fd, (const char *)data + done, n_bytes - done,
                           (off_t)(w->spool_bytes + done));

        if (n < 0 && errno == EINTR) continue;
        SH_CHECK(n >= 0, SH_ERR_IO, "cannot write images for %s: %s", w->path, strerror(errno));
        done += (size_t)n;
    }
    w->spool_bytes += n_bytes;
out:
    return st;
}

static sh_status reserve_record(sh_pack_writer *w)
{
    sh_status st = SH_OK;

    if (w->shard.n_crops == w->capacity) {
        int64_t capacity = w->capacity > 0 ? 2 * w->capacity : 1024;
        sh_pack_record *records = realloc(w->shard.records, (size_t)capacity * sizeof(*records));

        SH_CHECK(records != NULL, SH_ERR_NO_MEMORY, "%lld crops", (long long)capacity);
        w->shard.records = records;
        w->capacity = capacity;
    }
out:
    return st;
}

sh_status sh_pack_writer_add(sh_pack_writer *w, const sh_pack_crop *crop)
{
    sh_status st = SH_OK;
    int32_t index = 0;
    bool added = false;
    const sh_labels *labels = &crop->labels;
    const char *texts[SH_N_TABLES] = {[SH_TABLE_INDIVIDUAL] = labels->individual,
                                      [SH_TABLE_RECORDING] = labels->recording,
                                      [SH_TABLE_CAMERA] = labels->camera,
                                      [SH_TABLE_SPECIES] = labels->species};

    SH_CHECK(sh_is_utf8(crop->name) && strlen(crop->name) <= SH_PACK_MAX_NAME, SH_ERR_USAGE,
             "the name %.100s is no UTF-8 or longer than %d bytes: rename the file", crop->name,
             SH_PACK_MAX_NAME);
    SH_TRY(sh_strings_add(w->names, crop->name, &index, &added));
    SH_CHECK(added, SH_ERR_USAGE, "two crops are called %s: pack the folder above both instead",
             crop->name);
    if (w->shard_bytes > 0 && w->shard.n_crops > 0 &&
        w->spool_bytes + crop->n_bytes > w->shard_bytes)
        SH_TRY(finish_shard(w));
    SH_TRY(reserve_record(w));
    sh_pack_record record = {
        .offset = w->spool_bytes,
        .length = crop->n_bytes,
        .pixels = {crop->pixels.hi, crop->pixels.lo},
        .time = labels->time,
        .crc32c = sh_crc32c(0, crop->data, crop->n_bytes),
        .frame = labels->frame,
        .size = {crop->width, crop->height},
        .source_size = {crop->source_width, crop->source_height},
        .box = {crop->box[0], crop->box[1], crop->box[2], crop->box[3]},
        .format = (uint8_t)crop->format,
        .side = (uint8_t)labels->side,
        .split = (int8_t)labels->split,
    };

    for (int t = 0; t < SH_N_TABLES; t++)
        SH_TRY(add_label(w->shard.labels[t], texts[t], &record.labels[t]));
    SH_TRY(sh_strings_add(w->shard.names, crop->name, &index, NULL));
    SH_TRY(append_to_spool(w, crop->data, crop->n_bytes));
    for (int m = 0; m < SH_N_MASKS; m++) {
        if (crop->masks[m].data == NULL) continue;
        record.mask_offset[m] = w->spool_bytes;
        record.mask_length[m] = crop->masks[m].n_bytes;
        record.mask_crc32c[m] = sh_crc32c(0, crop->masks[m].data, crop->masks[m].n_bytes);
        SH_TRY(append_to_spool(w, crop->masks[m].data, crop->masks[m].n_bytes));
        w->shard.has_masks = true;
    }
    w->shard.records[w->shard.n_crops++] = record;
out:
    return st;
}

sh_status sh_pack_writer_add_image(sh_pack_writer *w, const char *name, const sh_labels *labels,
                                   const sh_image *image, sh_image_format format, int quality)
{
    sh_status st = SH_OK;
    uint8_t *data = NULL;
    size_t n_bytes = (size_t)image->width * (size_t)image->height * (size_t)image->channels;
    sh_image decoded = {0};
    const sh_image *seen = image;

    if (format != SH_IMAGE_RAW) SH_TRY(sh_image_encode(image, format, quality, &data, &n_bytes));
    if (format == SH_IMAGE_JPEG) { /* what a reader will see is not quite what went in */
        SH_TRY(sh_image_decode(data, n_bytes, name, 0, 0, 0, &decoded));
        seen = &decoded;
    }
    SH_TRY(sh_pack_writer_add(w, &(sh_pack_crop){.name = name,
                                                 .labels = *labels,
                                                 .format = format,
                                                 .width = image->width,
                                                 .height = image->height,
                                                 .source_width = image->width,
                                                 .source_height = image->height,
                                                 .box = {0, 0, image->width, image->height},
                                                 .pixels = sh_image_hash(seen),
                                                 .data = data != NULL ? data : image->pixels,
                                                 .n_bytes = n_bytes}));
out:
    sh_image_clear(&decoded);
    free(data);
    return st;
}

sh_status sh_pack_writer_drop(sh_pack_writer *w, const char *name, const char *reason)
{
    return sh_drop_list_add(&w->index.dropped, name, reason);
}

int64_t sh_pack_writer_n_crops(const sh_pack_writer *w)
{
    return sh_strings_count(w->names);
}

/* One file: what was dropped goes into it. */
static sh_status commit_single(sh_pack_writer *w)
{
    sh_status st = SH_OK;
    char temporary[PATH_BYTES];
    sh_seal seal;

    w->shard.dropped = w->index.dropped;
    w->index.dropped = (sh_drop_list){0};
    temporary_path(w, -1, temporary);
    SH_TRY(sort_labels(&w->shard));
    SH_TRY(sh_pack_file_write(temporary, SH_PACK_CROPS, &w->shard, w->spool_fd, w->spool_bytes,
                              &seal));
    SH_TRY(sh_file_rename(temporary, w->path));
out:
    return st;
}

static sh_status commit_shards(sh_pack_writer *w)
{
    sh_status st = SH_OK;
    char path[PATH_BYTES], temporary[PATH_BYTES];
    sh_seal seal;

    SH_TRY(finish_shard(w));
    temporary_path(w, -1, temporary);
    SH_TRY(sh_pack_file_write(temporary, SH_PACK_INDEX, &w->index, -1, 0, &seal));
    for (int64_t i = 0; i < w->index.n_shards; i++) {
        final_path(w, i, path);
        temporary_path(w, i, temporary);
        SH_TRY(sh_file_rename(temporary, path));
    }
    temporary_path(w, -1, temporary);
    SH_TRY(sh_file_rename(temporary, w->path));
out:
    return st;
}

sh_status sh_pack_writer_commit(sh_pack_writer *w)
{
    sh_status st = SH_OK;

    SH_CHECK(sh_pack_writer_n_crops(w) > 0, SH_ERR_USAGE, "no image is left to pack into %s",
             w->path);
    SH_TRY(w->shard_bytes > 0 ? commit_shards(w) : commit_single(w));
    w->committed = true;
out:
    return st;
}

void sh_pack_writer_destroy(sh_pack_writer **writer)
{
    sh_pack_writer *w = *writer;
    char temporary[PATH_BYTES];

    if (w == NULL) return;
    for (int64_t i = -1; i < w->index.n_shards && !w->committed; i++) {
        temporary_path(w, i, temporary);
        unlink(temporary);
    }
    if (w->spool_fd >= 0) close(w->spool_fd);
    sh_pack_tables_clear(&w->shard);
    sh_pack_tables_clear(&w->index);
    sh_strings_destroy(&w->names);
    free(w);
    *writer = NULL;
}
