// SPDX-License-Identifier: Apache-2.0
/*
 * The order of things around a place, with a device:
 * - The loader writes host memory that the device has read: a request waits for the mark behind the
 *   place's last sending, which has long been reached when a step has ended in between.
 * - A parcel is sent over one that has been rendered: at the request the input queue is told to
 *   wait for what the computing queue has by then.
 * - A parcel is rendered when it is there: sh_feed_wait tells the computing queue to wait for the
 *   mark behind its sending.
 */
#include "trainer/feed.h"

#include <stdlib.h>

typedef struct place {
    int64_t n_images;
    void *memory;  /* the loader's */
    void *parcel;  /* the device's */
    sh_mark *read; /* the device has read `memory` */
    bool arrived, sent, ordered;
} place;

struct sh_feed {
    const sh_backend *backend;
    const sh_device *device; /* that renders; NULL: the loader does */
    sh_mark *computing;      /* where the computing queue stood at the last request */
    sh_loader *loader;
    place *places; /* [n_places] */
    int n_places;
    int *asked; /* [n_places] a ring: those whose images have not been waited for, oldest first */
    int first_asked, n_asked;
};

sh_status sh_input_put(const sh_input *input, const sh_backend *backend, sh_program *program,
                       sh_buffer *arena, sh_value value)
{
    sh_status st = SH_OK;
    const sh_device *device = backend->device;
    const sh_tensor_desc desc = sh_program_desc(program, value);
    void *to = NULL;

    if (device == NULL) {
        SH_TRY(sh_program_write(program, arena, value, input->host));
        goto out;
    }
    SH_TRY(sh_program_place(program, arena, value, &to));
    if (input->parcel != NULL)
        SH_TRY(device->render(SH_QUEUE_COMPUTE, input->parcel, &desc, to));
    else
        SH_TRY(device->send(SH_QUEUE_COMPUTE, to, input->host, sh_tensor_bytes(&desc)));
out:
    return st;
}

static sh_status reserve_place(sh_feed *feed, const sh_loader_config *loader,
                               const sh_tensor_desc *block, place *p)
{
    sh_status st = SH_OK;
    const sh_device *device = feed->device;

    p->n_images = block->dims[0];
    size_t n_bytes =
        device != NULL ? sh_loader_parcel_bytes(loader, p->n_images) : sh_tensor_bytes(block);

    SH_TRY(sh_backend_alloc_host(feed->backend, n_bytes, &p->memory));
    if (device == NULL) goto out;
    SH_TRY(device->alloc(n_bytes, &p->parcel));
    SH_TRY(device->mark_create(&p->read));
out:
    return st;
}

static void free_place(const sh_feed *feed, place *p)
{
    sh_backend_free_host(feed->backend, p->memory);
    if (feed->device == NULL) return;
    feed->device->free(p->parcel);
    feed->device->mark_destroy(&p->read);
}

sh_status sh_feed_create(const sh_feed_config *config, sh_feed **out)
{
    sh_status st = SH_OK;
    sh_feed *feed = calloc(1, sizeof(*feed));
    sh_loader_config loader = config->loader;

    SH_CHECK(feed != NULL, SH_ERR_NO_MEMORY, "a feed of images");
    feed->backend = config->backend;
    feed->device = feed->backend->device;
    feed->n_places = config->n_places;
    feed->places = calloc((size_t)config->n_places, sizeof(*feed->places));
    feed->asked = calloc((size_t)config->n_places, sizeof(*feed->asked));
    SH_CHECK(feed->places && feed->asked, SH_ERR_NO_MEMORY, "%d blocks of images",
             config->n_places);
    loader.dtype = config->blocks[0].dtype;
    loader.layout = config->blocks[0].layout;
    loader.parcels = feed->device != NULL;
    for (int i = 0; i < config->n_places; i++)
        SH_TRY(reserve_place(feed, &loader, &config->blocks[i], &feed->places[i]));
    if (feed->device != NULL) SH_TRY(feed->device->mark_create(&feed->computing));
    SH_TRY(sh_loader_create(&loader, config->dataset, &feed->loader));
    *out = feed;
    feed = NULL;
out:
    sh_feed_destroy(&feed);
    return st;
}

