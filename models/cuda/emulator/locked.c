// SPDX-License-Identifier: Apache-2.0
/* Page-locked memory, and copies that nobody waits for: what would go wrong with them on a device.
 *
 * A device reads such memory when its queue has come that far, and writes it likewise. Here it is
 * read at once, so that a copy of what was read is kept until the host waits: by then it must be
 * what it was. What is fetched arrives when the host waits; until then its place holds NaN. */
#include "models/cuda/emulator/locked.h"

#include <stdlib.h>
#include <string.h>

#include "models/cuda/emulator/order.h"

enum { ALIGN_BYTES = 64 };

typedef struct locked {
    struct locked *next;
    char *memory;
    size_t n_bytes;
} locked;

/* A copy under way in what computes. */
typedef struct transfer {
    struct transfer *next;
    char *host;
    bool to_host;
    size_t n_bytes;
    char content[];
} transfer;

static locked *all_locked;
static transfer *first, **last = &first;
static bool was_changed; /* what was sent; not told yet */
static long n_waits;

static bool is_locked(const char *host, size_t n_bytes)
{
    for (const locked *l = all_locked; l != NULL; l = l->next)
        if (host >= l->memory && host + n_bytes <= l->memory + l->n_bytes) return true;
    return false;
}

sh_status sh_emulator_alloc_host(size_t n_bytes, void **memory)
{
    sh_status st = SH_OK;
    locked *l = calloc(1, sizeof(*l));

    SH_TRY(sh_emulator_refuse("an allocation"));
    SH_CHECK(l != NULL, SH_ERR_NO_MEMORY, "page-locked memory");
    l->memory = aligned_alloc(ALIGN_BYTES, (n_bytes / ALIGN_BYTES + 1) * ALIGN_BYTES);
    SH_CHECK(l->memory != NULL, SH_ERR_NO_MEMORY, "%zu bytes", n_bytes);
    memset(l->memory, 0xFF, n_bytes);
    l->n_bytes = n_bytes;
    l->next = all_locked;
    all_locked = l;
    *memory = l->memory;
    l = NULL;
out:
    free(l);
    return st;
}

/* The device has come past all that was asked of it. */
static void arrive(void)
{
    n_waits++;
    while (first != NULL) {
        transfer *t = first;

        first = t->next;
        if (t->to_host)
            memcpy(t->host, t->content, t->n_bytes);
        else
            was_changed = was_changed || memcmp(t->host, t->content, t->n_bytes) != 0;
        free(t);
    }
    last = &first;
}

void sh_emulator_free_host(void *memory)
{
    if (memory == NULL) return;
    arrive();
    for (locked **at = &all_locked; *at != NULL; at = &(*at)->next) {
        locked *l = *at;

        if (l->memory != memory) continue;
        *at = l->next;
        free(l);
        break;
    }
    free(memory);
}

static sh_status append(const void *content, void *host, size_t n_bytes, bool to_host)
{
    sh_status st = SH_OK;
    transfer *t = malloc(sizeof(*t) + n_bytes);

    SH_CHECK(t != NULL, SH_ERR_NO_MEMORY, "a copy of %zu bytes", n_bytes);
    *t = (transfer){.host = host, .to_host = to_host, .n_bytes = n_bytes};
    memcpy(t->content, content, n_bytes);
    *last = t;
    last = &t->next;
out:
    return st;
}

sh_status sh_emulator_send(sh_queue queue, void *to, const void *host, size_t n_bytes)
{
    sh_status st = SH_OK;

    SH_TRY(sh_emulator_refuse("a copy to the device"));
    memcpy(to, host, n_bytes);
    if (queue == SH_QUEUE_COMPUTE && is_locked(host, n_bytes))
        SH_TRY(append(host, (void *)host, n_bytes, false));
out:
    return st;
}

typedef struct fetching {
    void *host;
    const void *from;
    size_t n_bytes;
} fetching;

static void run_fetch(void *closure)
{
    const fetching *f = closure;

    if (append(f->from, f->host, f->n_bytes, true) == SH_OK) memset(f->host, 0xFF, f->n_bytes);
}

sh_status sh_emulator_fetch(sh_queue queue, void *host, const void *from, size_t n_bytes)
{
    sh_status st = SH_OK;
    fetching f = {host, from, n_bytes};

    SH_CHECK(queue == SH_QUEUE_COMPUTE && is_locked(host, n_bytes), SH_ERR_INTERNAL,
             "%zu bytes are fetched to memory that is not page-locked", n_bytes);
    sh_emulator_queue(run_fetch, &f, sizeof(f));
out:
    return st;
}

sh_status sh_emulator_wait(const char *what)
{
    sh_status st = SH_OK;
    bool changed;

    SH_TRY(sh_emulator_refuse(what));
    arrive();
    changed = was_changed;
    was_changed = false;
    SH_CHECK(!changed, SH_ERR_INTERNAL,
             "%s: page-locked memory was written before the device had read it", what);
out:
    return st;
}

long sh_emulator_waits(void)
{
    return n_waits;
}
