// SPDX-License-Identifier: Apache-2.0
/*
 * Buckets in host memory, moved by MPI.
 *
 * All messages are persistent requests between fixed addresses, made once: a step only starts and
 * tests them. That is MPI_Ialltoallv and MPI_Iallgatherv spelled out, which spares packing (the
 * subtrees of a rank lie in different slots) and lets ranks hand over buckets in any order: a
 * message is matched by its bucket and phase, not by the order of calls.
 */
#include <stdlib.h>

#include "comm/reducer.h"

/* ---- alone ---- */

static sh_status start_alone(sh_reducer *r, sh_bucket *b)
{
    sh_reducer_bucket_is_done(r, b);
    return SH_OK;
}

static sh_status advance_alone(sh_reducer *r, sh_bucket *b)
{
    (void)r, (void)b;
    return SH_OK;
}

const sh_exchange sh_exchange_alone = {.start = start_alone, .advance = advance_alone};

/* ---- exact ---- */

typedef struct requests {
    MPI_Request *collect, *share;
    int n_collect, n_share;
} requests;

static void free_requests(MPI_Request *list, int n)
{
    for (int i = 0; i < n; i++) {
        if (list[i] != MPI_REQUEST_NULL) MPI_Request_free(&list[i]);
    }
    free(list);
}

static void close_exact(sh_reducer *r)
{
    for (int i = 0; i < r->n_buckets; i++) {
        requests *q = r->buckets[i].own;

        if (q == NULL) continue;
        free_requests(q->collect, q->n_collect);
        free_requests(q->share, q->n_share);
        free(q);
        r->buckets[i].own = NULL;
    }
}

static sh_status make_requests(MPI_Comm group, int tag, const sh_message *messages, int n,
                               MPI_Request **list, int *n_made)
{
    sh_status st = SH_OK;

    *list = malloc(((size_t)n + 1) * sizeof(**list));
    SH_CHECK(*list != NULL, SH_ERR_NO_MEMORY, "no memory for %d messages", n);
    for (; *n_made < n; ++*n_made) {
        const sh_message *m = &messages[*n_made];
        MPI_Request *request = &(*list)[*n_made];

        if (m->is_send)
            SH_MPI(MPI_Send_init(m->at, (int)m->n, MPI_FLOAT, m->peer, tag, group, request));
        else
            SH_MPI(MPI_Recv_init(m->at, (int)m->n, MPI_FLOAT, m->peer, tag, group, request));
    }
out:
    return st;
}

static sh_status open_exact(sh_reducer *r)
{
    sh_status st = SH_OK;
    MPI_Comm group = r->comm->group;

    for (int i = 0; i < r->n_buckets; i++) {
        sh_bucket *b = &r->buckets[i];
        requests *q = b->own = calloc(1, sizeof(*q));

        SH_CHECK(q != NULL, SH_ERR_NO_MEMORY, "no memory for bucket %d", i);
        SH_TRY(make_requests(group, 2 * i, b->collect, b->n_collect, &q->collect, &q->n_collect));
        SH_TRY(make_requests(group, 2 * i + 1, b->share, b->n_share, &q->share, &q->n_share));
    }
out:
    return st;
}

static sh_status start_exact(sh_reducer *r, sh_bucket *b)
{
    sh_status st = SH_OK;
    requests *q = b->own;

    (void)r;
    b->state = SH_BUCKET_COLLECTING;
    SH_MPI(MPI_Startall(q->n_collect, q->collect));
out:
    return st;
}

static sh_status advance_exact(sh_reducer *r, sh_bucket *b)
{
    sh_status st = SH_OK;
    requests *q = b->own;
    int complete = 0;

    if (b->state == SH_BUCKET_COLLECTING) {
        SH_MPI(MPI_Testall(q->n_collect, q->collect, &complete, MPI_STATUSES_IGNORE));
        if (!complete) goto out;
        SH_TRY(sh_reducer_sum_slice(r, b));
        b->state = SH_BUCKET_SHARING;
        SH_MPI(MPI_Startall(q->n_share, q->share));
    }
    SH_MPI(MPI_Testall(q->n_share, q->share, &complete, MPI_STATUSES_IGNORE));
    if (complete) sh_reducer_bucket_is_done(r, b);
out:
    return st;
}

const sh_exchange sh_exchange_mpi = {
    .open = open_exact, .close = close_exact, .start = start_exact, .advance = advance_exact};

/* ---- fast ---- */

static void close_fast(sh_reducer *r)
{
    for (int i = 0; i < r->n_buckets; i++) {
        free(r->buckets[i].own);
        r->buckets[i].own = NULL;
    }
}

static sh_status open_fast(sh_reducer *r)
{
    sh_status st = SH_OK;

    for (int i = 0; i < r->n_buckets; i++) {
        MPI_Request *request = r->buckets[i].own = malloc(sizeof(*request));

        SH_CHECK(request != NULL, SH_ERR_NO_MEMORY, "no memory for bucket %d", i);
        *request = MPI_REQUEST_NULL;
    }
out:
    return st;
}

static sh_status start_fast(sh_reducer *r, sh_bucket *b)
{
    sh_status st = SH_OK;

    b->state = SH_BUCKET_SHARING;
    SH_MPI(MPI_Iallreduce(MPI_IN_PLACE, sh_reducer_slot(r, 0) + b->begin, (int)(b->end - b->begin),
                          MPI_FLOAT, MPI_SUM, r->comm->group, (MPI_Request *)b->own));
out:
    return st;
}

static sh_status advance_fast(sh_reducer *r, sh_bucket *b)
{
    sh_status st = SH_OK;
    int complete = 0;

    SH_MPI(MPI_Test(b->own, &complete, MPI_STATUS_IGNORE));
    if (complete) sh_reducer_bucket_is_done(r, b);
out:
    return st;
}

const sh_exchange sh_exchange_mpi_all = {.in_order = true,
                                         .open = open_fast,
                                         .close = close_fast,
                                         .start = start_fast,
                                         .advance = advance_fast};
