// SPDX-License-Identifier: Apache-2.0
/**
 * Ranks talking. One process group per run; collectives are entered by all ranks in the same order.
 *
 * Host memory only, but for sums over shards, which may lie in the memory of devices.
 * Waiting is passive (poll, then sleep), since spinning threads starve each other when ranks share
 * cores. A rank that fails calls sh_comm_abort with its message; its peers end with it.
 */
#ifndef SH_COMM_COMM_H
#define SH_COMM_COMM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/device.h"
#include "base/finding.h"
#include "base/status.h"
#include "base/tree.h" /* sh_tree_sum: f64 terms by the same tree */

SH_C_BEGIN

typedef struct sh_comm sh_comm;

/** Join the job's ranks (MPI_Init_thread where a launcher started us; otherwise a group of one
 *  without touching MPI). Collective. The caller owns *out.
 *  A launcher that started N processes as N groups of one is refused with the remedy, unless
 *  expect_ranks == 1; expect_ranks > 0 also refuses any other size; 0: whatever there is. */
SH_MUST_CHECK sh_status sh_comm_create(int expect_ranks, sh_comm **out);

/** Leave, finalising MPI, after waiting passively for the others. Collective: a rank that failed
 * calls sh_comm_abort instead, since its peers are elsewhere. MPI cannot be started again in this
 * process. *comm NULL is fine. */
void sh_comm_destroy(sh_comm **comm);

/** End every rank of the job now, with exit code `code` (1 .. 255), after printing `message` on
 *  stderr with this rank and its host. Does not return. comm NULL: ends this process alone. */
_Noreturn void sh_comm_abort(sh_comm *comm, int code, const char *message);

int sh_comm_rank(const sh_comm *comm);
int sh_comm_size(const sh_comm *comm);
int sh_comm_local_rank(const sh_comm *comm); /* among the ranks of this host */
int sh_comm_local_size(const sh_comm *comm);

/** Cores of this host that its ranks may use together, divided by their number; at least 1. Whether
 *  a launcher bound each rank to cores of its own, or left all of them to all, makes no difference.
 */
int sh_comm_cores_per_rank(const sh_comm *comm);

/** Name and version of the message library ("Open MPI v4.1.4"), for the fingerprint. A static
 * string; needs no group. Not thread-safe. */
const char *sh_comm_library(void);

/** Collective: everyone waits for everyone. */
SH_MUST_CHECK sh_status sh_comm_barrier(sh_comm *comm);

/** Collective: `data` of rank `root` everywhere. */
SH_MUST_CHECK sh_status sh_comm_bcast(sh_comm *comm, void *data, size_t n_bytes, int root);

/** Collective: n_bytes[r] bytes from each rank r, concatenated in rank order in `all` everywhere.
 *  n_bytes has one entry per rank and is the same on every rank. `mine` may already lie at its
 *  place in `all`. Longer than 1 GiB in all, it goes rank by rank. */
SH_MUST_CHECK sh_status sh_comm_gather_all(sh_comm *comm, const void *mine, void *all,
                                           const size_t *n_bytes);

/** Items of this rank when n_items are dealt to the ranks: [*begin, *end), contiguous, as even as
 *  possible, the larger first. */
void sh_comm_own_items(const sh_comm *comm, int64_t n_items, int64_t *begin, int64_t *end);

/** Collective: items[n_items] of item_bytes each, of which every rank has filled its own
 *  (sh_comm_own_items), complete everywhere. */
SH_MUST_CHECK sh_status sh_comm_gather_items(sh_comm *comm, int64_t n_items, size_t item_bytes,
                                             void *items);

/** Collective: element-wise maximum over ranks, in place (flags, stop requests, times). */
SH_MUST_CHECK sh_status sh_comm_max(sh_comm *comm, int64_t *values, int n);

/** Collective: did everyone succeed? Returns the own status where it is a failure; otherwise
 *  SH_ERR_COMM, or SH_ERR_NO_ROOM where that was it, naming the first failing rank and its message
 *  where another rank failed. */
SH_MUST_CHECK sh_status sh_comm_agree_ok(sh_comm *comm, sh_status mine);

/** Collective: is `text` the same on every rank? If not, SH_ERR_MISMATCH showing `what`, the first
 *  differing rank with its host, and both lines that differ. With warn_only it is a warning. */
SH_MUST_CHECK sh_status sh_comm_agree_text(sh_comm *comm, const char *what, const char *text,
                                           bool warn_only);

/* ---- devices ---- */

typedef enum sh_transport {
    SH_TRANSPORT_AUTO, /* NCCL where all ranks have it and a device of their own */
    SH_TRANSPORT_MPI,  /* through the memory of the hosts */
    SH_TRANSPORT_NCCL  /* or it is an error */
} sh_transport;

typedef struct sh_device_group_config {
    sh_transport transport;
    double connect_seconds;  /* for all to be connected, once all are there */
    double patience_seconds; /* to wait in one sum where no watchdog judges; 0: any time */
} sh_device_group_config;

/** Say which rank has which device, and connect the devices, so that sums can be made in their
 *  memory. Collective; where they are connected already, nothing. `device` must outlive the group.
 *  SH_ERR_UNSUPPORTED where NCCL was named and cannot be had; SH_ERR_COMM where it does not
 *  connect. */
