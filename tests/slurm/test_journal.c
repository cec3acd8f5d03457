// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "slurm/journal.h"

static char run[256];

static int set_up(void **state)
{
    (void)state;
    snprintf(run, sizeof(run), "/tmp/shoal-journal.XXXXXX");
    return mkdtemp(run) != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return sh_file_remove_tree(run) == SH_OK ? 0 : -1;
}

static void note(const char *event, int64_t step)
{
    assert_int_equal(sh_journal_append(run, json_pack("{s:s, s:s, s:I}", "event", event, "job", "1",
                                                      "step", (json_int_t)step)),
                     SH_OK);
}

static int starts_at(int64_t step)
{
    json_t *events = NULL;

    assert_int_equal(sh_journal_read(run, &events), SH_OK);
    int n = sh_journal_starts_at(events, step);

    json_decref(events);
    return n;
}

static void journal_read__gives_nothing_where_there_is_none(void **state)
{
    (void)state;
    json_t *events = NULL;

    assert_int_equal(sh_journal_read(run, &events), SH_OK);
    assert_int_equal(json_array_size(events), 0);
    assert_null(sh_journal_last(events, "start"));
    json_decref(events);
}

static void journal_starts_at__counts_since_progress_or_submission(void **state)
{
    (void)state;
    note("submit", 0);
    note("start", -1);
    note("end", 0);
    note("start", -1);
    assert_int_equal(starts_at(-1), 2);
    assert_int_equal(starts_at(5), 0);
    note("start", 5);
    note("start", 5);
    note("start", 5);
    assert_int_equal(starts_at(5), 3);
    assert_int_equal(starts_at(-1), 0);
    note("submit", 0);
    assert_int_equal(starts_at(5), 0);
}

/* A full disk, or a node that died while it wrote. */
static void journal_read__passes_over_torn_lines(void **state)
{
    (void)state;
    char path[300];
    json_t *events = NULL;

    note("start", 3);
    snprintf(path, sizeof(path), "%s/jobs.jsonl", run);
    FILE *file = fopen(path, "a");

    assert_non_null(file);
    fputs("{\"event\":\"sta\n[1,2]\n7\n", file);
    fclose(file);
    note("end", 3);
    assert_int_equal(sh_journal_read(run, &events), SH_OK);
    assert_int_equal(json_array_size(events), 2);
    assert_ptr_equal(sh_journal_last(events, "end"), json_array_get(events, 1));
    json_decref(events);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(journal_read__gives_nothing_where_there_is_none, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(journal_starts_at__counts_since_progress_or_submission,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(journal_read__passes_over_torn_lines, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
