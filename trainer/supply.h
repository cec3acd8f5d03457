// SPDX-License-Identifier: Apache-2.0
/** Do the steps of a training get their images in time? How much memory the decoded crops may take,
 *  and a line in the log, once, when steps wait for images: with numbers, and what would help. */
#ifndef SH_TRAINER_SUPPLY_H
#define SH_TRAINER_SUPPLY_H

#include "dataio/loader.h"

/** Bytes for this rank's decoded crops, by loader.cache_mb; -1: a quarter of the host's memory,
 *  shared by n_ranks. */
size_t sh_supply_cache_bytes(int64_t cache_mb, int n_ranks);

/** What a rank has for it. */
typedef struct sh_supply {
    int threads;           /* of the loader */
    int cores;             /* that this rank may use */
    int64_t decoded_bytes; /* of all crops that are trained on */
    size_t cache_bytes;
} sh_supply;

/** Say in the log what the decoded crops of the training need and how much of it is kept. */
void sh_supply_describe_cache(const sh_supply *supply);

enum { SH_SUPPLY_TEXT = 512, SH_SUPPLY_WINDOW_SECONDS = 60 };

/** Zero it at first. */
typedef struct sh_supply_meter {
    double begin; /* of the window under way; 0: none is */
    sh_loader_stats before;
    bool is_over; /* all has been said */
} sh_supply_meter;

/**
 * Look, between two steps, at what the loader has counted since the last window began. True, once,
 * when steps waited for their images for more than 10 % of a window; `text` then says how long and
 * what would help. While a cache that will hold all crops is being filled, nobody is to blame.
 *
 * now    seconds, as sh_clock_seconds
 * stats  of the loader, since it was made
 */
bool sh_supply_look(sh_supply_meter *meter, const sh_supply *supply, double now,
                    const sh_loader_stats *stats, char text[SH_SUPPLY_TEXT]);

#endif
