// SPDX-License-Identifier: Apache-2.0
/**
 * Threads prepare images in any order; the calling thread takes them in the order of the plan and
 * writes them, so that the pack does not depend on timing. A ring of slots bounds the memory: item
 * i lives in slot i % n_slots, and no thread begins an item before its slot was emptied.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "dataio/import.h"

enum { SLOTS_PER_THREAD = 8, JPEG_QUALITY = 95, MASK_PATH_BYTES = 8192 };
#define MAX_FILE_BYTES ((size_t)1 << 30)

/* An image ready to be written, or why it is not. */
typedef struct slot {
    bool ready, failed;
    sh_status status; /* of a failure */
    char reason[512];
    sh_pack_crop crop; /* name and labels are the item's */
    uint8_t *data, *masks[SH_N_MASKS];
    bool resized;
} slot;

typedef struct import_job {
    const sh_import_plan *plan;
    const sh_import_options *options;
    slot *slots;
    int64_t n_slots;
    int64_t next;  /* item to be begun */
    int64_t taken; /* items written so far: slots of items below taken + n_slots are free */
    bool stop;
    pthread_mutex_t lock;
    pthread_cond_t changed;
} import_job;

/* What a thread keeps from one item to the next: boxes of one frame follow each other. */
typedef struct worker {
    const char *path; /* whose image is decoded below; NULL: none */
    char *bytes;
    size_t n_bytes;
    sh_image_info info;
    sh_image whole, cut, scaled, mask, mask_cut;
} worker;

static sh_status load(worker *w, const sh_import_item *item)
{
    sh_status st = SH_OK;

    if (w->path != NULL && strcmp(w->path, item->path) == 0) goto out;
    free(w->bytes);
    w->bytes = NULL;
    w->path = NULL;
    SH_TRY(sh_file_get(item->path, MAX_FILE_BYTES, &w->bytes, &w->n_bytes));
    SH_TRY(sh_image_probe(w->bytes, w->n_bytes, item->name, &w->info));
    SH_TRY(sh_image_decode(w->bytes, w->n_bytes, item->name, 0, 0, 0, &w->whole));
    w->path = item->path;
out:
    return st;
}

/* The part of a box that lies inside the image; false: none. */
static bool clip_box(const int32_t box[4], const sh_image *image, int32_t out[4])
{
    int64_t left = box[0] > 0 ? box[0] : 0, top = box[1] > 0 ? box[1] : 0;
    int64_t right = (int64_t)box[0] + box[2], bottom = (int64_t)box[1] + box[3];

    if (right > image->width) right = image->width;
    if (bottom > image->height) bottom = image->height;
    if (left >= right || top >= bottom) return false;
    out[0] = (int32_t)left;
    out[1] = (int32_t)top;
    out[2] = (int32_t)(right - left);
    out[3] = (int32_t)(bottom - top);
    return true;
}

/* Bytes of an image that is not stored as it came. */
static sh_status store_image(worker *w, const sh_import_options *options, const sh_image *image,
                             slot *s)
{
    sh_status st = SH_OK;
    const sh_image *stored = image;
    bool raw = options->raw_width > 0;

    if (raw && (image->width != options->raw_width || image->height != options->raw_height)) {
        SH_TRY(sh_image_resize(image, options->raw_width, options->raw_height, &w->scaled));
        stored = &w->scaled;
        s->resized = true;
    }
    s->crop.format = raw                               ? SH_IMAGE_RAW
                     : w->info.format == SH_IMAGE_JPEG ? SH_IMAGE_JPEG
                                                       : SH_IMAGE_PNG;
    s->crop.n_bytes = (size_t)stored->width * (size_t)stored->height * (size_t)stored->channels;
    if (raw) {
        s->data = malloc(s->crop.n_bytes);
        SH_CHECK(s->data != NULL, SH_ERR_NO_MEMORY, "%zu bytes of pixels", s->crop.n_bytes);
        memcpy(s->data, stored->pixels, s->crop.n_bytes);
    } else {
        SH_TRY(sh_image_encode(stored, s->crop.format, JPEG_QUALITY, &s->data, &s->crop.n_bytes));
    }
    if (s->crop.format == SH_IMAGE_JPEG) { /* hashed as a reader will see it */
        SH_TRY(sh_image_decode(s->data, s->crop.n_bytes, s->crop.name, 0, 0, 0, &w->scaled));
        stored = &w->scaled;
    }
    s->crop.width = stored->width;
    s->crop.height = stored->height;
    s->crop.pixels = sh_image_hash(stored);
out:
    return st;
}

