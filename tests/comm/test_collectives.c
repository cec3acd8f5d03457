// SPDX-License-Identifier: Apache-2.0
// ranks: 1 2 3 4
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#include <cmocka.h>

#include "comm/agree.h"
#include "comm/group.h"

static sh_comm *comm;

static unsigned char pattern(int rank, size_t i)
{
    return (unsigned char)(31 * rank + 7 * (int)i + (int)(i / 256));
}

static void group__knows_its_ranks(void **state)
{
    int rank = 0, size = 1, started = 0;

    (void)state;
    MPI_Initialized(&started);
    if (started) {
        MPI_Comm_rank(MPI_COMM_WORLD, &rank);
        MPI_Comm_size(MPI_COMM_WORLD, &size);
    }
    bool ok = sh_comm_rank(comm) == rank && sh_comm_size(comm) == size;

    ok = ok && sh_comm_local_rank(comm) == rank && sh_comm_local_size(comm) == size;
    ok = ok && sh_comm_cores_per_rank(comm) >= 1;
    ok = ok && sh_comm_cores_per_rank(comm) * size <= (get_nprocs() > size ? get_nprocs() : size);
    ok = ok && strncmp(sh_comm_library(), "Open MPI", 8) == 0;
    assert_true(all_ranks_agree(ok));
}

static void barrier__lets_all_pass(void **state)
{
    (void)state;
    assert_true(all_ranks_agree(sh_comm_barrier(comm) == SH_OK));
}

/* In one message and in several pieces. */
static void bcast__brings_the_roots_bytes(void **state)
{
    enum { N = 1003 };
    static const size_t limits[] = {1 << 30, 100, 1};
    unsigned char data[N];
    size_t limit = comm->max_message_bytes, n_wrong = 0;
    sh_status st = SH_OK;

    (void)state;
    for (size_t l = 0; l < SH_COUNT(limits); l++) {
        comm->max_message_bytes = limits[l];
        for (int root = 0; root < sh_comm_size(comm); root++) {
            for (size_t i = 0; i < N; i++) data[i] = pattern(sh_comm_rank(comm), i);
            if (sh_comm_bcast(comm, data, N - 1, root) != SH_OK) st = SH_ERR_COMM;
            for (size_t i = 0; i < N - 1; i++) n_wrong += data[i] != pattern(root, i);
            n_wrong += data[N - 1] != pattern(sh_comm_rank(comm), N - 1); /* one byte beyond */
        }
    }
    comm->max_message_bytes = limit;
    assert_true(all_ranks_agree(st == SH_OK && n_wrong == 0));
    assert_true(
        all_ranks_agree(sh_comm_bcast(comm, data, 1, sh_comm_size(comm)) == SH_ERR_INTERNAL));
}

static void gather_all__concatenates_in_rank_order(void **state)
{
    enum { MAX = 4096 };
    static const size_t limits[] = {1 << 30, 50};
    unsigned char all[MAX], mine[MAX];
    size_t limit = comm->max_message_bytes, n_wrong = 0, n_bytes[64], before = 0, at = 0;
    int rank = sh_comm_rank(comm), size = sh_comm_size(comm);
    bool ok = size < 64;

    (void)state;
    for (int r = 0; ok && r < size; r++) {
        n_bytes[r] = r == 1 ? 0 : 37 * (size_t)(r + 1); /* uneven, and one has nothing */
        if (r < rank) before += n_bytes[r];
    }
    for (size_t pass = 0; ok && pass < 2 * SH_COUNT(limits); pass++) {
        bool in_place = pass % 2 == 1;

        comm->max_message_bytes = limits[pass / 2];
        memset(all, 0, sizeof(all));
        for (size_t i = 0; i < n_bytes[rank]; i++) mine[i] = pattern(rank, i);
        if (in_place) memcpy(all + before, mine, n_bytes[rank]);
        ok = sh_comm_gather_all(comm, in_place ? all + before : mine, all, n_bytes) == SH_OK;
        at = 0;
        for (int r = 0; r < size; r++) {
            for (size_t i = 0; i < n_bytes[r]; i++) n_wrong += all[at++] != pattern(r, i);
        }
        n_wrong += all[at] != 0;
    }
    comm->max_message_bytes = limit;
    assert_true(all_ranks_agree(ok && n_wrong == 0));
}

/* Fewer items than ranks, as many, and more; none. */
static void gather_items__completes_what_each_rank_filled(void **state)
{
    enum { MAX = 17, BYTES = 3 };
    size_t n_wrong = 0;
    bool ok = true;

    (void)state;
    for (int64_t n = 0; ok && n < MAX; n++) {
        unsigned char items[MAX * BYTES] = {0};
        int64_t begin, end;

        sh_comm_own_items(comm, n, &begin, &end);
        for (int64_t i = begin * BYTES; i < end * BYTES; i++) items[i] = pattern(7, (size_t)i);
        ok = sh_comm_gather_items(comm, n, BYTES, items) == SH_OK;
        for (int64_t i = 0; i < n * BYTES; i++) n_wrong += items[i] != pattern(7, (size_t)i);
        for (int64_t i = n * BYTES; i < MAX * BYTES; i++) n_wrong += items[i] != 0;
        int64_t n_own = end - begin;

        ok = ok && sh_comm_max(comm, &n_own, 1) == SH_OK; /* dealt evenly */
        n_wrong += n_own != (n + sh_comm_size(comm) - 1) / sh_comm_size(comm);
    }
    assert_true(all_ranks_agree(ok && n_wrong == 0));
}

