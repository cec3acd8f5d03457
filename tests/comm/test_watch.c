// SPDX-License-Identifier: Apache-2.0
/* The watchdog's judgement and its messages, without processes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "comm/watch.h"

enum { MAX_RANKS = 16, VERDICT_BYTES = 4096 };

static const sh_watchdog_config config = {.lost_seconds = 7.5,
                                          .compute_seconds = 60,
                                          .collective_seconds = 60,
                                          .files_seconds = 300,
                                          .exit_code = 76};

static sh_watch_rank ranks[MAX_RANKS];

/* A healthy job of n ranks, `per_host` on each host, as seen by `self`. */
static sh_watch healthy(int n, int per_host, int self)
{
    sh_watch w = {.config = &config, .self = self, .n_ranks = n, .ranks = ranks};

    memset(ranks, 0, sizeof(ranks));
    for (int r = 0; r < n; r++) {
        snprintf(ranks[r].host, SH_WATCH_HOST, "n%d", r / per_host);
        ranks[r].heard = true;
        ranks[r].silent_s = r == self ? 0 : 0.4;
        ranks[r].position = (sh_position){SH_AT_COMPUTE, 5, "step 3: backward of shard 1"};
    }
    sh_watch_choose_judges(&w);
    return w;
}

static bool judge(const sh_watch *w, char text[VERDICT_BYTES])
{
    text[0] = '\0';
    return sh_watch_judge(w, text, VERDICT_BYTES);
}

static int n_lines(const char *text)
{
    int n = 0;

    for (; *text != '\0'; text++) n += *text == '\n';
    return n;
}

static void judge__says_nothing_of_a_healthy_job(void **state)
{
    char text[VERDICT_BYTES];

    (void)state;
    for (int n = 1; n <= 8; n++) {
        for (int self = 0; self < n; self++) {
            sh_watch w = healthy(n, 3, self);

            ranks[n - 1].position.activity = SH_AT_COLLECTIVE;
            ranks[n - 1].still_s = 500; /* it waits for those that compute */
            if (n > 1) assert_false(judge(&w, text));
        }
    }
}

static void judge__names_a_silent_rank_after_the_limit(void **state)
{
    char text[VERDICT_BYTES];
    sh_watch w = healthy(4, 4, 0);

    (void)state;
    ranks[2].silent_s = 7.4;
    assert_false(judge(&w, text));
    ranks[2].silent_s = 7.6;
    assert_true(judge(&w, text));
    assert_int_equal(n_lines(text), 1);
    assert_non_null(strstr(text, "rank 2 on n0 is lost: no sign of life for 7.6 s"));
    assert_non_null(strstr(text, "step 3: backward of shard 1"));
}

static void judge__names_all_ranks_of_a_lost_host(void **state)
{
    char text[VERDICT_BYTES];
    sh_watch w = healthy(6, 2, 0);

    (void)state;
    ranks[4].silent_s = 7.6;
    ranks[5].silent_s = 6.9;
    assert_true(judge(&w, text));
    assert_int_equal(n_lines(text), 2);
    assert_non_null(strstr(text, "rank 4 on n2"));
    assert_non_null(strstr(text, "rank 5 on n2"));
}

static void judge__names_an_ended_process_at_once_unless_it_left(void **state)
{
    char text[VERDICT_BYTES];
    sh_watch w = healthy(3, 3, 0);

    (void)state;
    ranks[1].ended = true;
    assert_true(judge(&w, text));
    assert_non_null(strstr(text, "rank 1 on n0 is gone"));
    ranks[1].left = true;
    assert_false(judge(&w, text));
}

static void judge__says_of_itself_that_it_is_cut_off(void **state)
{
    char text[VERDICT_BYTES];
    sh_watch w = healthy(6, 2, 0);

    (void)state;
    for (int r = 2; r < 6; r++) ranks[r].silent_s = 7.6;
    assert_true(judge(&w, text));
    assert_int_equal(n_lines(text), 1);
    assert_non_null(strstr(text, "rank 0 on n0 is cut off"));
    /* One other host: the link cannot be told from the host, which is named. */
    w = healthy(4, 2, 0);
    ranks[2].silent_s = ranks[3].silent_s = 7.6;
    assert_true(judge(&w, text));
    assert_int_equal(n_lines(text), 2);
    assert_non_null(strstr(text, "rank 2 on n1 is lost"));
}

static void second_judge__speaks_only_where_the_first_cannot(void **state)
{
    char text[VERDICT_BYTES];
    sh_watch w = healthy(6, 2, 2); /* the first rank of the second host */

    (void)state;
    assert_true(sh_watch_is_judge(&w, 2));
    ranks[5].silent_s = 7.6;
    assert_false(judge(&w, text)); /* rank 0 hears that too */
    ranks[0].silent_s = 7.6;
    assert_true(judge(&w, text));
    assert_non_null(strstr(text, "rank 0 on n0 is lost"));
    w = healthy(6, 2, 2);
    ranks[0].left = true;
    ranks[4].ended = true;
    assert_true(judge(&w, text));
    assert_non_null(strstr(text, "rank 4 on n2 is gone"));
    assert_null(strstr(text, "rank 0"));
}

