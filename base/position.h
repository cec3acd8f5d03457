// SPDX-License-Identifier: Apache-2.0
/**
 * Where this process is: what its working thread does, and whether it gets on.
 *
 * A watchdog in another thread (comm/watchdog.h) reads it and compares how long nothing moved with
 * a budget that depends on the activity. Activities nest: a collective inside a validation inside
 * the loop. Only the thread that called sh_position_own is followed; calls from other threads, and
 * from programs that never called it, do nothing. An enter costs a few hundred nanoseconds, a node
 * a few.
 */
#ifndef SH_BASE_POSITION_H
#define SH_BASE_POSITION_H

#include <stdint.h>

#include "base/status.h"

SH_C_BEGIN

typedef enum sh_activity {
    SH_AT_WORK,       /* takes as long as it takes: start, scoring, the end */
    SH_AT_COMPUTE,    /* moves with every node */
    SH_AT_COLLECTIVE, /* waits for other ranks */
    SH_AT_FILES,      /* waits for storage */
    SH_AT_COUNT
} sh_activity;

enum { SH_POSITION_TEXT = 192 };

typedef struct sh_position {
    sh_activity activity;        /* the innermost */
    uint64_t n_moves;            /* differs from the last look: something began, ended or got on */
    char what[SH_POSITION_TEXT]; /* "step 17: backward of shard 2: node 113 (conv)" */
} sh_position;

/** The calling thread is the one to follow, from now on. */
void sh_position_own(void);

/** Begin an activity inside the present one; every enter has its leave. */
void sh_position_enter(sh_activity activity, const char *fmt, ...) SH_PRINTF(2, 3);
void sh_position_leave(void);

/** Node `index` of a program begins; `name` is a static string. */
void sh_position_node(int index, const char *name);

/** Something else got on (a message arrived, a block was read). */
void sh_position_move(void);

/** From any thread. */
void sh_position_read(sh_position *out);

/** "computing", "in a collective", ...: a static string. */
const char *sh_activity_name(sh_activity activity);

SH_C_END

#endif
