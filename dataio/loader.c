// SPDX-License-Identifier: Apache-2.0
/*
 * Invariants.
 * - Requests form a queue. Workers take (request, image) pairs in order under the lock, and load
 *   without it, so a request's images finish in any order, each into its own place.
 * - A request leaves the queue only in sh_loader_wait (or destroy, after the threads ended), hence
 *   only when all its images are done.
 * - The bytes of an image depend on (crop, draw, config) alone. The size at which a crop is decoded
 *   depends on the configuration, never on the draw, so the cache can hold the decoded crop.
 * - A crop enters the cache once and stays until destroy: readers need no lock.
 */
#include "dataio/loader.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "dataio/render.h"

enum { MESSAGE_BYTES = 1024 };

typedef struct request {
    struct request *next;
    int64_t n, n_taken, n_done;
    void *memory;                 /* of images, or of a parcel */
    _Atomic int64_t parcel_bytes; /* of which so many are taken */
    int64_t failed;               /* the first image that failed, or -1 */
    sh_status status;
    char message[MESSAGE_BYTES];
    sh_slot_plan slots[];
} request;

/* One thread's own memory. */
typedef struct worker {
    sh_loader *loader;
    pthread_t thread;
    bool started;
    uint8_t *data;
    size_t data_capacity;
    sh_image image;
    renderer renderer;
    sh_loader_stats stats;
} worker;

struct sh_loader {
    sh_loader_config config;
    const sh_dataset *dataset;
    worker *workers; /* [config.threads] */

    pthread_mutex_t lock;
    pthread_cond_t work, done; /* images to take; a request finished */
    request *first, *last;     /* all requests, oldest first */
    request *next;             /* the oldest with images to take */
    bool stop;
    sh_loader_stats stats;

    _Atomic(sh_image *) *cache; /* [crops] */
    _Atomic size_t cache_used;
};

void sh_loader_decode_size(const sh_loader_config *config, int width, int height, int *min_width,
                           int *min_height)
{
    float scale_x, scale_y, zoom = 1 + config->augment.scale;

    augment_fit_scale(config, width, height, &scale_x, &scale_y);
    /* A crop of few pixels still has one. */
    *min_width = (int)fmaxf(1, ceilf((float)width * scale_x * zoom));
    *min_height = (int)fmaxf(1, ceilf((float)height * scale_y * zoom));
}

static const sh_image *find_cached(sh_loader *l, int64_t crop)
{
    return l->cache == NULL ? NULL : atomic_load_explicit(&l->cache[crop], memory_order_acquire);
}

/* Keep a copy if the budget allows; losing a race for the place, or memory running out, only means
 * that the crop is decoded again. */
static void put_cached(sh_loader *l, int64_t crop, const sh_image *image)
{
    size_t n_bytes = (size_t)image->width * (size_t)image->height * (size_t)image->channels;
    sh_image *copy = NULL, *expected = NULL;

    if (l->cache == NULL) return;
    if (atomic_fetch_add(&l->cache_used, n_bytes) + n_bytes <= l->config.cache_bytes)
        copy = malloc(sizeof(*copy) + n_bytes);
    if (copy != NULL) {
        *copy = *image;
        copy->pixels = (uint8_t *)(copy + 1);
        copy->capacity = n_bytes;
        memcpy(copy->pixels, image->pixels, n_bytes);
        if (atomic_compare_exchange_strong(&l->cache[crop], &expected, copy)) return;
    }
    free(copy);
    atomic_fetch_sub(&l->cache_used, n_bytes);
}

static sh_status decode_crop(worker *w, int64_t index, const sh_image **image)
{
    sh_status st = SH_OK;
    sh_loader *l = w->loader;
    const sh_crop *crop = sh_dataset_crop(l->dataset, index);
    double start = sh_clock_seconds();
    size_t n_bytes = 0;
    sh_image_format format = SH_IMAGE_UNKNOWN;
    int min_width, min_height;

    sh_loader_decode_size(&l->config, crop->width, crop->height, &min_width, &min_height);
    if (crop->format == SH_IMAGE_RAW) { /* reading is all there is to it */
        SH_TRY(sh_dataset_decode(l->dataset, index, l->config.channels, min_width, min_height,
                                 &w->image));
        w->stats.read_seconds += sh_clock_seconds() - start;
    } else {
        SH_TRY(sh_dataset_read(l->dataset, index, &w->data, &w->data_capacity, &n_bytes, &format));
        double read = sh_clock_seconds();

        SH_TRY(sh_image_decode(w->data, n_bytes, crop->name, l->config.channels, min_width,
                               min_height, &w->image));
        w->stats.read_seconds += read - start;
        w->stats.decode_seconds += sh_clock_seconds() - read;
    }
    put_cached(l, index, &w->image);
    *image = &w->image;
out:
    return st;
}

