// SPDX-License-Identifier: Apache-2.0
/**
 * Inside of the sum over shards: what reducer_plan.c makes, reducer.c runs, and an exchange moves
 * between ranks.
 *
 * Slots. A rank's leaves and partial sums live in a stack of whole vectors, `slots`. The next leaf
 * is written on top; when it is complete, finished siblings are added into the left one, like the
 * carries of a binary counter. After the last leaf, slots 0 .. n_own - 1 hold the rank's largest
 * subtrees, left to right.
 *
 * Buckets go through these states on their own, in any order, alone or several at once:
 *   OPEN       the last leaf is not complete here
 *   COMPLETE   it is; the bucket's turn has not come
 *   COLLECTING each rank owns one slice of the bucket and receives all other ranks' subtree sums of
 *              that slice into `staging`; it sends its own subtrees' other slices
 *   SHARING    the slice is summed in tree order into slot 0, and slices are exchanged in place
 *   SETTLING   all is queued on the device, which has not got there
 *   DONE       slot 0 holds the total of the bucket
 *
 * Slot 0 may be overwritten in SHARING because all sends of COLLECTING are complete by then (on a
 * device: are before it in the queue), and the own slice of slot 0 is read by the same addition
 * that overwrites it, or before.
 *
 * SH_REDUCE_FAST keeps the slots but replaces the two phases by one all-reduce per bucket, in the
 * order in which the library happens to add.
 */
#ifndef SH_COMM_REDUCER_H
#define SH_COMM_REDUCER_H

#include "base/device.h"
#include "comm/group.h"
#include "comm/tree.h"

SH_C_BEGIN

typedef enum sh_bucket_state {
    SH_BUCKET_OPEN,
    SH_BUCKET_COMPLETE,
    SH_BUCKET_COLLECTING,
    SH_BUCKET_SHARING,
    SH_BUCKET_SETTLING,
    SH_BUCKET_DONE
} sh_bucket_state;

/** A run of floats to or from another rank. Between two ranks, those of one bucket and phase are
 *  matched in the order of the lists. */
typedef struct sh_message {
    float *at;
    int64_t n;
    int peer;
    bool is_send;
} sh_message;

typedef struct sh_bucket {
    int64_t begin, end;
    int64_t slice_begin, slice_end; /* the own slice */
    sh_bucket_state state;
    sh_message *collect, *share; /* EXACT */
    int n_collect, n_share;
    float **inputs; /* [n_inputs] in the device's memory: the own slice of every rank's subtrees, in
                       tree order */
    void *own;      /* the exchange's */
} sh_bucket;

/** How buckets move between ranks. Slots are required unless they say otherwise. */
typedef struct sh_exchange {
    /** Buckets must be started in one order everywhere: from the last downwards. */
    bool in_order;

    /** Optional. Make what buckets need. Not collective. */
    sh_status (*open)(sh_reducer *r);

    /** Optional. Also where open failed half-way. */
    void (*close)(sh_reducer *r);

    /** Optional: may a bucket be started now? NULL: always. */
    sh_status (*ready)(sh_reducer *r, bool *ready);

    /** Optional. A bucket has become COMPLETE, whenever it is started: note what it waits for. */
    sh_status (*complete)(sh_reducer *r, sh_bucket *bucket);

    /** A bucket that is COMPLETE: begin, and set its state. Never blocks. */
    sh_status (*start)(sh_reducer *r, sh_bucket *bucket);

    /** A bucket between COMPLETE and DONE: as far as what has arrived allows. Never blocks. */
    sh_status (*advance)(sh_reducer *r, sh_bucket *bucket);

    /** Optional. This rank waits, and for so long nothing has got on here: SH_OK, or the failure
     *  that ends it. NULL: only the watchdog judges. */
    sh_status (*patience)(sh_reducer *r, double waited_s);
} sh_exchange;

struct sh_reducer {
    sh_comm *comm;
    const sh_device *device;
    const sh_exchange *exchange;
    sh_reduce_mode mode;
    int n_shards;
    int64_t n_elems;
    int shard_begin, shard_end;

    float *slots;   /* [n_slots, stride], then staging; in the device's memory */
    int64_t stride; /* n_elems rounded up to a cache line */
    int64_t n_staging;
    int n_slots, n_own; /* n_own: subtrees left after the last own leaf */

    uint8_t *own_joins; /* [n_leaves] how many additions follow which own leaf */
    int n_inputs;       /* subtrees of all ranks */
    int depth;          /* of the stack that adds them */
    void *tables;       /* in the device's memory: n_joins, and the inputs of every bucket */
    uint8_t *n_joins;   /* [n_inputs] in it */

    sh_bucket *buckets;
    int n_buckets, n_done;
    int next_in_order; /* the highest bucket not yet started */
    int next_leaf;     /* own leaves completed */
    int top;           /* slots in use below the leaf being written */
    bool begun;
};

/** The host's memory: sums at once, whatever the queue. */
extern const sh_device sh_device_host;

extern const sh_exchange sh_exchange_alone;   /* groups of one */
extern const sh_exchange sh_exchange_mpi;     /* EXACT, host memory */
extern const sh_exchange sh_exchange_mpi_all; /* FAST, host memory: MPI_Iallreduce */

static inline float *sh_reducer_slot(const sh_reducer *r, int index)
{
    return r->slots + index * r->stride;
}

/** Sum the own slice of a bucket in tree order into slot 0. */
SH_MUST_CHECK sh_status sh_reducer_sum_slice(sh_reducer *r, const sh_bucket *bucket);

void sh_reducer_bucket_is_done(sh_reducer *r, sh_bucket *bucket);

SH_C_END

#endif
