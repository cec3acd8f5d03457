// SPDX-License-Identifier: Apache-2.0
/*
 * The sum of a vector over all shards, in the order of one fixed tree (comm/tree.h).
 *
 * Slots. A rank's leaves and partial sums live in a stack of whole vectors, `slots`. The next leaf
 * is written on top; when it is complete, finished siblings are added into the left one, like the
 * carries of a binary counter. After the last leaf, slots 0 .. n_own - 1 hold the rank's largest
 * subtrees, left to right.
 *
 * Buckets go through these states on their own, in any order, alone or several at once:
 *   OPEN       the last leaf is not complete here
 *   COLLECTING each rank owns one slice of the bucket and receives all other ranks' subtree sums of
 *              that slice into `staging`; it sends its own subtrees' other slices
 *   SHARING    the slice is summed in tree order into slot 0, and slices are exchanged in place
 *   DONE       slot 0 holds the total of the bucket
 *
 * All messages are persistent requests between fixed addresses, made once: a step only starts and
 * tests them. That is MPI_Ialltoallv and MPI_Iallgatherv spelled out, which spares packing (the
 * subtrees of a rank lie in different slots) and lets ranks hand over buckets in any order: a
 * message is matched by its bucket and phase, not by the order of calls.
 *
 * Slot 0 may be overwritten in SHARING because all sends of COLLECTING are complete by then, and
 * the own slice of slot 0 is read by the same addition that overwrites it, or before.
 *
 * SH_REDUCE_FAST keeps the slots but replaces the two phases by one MPI_Iallreduce per bucket, in
 * the order in which MPI ranks happen to add. Those must be started in one order everywhere, so
 * they start from the last bucket downwards, each waiting for those above it.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/position.h"
#include "comm/group.h"
#include "comm/tree.h"

enum {
    LINE_FLOATS = 16,    /* slices begin at multiples of a cache line within their bucket */
    BLOCK_FLOATS = 4096, /* summed at a time, so that partial sums stay in the nearest cache */
    ALIGN_BYTES = 64,
};

typedef enum bucket_state { OPEN, COLLECTING, SHARING, DONE } bucket_state;

typedef struct bucket {
    int64_t begin, end;
    bucket_state state;
    MPI_Request *collect, *share; /* persistent; FAST: share[0] is the all-reduce */
    int n_collect, n_share;
    float **inputs; /* [n_inputs]: the own slice of every rank's subtrees, in tree order */
} bucket;

struct sh_reducer {
    sh_comm *comm;
    sh_reduce_mode mode;
    int64_t n_elems;
    int shard_begin, shard_end;

    float *memory;  /* slots, then staging */
    float *slots;   /* [n_slots, stride] */
    int64_t stride; /* n_elems rounded up to a cache line */
    int64_t n_staging;
    int n_slots, n_own; /* n_own: subtrees left after the last own leaf */

    sh_tree_join *own_joins; /* which additions follow which own leaf */
    int n_own_joins;
    sh_tree_join *rank_joins; /* of the subtrees of all ranks */
    int n_rank_joins, n_inputs;

    bucket *buckets;
    int n_buckets, n_done;
    int next_fast; /* FAST: the highest bucket not yet started */
    int next_leaf; /* own leaves completed */
    int depth;     /* slots in use below the leaf being written */
    bool begun;
};

static int64_t align_up(int64_t n)
{
    return (n + LINE_FLOATS - 1) / LINE_FLOATS * LINE_FLOATS;
}

/* The slice of bucket `b` that `rank` sums. */
static void slice_of(const sh_reducer *r, const bucket *b, int rank, int64_t *begin, int64_t *end)
{
    int64_t n_lines = align_up(b->end - b->begin) / LINE_FLOATS;

    *begin = b->begin + n_lines * rank / r->comm->size * LINE_FLOATS;
    *end = b->begin + n_lines * (rank + 1) / r->comm->size * LINE_FLOATS;
    if (*begin > b->end) *begin = b->end;
    if (*end > b->end) *end = b->end;
}

static float *slot(const sh_reducer *r, int index)
{
    return r->slots + index * r->stride;
}

static int cover_of_rank(int n_shards, int size, int rank, sh_tree_range *cover)
{
    int begin, end;

    sh_shards_of_rank(n_shards, size, rank, &begin, &end);
    return sh_tree_cover(n_shards, begin, end, cover);
}

/* ---- create ---- */