static void max__is_taken_element_by_element(void **state)
{
    int rank = sh_comm_rank(comm), size = sh_comm_size(comm);
    int64_t values[3] = {rank, -rank - 5, rank == size - 1 ? INT64_MAX : INT64_MIN};
    bool ok = sh_comm_max(comm, values, 3) == SH_OK;

    (void)state;
    ok = ok && values[0] == size - 1 && values[1] == -5 && values[2] == INT64_MAX;
    assert_true(all_ranks_agree(ok));
}

static void agree_ok__is_quiet_when_all_succeed(void **state)
{
    (void)state;
    assert_true(all_ranks_agree(sh_comm_agree_ok(comm, SH_OK) == SH_OK));
}

static void agree_ok__brings_the_message_of_the_first_that_failed(void **state)
{
    int rank = sh_comm_rank(comm), size = sh_comm_size(comm);
    char expected[64];

    (void)state;
    for (int failing = 0; failing < size; failing++) {
        /* With more than two ranks, the last one fails as well: the first is named. */
        bool fails = rank == failing || (rank == size - 1 && failing < size - 2);
        sh_status mine = SH_OK;

        if (fails) mine = sh_error_set(SH_ERR_FORMAT, "file %d is damaged", rank);
        sh_status st = sh_comm_agree_ok(comm, mine);
        bool ok = st == (fails ? SH_ERR_FORMAT : SH_ERR_COMM);

        snprintf(expected, sizeof(expected), "file %d is damaged", fails ? rank : failing);
        ok = ok && strstr(sh_error_message(), expected) != NULL;
        snprintf(expected, sizeof(expected), "rank %d on ", failing);
        ok = ok && (fails || strstr(sh_error_message(), expected) != NULL);
        assert_true(all_ranks_agree(ok));
    }
}

static void agree_text__accepts_equal_texts(void **state)
{
    bool ok = sh_comm_agree_text(comm, "the text", "a\nb\n", false) == SH_OK;

    (void)state;
    ok = ok && sh_comm_agree_text(comm, "no text", "", false) == SH_OK;
    assert_true(all_ranks_agree(ok));
}

static void agree_text__shows_the_lines_that_differ(void **state)
{
    int rank = sh_comm_rank(comm), size = sh_comm_size(comm);
    static const char *const others[] = {"seed: 1\nthreads: 8\nend", "seed: 1", "",
                                         "seed: 1\nthreads: 4\nend\nmore"};
    static const char *const shown[] = {"'threads: 8'", "'(nothing)'", "'(nothing)'", "'more'"};

    (void)state;
    for (size_t i = 0; i < SH_COUNT(others) && size > 1; i++) {
        const char *text = rank == size - 1 ? others[i] : "seed: 1\nthreads: 4\nend";
        sh_status st = sh_comm_agree_text(comm, "configuration", text, false);
        char named[32];
        bool ok = st == SH_ERR_MISMATCH && strstr(sh_error_message(), shown[i]) != NULL;

        snprintf(named, sizeof(named), "rank %d on ", size - 1);
        ok = ok && strstr(sh_error_message(), named) != NULL;
        ok = ok && strncmp(sh_error_message(), "configuration differs", 21) == 0;
        ok = ok && sh_comm_agree_text(comm, "configuration", text, true) == SH_OK;
        assert_true(all_ranks_agree(ok));
    }
}

static int join(void **state)
{
    (void)state;
    return sh_comm_create(0, &comm) == SH_OK ? 0 : -1;
}

static int leave(void **state)
{
    (void)state;
    sh_comm_destroy(&comm);
    return comm == NULL ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(group__knows_its_ranks),
        cmocka_unit_test(barrier__lets_all_pass),
        cmocka_unit_test(bcast__brings_the_roots_bytes),
        cmocka_unit_test(gather_all__concatenates_in_rank_order),
        cmocka_unit_test(gather_items__completes_what_each_rank_filled),
        cmocka_unit_test(max__is_taken_element_by_element),
        cmocka_unit_test(agree_ok__is_quiet_when_all_succeed),
        cmocka_unit_test(agree_ok__brings_the_message_of_the_first_that_failed),
        cmocka_unit_test(agree_text__accepts_equal_texts),
        cmocka_unit_test(agree_text__shows_the_lines_that_differ),
    };

    return cmocka_run_group_tests(tests, join, leave);
}
