// SPDX-License-Identifier: Apache-2.0
/*
 * Buckets in the memory of devices, moved by NCCL, in a queue of their own beside the backward
 * pass.
 *
 * A bucket takes these steps, which only queue work: the exchange's queue waits for the
 * bucket's gradients; one group of sends and receives collects the slices; the own kernel adds them
 * by the tree; a second group shares them; a mark is put behind. The order on the device is that of
 * the queue, so nothing waits for the host.
 *
 * The host must not ask for more while NCCL is still taking over what it was asked
 * (ncclInProgress), and what is asked must come in one order on all ranks: one bucket at a time is
 * issued, from the last downwards, and the next when the one before has its mark.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "comm/nccl/group.h"

enum { PHASE_TEXT = 128, ROLL_TAG = 32767, ROLL_TEXT = 512 };

static sh_nccl *group_of(const sh_reducer *r)
{
    return r->comm->device_group;
}

/* What is being done for a bucket, for messages; NULL: for none in particular. */
static const char *describe(const sh_reducer *r, const sh_bucket *b, char text[PHASE_TEXT])
{
    static const char *const phases[] = {[SH_BUCKET_OPEN] = "not complete",
                                         [SH_BUCKET_COMPLETE] = "waiting for its turn",
                                         [SH_BUCKET_COLLECTING] = "collecting slices",
                                         [SH_BUCKET_SHARING] = "sharing sums",
                                         [SH_BUCKET_SETTLING] = "on the device",
                                         [SH_BUCKET_DONE] = "done"};

    snprintf(text, PHASE_TEXT, "in the sum over shards, bucket %d of %d (%s)",
             (int)(b - r->buckets) + 1, r->n_buckets, phases[b->state]);
    return text;
}

static sh_status issue_messages(sh_reducer *r, const sh_bucket *b, const sh_message *messages,
                                int n_messages)
{
    sh_status st = SH_OK;
    sh_nccl *n = group_of(r);
    char text[PHASE_TEXT];
    const char *what = describe(r, b, text);
    void *stream = r->device->stream(SH_QUEUE_EXCHANGE);

    n->issuing = b;
    SH_TRY(sh_nccl_check(n, what, sh_nccl_lib.GroupStart()));
    for (int i = 0; i < n_messages; i++) {
        const sh_message *m = &messages[i];
        size_t count = (size_t)m->n;

        if (m->is_send)
            SH_TRY(sh_nccl_check(
                n, what, sh_nccl_lib.Send(m->at, count, ncclFloat, m->peer, n->group, stream)));
        else
            SH_TRY(sh_nccl_check(
                n, what, sh_nccl_lib.Recv(m->at, count, ncclFloat, m->peer, n->group, stream)));
    }
    SH_TRY(sh_nccl_check(n, what, sh_nccl_lib.GroupEnd()));
out:
    return st;
}

/* A bucket's places in the queues. */
typedef struct marks {
    sh_mark *complete; /* of what computes: its gradients are there */
    sh_mark *shared;   /* of what is exchanged: its total is */
} marks;

static void close_exchange(sh_reducer *r)
{
    group_of(r)->issuing = NULL;
    for (int i = 0; i < r->n_buckets; i++) {
        marks *m = r->buckets[i].own;

        if (m == NULL) continue;
        r->device->mark_destroy(&m->complete);
        r->device->mark_destroy(&m->shared);
        free(m);
        r->buckets[i].own = NULL;
    }
}

static sh_status open_exchange(sh_reducer *r)
{
    sh_status st = SH_OK;

    for (int i = 0; i < r->n_buckets; i++) {
        marks *m = r->buckets[i].own = calloc(1, sizeof(*m));

        SH_CHECK(m != NULL, SH_ERR_NO_MEMORY, "no memory for bucket %d", i);
        SH_TRY(r->device->mark_create(&m->complete));
        SH_TRY(r->device->mark_create(&m->shared));
    }
out:
    return st;
}

/* The host is far ahead of the device: when the bucket is started, all of the backward pass may be
 * in the queue. */
static sh_status complete(sh_reducer *r, sh_bucket *b)
{
    const marks *m = b->own;

    return r->device->mark_put(m->complete, SH_QUEUE_COMPUTE);
}

/* What is exchanged from now on waits for the bucket's gradients. */
static sh_status follow_bucket(sh_reducer *r, const sh_bucket *b)
{
    const marks *m = b->own;

    return r->device->follow(SH_QUEUE_EXCHANGE, m->complete);
}

static sh_status may_issue(sh_reducer *r, bool *ready)
{
    sh_status st = SH_OK;
    sh_nccl *n = group_of(r);
    char text[PHASE_TEXT];

    *ready = false;
    if (n->issuing == NULL)
        SH_TRY(sh_nccl_look(n, describe(r, &r->buckets[r->next_in_order], text), ready));
out:
    return st;
}

static sh_status start_exact(sh_reducer *r, sh_bucket *b)
{
    sh_status st = SH_OK;

    b->state = SH_BUCKET_COLLECTING;
    SH_TRY(follow_bucket(r, b));
    SH_TRY(issue_messages(r, b, b->collect, b->n_collect));
out:
    return st;
}