/* FOLDER/NAME with the suffix .png, NAME being the image's path below its source. */
static void mask_path(const char *folder, const sh_import_item *item, char out[MASK_PATH_BYTES])
{
    int n = (int)strcspn(item->name, "#");
    int n_stem = n;

    while (n_stem > 0 && item->name[n_stem] != '.' && item->name[n_stem] != '/') n_stem--;
    if (item->name[n_stem] != '.') n_stem = n;
    snprintf(out, MASK_PATH_BYTES, "%s/%.*s.png", folder, n_stem, item->name);
}

/* Masks are cut like their image and stored as grey PNG. No file: no mask. */
static sh_status prepare_masks(worker *w, const import_job *job, const sh_import_item *item,
                               slot *s)
{
    sh_status st = SH_OK;
    char path[MASK_PATH_BYTES], *bytes = NULL;
    size_t n = 0;
    const int32_t *b = s->crop.box;

    for (int m = 0; m < SH_N_MASKS; m++) {
        if (job->options->mask_folders[m] == NULL) continue;
        mask_path(job->options->mask_folders[m], item, path);
        if (!sh_file_exists(path)) continue;
        SH_TRY(sh_file_get(path, MAX_FILE_BYTES, &bytes, &n));
        SH_TRY(sh_image_decode(bytes, n, path, 1, 0, 0, &w->mask));
        free(bytes);
        bytes = NULL;
        SH_CHECK(w->mask.width == s->crop.source_width && w->mask.height == s->crop.source_height,
                 SH_ERR_MISMATCH, "its mask %s is %d x %d, the image %d x %d", path, w->mask.width,
                 w->mask.height, s->crop.source_width, s->crop.source_height);
        SH_TRY(sh_image_cut(&w->mask, b[0], b[1], b[2], b[3], &w->mask_cut));
        SH_TRY(sh_image_encode(&w->mask_cut, SH_IMAGE_PNG, 0, &s->masks[m],
                               &s->crop.masks[m].n_bytes));
        s->crop.masks[m].data = s->masks[m];
    }
out:
    free(bytes);
    return st;
}

static sh_status prepare(worker *w, const import_job *job, const sh_import_item *item, slot *s)
{
    sh_status st = SH_OK;
    const sh_image *image = &w->whole;
    bool has_box = item->box[2] != 0 || item->box[3] != 0;

    SH_TRY(load(w, item));
    s->crop = (sh_pack_crop){
        .name = item->name,
        .labels = item->labels,
        .format = w->info.format,
        .width = image->width,
        .height = image->height,
        .source_width = image->width,
        .source_height = image->height,
        .box = {0, 0, image->width, image->height},
    };
    if (has_box) {
        SH_CHECK(clip_box(item->box, image, s->crop.box), SH_ERR_USAGE,
                 "%s: its box %d x %d at (%d, %d) lies outside the image of %d x %d", item->name,
                 item->box[2], item->box[3], item->box[0], item->box[1], image->width,
                 image->height);
        const int32_t *b = s->crop.box;

        SH_TRY(sh_image_cut(image, b[0], b[1], b[2], b[3], &w->cut));
        image = &w->cut;
    }
    if (has_box || job->options->raw_width > 0) {
        SH_TRY(store_image(w, job->options, image, s));
    } else {
        s->crop.pixels = sh_image_hash(image);
        s->crop.n_bytes = w->n_bytes;
        s->data = (uint8_t *)w->bytes;
        w->bytes = NULL;
        w->path = NULL;
    }
    s->crop.data = s->data;
    SH_TRY(prepare_masks(w, job, item, s));
out:
    return st;
}

/* The last message, without the name that it begins with. */
static void keep_reason(slot *s, const char *name)
{
    const char *text = sh_error_message();
    size_t n = strlen(name);

    if (strncmp(text, name, n) == 0 && (text[n] == ' ' || text[n] == ':'))
        text += n + 1 + strspn(text + n + 1, " ");
    snprintf(s->reason, sizeof(s->reason), "%s", text);
}