static sh_status load_image(worker *w, request *r, int64_t index)
{
    sh_status st = SH_OK;
    const sh_loader_config *config = &w->loader->config;
    const sh_slot_plan *slot = &r->slots[index];
    const sh_image *image = find_cached(w->loader, slot->crop);

    if (image != NULL)
        w->stats.n_cached++;
    else
        SH_TRY(decode_crop(w, slot->crop, &image));
    if (config->parcels)
        SH_TRY(render_pack_crop(&w->renderer, config, image, slot->draw, r->memory,
                                &r->parcel_bytes, index));
    else
        SH_TRY(render_crop(&w->renderer, config, image, slot->draw, r->memory, index));
out:
    return st;
}

/* With the lock held. */
static void finish_image(worker *w, request *r, int64_t index, sh_status st)
{
    sh_loader *l = w->loader;

    if (st != SH_OK && (r->failed < 0 || index < r->failed)) {
        r->failed = index;
        r->status = st;
        strncpy(r->message, sh_error_message(), MESSAGE_BYTES - 1);
    }
    l->stats.n_crops++;
    l->stats.n_cached += w->stats.n_cached;
    l->stats.busy_seconds += w->stats.busy_seconds;
    l->stats.read_seconds += w->stats.read_seconds;
    l->stats.decode_seconds += w->stats.decode_seconds;
    l->stats.warp_seconds += w->renderer.warp_seconds;
    l->stats.colour_seconds += w->renderer.colour_seconds;
    l->stats.store_seconds += w->renderer.store_seconds;
    w->stats = (sh_loader_stats){0};
    w->renderer.warp_seconds = w->renderer.colour_seconds = w->renderer.store_seconds = 0;
    if (++r->n_done == r->n) pthread_cond_signal(&l->done);
}

static void *work(void *argument)
{
    worker *w = argument;
    sh_loader *l = w->loader;

    pthread_mutex_lock(&l->lock);
    while (!l->stop) {
        request *r = l->next;

        if (r == NULL) {
            pthread_cond_wait(&l->work, &l->lock);
            continue;
        }
        int64_t index = r->n_taken++;

        if (r->n_taken == r->n) l->next = r->next;
        pthread_mutex_unlock(&l->lock);
        double start = sh_clock_thread_cpu_seconds();
        sh_status st = load_image(w, r, index);

        w->stats.busy_seconds = sh_clock_thread_cpu_seconds() - start;
        pthread_mutex_lock(&l->lock);
        finish_image(w, r, index, st);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

sh_status sh_loader_create(const sh_loader_config *config, const sh_dataset *dataset,
                           sh_loader **out)
{
    sh_status st = SH_OK;
    sh_loader *l = NULL;

    SH_TRY(render_check_config(config));
    SH_CHECK(config->threads >= 1, SH_ERR_USAGE, "a loader of %d threads", config->threads);
    l = calloc(1, sizeof(*l));
    SH_CHECK(l != NULL, SH_ERR_NO_MEMORY, "loader");
    l->config = *config;
    l->dataset = dataset;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->work, NULL);
    pthread_cond_init(&l->done, NULL);
    if (config->cache_bytes > 0) {
        l->cache = calloc((size_t)sh_dataset_n_crops(dataset) + 1, sizeof(*l->cache));
        SH_CHECK(l->cache != NULL, SH_ERR_NO_MEMORY, "cache of %lld crops",
                 (long long)sh_dataset_n_crops(dataset));
    }
    l->workers = calloc((size_t)config->threads, sizeof(*l->workers));
    SH_CHECK(l->workers != NULL, SH_ERR_NO_MEMORY, "%d loader threads", config->threads);
    for (int i = 0; i < config->threads; i++) {
        worker *w = &l->workers[i];

        w->loader = l;
        w->started = pthread_create(&w->thread, NULL, work, w) == 0;
        SH_CHECK(w->started, SH_ERR_NO_MEMORY, "cannot start loader thread %d of %d", i + 1,
                 config->threads);
    }
    *out = l;
    l = NULL;
out:
    sh_loader_destroy(&l);
    return st;
}

static void stop_threads(sh_loader *l)
{
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; l->workers != NULL && i < l->config.threads; i++) {
        worker *w = &l->workers[i];

        if (w->started) pthread_join(w->thread, NULL);
        free(w->data);
        sh_image_clear(&w->image);
        renderer_clear(&w->renderer);
    }
    free(l->workers);
}

