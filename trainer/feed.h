// SPDX-License-Identifier: Apache-2.0
/**
 * Images on their way into a network, ahead of their use: a loader, and places in memory, each for
 * one block of images (a shard's, say), that it fills.
 *
 * Where the network runs on a device, a place is page-locked memory with a place on the device
 * behind it: the loader fills it with a parcel (base/parcel.h), bytes of decoded crops, which
 * travels in a queue of its own beside what is computed, and the device renders the images where
 * the program reads them. Elsewhere the loader renders them.
 *
 * None of this is collective. One thread.
 */
#ifndef SH_TRAINER_FEED_H
#define SH_TRAINER_FEED_H

#include "dataio/loader.h"
#include "models/program.h"

/** What a program reads; one of the pointers is NULL. */
typedef struct sh_input {
    const void *host;   /* values of the program's input as it lays them out; where the backend has
                           a device, copied without waiting if in memory of its alloc_host */
    const void *parcel; /* in the device's memory: images for it to render */
} sh_input;

/** Bring it to `value` of a program. Where there is a device, it does so when its queue has come
 *  that far, and the host goes on: what the input points to stays as it is until then. */
SH_MUST_CHECK sh_status sh_input_put(const sh_input *input, const sh_backend *backend,
                                     sh_program *program, sh_buffer *arena, sh_value value);

typedef struct sh_feed sh_feed;

typedef struct sh_feed_config {
    const sh_backend *backend;
    const sh_dataset *dataset;
    sh_loader_config loader;      /* its dtype, layout and parcels are set here */
    const sh_tensor_desc *blocks; /* [n_places] of the images of each, as programs read them */
    int n_places;
} sh_feed_config;

/** Reserve the memory and start the loader's threads. Keeps the pointers to backend and dataset.
 *  The caller owns *out. */
SH_MUST_CHECK sh_status sh_feed_create(const sh_feed_config *config, sh_feed **out);
void sh_feed_destroy(sh_feed **feed);

/** Ask for images at `place`, one per image of its block; copies slots. What was there before is
 *  given up: all programs that read it must have been started. Requests are served in order. */
SH_MUST_CHECK sh_status sh_feed_request(sh_feed *feed, int place, const sh_slot_plan *slots);

/** Wait until the images of `place` are there, and all that were asked for before them. *out holds
 *  until the next request for that place. */
SH_MUST_CHECK sh_status sh_feed_wait(sh_feed *feed, int place, sh_input *out);

/** Send to the device what has been loaded since. Does not wait; without a device it does nothing.
 */
SH_MUST_CHECK sh_status sh_feed_send(sh_feed *feed);

/** Wait until all that was asked for is in the host's memory. */
SH_MUST_CHECK sh_status sh_feed_settle(sh_feed *feed);

/** See sh_loader_get_stats. */
void sh_feed_get_stats(const sh_feed *feed, sh_loader_stats *out);

#endif
