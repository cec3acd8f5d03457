// SPDX-License-Identifier: Apache-2.0
/* Who may write a run, when several processes want to at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "trainer/run.h"

enum { N_PROCESSES = 8, N_ROUNDS = 6 };

static char folder[] = "/tmp/shoal-test-XXXXXX";

/* What the processes of a round tell each other and the test. */
typedef struct board {
    atomic_int n_ready, n_taken;
    atomic_bool go, done;
    sh_status taken[N_PROCESSES], checked[N_PROCESSES];
    int64_t incarnation[N_PROCESSES];
} board;

static void await(atomic_int *counter, int n)
{
    for (int i = 0; *counter < n; i++) {
        if (i > 30000) fail_msg("only %d of %d processes got there", *counter, n);
        usleep(1000);
    }
}

/* Takes the lock at the same instant as the others; checks it when all have tried. */
static void contend(board *b, int p)
{
    sh_run_lock *lock = NULL;

    b->n_ready++;
    while (!b->go) continue;
    b->taken[p] = sh_run_lock_take(folder, &lock);
    b->incarnation[p] = lock != NULL ? sh_run_lock_incarnation(lock) : 0;
    b->n_taken++;
    while (!b->done) usleep(1000);
    b->checked[p] = lock != NULL ? sh_run_lock_check(lock) : SH_ERR_MISMATCH;
    sh_run_lock_release(&lock);
    _exit(0);
}

/* Zeroed, and seen by processes that are forked. */
static board *new_board(void)
{
    board *b = mmap(NULL, sizeof(*b), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_true(b != MAP_FAILED);
    return b;
}

/* job of process p: "41", or one of its own. */
static board *run_round(bool same_job)
{
    pid_t children[N_PROCESSES];
    char job[16];
    board *b = new_board();

    for (int p = 0; p < N_PROCESSES; p++) {
        children[p] = fork();
        assert_true(children[p] >= 0);
        if (children[p] != 0) continue;
        snprintf(job, sizeof(job), "%d", same_job ? 41 : 100 + p);
        setenv("SLURM_JOB_ID", job, 1);
        contend(b, p);
    }
    await(&b->n_ready, N_PROCESSES);
    b->go = true;
    await(&b->n_taken, N_PROCESSES);
    b->done = true;
    for (int p = 0; p < N_PROCESSES; p++) {
        int status = -1;

        assert_int_equal(waitpid(children[p], &status, 0), children[p]);
        assert_int_equal(status, 0);
    }
    return b;
}

static void lock_take__of_one_job_at_once_replaces_and_the_last_one_has_it(void **state)
{
    (void)state;
    for (int round = 0; round < N_ROUNDS; round++) {
        board *b = run_round(true);
        int64_t newest = 0;
        int n_valid = 0;

        for (int p = 0; p < N_PROCESSES; p++) {
            assert_int_equal(b->taken[p], SH_OK);
            for (int q = 0; q < p; q++) assert_int_not_equal(b->incarnation[p], b->incarnation[q]);
            if (b->incarnation[p] > newest) newest = b->incarnation[p];
        }
        for (int p = 0; p < N_PROCESSES; p++) {
            assert_int_equal(b->checked[p] == SH_OK, b->incarnation[p] == newest);
            n_valid += b->checked[p] == SH_OK;
        }
        assert_int_equal(n_valid, 1);
        munmap(b, sizeof(*b));
    }
}

static void lock_take__of_different_jobs_at_once_lets_one_in(void **state)
{
    (void)state;
    for (int round = 0; round < N_ROUNDS; round++) {
        board *b = run_round(false);
        int n_taken = 0;

        for (int p = 0; p < N_PROCESSES; p++) {
            n_taken += b->taken[p] == SH_OK;
            assert_int_equal(b->checked[p], b->taken[p]);
            if (b->taken[p] != SH_OK) assert_int_equal(b->taken[p], SH_ERR_MISMATCH);
        }
        assert_int_equal(n_taken, 1);
        munmap(b, sizeof(*b));
    }
}

static void lock_check__keeps_strangers_out_once_the_replaced_process_has_ended(void **state)
{
    (void)state;
    sh_run_lock *lock = NULL, *stranger = NULL;
    board *b = new_board();
    int status;

    setenv("SLURM_JOB_ID", "41", 1);
    pid_t first = fork();

    assert_true(first >= 0);
    if (first == 0) {
        b->go = true;
        contend(b, 0);
    }
    await(&b->n_taken, 1);
    assert_int_equal(sh_run_lock_take(folder, &lock), SH_OK);
    assert_int_equal(kill(first, SIGKILL), 0);
    assert_int_equal(waitpid(first, &status, 0), first);
    assert_int_equal(sh_run_lock_check(lock), SH_OK);
    setenv("SLURM_JOB_ID", "42", 1);
    assert_int_equal(sh_run_lock_take(folder, &stranger), SH_ERR_MISMATCH);
    assert_int_equal(sh_run_lock_check(lock), SH_OK);
    sh_run_lock_release(&lock);
    assert_int_equal(sh_run_lock_take(folder, &stranger), SH_OK);
    sh_run_lock_release(&stranger);
    unsetenv("SLURM_JOB_ID");
    munmap(b, sizeof(*b));
}

static void lock_freeze__of_a_replaced_process_is_refused_and_holds_others_off(void **state)
{
    (void)state;
    sh_run_lock *old = NULL, *new = NULL;
    board *b = new_board();
    int status;

    setenv("SLURM_JOB_ID", "41", 1);
    assert_int_equal(sh_run_lock_take(folder, &old), SH_OK);
    assert_int_equal(sh_run_lock_take(folder, &new), SH_OK);
    assert_int_equal(sh_run_lock_freeze(old), SH_ERR_MISMATCH);
    assert_int_equal(sh_run_lock_freeze(new), SH_OK);
    pid_t other = fork();

    assert_true(other >= 0);
    if (other == 0) {
        b->go = true;
        contend(b, 0);
    }
    await(&b->n_ready, 1);
    usleep(200000);
    assert_int_equal(b->n_taken, 0);
    sh_run_lock_thaw(new);
    await(&b->n_taken, 1);
    assert_int_equal(b->taken[0], SH_OK);
    assert_int_equal(sh_run_lock_check(new), SH_ERR_MISMATCH);
    b->done = true;
    assert_int_equal(waitpid(other, &status, 0), other);
    sh_run_lock_release(&old);
    sh_run_lock_release(&new);
    unsetenv("SLURM_JOB_ID");
    munmap(b, sizeof(*b));
}

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    return sh_file_remove_tree(folder) != SH_OK;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lock_take__of_one_job_at_once_replaces_and_the_last_one_has_it),
        cmocka_unit_test(lock_take__of_different_jobs_at_once_lets_one_in),
        cmocka_unit_test(lock_check__keeps_strangers_out_once_the_replaced_process_has_ended),
        cmocka_unit_test(lock_freeze__of_a_replaced_process_is_refused_and_holds_others_off),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