void sh_loader_destroy(sh_loader **loader)
{
    sh_loader *l = *loader;

    if (l == NULL) return;
    stop_threads(l);
    while (l->first != NULL) {
        request *next = l->first->next;

        free(l->first);
        l->first = next;
    }
    for (int64_t i = 0; l->cache != NULL && i < sh_dataset_n_crops(l->dataset); i++)
        free(l->cache[i]);
    free(l->cache);
    pthread_cond_destroy(&l->done);
    pthread_cond_destroy(&l->work);
    pthread_mutex_destroy(&l->lock);
    free(l);
    *loader = NULL;
}

size_t sh_loader_parcel_bytes(const sh_loader_config *config, int64_t n)
{
    return (size_t)render_parcel_bytes(config, n);
}

sh_status sh_loader_request(sh_loader *loader, const sh_slot_plan *slots, int64_t n, void *memory)
{
    sh_status st = SH_OK;
    request *r = NULL;

    SH_CHECK(n > 0, SH_ERR_INTERNAL, "a request of %lld images", (long long)n);
    r = malloc(sizeof(*r) + (size_t)n * sizeof(*slots));
    SH_CHECK(r != NULL, SH_ERR_NO_MEMORY, "request of %lld images", (long long)n);
    *r = (request){.n = n, .memory = memory, .failed = -1};
    if (loader->config.parcels) {
        render_parcel_begin(&loader->config, n, memory);
        atomic_init(&r->parcel_bytes, ((const sh_parcel *)memory)->n_bytes);
    }
    memcpy(r->slots, slots, (size_t)n * sizeof(*slots));

    pthread_mutex_lock(&loader->lock);
    if (loader->last != NULL)
        loader->last->next = r;
    else
        loader->first = r;
    loader->last = r;
    if (loader->next == NULL) loader->next = r;
    pthread_cond_broadcast(&loader->work);
    pthread_mutex_unlock(&loader->lock);
out:
    return st;
}

bool sh_loader_is_ready(sh_loader *loader)
{
    bool ready;

    pthread_mutex_lock(&loader->lock);
    ready = loader->first != NULL && loader->first->n_done == loader->first->n;
    pthread_mutex_unlock(&loader->lock);
    return ready;
}

sh_status sh_loader_wait(sh_loader *loader)
{
    sh_status st = SH_OK;
    double start = sh_clock_seconds();
    request *r = NULL;

    pthread_mutex_lock(&loader->lock);
    r = loader->first;
    while (r != NULL && r->n_done < r->n) pthread_cond_wait(&loader->done, &loader->lock);
    if (r != NULL) {
        loader->first = r->next;
        if (loader->first == NULL) loader->last = NULL;
    }
    loader->stats.wait_seconds += sh_clock_seconds() - start;
    pthread_mutex_unlock(&loader->lock);
    SH_CHECK(r != NULL, SH_ERR_INTERNAL, "waiting for images that nobody requested");
    if (loader->config.parcels) ((sh_parcel *)r->memory)->n_bytes = atomic_load(&r->parcel_bytes);
    SH_CHECK(r->failed < 0, r->status, "%s", r->message);
out:
    free(r);
    return st;
}

void sh_loader_get_stats(const sh_loader *loader, sh_loader_stats *out)
{
    sh_loader *l = (sh_loader *)loader; /* the lock guards what is read */

    pthread_mutex_lock(&l->lock);
    *out = l->stats;
    pthread_mutex_unlock(&l->lock);
}

sh_status sh_loader_render(const sh_loader_config *config, const sh_image *image, uint64_t draw,
                           void *pixels, int64_t n, int64_t index)
{
    sh_status st = SH_OK;
    renderer r = {0};

    SH_TRY(render_check_config(config));
    SH_CHECK(index >= 0 && index < n, SH_ERR_INTERNAL, "image %lld of %lld", (long long)index,
             (long long)n);
    SH_TRY(render_crop(&r, config, image, draw, pixels, index));
out:
    renderer_clear(&r);
    return st;
}
