// SPDX-License-Identifier: Apache-2.0
#include "base/position.h"

#include <assert.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

enum { MAX_DEPTH = 8, ENTRY_TEXT = 96 };

typedef struct entry {
    sh_activity activity;
    char what[ENTRY_TEXT];
} entry;

/* The stack changes some twenty times a step: a lock. Nodes change by the hundred: atomics. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static entry stack[MAX_DEPTH];
static int depth = 0; /* may exceed MAX_DEPTH; what lies deeper is not kept */
static _Atomic uint64_t n_moves = 0;
static _Atomic int node_index = -1;
static const char *_Atomic node_name = NULL;
static _Thread_local bool followed = false;

void sh_position_own(void)
{
    followed = true;
}

void sh_position_enter(sh_activity activity, const char *fmt, ...)
{
    va_list args;

    if (!followed) return;
    pthread_mutex_lock(&lock);
    if (depth < MAX_DEPTH) {
        stack[depth].activity = activity;
        va_start(args, fmt);
        vsnprintf(stack[depth].what, ENTRY_TEXT, fmt, args);
        va_end(args);
    }
    depth++;
    node_index = -1;
    n_moves++;
    pthread_mutex_unlock(&lock);
}

void sh_position_leave(void)
{
    if (!followed) return;
    pthread_mutex_lock(&lock);
    assert(depth > 0);
    depth--;
    node_index = -1;
    n_moves++;
    pthread_mutex_unlock(&lock);
}

void sh_position_node(int index, const char *name)
{
    if (!followed) return;
    atomic_store_explicit(&node_name, name, memory_order_relaxed);
    atomic_store_explicit(&node_index, index, memory_order_relaxed);
    atomic_fetch_add_explicit(&n_moves, 1, memory_order_relaxed);
}

void sh_position_move(void)
{
    if (followed) atomic_fetch_add_explicit(&n_moves, 1, memory_order_relaxed);
}

void sh_position_read(sh_position *out)
{
    size_t n = 0;

    pthread_mutex_lock(&lock);
    int kept = depth < MAX_DEPTH ? depth : MAX_DEPTH;

    *out = (sh_position){.activity = kept > 0 ? stack[kept - 1].activity : SH_AT_WORK,
                         .n_moves = n_moves};
    for (int i = 0; i < kept && n < sizeof(out->what); i++)
        n += (size_t)snprintf(out->what + n, sizeof(out->what) - n, "%s%s", i > 0 ? ": " : "",
                              stack[i].what);
    int index = node_index;
    const char *name = node_name;

    if (index >= 0 && n < sizeof(out->what))
        snprintf(out->what + n, sizeof(out->what) - n, "%snode %d (%s)", n > 0 ? ": " : "", index,
                 name);
    pthread_mutex_unlock(&lock);
}

const char *sh_activity_name(sh_activity activity)
{
    static const char *const names[] = {[SH_AT_WORK] = "working",
                                        [SH_AT_COMPUTE] = "computing",
                                        [SH_AT_COLLECTIVE] = "in a collective",
                                        [SH_AT_FILES] = "waiting for files"};

    return (size_t)activity < SH_COUNT(names) ? names[activity] : "at an unknown place";
}
