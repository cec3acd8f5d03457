// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/process.h"

static void process_run__keeps_both_outputs_and_the_code(void **state)
{
    (void)state;
    const char *const argv[] = {"sh", "-c", "echo one; echo two >&2; cat; exit 3", NULL};
    sh_process_result result = {0};

    assert_int_equal(sh_process_run(argv, &result), SH_OK);
    assert_int_equal(result.code, 3);
    assert_string_equal(result.out, "one\n");
    assert_string_equal(result.err, "two\n");
    sh_process_result_clear(&result);
}

/* More than a pipe would hold. */
static void process_run__keeps_long_output(void **state)
{
    (void)state;
    const char *const argv[] = {"sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x", NULL};
    sh_process_result result = {0};

    assert_int_equal(sh_process_run(argv, &result), SH_OK);
    assert_int_equal(strlen(result.out), 300000);
    assert_int_equal(strspn(result.out, "x"), 300000);
    sh_process_result_clear(&result);
}

static void process_run__counts_signals_as_shells_do(void **state)
{
    (void)state;
    const char *const argv[] = {"sh", "-c", "kill -9 $$", NULL};
    sh_process_result result = {0};

    assert_int_equal(sh_process_run(argv, &result), SH_OK);
    assert_int_equal(result.code, 128 + 9);
    sh_process_result_clear(&result);
}

static void process_run__gets_the_answer_of_a_program_asked_to_end(void **state)
{
    (void)state;
    const char *const argv[] = {"sh", "-c", "kill -TERM $$; echo answer", NULL};
    sh_process_result result = {0};

    assert_int_equal(sh_process_run(argv, &result), SH_OK);
    assert_int_equal(result.code, 0);
    assert_string_equal(result.out, "answer\n");
    sh_process_result_clear(&result);
}

static void process_run__names_a_program_that_is_not_there(void **state)
{
    (void)state;
    const char *const argv[] = {"no-such-program-of-shoal", NULL};
    sh_process_result result = {0};

    assert_int_equal(sh_process_run(argv, &result), SH_ERR_NOT_FOUND);
    assert_non_null(strstr(sh_error_message(), "no-such-program-of-shoal"));
}

static volatile sig_atomic_t n_stops = 0;

static void count_stop(int number)
{
    (void)number;
    n_stops++;
}

/* The child sends it while this process waits for the child. */
static void process_catch_stops__ends_neither_the_process_nor_a_wait(void **state)
{
    (void)state;
    const char *const argv[] = {
        "sh", "-c", "for s in TERM USR1 INT; do kill -$s $PPID; done; sleep .1; exit 4", NULL};
    sh_process_result result = {0};

    sh_process_catch_stops(count_stop);
    assert_int_equal(sh_process_run(argv, &result), SH_OK);
    assert_int_equal(result.code, 4);
    assert_int_equal(n_stops, 3);
    sh_process_result_clear(&result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(process_run__keeps_both_outputs_and_the_code),
        cmocka_unit_test(process_run__keeps_long_output),
        cmocka_unit_test(process_run__counts_signals_as_shells_do),
        cmocka_unit_test(process_run__gets_the_answer_of_a_program_asked_to_end),
        cmocka_unit_test(process_run__names_a_program_that_is_not_there),
        cmocka_unit_test(process_catch_stops__ends_neither_the_process_nor_a_wait),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
