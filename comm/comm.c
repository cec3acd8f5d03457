// SPDX-License-Identifier: Apache-2.0
#include "comm/comm.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/log.h"
#include "base/position.h"
#include "comm/group.h"

enum {
    MAX_MESSAGE_BYTES = 1 << 30,
    FAILURE_BYTES = 2048, /* as long as a failure's message can be */
    LINE_BYTES = 512,     /* of a differing line, as shown */
};

sh_status sh_comm_create(int expect_ranks, sh_comm **out)
{
    sh_status st = SH_OK;
    sh_comm *comm = calloc(1, sizeof(*comm));

    SH_CHECK(comm != NULL, SH_ERR_NO_MEMORY, "no memory for the process group");
    sh_position_own(); /* the thread that communicates is the one to watch */
    comm->size = 1;
    comm->local_size = 1;
    comm->cores_per_rank = sh_cpu_cores_granted();
    comm->max_message_bytes = MAX_MESSAGE_BYTES;
    if (gethostname(comm->host, sizeof(comm->host) - 1) != 0) strcpy(comm->host, "unknown host");
    SH_TRY(sh_mpi_join(expect_ranks, comm));
    sh_log_set_rank(comm->rank, comm->size);

    *out = comm;
    comm = NULL;
out:
    sh_comm_destroy(&comm);
    return st;
}

void sh_comm_destroy(sh_comm **comm)
{
    if (*comm == NULL) return;
    /* MPI_Finalize waits for all ranks and keeps a core busy meanwhile: wait for them here. Should
     * that fail, there is nobody left to tell. */
    if (sh_comm_barrier(*comm) != SH_OK) sh_error_clear();
    sh_devices_leave(*comm);
    sh_watchdog_stop(&(*comm)->watchdog);
    sh_mpi_leave(*comm);
    free(*comm);
    *comm = NULL;
}

_Noreturn void sh_comm_abort(sh_comm *comm, int code, const char *message)
{
    if (comm != NULL && comm->size > 1)
        fprintf(stderr, "shoal: error: rank %d on %s: %s\n", comm->rank, comm->host, message);
    else
        fprintf(stderr, "shoal: error: %s\n", message);
    fflush(NULL);
    if (comm != NULL) sh_watchdog_stop(&comm->watchdog); /* the peers' need no longer ask why */
    if (comm != NULL && comm->over_mpi) MPI_Abort(comm->group, code);
    exit(code);
}

int sh_comm_rank(const sh_comm *comm)
{
    return comm->rank;
}

int sh_comm_size(const sh_comm *comm)
{
    return comm->size;
}

int sh_comm_local_rank(const sh_comm *comm)
{
    return comm->local_rank;
}

int sh_comm_local_size(const sh_comm *comm)
{
    return comm->local_size;
}

int sh_comm_cores_per_rank(const sh_comm *comm)
{
    return comm->cores_per_rank;
}

const char *sh_comm_library(void)
{
    static char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;

    if (text[0] == '\0') {
        MPI_Get_library_version(text, &length);
        text[strcspn(text, ",\n")] = '\0'; /* what follows is where and when it was built */
    }
    return text;
}

sh_status sh_comm_barrier(sh_comm *comm)
{
    sh_status st = SH_OK;
    MPI_Request request = MPI_REQUEST_NULL;

    if (comm->size == 1) goto out;
    SH_MPI(MPI_Ibarrier(comm->group, &request));
    SH_TRY(sh_mpi_wait(comm, "barrier", &request));
out:
    return st;
}

sh_status sh_comm_bcast(sh_comm *comm, void *data, size_t n_bytes, int root)
{
    sh_status st = SH_OK;
    MPI_Request request = MPI_REQUEST_NULL;

    SH_CHECK(root >= 0 && root < comm->size, SH_ERR_INTERNAL, "broadcast from rank %d of %d", root,
             comm->size);
    if (comm->size == 1) goto out;
    for (size_t at = 0; at < n_bytes; at += comm->max_message_bytes) {
        size_t piece = n_bytes - at;

        if (piece > comm->max_message_bytes) piece = comm->max_message_bytes;
        SH_MPI(MPI_Ibcast((char *)data + at, (int)piece, MPI_BYTE, root, comm->group, &request));
        SH_TRY(sh_mpi_wait(comm, "broadcast", &request));
    }
out:
    return st;
}