static sh_status check_arguments(sh_comm *comm, int n_shards, int64_t n_elems,
                                 const int64_t *bounds, int n_buckets)
{
    sh_status st = SH_OK;

    SH_CHECK(n_shards >= comm->size, SH_ERR_USAGE,
             "%d ranks cannot share %d shards: set shards=%d or more, or start at most %d ranks",
             comm->size, n_shards, comm->size, n_shards);
    SH_CHECK(n_buckets >= 1 && n_elems >= 0 && bounds[0] == 0 && bounds[n_buckets] == n_elems,
             SH_ERR_INTERNAL, "buckets do not cover the vector");
    for (int b = 0; b < n_buckets; b++) {
        SH_CHECK(bounds[b] <= bounds[b + 1], SH_ERR_INTERNAL, "bucket %d ends before it begins", b);
        SH_CHECK(bounds[b + 1] - bounds[b] <= INT_MAX, SH_ERR_UNSUPPORTED,
                 "bucket %d is longer than an MPI message can be", b);
    }
    SH_CHECK(2 * n_buckets <= 32767, SH_ERR_UNSUPPORTED, "%d buckets are too many", n_buckets);
out:
    return st;
}

static sh_status agree_on_arguments(sh_comm *comm, sh_reduce_mode mode, int n_shards,
                                    int64_t n_elems, const int64_t *bounds, int n_buckets)
{
    char text[160];
    uint64_t hash = sh_fnv1a(SH_FNV1A_START, bounds, (size_t)(n_buckets + 1) * sizeof(*bounds));

    snprintf(text, sizeof(text), "mode %d, %d shards, %lld elements in %d buckets (%016llx)",
             (int)mode, n_shards, (long long)n_elems, n_buckets, (unsigned long long)hash);
    return sh_comm_agree_text(comm, "the sum over shards", text, false);
}

/* Which additions happen where. Pure arithmetic on (n_shards, size, rank). */
static sh_status plan_tree(sh_reducer *r, int n_shards)
{
    sh_status st = SH_OK;
    int n_leaves = r->shard_end - r->shard_begin;
    sh_tree_range cover[SH_TREE_MAX_COVER], *leaves = NULL, *subtrees = NULL;
    size_t max_subtrees = (size_t)n_shards;

    leaves = malloc((size_t)n_leaves * sizeof(*leaves));
    subtrees = malloc(max_subtrees * sizeof(*subtrees));
    r->own_joins = malloc((size_t)n_leaves * sizeof(*r->own_joins));
    r->rank_joins = malloc(max_subtrees * sizeof(*r->rank_joins));
    SH_CHECK(leaves != NULL && subtrees != NULL && r->own_joins != NULL && r->rank_joins != NULL,
             SH_ERR_NO_MEMORY, "no memory for the plan of %d shards", n_shards);
    for (int i = 0; i < n_leaves; i++)
        leaves[i] = (sh_tree_range){r->shard_begin + i, r->shard_begin + i + 1};
    r->n_own_joins = sh_tree_plan(n_shards, leaves, n_leaves, r->own_joins, &r->n_slots);
    r->n_own = n_leaves - r->n_own_joins;
    for (int rank = 0; rank < r->comm->size; rank++) {
        int n = cover_of_rank(n_shards, r->comm->size, rank, cover);

        memcpy(subtrees + r->n_inputs, cover, (size_t)n * sizeof(*cover));
        r->n_inputs += n;
    }
    r->n_rank_joins = sh_tree_plan(n_shards, subtrees, r->n_inputs, r->rank_joins, NULL);
out:
    free(leaves);
    free(subtrees);
    return st;
}

static sh_status allocate(sh_reducer *r, const int64_t *bounds)
{
    sh_status st = SH_OK;
    int64_t begin, end, n_floats;

    r->buckets = calloc((size_t)r->n_buckets, sizeof(*r->buckets));
    SH_CHECK(r->buckets != NULL, SH_ERR_NO_MEMORY, "no memory for %d buckets", r->n_buckets);
    for (int b = 0; b < r->n_buckets; b++) {
        r->buckets[b].begin = bounds[b];
        r->buckets[b].end = bounds[b + 1];
        if (r->comm->size == 1 || r->mode == SH_REDUCE_FAST) continue;
        slice_of(r, &r->buckets[b], r->comm->rank, &begin, &end);
        r->n_staging += (r->n_inputs - r->n_own) * align_up(end - begin);
    }
    r->stride = align_up(r->n_elems);
    n_floats = r->n_slots * r->stride + r->n_staging;
    r->memory = aligned_alloc(ALIGN_BYTES, (size_t)(n_floats + LINE_FLOATS) * sizeof(float));
    SH_CHECK(r->memory != NULL, SH_ERR_NO_MEMORY, "no memory for the sum over shards, %lld MB",
             (long long)n_floats * 4 / 1000000);
    r->slots = r->memory;
out:
    return st;
}