static void other_rank__ends_itself_only_without_both_judges(void **state)
{
    char text[VERDICT_BYTES];
    sh_watch w = healthy(6, 2, 5);

    (void)state;
    ranks[0].silent_s = 100;
    ranks[3].silent_s = 100; /* no judge: not heard from here, ever */
    assert_false(judge(&w, text));
    ranks[2].silent_s = 8.6;
    assert_true(judge(&w, text));
    assert_non_null(strstr(text, "rank 5 on n2 is cut off"));
    ranks[0].left = true;
    assert_false(judge(&w, text));
}

static void judge__names_who_does_not_get_on(void **state)
{
    char text[VERDICT_BYTES];
    sh_watch w = healthy(3, 3, 0);

    (void)state;
    ranks[1].position = (sh_position){SH_AT_FILES, 9, "step 3: images of shard 1"};
    ranks[1].still_s = 299;
    ranks[0].position.activity = ranks[2].position.activity = SH_AT_COLLECTIVE;
    ranks[0].still_s = ranks[2].still_s = 299;
    assert_false(judge(&w, text));
    ranks[1].still_s = 301;
    assert_true(judge(&w, text));
    assert_int_equal(n_lines(text), 1);
    assert_non_null(strstr(text, "rank 1 on n0 is stuck"));
    assert_non_null(strstr(text, "waiting for files: step 3: images of shard 1"));
    ranks[1].position.activity = SH_AT_COMPUTE;
    ranks[1].still_s = 61;
    assert_true(judge(&w, text));
    assert_non_null(strstr(text, "computing"));
    ranks[1].position.activity = SH_AT_WORK;
    ranks[1].still_s = 1e6;
    assert_false(judge(&w, text));
}

static void judge__names_the_odd_one_of_ranks_that_wait_for_each_other(void **state)
{
    char text[VERDICT_BYTES];
    sh_watch w = healthy(4, 4, 0);

    (void)state;
    for (int r = 0; r < 4; r++) {
        ranks[r].position = (sh_position){SH_AT_COLLECTIVE, 9, "maximum 118"};
        ranks[r].still_s = 61;
    }
    assert_true(judge(&w, text));
    assert_non_null(strstr(text, "all 4 wait in maximum 118"));
    snprintf(ranks[2].position.what, SH_POSITION_TEXT, "gathering 118");
    assert_true(judge(&w, text));
    assert_non_null(strstr(text, "rank 2 on n0 is in gathering 118"));
    ranks[3].still_s = 1;
    assert_false(judge(&w, text));
}

/* Rank 0 wrote the last files for longer than a collective may take, came to the barrier and left;
 * the others are about to be told. */
static void judge__takes_leaving_for_getting_on(void **state)
{
    char text[VERDICT_BYTES];
    sh_watch w = healthy(4, 4, 1);

    (void)state;
    for (int r = 1; r < 4; r++) {
        ranks[r].position = (sh_position){SH_AT_COLLECTIVE, 9, "barrier 7"};
        ranks[r].still_s = 73;
    }
    ranks[0].left = true;
    ranks[0].silent_s = 0.1;
    assert_false(judge(&w, text));
    ranks[0].silent_s = 61;
    assert_true(judge(&w, text));
    assert_non_null(strstr(text, "all 3 wait in barrier 7"));
}

static void message__survives_the_wire(void **state)
{
    const sh_watch_message sent = {SH_WATCH_BEAT, 3, 12.345, {SH_AT_FILES, 1ull << 40, "a file"}};
    uint8_t data[SH_WATCH_MAX_BYTES + 1];
    sh_watch_message got;
    size_t n = sh_watch_encode(&sent, data);

    (void)state;
    assert_true(sh_watch_decode(data, n, 4, &got));
    assert_int_equal(got.kind, sent.kind);
    assert_int_equal(got.rank, 3);
    assert_int_equal((int)(got.still_s * 1000 + 0.5), 12345);
    assert_int_equal(got.position.activity, SH_AT_FILES);
    assert_true(got.position.n_moves == sent.position.n_moves);
    assert_string_equal(got.position.what, "a file");
    assert_false(sh_watch_decode(data, n, 3, &got)); /* no such rank */
    for (size_t shorter = 0; shorter < n; shorter++)
        assert_false(sh_watch_decode(data, shorter, 4, &got));
    assert_false(sh_watch_decode(data, n + 1, 4, &got));
    data[n - 1] = '\n';
    assert_true(sh_watch_decode(data, n, 4, &got));
    assert_string_equal(got.position.what, "a fil?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(judge__says_nothing_of_a_healthy_job),
        cmocka_unit_test(judge__names_a_silent_rank_after_the_limit),
        cmocka_unit_test(judge__names_all_ranks_of_a_lost_host),
        cmocka_unit_test(judge__names_an_ended_process_at_once_unless_it_left),
        cmocka_unit_test(judge__says_of_itself_that_it_is_cut_off),
        cmocka_unit_test(second_judge__speaks_only_where_the_first_cannot),
        cmocka_unit_test(other_rank__ends_itself_only_without_both_judges),
        cmocka_unit_test(judge__names_who_does_not_get_on),
        cmocka_unit_test(judge__names_the_odd_one_of_ranks_that_wait_for_each_other),
        cmocka_unit_test(judge__takes_leaving_for_getting_on),
        cmocka_unit_test(message__survives_the_wire),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
