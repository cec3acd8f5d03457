// SPDX-License-Identifier: Apache-2.0
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm/nccl/host/host.h"
#include "comm/reducer.h"

typedef struct item {
    sh_lazy_work work;
    void *context;
    struct item *next;
} item;

typedef struct queue {
    item *first, **end;
    int64_t n_pushed, n_done;
} queue;

static queue queues[SH_QUEUE_COUNT];

void sh_lazy_push(void *stream, sh_lazy_work work, void *context)
{
    queue *q = stream;
    item *i = malloc(sizeof(*i));

    assert(i != NULL);
    *i = (item){.work = work, .context = context};
    if (q->end == NULL) q->end = &q->first;
    *q->end = i;
    q->end = &i->next;
    q->n_pushed++;
}

/* Run a queue until so many items are complete, or one is not. */
static bool get_on(queue *q, int64_t n_wanted)
{
    while (q->n_done < n_wanted && q->first != NULL) {
        item *i = q->first;

        if (!i->work(i->context)) return false;
        q->first = i->next;
        if (q->first == NULL) q->end = &q->first;
        q->n_done++;
        free(i->context);
        free(i);
    }
    return true;
}

void sh_lazy_settle(void)
{
    get_on(&queues[SH_QUEUE_COMPUTE], queues[SH_QUEUE_COMPUTE].n_pushed);
}

/* ---- the device ---- */

static void *copy_of(const void *context, size_t n_bytes)
{
    void *copy = malloc(n_bytes);

    assert(copy != NULL);
    return memcpy(copy, context, n_bytes);
}

typedef struct sum {
    float *dst;
    const float *a, *b;
    int64_t n;
} sum;

static bool run_add(void *context)
{
    const sum *s = context;

    sh_tree_add(s->dst, s->a, s->b, s->n);
    return true;
}

static sh_status add(sh_queue q, float *dst, const float *a, const float *b, int64_t n)
{
    const sum s = {dst, a, b, n};

    sh_lazy_push(&queues[q], run_add, copy_of(&s, sizeof(s)));
    return SH_OK;
}

typedef struct tree {
    float *out;
    float *const *inputs;
    const uint8_t *n_joins;
    int n_inputs, depth;
    int64_t n;
} tree;

static bool run_tree_sum(void *context)
{
    const tree *t = context;

    return sh_device_host.tree_sum(SH_QUEUE_EXCHANGE, t->out, t->inputs, t->n_joins, t->n_inputs,
                                   t->depth, t->n) == SH_OK;
}

static sh_status tree_sum(sh_queue q, float *out, float *const *inputs, const uint8_t *n_joins,
                          int n_inputs, int depth, int64_t n)
{
    const tree t = {out, inputs, n_joins, n_inputs, depth, n};

    sh_lazy_push(&queues[q], run_tree_sum, copy_of(&t, sizeof(t)));
    return SH_OK;
}

static bool run_copy(void *context)
{
    const sum *s = context;

    memcpy(s->dst, s->a, (size_t)s->n * sizeof(float));
    return true;
}

static sh_status copy(sh_queue q, float *to, const float *from, int64_t n)
{
    const sum s = {to, from, NULL, n};

    sh_lazy_push(&queues[q], run_copy, copy_of(&s, sizeof(s)));
    return SH_OK;
}

static sh_status alloc(size_t n_bytes, void **memory)
{
    sh_status st = SH_OK;

    SH_TRY(sh_device_host.alloc(n_bytes, memory));
    memset(*memory, 0xFF, n_bytes); /* NaN: what is read was written before */
out:
    return st;
}

static void release(void *memory)
{
    sh_lazy_settle(); /* as cudaFree waits */
    free(memory);
}

static sh_status copy_in(void *to, const void *host, size_t n_bytes)
{
    return sh_device_host.copy_in(to, host, n_bytes);
}

/* SHOAL_LAZY_DEVICE: the device's id, so that ranks can share one. */
static sh_status identify(char id[SH_DEVICE_ID], char text[SH_DEVICE_TEXT])
{
    const char *name = getenv("SHOAL_LAZY_DEVICE");

    if (name != NULL)
        snprintf(id, SH_DEVICE_ID, "%s", name);
    else
        snprintf(id, SH_DEVICE_ID, "%ld", (long)getpid());
    snprintf(text, SH_DEVICE_TEXT, "a lazy device");
    return SH_OK;
}

static void *stream_of(sh_queue q)
{
    return &queues[q];
}

typedef struct wait {
    queue *of;
    int64_t n;
} wait;

static bool run_wait(void *context)
{
    const wait *w = context;

    return get_on(w->of, w->n);
}

struct sh_mark {
    wait wait;
};

static sh_status mark_create(sh_mark **out)
{
    sh_status st = SH_OK;

    *out = calloc(1, sizeof(**out));
    SH_CHECK(*out != NULL, SH_ERR_NO_MEMORY, "a mark");
out:
    return st;
}

static void mark_destroy(sh_mark **mark)
{
    free(*mark);
    *mark = NULL;
}

static sh_status mark_put(sh_mark *mark, sh_queue q)
{
    mark->wait = (wait){&queues[q], queues[q].n_pushed};
    return SH_OK;
}

static sh_status mark_reached(const sh_mark *mark, bool *reached)
{
    *reached = get_on(mark->wait.of, mark->wait.n);
    return SH_OK;
}

static sh_status follow(sh_queue q, const sh_mark *mark)
{
    sh_lazy_push(&queues[q], run_wait, copy_of(&mark->wait, sizeof(mark->wait)));
    return SH_OK;
}

const sh_device sh_device_lazy = {.alloc = alloc,
                                  .free = release,
                                  .copy_in = copy_in,
                                  .add = add,
                                  .tree_sum = tree_sum,
                                  .copy = copy,
                                  .identify = identify,
                                  .stream = stream_of,
                                  .mark_create = mark_create,
                                  .mark_destroy = mark_destroy,
                                  .mark_put = mark_put,
                                  .mark_reached = mark_reached,
                                  .follow = follow};