/* Make the messages of bucket `index`; *staging moves past what they arrive in. */
static sh_status prepare_bucket(sh_reducer *r, int index, int n_shards, float **staging)
{
    sh_status st = SH_OK;
    bucket *b = &r->buckets[index];
    MPI_Comm group = r->comm->group;
    int size = r->comm->size, me = r->comm->rank, n_inputs = 0;
    int collect_tag = 2 * index, share_tag = 2 * index + 1;
    sh_tree_range cover[SH_TREE_MAX_COVER];
    int64_t mine_begin, mine_end, begin, end;

    b->inputs = calloc((size_t)r->n_inputs, sizeof(*b->inputs));
    b->collect = malloc((size_t)(r->n_inputs + size * r->n_own) * sizeof(MPI_Request));
    b->share = malloc(2 * (size_t)size * sizeof(MPI_Request));
    SH_CHECK(b->inputs != NULL && b->collect != NULL && b->share != NULL, SH_ERR_NO_MEMORY,
             "no memory for the messages of bucket %d", index);
    slice_of(r, b, me, &mine_begin, &mine_end);
    for (int peer = 0; peer < size; peer++) {
        int n_subtrees = cover_of_rank(n_shards, size, peer, cover);
        int n_mine = (int)(mine_end - mine_begin);

        slice_of(r, b, peer, &begin, &end);
        for (int i = 0; i < n_subtrees; i++) {
            if (peer == me) {
                b->inputs[n_inputs++] = slot(r, i) + mine_begin;
                continue;
            }
            b->inputs[n_inputs++] = *staging;
            if (n_mine > 0)
                SH_MPI(MPI_Recv_init(*staging, n_mine, MPI_FLOAT, peer, collect_tag, group,
                                     &b->collect[b->n_collect++]));
            *staging += align_up(n_mine);
        }
        if (peer == me) continue;
        for (int i = 0; i < r->n_own && end > begin; i++)
            SH_MPI(MPI_Send_init(slot(r, i) + begin, (int)(end - begin), MPI_FLOAT, peer,
                                 collect_tag, group, &b->collect[b->n_collect++]));
        if (end > begin)
            SH_MPI(MPI_Recv_init(slot(r, 0) + begin, (int)(end - begin), MPI_FLOAT, peer, share_tag,
                                 group, &b->share[b->n_share++]));
        if (n_mine > 0)
            SH_MPI(MPI_Send_init(slot(r, 0) + mine_begin, n_mine, MPI_FLOAT, peer, share_tag, group,
                                 &b->share[b->n_share++]));
    }
out:
    return st;
}

static sh_status prepare_messages(sh_reducer *r, int n_shards)
{
    sh_status st = SH_OK;
    float *staging = r->memory + r->n_slots * r->stride;

    if (r->comm->size == 1) goto out;
    for (int b = 0; b < r->n_buckets; b++) {
        if (r->mode == SH_REDUCE_EXACT) {
            SH_TRY(prepare_bucket(r, b, n_shards, &staging));
            continue;
        }
        r->buckets[b].share = malloc(sizeof(MPI_Request));
        SH_CHECK(r->buckets[b].share != NULL, SH_ERR_NO_MEMORY, "no memory for bucket %d", b);
        r->buckets[b].share[0] = MPI_REQUEST_NULL;
        r->buckets[b].n_share = 1;
    }
out:
    return st;
}

sh_status sh_reducer_create(sh_comm *comm, sh_reduce_mode mode, int n_shards, int64_t n_elems,
                            const int64_t *bucket_bounds, int n_buckets, sh_reducer **out)
{
    sh_status st = SH_OK, local = SH_OK;
    sh_reducer *r = NULL;

    SH_TRY(
        sh_comm_agree_ok(comm, check_arguments(comm, n_shards, n_elems, bucket_bounds, n_buckets)));
    SH_TRY(agree_on_arguments(comm, mode, n_shards, n_elems, bucket_bounds, n_buckets));
    r = calloc(1, sizeof(*r));
    if (r == NULL) {
        local = sh_error_set(SH_ERR_NO_MEMORY, "no memory for the sum over shards");
    } else {
        r->comm = comm;
        r->mode = mode;
        r->n_elems = n_elems;
        r->n_buckets = n_buckets;
        sh_shards_of_rank(n_shards, comm->size, comm->rank, &r->shard_begin, &r->shard_end);
        local = plan_tree(r, n_shards);
        if (local == SH_OK) local = allocate(r, bucket_bounds);
        if (local == SH_OK) local = prepare_messages(r, n_shards);
    }
    SH_TRY(sh_comm_agree_ok(comm, local));

    *out = r;
    r = NULL;
out:
    sh_reducer_destroy(&r);
    return st;
}

