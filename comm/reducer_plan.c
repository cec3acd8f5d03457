// SPDX-License-Identifier: Apache-2.0
/* A sum over shards is made here: which additions happen where, memory, and the messages of every
 * bucket. comm/reducer.c runs it. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "comm/devices.h"
#include "comm/reducer.h"

enum { LINE_FLOATS = 16 }; /* slices begin at multiples of a cache line within their bucket */

static int64_t align_up(int64_t n)
{
    return (n + LINE_FLOATS - 1) / LINE_FLOATS * LINE_FLOATS;
}

/* The slice of bucket `b` that `rank` sums. */
static void slice_of(const sh_reducer *r, const sh_bucket *b, int rank, int64_t *begin,
                     int64_t *end)
{
    int64_t n_lines = align_up(b->end - b->begin) / LINE_FLOATS;

    *begin = b->begin + n_lines * rank / r->comm->size * LINE_FLOATS;
    *end = b->begin + n_lines * (rank + 1) / r->comm->size * LINE_FLOATS;
    if (*begin > b->end) *begin = b->end;
    if (*end > b->end) *end = b->end;
}

static int cover_of_rank(const sh_reducer *r, int rank, sh_tree_range *cover)
{
    int begin, end;

    sh_shards_of_rank(r->n_shards, r->comm->size, rank, &begin, &end);
    return sh_tree_cover(r->n_shards, begin, end, cover);
}

static bool exchanges_subtrees(const sh_reducer *r)
{
    return r->comm->size > 1 && r->mode == SH_REDUCE_EXACT;
}

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

static sh_status agree_on_arguments(sh_comm *comm, const sh_device *device, sh_reduce_mode mode,
                                    int n_shards, int64_t n_elems, const int64_t *bounds,
                                    int n_buckets)
{
    char text[160];
    uint64_t hash = sh_fnv1a(SH_FNV1A_START, bounds, (size_t)(n_buckets + 1) * sizeof(*bounds));

    snprintf(text, sizeof(text), "%s, mode %d, %d shards, %lld elements in %d buckets (%016llx)",
             device == NULL ? "in the host's memory" : "in a device's memory", (int)mode, n_shards,
             (long long)n_elems, n_buckets, (unsigned long long)hash);
    return sh_comm_agree_text(comm, "the sum over shards", text, false);
}

static sh_status choose_exchange(sh_reducer *r)
{
    static const sh_exchange *const by_mpi[] = {
        [SH_REDUCE_EXACT] = &sh_exchange_mpi, [SH_REDUCE_FAST] = &sh_exchange_mpi_all};
    sh_status st = SH_OK;
    bool on_host = r->device == &sh_device_host;

    SH_CHECK(on_host || sh_comm_sums_in(r->comm, r->device), SH_ERR_INTERNAL,
             "a sum in the memory of devices that are not connected");
    if (r->comm->size == 1)
        r->exchange = &sh_exchange_alone;
    else
        r->exchange = on_host ? by_mpi[r->mode] : sh_devices_exchange(r->mode);
out:
    return st;
}

/* Which additions happen where. Pure arithmetic on (n_shards, size, rank). n_joins: [n_shards]. */
static sh_status plan_tree(sh_reducer *r, uint8_t *n_joins)
{
    sh_status st = SH_OK;
    int n_leaves = r->shard_end - r->shard_begin;
    sh_tree_range cover[SH_TREE_MAX_COVER];
    sh_tree_range *nodes = malloc((size_t)r->n_shards * sizeof(*nodes));

    r->own_joins = malloc((size_t)n_leaves);
    SH_CHECK(nodes != NULL && r->own_joins != NULL, SH_ERR_NO_MEMORY,
             "no memory for the plan of %d shards", r->n_shards);
    for (int i = 0; i < n_leaves; i++)
        nodes[i] = (sh_tree_range){r->shard_begin + i, r->shard_begin + i + 1};
    r->n_own = n_leaves - sh_tree_plan(r->n_shards, nodes, n_leaves, r->own_joins, &r->n_slots);
    for (int rank = 0; rank < r->comm->size; rank++) {
        int n = cover_of_rank(r, rank, cover);

        memcpy(nodes + r->n_inputs, cover, (size_t)n * sizeof(*cover));
        r->n_inputs += n;
    }
    sh_tree_plan(r->n_shards, nodes, r->n_inputs, n_joins, &r->depth);
    SH_CHECK(r->depth <= SH_TREE_DEPTH, SH_ERR_UNSUPPORTED, "%d shards are too many", r->n_shards);
out:
    free(nodes);
    return st;
}

