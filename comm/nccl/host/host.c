// SPDX-License-Identifier: Apache-2.0
/* NCCL's calls over MPI. Work given with a stream runs in that queue (sh_lazy_push); without one,
 * it runs while NCCL says that it is taking it over, and is complete when that ends. */
#include "comm/nccl/host/host.h"

#include <limits.h>
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

#include "comm/nccl/library.h"

enum { MAX_OPS = 256 };
static const char key[] = "an id made on the host";

typedef enum op_kind { SEND, RECV, ALL_REDUCE } op_kind;

typedef struct op {
    op_kind kind;
    void *at;
    int count, peer;
} op;

typedef struct batch {
    ncclComm_t comm;
    void *stream;
    op ops[MAX_OPS];
    int n_ops;
    bool started;
    MPI_Request requests[MAX_OPS];
} batch;

struct ncclComm {
    MPI_Comm group;
    MPI_Request connecting;
    int n_looks, n_batches;
    batch *pending; /* without a stream */
};

static sh_nccl_faults faults;
static batch *group; /* between ncclGroupStart and ncclGroupEnd */
static const char *last_error = "";

void sh_nccl_set_faults(const sh_nccl_faults *wanted)
{
    faults = *wanted;
}

static ncclResult_t refuse(ncclResult_t result, const char *why)
{
    last_error = why;
    return result;
}

/* ---- life ---- */

sh_status sh_nccl_find(sh_dynlib *out)
{
#define ADDRESS(name) .name = nccl##name,
    sh_status st = SH_OK;

    SH_CHECK(!faults.is_missing, SH_ERR_NOT_FOUND, "no library, as the test wanted");
    sh_nccl_lib = (sh_nccl_calls){SH_NCCL_CALLS(ADDRESS)};
    *out = (sh_dynlib){.path = "calls on the host, for tests"};
out:
    return st;
}

ncclResult_t ncclGetVersion(int *version)
{
    *version = faults.version != 0 ? faults.version : 29900;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    memcpy(id->internal, key, sizeof(key));
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int n_ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    int size = 0, own = -1;
    ncclComm_t c = calloc(1, sizeof(*c));

    if (c == NULL) return ncclSystemError;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Comm_rank(MPI_COMM_WORLD, &own);
    *comm = c;
    if (config->blocking != 0) return refuse(ncclInvalidUsage, "a group that blocks");
    if (size != n_ranks || own != rank || memcmp(id.internal, key, sizeof(key)) != 0)
        return refuse(ncclInvalidArgument, "another id, rank or size");
    MPI_Comm_idup(MPI_COMM_WORLD, &c->group, &c->connecting);
    return ncclInProgress;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    comm->n_looks = faults.slowness;
    return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    MPI_Comm_free(&comm->group);
    return ncclCommAbort(comm);
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    free(comm->pending);
    free(comm);
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    switch (result) {
    case ncclSuccess: return "no error";
    case ncclSystemError: return "system error";
    case ncclInvalidArgument: return "invalid argument";
    case ncclInvalidUsage: return "invalid usage";
    case ncclRemoteError: return "remote process exited or there was a network error";
    case ncclInProgress: return "in progress";
    }
    return "unknown";
}

const char *ncclGetLastError(ncclComm_t comm)
{
    (void)comm;
    return last_error;
}

/* ---- work ---- */

static bool run_batch(void *context)
{
    batch *b = context;
    int complete = 0;

    for (int i = 0; i < b->n_ops && !b->started; i++) {
        const op *o = &b->ops[i];

        if (o->kind == SEND)
            MPI_Isend(o->at, o->count, MPI_FLOAT, o->peer, 0, b->comm->group, &b->requests[i]);
        else if (o->kind == RECV)
            MPI_Irecv(o->at, o->count, MPI_FLOAT, o->peer, 0, b->comm->group, &b->requests[i]);
        else
            MPI_Iallreduce(MPI_IN_PLACE, o->at, o->count, MPI_FLOAT, MPI_SUM, b->comm->group,
                           &b->requests[i]);
    }
    b->started = true;
    MPI_Testall(b->n_ops, b->requests, &complete, MPI_STATUSES_IGNORE);
    return complete;
}

static bool is_busy(ncclComm_t comm)
{
    int connected = 0;

    if (faults.never_connects) return true;
    if (comm->connecting != MPI_REQUEST_NULL) {
        MPI_Test(&comm->connecting, &connected, MPI_STATUS_IGNORE);
        if (!connected) return true;
    }
    if (comm->n_looks > 0) {
        comm->n_looks--;
        return true;
    }
    if (comm->pending == NULL) return false;
    if (!run_batch(comm->pending)) return true;
    free(comm->pending);
    comm->pending = NULL;
    return false;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state)
{
    *state = is_busy(comm) ? ncclInProgress : ncclSuccess;
    if (faults.error_after > 0 && comm->n_batches >= faults.error_after)
        *state = refuse(ncclRemoteError, "as the test wanted");
    return ncclSuccess;
}

ncclResult_t ncclGroupStart(void)
{
    if (group != NULL) return refuse(ncclInvalidUsage, "a group inside a group");
    group = calloc(1, sizeof(*group));
    return group != NULL ? ncclSuccess : ncclSystemError;
}

ncclResult_t ncclGroupEnd(void)
{
    batch *b = group;
    ncclComm_t comm;

    if (b == NULL) return refuse(ncclInvalidUsage, "the end of no group");
    group = NULL;
    comm = b->comm;
    if (comm == NULL) {
        free(b); /* nothing in it */
        return ncclSuccess;
    }
    comm->n_looks = faults.slowness;
    comm->n_batches++;
    if (b->stream != NULL)
        sh_lazy_push(b->stream, run_batch, b);
    else
        comm->pending = b;
    return ncclInProgress;
}

static ncclResult_t give(ncclComm_t comm, ncclDataType_t type, size_t count, void *stream, op o)
{
    if (type != ncclFloat || count == 0 || count > INT_MAX)
        return refuse(ncclInvalidArgument, "not floats, none, or too many");
    if (comm->connecting != MPI_REQUEST_NULL || comm->n_looks > 0 || comm->pending != NULL)
        return refuse(ncclInvalidUsage, "more work while the last is still being taken over");
    if (group->n_ops == MAX_OPS || (group->comm != NULL && group->comm != comm) ||
        (group->n_ops > 0 && group->stream != stream))
        return refuse(ncclInvalidUsage, "too much in a group, or of several");
    o.count = (int)count;
    group->comm = comm;
    group->stream = stream;
    group->ops[group->n_ops++] = o;
    return ncclSuccess;
}

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, ncclStream_t stream)
{
    return give(comm, type, count, stream, (op){.kind = SEND, .at = (void *)from, .peer = peer});
}

ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      ncclStream_t stream)
{
    return give(comm, type, count, stream, (op){.kind = RECV, .at = to, .peer = peer});
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclRedOp_t sum, ncclComm_t comm, ncclStream_t stream)
{
    ncclResult_t result = ncclGroupStart();

    if (from != to || sum != ncclSum) return refuse(ncclInvalidArgument, "not a sum in place");
    if (result == ncclSuccess)
        result = give(comm, type, count, stream, (op){.kind = ALL_REDUCE, .at = to});
    return result == ncclSuccess ? ncclGroupEnd() : result;
}