/* One MPI_Iallgatherv; the sum of n_bytes fits an MPI count. */
static sh_status gather_at_once(sh_comm *comm, const void *mine, void *all, const size_t *n_bytes)
{
    sh_status st = SH_OK;
    MPI_Request request = MPI_REQUEST_NULL;
    int *counts = malloc(2 * (size_t)comm->size * sizeof(*counts));
    int *offsets = NULL;
    int total = 0;

    SH_CHECK(counts != NULL, SH_ERR_NO_MEMORY, "no memory for the counts of %d ranks", comm->size);
    offsets = counts + comm->size;
    for (int r = 0; r < comm->size; r++) {
        counts[r] = (int)n_bytes[r];
        offsets[r] = total;
        total += counts[r];
    }
    if (mine == (char *)all + offsets[comm->rank]) mine = MPI_IN_PLACE;
    SH_MPI(MPI_Iallgatherv(mine, counts[comm->rank], MPI_BYTE, all, counts, offsets, MPI_BYTE,
                           comm->group, &request));
    SH_TRY(sh_mpi_wait(comm, "gathering", &request));
out:
    free(counts);
    return st;
}

sh_status sh_comm_gather_all(sh_comm *comm, const void *mine, void *all, const size_t *n_bytes)
{
    sh_status st = SH_OK;
    size_t total = 0, before = 0;

    for (int r = 0; r < comm->size; r++) {
        if (r < comm->rank) before += n_bytes[r];
        total += n_bytes[r];
    }
    if (comm->size > 1 && total <= comm->max_message_bytes) {
        SH_TRY(gather_at_once(comm, mine, all, n_bytes));
        goto out;
    }
    if (n_bytes[comm->rank] > 0) memmove((char *)all + before, mine, n_bytes[comm->rank]);
    before = 0;
    for (int r = 0; r < comm->size; r++) {
        SH_TRY(sh_comm_bcast(comm, (char *)all + before, n_bytes[r], r));
        before += n_bytes[r];
    }
out:
    return st;
}

void sh_comm_own_items(const sh_comm *comm, int64_t n_items, int64_t *begin, int64_t *end)
{
    sh_items_of_shard(n_items, comm->size, comm->rank, begin, end);
}

sh_status sh_comm_gather_items(sh_comm *comm, int64_t n_items, size_t item_bytes, void *items)
{
    sh_status st = SH_OK;
    int64_t begin, end;
    size_t *n_bytes = calloc((size_t)comm->size, sizeof(*n_bytes));

    SH_CHECK(n_bytes != NULL, SH_ERR_NO_MEMORY, "shares of %d ranks", comm->size);
    for (int r = 0; r < comm->size; r++) {
        sh_items_of_shard(n_items, comm->size, r, &begin, &end);
        n_bytes[r] = (size_t)(end - begin) * item_bytes;
    }
    sh_comm_own_items(comm, n_items, &begin, &end);
    SH_TRY(sh_comm_gather_all(comm, (char *)items + (size_t)begin * item_bytes, items, n_bytes));
out:
    free(n_bytes);
    return st;
}

sh_status sh_comm_max(sh_comm *comm, int64_t *values, int n)
{
    sh_status st = SH_OK;
    MPI_Request request = MPI_REQUEST_NULL;

    if (comm->size == 1) goto out;
    SH_MPI(MPI_Iallreduce(MPI_IN_PLACE, values, n, MPI_INT64_T, MPI_MAX, comm->group, &request));
    SH_TRY(sh_mpi_wait(comm, "maximum", &request));
out:
    return st;
}