SH_MUST_CHECK sh_status sh_comm_connect_devices(sh_comm *comm, const sh_device *device,
                                                const sh_device_group_config *config);

/** What connects devices, "nccl": version and file, or what is missing. Not thread-safe. */
void sh_comm_examine(sh_finding *out);

/** May the ranks sum in this device's memory? A group of one may in any; NULL is the host's. */
bool sh_comm_sums_in(const sh_comm *comm, const sh_device *device);

/* ---- the exact sum over shards (docs/exactness.md) ---- */

/** Shards owned by `rank`: [*begin, *end), contiguous, as even as possible, the larger first.
 *  Pure. n_shards >= size. */
void sh_shards_of_rank(int n_shards, int size, int rank, int *begin, int *end);

/** The rank that owns shard s. Pure. */
int sh_rank_of_shard(int n_shards, int size, int shard);

/** Items (images, rows) of shard s when n_items are dealt to n_shards: [*begin, *end), contiguous,
 *  as even as possible, the larger first. Pure. */
void sh_items_of_shard(int64_t n_items, int n_shards, int shard, int64_t *begin, int64_t *end);

typedef enum sh_reduce_mode { SH_REDUCE_EXACT, SH_REDUCE_FAST } sh_reduce_mode;

/**
 * Sums one vector of n_elems f32 over all shards of all ranks, as the fixed binary tree
 * T(lo, hi) = T(lo, mid) + T(mid, hi), mid = lo + the largest power of two below hi - lo.
 * SH_REDUCE_EXACT: the same bytes for any number of ranks (a NaN stays a NaN, but its payload is
 * not promised). SH_REDUCE_FAST: the rank's own shards by the same tree, subtrees left to right,
 * then MPI_Iallreduce or ncclAllReduce: the rounding depends on the number of ranks.
 *
 * Use, once per step, on every rank:
 *   begin; for each own shard in order { v = sh_reducer_leaf; fill v; sh_reducer_leaf_done };
 *   for the LAST own shard, buckets of v may be handed over early with sh_reducer_bucket_done, in
 *   any order (from the last downwards is best: gradients are ready from the end backwards, and
 *   FAST starts them in that order only), while the rest is still being computed; poll between;
 *   finish: the total, the same on every rank.
 * One thread at a time: the one that created the group. A bucket that was handed over must not be
 * touched until finish.
 *
 * Memory, in vectors: the own shards' partial sums (1 for one shard, at most about
 * 1 + 2 log2 n_shards), and, EXACT with several ranks, the other ranks' subtrees of the own slice
 * (below 1 where ranks and shards are powers of two). The total needs none of its own.
 */
typedef struct sh_reducer sh_reducer;

/**
 * device         where leaves, partial sums and the total lie (sh_comm_sums_in); NULL: host memory.
 *                It must outlive the reducer
 * bucket_bounds  [n_buckets + 1] element bounds of the buckets, ascending from 0 to n_elems; at
 *                most 16383 buckets of less than 2^31 elements
 * Collective; all arguments agree on all ranks, or it is SH_ERR_MISMATCH everywhere. More ranks
 * than shards is SH_ERR_USAGE. The caller owns *out and destroys it before comm, which it points
 * to. */
SH_MUST_CHECK sh_status sh_reducer_create(sh_comm *comm, const sh_device *device,
                                          sh_reduce_mode mode, int n_shards, int64_t n_elems,
                                          const int64_t *bucket_bounds, int n_buckets,
                                          sh_reducer **out);
void sh_reducer_destroy(sh_reducer **reducer);

/** Bytes of vectors held, allocated once by create. */
size_t sh_reducer_bytes(const sh_reducer *reducer);

/** Start a step; invalidates the total of the step before. */
SH_MUST_CHECK sh_status sh_reducer_begin(sh_reducer *reducer);

/** Memory [n_elems], 64-byte aligned, that the next own shard writes its contribution to (on a
 *  device: by what is queued for computing). Contents undefined. After leaf_done the next leaf may
 *  lie elsewhere: ask again. */
float *sh_reducer_leaf(sh_reducer *reducer);

/** Bucket b of the last own shard's leaf is complete: combine it and start exchanging it. */
SH_MUST_CHECK sh_status sh_reducer_bucket_done(sh_reducer *reducer, int bucket);

/** The leaf is complete (for the last own shard: all buckets not yet handed over are). */
SH_MUST_CHECK sh_status sh_reducer_leaf_done(sh_reducer *reducer);

/** Let communication progress; never blocks. */
SH_MUST_CHECK sh_status sh_reducer_poll(sh_reducer *reducer);

/** Wait for the total, [n_elems], valid until the next begin; same bytes on every rank. On a
 *  device, what is queued for computing from now on may read it. */
SH_MUST_CHECK sh_status sh_reducer_finish(sh_reducer *reducer, const float **total);

/** dst = a + b, element by element, f32: the only addition that the tree uses. dst may be a or b.
 */
void sh_tree_add(float *dst, const float *a, const float *b, int64_t n);

SH_C_END

#endif