static sh_status allocate(sh_reducer *r, const int64_t *bounds)
{
    sh_status st = SH_OK;
    void *memory = NULL;

    r->buckets = calloc((size_t)r->n_buckets, sizeof(*r->buckets));
    SH_CHECK(r->buckets != NULL, SH_ERR_NO_MEMORY, "no memory for %d buckets", r->n_buckets);
    for (int i = 0; i < r->n_buckets; i++) {
        sh_bucket *b = &r->buckets[i];

        b->begin = bounds[i];
        b->end = bounds[i + 1];
        slice_of(r, b, r->comm->rank, &b->slice_begin, &b->slice_end);
        if (exchanges_subtrees(r))
            r->n_staging += (r->n_inputs - r->n_own) * align_up(b->slice_end - b->slice_begin);
    }
    r->stride = align_up(r->n_elems);
    SH_TRY(r->device->alloc(sh_reducer_bytes(r), &memory));
    r->slots = memory;
out:
    return st;
}

static void add_message(sh_message *list, int *n_list, float *at, int64_t n, int peer, bool is_send)
{
    if (n > 0) list[(*n_list)++] = (sh_message){.at = at, .n = n, .peer = peer, .is_send = is_send};
}

/* The messages of bucket `b`, and where the operands of its own slice will lie; *staging moves past
 * what arrives. */
static sh_status list_messages(sh_reducer *r, sh_bucket *b, float **inputs, float **staging)
{
    sh_status st = SH_OK;
    int size = r->comm->size, me = r->comm->rank, n_inputs = 0;
    sh_tree_range cover[SH_TREE_MAX_COVER];
    int64_t n_mine = b->slice_end - b->slice_begin, begin, end;
    float *total = sh_reducer_slot(r, 0);

    b->collect = malloc((size_t)(r->n_inputs + size * r->n_own) * sizeof(*b->collect));
    b->share = malloc(2 * (size_t)size * sizeof(*b->share));
    SH_CHECK(b->collect != NULL && b->share != NULL, SH_ERR_NO_MEMORY,
             "no memory for the messages of a bucket");
    for (int peer = 0; peer < size; peer++) {
        int n_subtrees = cover_of_rank(r, peer, cover);

        slice_of(r, b, peer, &begin, &end);
        for (int i = 0; i < n_subtrees && peer == me; i++)
            inputs[n_inputs++] = sh_reducer_slot(r, i) + b->slice_begin;
        if (peer == me) continue;
        for (int i = 0; i < n_subtrees; i++) {
            inputs[n_inputs++] = *staging;
            add_message(b->collect, &b->n_collect, *staging, n_mine, peer, false);
            *staging += align_up(n_mine);
        }
        for (int i = 0; i < r->n_own; i++)
            add_message(b->collect, &b->n_collect, sh_reducer_slot(r, i) + begin, end - begin, peer,
                        true);
        add_message(b->share, &b->n_share, total + begin, end - begin, peer, false);
        add_message(b->share, &b->n_share, total + b->slice_begin, n_mine, peer, true);
    }
out:
    return st;
}

/* Messages, and the tables that the tree of all ranks' subtrees is added by: those live where the
 * device can read them. */