static void free_requests(MPI_Request *requests, int n)
{
    for (int i = 0; i < n; i++) {
        if (requests[i] != MPI_REQUEST_NULL) MPI_Request_free(&requests[i]);
    }
    free(requests);
}

void sh_reducer_destroy(sh_reducer **reducer)
{
    sh_reducer *r = *reducer;

    if (r == NULL) return;
    for (int b = 0; r->buckets != NULL && b < r->n_buckets; b++) {
        free_requests(r->buckets[b].collect, r->buckets[b].n_collect);
        free_requests(r->buckets[b].share, r->buckets[b].n_share);
        free(r->buckets[b].inputs);
    }
    free(r->buckets);
    free(r->own_joins);
    free(r->rank_joins);
    free(r->memory);
    free(r);
    *reducer = NULL;
}

size_t sh_reducer_bytes(const sh_reducer *r)
{
    return (size_t)(r->n_slots * r->stride + r->n_staging) * sizeof(float);
}

/* ---- a step ---- */

/* All additions over this rank's slice of a bucket, a block at a time; the last one into slot 0. */
static void sum_slice(sh_reducer *r, bucket *b)
{
    int64_t begin, end;

    slice_of(r, b, r->comm->rank, &begin, &end);
#pragma omp parallel for schedule(static) if (end - begin >= 16 * BLOCK_FLOATS)
    for (int64_t at = 0; at < end - begin; at += BLOCK_FLOATS) {
        int64_t n = end - begin - at < BLOCK_FLOATS ? end - begin - at : BLOCK_FLOATS;

        for (int j = 0; j < r->n_rank_joins; j++) {
            float *left = b->inputs[r->rank_joins[j].into] + at;
            const float *right = b->inputs[r->rank_joins[j].from] + at;

            sh_tree_add_block(j == r->n_rank_joins - 1 ? slot(r, 0) + begin + at : left, left,
                              right, n);
        }
    }
}

static sh_status start_fast(sh_reducer *r)
{
    sh_status st = SH_OK;

    for (; r->next_fast >= 0 && r->buckets[r->next_fast].state != OPEN; r->next_fast--) {
        bucket *b = &r->buckets[r->next_fast];

        SH_MPI(MPI_Iallreduce(MPI_IN_PLACE, slot(r, 0) + b->begin, (int)(b->end - b->begin),
                              MPI_FLOAT, MPI_SUM, r->comm->group, &b->share[0]));
        b->state = SHARING;
    }
out:
    return st;
}

/* The last own leaf is complete between b->begin and b->end: finish the own subtrees there and let
 * the bucket go. */
static sh_status hand_over(sh_reducer *r, bucket *b)
{
    sh_status st = SH_OK;
    int64_t n = b->end - b->begin;
    int last = r->shard_end - r->shard_begin - 1, top = r->depth;

    for (int j = 0; j < r->n_own_joins; j++) {
        if (r->own_joins[j].after != last) continue;
        sh_tree_add(slot(r, top - 1) + b->begin, slot(r, top - 1) + b->begin,
                    slot(r, top) + b->begin, n);
        top--;
    }
    if (r->comm->size == 1) {
        b->state = DONE;
        r->n_done++;
    } else if (r->mode == SH_REDUCE_EXACT) {
        b->state = COLLECTING;
        SH_MPI(MPI_Startall(b->n_collect, b->collect));
    } else {
        for (int i = 1; i < r->n_own; i++)
            sh_tree_add(slot(r, 0) + b->begin, slot(r, 0) + b->begin, slot(r, i) + b->begin, n);
        b->state = COLLECTING; /* until its turn among the all-reduces */
        SH_TRY(start_fast(r));
    }
out:
    return st;
}