/* The lowest rank that raises a flag; comm->size if none does. */
static sh_status first_raised(sh_comm *comm, bool raised, int *first)
{
    sh_status st = SH_OK;
    int64_t height = raised ? comm->size - comm->rank : 0; /* the maximum is the lowest rank's */

    SH_TRY(sh_comm_max(comm, &height, 1));
    *first = comm->size - (int)height;
out:
    return st;
}

sh_status sh_comm_agree_ok(sh_comm *comm, sh_status mine)
{
    struct {
        int status;
        char host[sizeof(comm->host)], message[FAILURE_BYTES];
    } failure = {.status = mine};
    sh_status st = SH_OK;
    int first = comm->size;

    snprintf(failure.host, sizeof(failure.host), "%s", comm->host);
    snprintf(failure.message, sizeof(failure.message), "%s", sh_error_message());
    SH_TRY(first_raised(comm, mine != SH_OK, &first));
    if (first == comm->size) goto out;
    SH_TRY(sh_comm_bcast(comm, &failure, sizeof(failure), first));
    if (mine != SH_OK) {
        st = mine; /* its message still stands: nothing failed since */
        goto out;
    }
    /* A launcher passes on the code of some rank: all say that starting again is worth it. */
    SH_FAIL(failure.status == SH_ERR_NO_ROOM ? SH_ERR_NO_ROOM : SH_ERR_COMM,
            "rank %d on %s failed: %s (%s)", first, failure.host, failure.message,
            sh_status_name((sh_status)failure.status));
out:
    return st;
}

static void copy_line(const char *text, char *line)
{
    size_t length = strcspn(text, "\n");

    snprintf(line, LINE_BYTES, "%.*s", length > 0 ? (int)length : 9,
             length > 0 ? text : "(nothing)");
}

/* The first line that differs between `a` and `b`, of each, into [LINE_BYTES]. */
static void differing_lines(const char *a, const char *b, char *line_a, char *line_b)
{
    for (;;) {
        size_t length_a = strcspn(a, "\n"), length_b = strcspn(b, "\n");

        if (length_a != length_b || memcmp(a, b, length_a) != 0) break;
        a += length_a;
        b += length_b;
        if (*a == '\0' || *b == '\0') break;
        a++;
        b++;
    }
    copy_line(*a == '\n' && *b == '\0' ? a + 1 : a, line_a);
    copy_line(*b == '\n' && *a == '\0' ? b + 1 : b, line_b);
}

sh_status sh_comm_agree_text(sh_comm *comm, const char *what, const char *text, bool warn_only)
{
    struct {
        char host[sizeof(comm->host)], own[LINE_BYTES], first[LINE_BYTES];
    } differing = {.host = ""};
    sh_status st = SH_OK, have_memory = SH_OK;
    int64_t length = (int64_t)strlen(text);
    int first = comm->size;
    char *reference = NULL;

    if (comm->size == 1) goto out;
    SH_TRY(sh_comm_bcast(comm, &length, sizeof(length), 0));
    reference = calloc((size_t)length + 1, 1);
    if (reference == NULL)
        have_memory = sh_error_set(SH_ERR_NO_MEMORY, "no memory to compare the %s", what);
    SH_TRY(sh_comm_agree_ok(comm, have_memory));
    if (comm->rank == 0) memcpy(reference, text, (size_t)length);
    SH_TRY(sh_comm_bcast(comm, reference, (size_t)length, 0));
    SH_TRY(first_raised(comm, strcmp(text, reference) != 0, &first));
    if (first == comm->size) goto out;
    snprintf(differing.host, sizeof(differing.host), "%s", comm->host);
    differing_lines(text, reference, differing.own, differing.first);
    SH_TRY(sh_comm_bcast(comm, &differing, sizeof(differing), first));
    if (warn_only) {
        if (comm->rank == 0)
            sh_log_warning("%s differs between ranks: rank 0 has '%s', rank %d on %s has '%s'",
                           what, differing.first, first, differing.host, differing.own);
        goto out;
    }
    SH_FAIL(SH_ERR_MISMATCH, "%s differs between ranks: rank 0 has '%s', rank %d on %s has '%s'",
            what, differing.first, first, differing.host, differing.own);
out:
    free(reference);
    return st;
}