static sh_status plan_messages(sh_reducer *r, const uint8_t *n_joins)
{
    sh_status st = SH_OK;
    size_t per_bucket = (size_t)r->n_inputs * sizeof(float *);
    size_t n_bytes = (size_t)r->n_buckets * per_bucket + (size_t)r->n_inputs;
    float *staging = r->slots + r->n_slots * r->stride;
    char *tables = malloc(n_bytes);

    SH_CHECK(tables != NULL, SH_ERR_NO_MEMORY, "no memory for the tables of the sum over shards");
    for (int i = 0; i < r->n_buckets; i++)
        SH_TRY(list_messages(r, &r->buckets[i], (float **)(tables + (size_t)i * per_bucket),
                             &staging));
    memcpy(tables + (size_t)r->n_buckets * per_bucket, n_joins, (size_t)r->n_inputs);
    SH_TRY(r->device->alloc(n_bytes, &r->tables));
    SH_TRY(r->device->copy_in(r->tables, tables, n_bytes));
    for (int i = 0; i < r->n_buckets; i++)
        r->buckets[i].inputs = (float **)((char *)r->tables + (size_t)i * per_bucket);
    r->n_joins = (uint8_t *)r->tables + (size_t)r->n_buckets * per_bucket;
out:
    free(tables);
    return st;
}

static sh_status make(sh_reducer *r, const int64_t *bounds)
{
    sh_status st = SH_OK;
    uint8_t *n_joins = malloc((size_t)r->n_shards);

    SH_CHECK(n_joins != NULL, SH_ERR_NO_MEMORY, "no memory for the plan of %d shards", r->n_shards);
    SH_TRY(choose_exchange(r));
    sh_shards_of_rank(r->n_shards, r->comm->size, r->comm->rank, &r->shard_begin, &r->shard_end);
    SH_TRY(plan_tree(r, n_joins));
    SH_TRY(allocate(r, bounds));
    if (exchanges_subtrees(r)) SH_TRY(plan_messages(r, n_joins));
    if (r->exchange->open != NULL) SH_TRY(r->exchange->open(r));
out:
    free(n_joins);
    return st;
}

sh_status sh_reducer_create(sh_comm *comm, const sh_device *device, sh_reduce_mode mode,
                            int n_shards, int64_t n_elems, const int64_t *bucket_bounds,
                            int n_buckets, sh_reducer **out)
{
    sh_status st = SH_OK, local = SH_OK;
    sh_reducer *r = NULL;

    SH_TRY(
        sh_comm_agree_ok(comm, check_arguments(comm, n_shards, n_elems, bucket_bounds, n_buckets)));
    SH_TRY(agree_on_arguments(comm, device, mode, n_shards, n_elems, bucket_bounds, n_buckets));
    r = calloc(1, sizeof(*r));
    if (r == NULL) {
        local = sh_error_set(SH_ERR_NO_MEMORY, "no memory for the sum over shards");
    } else {
        r->comm = comm;
        r->device = device != NULL ? device : &sh_device_host;
        r->mode = mode;
        r->n_shards = n_shards;
        r->n_elems = n_elems;
        r->n_buckets = n_buckets;
        local = make(r, bucket_bounds);
    }
    SH_TRY(sh_comm_agree_ok(comm, local));

    *out = r;
    r = NULL;
out:
    sh_reducer_destroy(&r);
    return st;
}

void sh_reducer_destroy(sh_reducer **reducer)
{
    sh_reducer *r = *reducer;

    if (r == NULL) return;
    if (r->buckets != NULL && r->exchange->close != NULL) r->exchange->close(r);
    for (int b = 0; r->buckets != NULL && b < r->n_buckets; b++) {
        free(r->buckets[b].collect);
        free(r->buckets[b].share);
    }
    r->device->free(r->tables);
    r->device->free(r->slots);
    free(r->buckets);
    free(r->own_joins);
    free(r);
    *reducer = NULL;
}

size_t sh_reducer_bytes(const sh_reducer *r)
{
    return (size_t)(r->n_slots * r->stride + r->n_staging) * sizeof(float);
}