static void *run_worker(void *argument)
{
    import_job *job = argument;
    worker w = {0};

    pthread_mutex_lock(&job->lock);
    for (;;) {
        while (!job->stop && job->next < job->plan->n && job->next >= job->taken + job->n_slots)
            pthread_cond_wait(&job->changed, &job->lock);
        if (job->stop || job->next >= job->plan->n) break;
        const sh_import_item *item = &job->plan->items[job->next];
        slot *s = &job->slots[job->next++ % job->n_slots];

        pthread_mutex_unlock(&job->lock);
        s->status = prepare(&w, job, item, s);
        s->failed = s->status != SH_OK;
        if (s->failed) keep_reason(s, item->name);
        pthread_mutex_lock(&job->lock);
        s->ready = true;
        pthread_cond_broadcast(&job->changed);
    }
    pthread_mutex_unlock(&job->lock);
    free(w.bytes);
    sh_image_clear(&w.whole);
    sh_image_clear(&w.cut);
    sh_image_clear(&w.scaled);
    sh_image_clear(&w.mask);
    sh_image_clear(&w.mask_cut);
    return NULL;
}

/* What the writing side keeps: where each picture was seen first. */
typedef struct recorder {
    sh_pack_writer *writer;
    sh_import_report *report;
    bool drop_duplicates;
    sh_strings *hashes;            /* of pixels, in hex */
    const sh_import_item **firsts; /* [hash] */
    int64_t capacity;
} recorder;

static bool same_text(const char *a, const char *b)
{
    return strcmp(a != NULL ? a : "", b != NULL ? b : "") == 0;
}

static sh_status drop(recorder *r, const char *name, const char *reason)
{
    sh_status st = SH_OK;

    SH_TRY(sh_pack_writer_drop(r->writer, name, reason));
    SH_TRY(sh_drop_list_add(&r->report->dropped, name, reason));
out:
    return st;
}

/* Has the picture been seen under another name? *drop_it: and is this one to be left out? */
static sh_status check_duplicate(recorder *r, const sh_import_item *item, const slot *s,
                                 bool *drop_it)
{
    sh_status st = SH_OK;
    char hex[33], reason[SH_PACK_MAX_NAME + 256];
    int32_t index = 0;
    bool added = false;

    *drop_it = false;
    sh_hash_format(s->crop.pixels, hex);
    SH_TRY(sh_strings_add(r->hashes, hex, &index, &added));
    if (index >= r->capacity) {
        int64_t capacity = 2 * r->capacity + 1024;
        const sh_import_item **firsts = realloc(r->firsts, (size_t)capacity * sizeof(*firsts));

        SH_CHECK(firsts != NULL, SH_ERR_NO_MEMORY, "%lld pictures", (long long)capacity);
        r->firsts = firsts;
        r->capacity = capacity;
    }
    if (added) {
        r->firsts[index] = item;
        goto out;
    }
    const sh_import_item *first = r->firsts[index];
    bool same = same_text(first->labels.individual, item->labels.individual);

    if (!same && first->labels.individual != NULL && item->labels.individual != NULL) {
        snprintf(reason, sizeof(reason), "%s, but the same picture as %s, %s",
                 item->labels.individual, first->name, first->labels.individual);
        SH_TRY(sh_drop_list_add(&r->report->mislabels, item->name, reason));
        goto out;
    }
    snprintf(reason, sizeof(reason), "the same picture as %s", first->name);
    SH_TRY(sh_drop_list_add(&r->report->duplicates, item->name, reason));
    *drop_it = r->drop_duplicates && same;
    if (*drop_it) SH_TRY(drop(r, item->name, reason));
out:
    return st;
}

static sh_status record(recorder *r, const sh_import_item *item, const slot *s)
{
    sh_status st = SH_OK;
    bool drop_it = false;

    if (s->failed) {
        SH_CHECK(s->status != SH_ERR_NO_MEMORY, s->status, "%s: %s", item->name, s->reason);
        SH_TRY(drop(r, item->name, s->reason));
        goto out;
    }
    SH_TRY(check_duplicate(r, item, s, &drop_it));
    if (drop_it) goto out;
    SH_TRY(sh_pack_writer_add(r->writer, &s->crop));
    r->report->n_packed++;
    r->report->n_labelled += item->labels.individual != NULL;
    r->report->n_resized += s->resized;
    for (int m = 0; m < SH_N_MASKS; m++) r->report->n_masks += s->masks[m] != NULL;
out:
    return st;
}