void sh_feed_destroy(sh_feed **feed)
{
    sh_feed *f = *feed;

    if (f == NULL) return;
    sh_loader_destroy(&f->loader); /* its threads write into the places */
    for (int i = 0; f->places != NULL && i < f->n_places; i++) free_place(f, &f->places[i]);
    if (f->device != NULL) f->device->mark_destroy(&f->computing);
    free(f->places);
    free(f->asked);
    free(f);
    *feed = NULL;
}

sh_status sh_feed_request(sh_feed *feed, int place_index, const sh_slot_plan *slots)
{
    sh_status st = SH_OK;
    place *p = &feed->places[place_index];

    SH_CHECK(feed->n_asked < feed->n_places, SH_ERR_INTERNAL, "more requests than places");
    if (p->sent) {
        SH_TRY(feed->device->mark_wait(p->read));
        SH_TRY(feed->device->mark_put(feed->computing, SH_QUEUE_COMPUTE));
        SH_TRY(feed->device->follow(SH_QUEUE_INPUT, feed->computing));
    }
    p->arrived = p->sent = p->ordered = false;
    SH_TRY(sh_loader_request(feed->loader, slots, p->n_images, p->memory));
    feed->asked[(feed->first_asked + feed->n_asked++) % feed->n_places] = place_index;
out:
    return st;
}

static sh_status wait_for_oldest(sh_feed *feed)
{
    sh_status st = SH_OK;

    SH_CHECK(feed->n_asked > 0, SH_ERR_INTERNAL, "waiting for images that nobody requested");
    SH_TRY(sh_loader_wait(feed->loader));
    feed->places[feed->asked[feed->first_asked]].arrived = true;
    feed->first_asked = (feed->first_asked + 1) % feed->n_places;
    feed->n_asked--;
out:
    return st;
}

static sh_status send(sh_feed *feed, place *p)
{
    sh_status st = SH_OK;
    const sh_device *device = feed->device;

    if (p->sent) goto out;
    SH_TRY(device->send(SH_QUEUE_INPUT, p->parcel, p->memory,
                        (size_t)((const sh_parcel *)p->memory)->n_bytes));
    SH_TRY(device->mark_put(p->read, SH_QUEUE_INPUT));
    p->sent = true;
out:
    return st;
}

sh_status sh_feed_wait(sh_feed *feed, int place_index, sh_input *out)
{
    sh_status st = SH_OK;
    place *p = &feed->places[place_index];

    while (!p->arrived) SH_TRY(wait_for_oldest(feed));
    if (feed->device == NULL) {
        *out = (sh_input){.host = p->memory};
        goto out;
    }
    SH_TRY(send(feed, p));
    if (!p->ordered) SH_TRY(feed->device->follow(SH_QUEUE_COMPUTE, p->read));
    p->ordered = true;
    *out = (sh_input){.parcel = p->parcel};
out:
    return st;
}

sh_status sh_feed_send(sh_feed *feed)
{
    sh_status st = SH_OK;

    if (feed->device == NULL) goto out;
    while (sh_loader_is_ready(feed->loader)) {
        place *p = &feed->places[feed->asked[feed->first_asked]];

        SH_TRY(wait_for_oldest(feed));
        SH_TRY(send(feed, p));
    }
out:
    return st;
}

sh_status sh_feed_settle(sh_feed *feed)
{
    sh_status st = SH_OK;

    while (feed->n_asked > 0) SH_TRY(wait_for_oldest(feed));
out:
    return st;
}

void sh_feed_get_stats(const sh_feed *feed, sh_loader_stats *out)
{
    sh_loader_get_stats(feed->loader, out);
}
