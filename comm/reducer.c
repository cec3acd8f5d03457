// SPDX-License-Identifier: Apache-2.0
/* The sum of a vector over all shards, in the order of one fixed tree, step by step:
 * comm/reducer.h says how it works. */
#include "comm/reducer.h"
#include "base/clock.h"
#include "base/position.h"

sh_status sh_reducer_sum_slice(sh_reducer *r, const sh_bucket *b)
{
    int64_t n = b->slice_end - b->slice_begin;

    if (n == 0) return SH_OK;
    return r->device->tree_sum(SH_QUEUE_EXCHANGE, sh_reducer_slot(r, 0) + b->slice_begin, b->inputs,
                               r->n_joins, r->n_inputs, r->depth, n);
}

void sh_reducer_bucket_is_done(sh_reducer *r, sh_bucket *b)
{
    b->state = SH_BUCKET_DONE;
    r->n_done++;
}

static sh_status may_start(sh_reducer *r, bool *ready)
{
    *ready = true;
    return r->exchange->ready != NULL ? r->exchange->ready(r, ready) : SH_OK;
}

/* Those complete buckets whose turn it is. */
static sh_status start_in_order(sh_reducer *r)
{
    sh_status st = SH_OK;
    bool ready;

    while (r->next_in_order >= 0 && r->buckets[r->next_in_order].state == SH_BUCKET_COMPLETE) {
        SH_TRY(may_start(r, &ready));
        if (!ready) break;
        SH_TRY(r->exchange->start(r, &r->buckets[r->next_in_order--]));
    }
out:
    return st;
}

/* The slot above `left` becomes part of it, between two elements. */
static sh_status add_into(sh_reducer *r, int left, int right, int64_t begin, int64_t end)
{
    float *dst = sh_reducer_slot(r, left) + begin;

    return r->device->add(SH_QUEUE_COMPUTE, dst, dst, sh_reducer_slot(r, right) + begin,
                          end - begin);
}

/* The last own leaf is complete between b->begin and b->end: finish the own subtrees there and let
 * the bucket go. */
static sh_status hand_over(sh_reducer *r, sh_bucket *b)
{
    sh_status st = SH_OK;
    int top = r->top;

    for (int j = 0; j < r->own_joins[r->shard_end - r->shard_begin - 1]; j++, top--)
        SH_TRY(add_into(r, top - 1, top, b->begin, b->end));
    for (int i = 1; i < r->n_own && r->mode == SH_REDUCE_FAST; i++)
        SH_TRY(add_into(r, 0, i, b->begin, b->end));
    b->state = SH_BUCKET_COMPLETE;
    if (r->exchange->complete != NULL) SH_TRY(r->exchange->complete(r, b));
    if (r->exchange->in_order)
        SH_TRY(start_in_order(r));
    else
        SH_TRY(r->exchange->start(r, b));
out:
    return st;
}

sh_status sh_reducer_begin(sh_reducer *r)
{
    sh_status st = SH_OK;

    SH_CHECK(!r->begun, SH_ERR_INTERNAL, "the sum of the step before was not finished");
    for (int b = 0; b < r->n_buckets; b++) r->buckets[b].state = SH_BUCKET_OPEN;
    r->n_done = 0;
    r->next_in_order = r->n_buckets - 1;
    r->next_leaf = 0;
    r->top = 0;
    r->begun = true;
out:
    return st;
}

float *sh_reducer_leaf(sh_reducer *r)
{
    return sh_reducer_slot(r, r->top);
}

sh_status sh_reducer_bucket_done(sh_reducer *r, int index)
{
    sh_status st = SH_OK;

    SH_CHECK(r->begun && r->next_leaf == r->shard_end - r->shard_begin - 1, SH_ERR_INTERNAL,
             "bucket %d was handed over before the last own shard", index);
    SH_CHECK(index >= 0 && index < r->n_buckets && r->buckets[index].state == SH_BUCKET_OPEN,
             SH_ERR_INTERNAL, "bucket %d of %d does not exist or was handed over twice", index,
             r->n_buckets);
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
        for (int j = 0; j < r->own_joins[leaf]; j++, r->top--)
            SH_TRY(add_into(r, r->top - 1, r->top, 0, r->n_elems));
        r->top++;
    } else {
        for (int b = r->n_buckets - 1; b >= 0; b--) {
            if (r->buckets[b].state == SH_BUCKET_OPEN) SH_TRY(hand_over(r, &r->buckets[b]));
        }
    }
    r->next_leaf++;
out:
    return st;
}

sh_status sh_reducer_poll(sh_reducer *r)
{
    sh_status st = SH_OK;

    if (r->comm->size == 1) goto out;
    for (int b = r->n_buckets - 1; b >= 0; b--) {
        sh_bucket_state state = r->buckets[b].state;

        if (state > SH_BUCKET_COMPLETE && state < SH_BUCKET_DONE)
            SH_TRY(r->exchange->advance(r, &r->buckets[b]));
    }
    if (r->exchange->in_order) SH_TRY(start_in_order(r));
out:
    return st;
}

/* Grows with every step that a bucket takes. */
static int progress(const sh_reducer *r)
{
    int sum = 0;

    for (int b = 0; b < r->n_buckets; b++) sum += (int)r->buckets[b].state;
    return sum;
}

/* Until all buckets are done. */
static sh_status await_buckets(sh_reducer *r)
{
    sh_status st = SH_OK;
    sh_backoff backoff = {0};
    int before = progress(r), now;
    double since = sh_clock_seconds();

    sh_position_enter(SH_AT_COLLECTIVE, "sum over shards %lld",
                      (long long)++r->comm->n_collectives);
    for (;; before = now) {
        SH_TRY(sh_reducer_poll(r));
        if (r->n_done == r->n_buckets) break;
        now = progress(r);
        if (now != before) { /* the next step may be possible already */
            backoff = (sh_backoff){0};
            since = sh_clock_seconds();
            sh_position_move();
            continue;
        }
        if (r->exchange->patience != NULL)
            SH_TRY(r->exchange->patience(r, sh_clock_seconds() - since));
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
    *total = sh_reducer_slot(r, 0);
out:
    return st;
}