static void show_progress(int64_t n_done, int64_t n, double start)
{
    double seconds = sh_clock_seconds() - start;
    double rate = seconds > 0 ? (double)n_done / seconds : 0;

    if (n_done % 64 == 0 && rate > 0)
        sh_log_progress("pack: %lld of %lld images, %.0f images/s, %.0f s left", (long long)n_done,
                        (long long)n, rate, (double)(n - n_done) / rate);
}

static void clear_slot(slot *s)
{
    free(s->data);
    for (int m = 0; m < SH_N_MASKS; m++) free(s->masks[m]);
    *s = (slot){0};
}

/* Take every item in order, as it becomes ready. */
static sh_status collect(import_job *job, recorder *r)
{
    sh_status st = SH_OK;
    double start = sh_clock_seconds();

    for (int64_t i = 0; i < job->plan->n; i++) {
        slot *s = &job->slots[i % job->n_slots];

        pthread_mutex_lock(&job->lock);
        while (!s->ready) pthread_cond_wait(&job->changed, &job->lock);
        pthread_mutex_unlock(&job->lock);
        st = record(r, &job->plan->items[i], s);
        pthread_mutex_lock(&job->lock);
        clear_slot(s);
        job->taken++;
        job->stop = st != SH_OK;
        pthread_cond_broadcast(&job->changed);
        pthread_mutex_unlock(&job->lock);
        if (st != SH_OK) break;
        show_progress(i + 1, job->plan->n, start);
    }
    sh_log_progress_end();
    return st;
}

static sh_status run_job(import_job *job, recorder *r)
{
    sh_status st = SH_OK;
    int n_started = 0;
    pthread_t *threads = calloc((size_t)job->options->threads, sizeof(*threads));

    SH_CHECK(threads != NULL, SH_ERR_NO_MEMORY, "%d threads", job->options->threads);
    for (; n_started < job->options->threads; n_started++)
        if (pthread_create(&threads[n_started], NULL, run_worker, job) != 0) break;
    SH_CHECK(n_started > 0, SH_ERR_NO_MEMORY, "cannot start a thread");
    SH_TRY(collect(job, r));
out:
    for (int i = 0; i < n_started; i++) pthread_join(threads[i], NULL);
    free(threads);
    return st;
}

sh_status sh_import_run(const sh_import_plan *plan, const sh_import_options *options,
                        const char *pack, sh_import_report *report)
{
    sh_status st = SH_OK;
    import_job job = {.plan = plan,
                      .options = options,
                      .n_slots = (int64_t)SLOTS_PER_THREAD * options->threads,
                      .lock = PTHREAD_MUTEX_INITIALIZER,
                      .changed = PTHREAD_COND_INITIALIZER};
    recorder r = {.report = report, .drop_duplicates = options->drop_duplicates};

    SH_CHECK(options->threads > 0, SH_ERR_USAGE, "--threads must be at least 1");
    for (int m = 0; m < SH_N_MASKS; m++)
        SH_CHECK(options->mask_folders[m] == NULL ||
                     (options->raw_width == 0 && sh_file_is_dir(options->mask_folders[m])),
                 SH_ERR_USAGE, "masks need a folder, and images that are not scaled (--raw)");
    job.slots = calloc((size_t)job.n_slots, sizeof(*job.slots));
    SH_CHECK(job.slots != NULL, SH_ERR_NO_MEMORY, "%lld images under way", (long long)job.n_slots);
    SH_TRY(sh_strings_create(&r.hashes));
    SH_TRY(sh_pack_writer_create(pack, options->shard_bytes, &r.writer));
    for (int64_t i = 0; i < plan->dropped.n; i++)
        SH_TRY(drop(&r, plan->dropped.names[i], plan->dropped.reasons[i]));
    SH_TRY(run_job(&job, &r));
    SH_TRY(sh_pack_writer_commit(r.writer));
out:
    for (int64_t i = 0; job.slots != NULL && i < job.n_slots; i++) clear_slot(&job.slots[i]);
    free(job.slots);
    sh_pack_writer_destroy(&r.writer);
    sh_strings_destroy(&r.hashes);
    free(r.firsts);
    return st;
}

void sh_import_report_clear(sh_import_report *report)
{
    sh_drop_list_clear(&report->dropped);
    sh_drop_list_clear(&report->duplicates);
    sh_drop_list_clear(&report->mislabels);
    *report = (sh_import_report){0};
}
