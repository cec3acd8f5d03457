// SPDX-License-Identifier: Apache-2.0
/**
 * Inside of the watchdog (comm/watchdog.h): what a rank knows of the others, what follows from it,
 * and how it is told. No sockets, threads or clocks: pure functions.
 */
#ifndef SH_COMM_WATCH_H
#define SH_COMM_WATCH_H

#include <stdbool.h>

#include "base/position.h"
#include "comm/watchdog.h"

SH_C_BEGIN

enum { SH_WATCH_HOST = 64 };

/** One rank, as seen from here. */
typedef struct sh_watch_rank {
    char host[SH_WATCH_HOST];
    bool heard;           /* at least once */
    bool left;            /* said goodbye: no longer watched */
    bool ended;           /* its process is gone, without a goodbye */
    double silent_s;      /* since it was heard last; of this rank itself always 0 */
    double still_s;       /* since its position moved, by its own count */
    sh_position position; /* known to judges of all, to others of judges */
} sh_watch_rank;

typedef struct sh_watch {
    const sh_watchdog_config *config;
    int self, n_ranks;
    int judges[2];        /* first and second; equal in a group of one */
    sh_watch_rank *ranks; /* [n_ranks] */
} sh_watch;

/** Rank 0, and the first rank of another host; where there is one host only, rank 1. */
void sh_watch_choose_judges(sh_watch *watch);
bool sh_watch_is_judge(const sh_watch *watch, int rank);

/** Must the job end? Then `verdict` has a line for each rank to blame. */
bool sh_watch_judge(const sh_watch *watch, char *verdict, size_t size);

/** The position of every rank, a line each, into text[size]. */
void sh_watch_describe(const sh_watch *watch, char *text, size_t size);

/* ---- messages ---- */

typedef enum sh_watch_kind {
    SH_WATCH_BEAT = 1, /* alive, and where */
    SH_WATCH_END,      /* a judge has spoken: end */
    SH_WATCH_BYE,      /* leaving in good order */
    SH_WATCH_KIND_END
} sh_watch_kind;

typedef struct sh_watch_message {
    sh_watch_kind kind;
    int rank; /* of the sender */
    double still_s;
    sh_position position;
} sh_watch_message;

enum { SH_WATCH_HEAD_BYTES = 28, SH_WATCH_MAX_BYTES = SH_WATCH_HEAD_BYTES + SH_POSITION_TEXT };

/** Bytes of the message, written to out[SH_WATCH_MAX_BYTES]. Little endian: magic "shW1", kind u8,
 *  activity u8, length of the text u16, rank u32, milliseconds still u64, moves u64, the text. */
size_t sh_watch_encode(const sh_watch_message *message, uint8_t *out);

/** Read a message; false, and *out untouched, unless every field is in its range and the length is
 *  exact. What is not printable in the text becomes '?'. */
bool sh_watch_decode(const uint8_t *data, size_t n_bytes, int n_ranks, sh_watch_message *out);

SH_C_END

#endif