sh_status sh_reducer_begin(sh_reducer *r)
{
    sh_status st = SH_OK;

    SH_CHECK(!r->begun, SH_ERR_INTERNAL, "the sum of the step before was not finished");
    for (int b = 0; b < r->n_buckets; b++) r->buckets[b].state = OPEN;
    r->n_done = 0;
    r->next_fast = r->n_buckets - 1;
    r->next_leaf = 0;
    r->depth = 0;
    r->begun = true;
out:
    return st;
}

float *sh_reducer_leaf(sh_reducer *r)
{
    return slot(r, r->depth);
}

sh_status sh_reducer_bucket_done(sh_reducer *r, int index)
{
    sh_status st = SH_OK;

    SH_CHECK(r->begun && r->next_leaf == r->shard_end - r->shard_begin - 1, SH_ERR_INTERNAL,
             "bucket %d was handed over before the last own shard", index);
    SH_CHECK(index >= 0 && index < r->n_buckets && r->buckets[index].state == OPEN, SH_ERR_INTERNAL,
             "bucket %d of %d does not exist or was handed over twice", index, r->n_buckets);
    SH_TRY(hand_over(r, &r->buckets[index]));
out:
    return st;
}

sh_status sh_reducer_leaf_done(sh_reducer *r)
{
    sh_status st = SH_OK;
    int leaf = r->next_leaf, n_leaves = r->shard_end - r->shard_begin;

    SH_CHECK(r->begun && leaf < n_leaves, SH_ERR_INTERNAL, "leaf %d of a rank that has %d shards",
             leaf, n_leaves);
    if (leaf < n_leaves - 1) {
        for (int j = 0; j < r->n_own_joins; j++) {
            if (r->own_joins[j].after != leaf) continue;
            sh_tree_add(slot(r, r->depth - 1), slot(r, r->depth - 1), slot(r, r->depth),
                        r->n_elems);
            r->depth--;
        }
        r->depth++;
    } else {
        for (int b = r->n_buckets - 1; b >= 0; b--) {
            if (r->buckets[b].state == OPEN) SH_TRY(hand_over(r, &r->buckets[b]));
        }
    }
    r->next_leaf++;
out:
    return st;
}

/* Take a bucket as far as the messages that have arrived allow. */
static sh_status advance(sh_reducer *r, bucket *b)
{
    sh_status st = SH_OK;
    int complete = 0;

    if (b->state == COLLECTING && r->mode == SH_REDUCE_EXACT) {
        SH_MPI(MPI_Testall(b->n_collect, b->collect, &complete, MPI_STATUSES_IGNORE));
        if (!complete) goto out;
        sum_slice(r, b);
        b->state = SHARING;
        SH_MPI(MPI_Startall(b->n_share, b->share));
    }
    if (b->state == SHARING) {
        SH_MPI(MPI_Testall(b->n_share, b->share, &complete, MPI_STATUSES_IGNORE));
        if (!complete) goto out;
        b->state = DONE;
        r->n_done++;
    }
out:
    return st;
}

sh_status sh_reducer_poll(sh_reducer *r)
{
    sh_status st = SH_OK;

    if (r->comm->size == 1) goto out;
    for (int b = r->n_buckets - 1; b >= 0; b--) {
        bucket_state state = r->buckets[b].state;

        if (state == COLLECTING || state == SHARING) SH_TRY(advance(r, &r->buckets[b]));
    }
out:
    return st;
}

/* Until all buckets are done. */
static sh_status await_buckets(sh_reducer *r)
{
    sh_status st = SH_OK;
    sh_backoff backoff = {0};
    int n_done = r->n_done;

    sh_position_enter(SH_AT_COLLECTIVE, "sum over shards %lld",
                      (long long)++r->comm->n_collectives);
    for (;;) {
        SH_TRY(sh_reducer_poll(r));
        if (r->n_done == r->n_buckets) break;
        if (r->n_done > n_done) {
            backoff = (sh_backoff){0};
            sh_position_move();
        }
        n_done = r->n_done;
        sh_backoff_pause(&backoff);
    }
out:
    sh_position_leave();
    return st;
}

sh_status sh_reducer_finish(sh_reducer *r, const float **total)
{
    sh_status st = SH_OK;

    SH_CHECK(r->begun && r->next_leaf == r->shard_end - r->shard_begin, SH_ERR_INTERNAL,
             "%d of %d own shards are complete: the sum cannot be finished", r->next_leaf,
             r->shard_end - r->shard_begin);
    SH_TRY(await_buckets(r));
    r->begun = false;
    *total = slot(r, 0);
out:
    return st;
}