static sh_status start_fast(sh_reducer *r, sh_bucket *b)
{
    sh_status st = SH_OK;
    sh_nccl *n = group_of(r);
    float *at = sh_reducer_slot(r, 0) + b->begin;
    char text[PHASE_TEXT];

    b->state = SH_BUCKET_SHARING;
    n->issuing = b;
    SH_TRY(follow_bucket(r, b));
    if (b->end > b->begin)
        SH_TRY(sh_nccl_check(n, describe(r, b, text),
                             sh_nccl_lib.AllReduce(at, at, (size_t)(b->end - b->begin), ncclFloat,
                                                   ncclSum, n->group,
                                                   r->device->stream(SH_QUEUE_EXCHANGE))));
out:
    return st;
}

/* The phase after what NCCL has just taken over. */
static sh_status go_on(sh_reducer *r, sh_bucket *b)
{
    sh_status st = SH_OK;
    const marks *m = b->own;

    if (b->state == SH_BUCKET_COLLECTING) {
        SH_TRY(sh_reducer_sum_slice(r, b));
        b->state = SH_BUCKET_SHARING;
        SH_TRY(issue_messages(r, b, b->share, b->n_share));
    } else {
        SH_TRY(r->device->mark_put(m->shared, SH_QUEUE_EXCHANGE));
        b->state = SH_BUCKET_SETTLING;
        group_of(r)->issuing = NULL;
    }
out:
    return st;
}

static sh_status advance(sh_reducer *r, sh_bucket *b)
{
    sh_status st = SH_OK;
    const marks *m = b->own;
    char text[PHASE_TEXT];
    bool ready = false, reached = false;

    SH_TRY(sh_nccl_look(group_of(r), describe(r, b, text), &ready));
    if (b->state == SH_BUCKET_SETTLING) {
        SH_TRY(r->device->mark_reached(m->shared, &reached));
        if (reached) sh_reducer_bucket_is_done(r, b);
    } else if (ready) {
        SH_TRY(go_on(r, b));
    }
out:
    return st;
}

/* ---- who is missing ---- */

/* Every rank whose patience ends tells the others, and names those of which it hears nothing for
 * some more time. Only on the way to the end: messages are left behind. */
static void call_the_roll(sh_comm *comm, double seconds, char text[ROLL_TEXT])
{
    static int here = 1;
    enum { MAX_NAMED = 1024 };
    MPI_Request calls[MAX_NAMED];
    int there[MAX_NAMED], size = comm->size < MAX_NAMED ? comm->size : MAX_NAMED;
    double start = sh_clock_seconds();
    int n_missing = size, n_text = 0;

    for (int peer = 0; peer < size; peer++) {
        MPI_Request sent = MPI_REQUEST_NULL;

        calls[peer] = MPI_REQUEST_NULL;
        if (peer == comm->rank) continue;
        MPI_Irecv(&there[peer], 1, MPI_INT, peer, ROLL_TAG, comm->group, &calls[peer]);
        MPI_Isend(&here, 1, MPI_INT, peer, ROLL_TAG, comm->group, &sent);
        MPI_Request_free(&sent);
    }
    while (n_missing > 0 && sh_clock_seconds() - start < seconds) {
        int answered = 0;

        sh_clock_sleep(1e-3);
        n_missing = 0;
        for (int peer = 0; peer < size; peer++) {
            MPI_Test(&calls[peer], &answered, MPI_STATUS_IGNORE);
            n_missing += !answered;
        }
    }
    snprintf(text, ROLL_TEXT, "all ranks wait");
    for (int peer = 0; peer < size && n_text < ROLL_TEXT - 16; peer++) {
        if (calls[peer] == MPI_REQUEST_NULL) continue;
        n_text += snprintf(text + n_text, (size_t)(ROLL_TEXT - n_text), "%s %d",
                           n_text == 0 ? "did not come to it: rank" : ",", peer);
        MPI_Cancel(&calls[peer]);
        MPI_Request_free(&calls[peer]);
    }
}

static sh_status patience(sh_reducer *r, double waited_s)
{
    sh_status st = SH_OK;
    sh_nccl *n = group_of(r);
    const sh_bucket *slowest = &r->buckets[r->n_buckets - 1];
    char what[PHASE_TEXT], missing[ROLL_TEXT], why[ROLL_TEXT + 64];

    /* A watchdog knows more: who computes, who is gone. */
    if (n->patience_s <= 0 || waited_s < n->patience_s || r->comm->watchdog != NULL) goto out;
    while (slowest->state == SH_BUCKET_DONE) slowest--;
    describe(r, slowest, what);
    call_the_roll(r->comm, 2 + 0.25 * n->patience_s, missing);
    snprintf(why, sizeof(why), "nothing has got on for %.3g s; %s", waited_s, missing);
    SH_TRY(sh_nccl_fail(n, what, why));
out:
    return st;
}

const sh_exchange sh_nccl_exact = {.in_order = true,
                                   .open = open_exchange,
                                   .close = close_exchange,
                                   .ready = may_issue,
                                   .complete = complete,
                                   .start = start_exact,
                                   .advance = advance,
                                   .patience = patience};

const sh_exchange sh_nccl_fast = {.in_order = true,
                                  .open = open_exchange,
                                  .close = close_exchange,
                                  .ready = may_issue,
                                  .complete = complete,
                                  .start = start_fast,
                                  .advance = advance,
                                  .patience = patience};
