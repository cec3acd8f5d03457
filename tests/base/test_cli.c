// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cli.h"

typedef struct fixture {
    bool quick;
    int64_t n;
    double x;
    const char *out;
    sh_string_list patterns, args;
    bool helped;
} fixture;

/* Parse words (NULL-terminated) after "cmd". */
static sh_status parse(fixture *f, char **words)
{
    const sh_flag flags[] = {
        {"--quick", NULL, SH_FLAG_BOOL, &f->quick, NULL, "be quick"},
        {"--n", NULL, SH_FLAG_INT, &f->n, "N", "how many"},
        {"--x", NULL, SH_FLAG_REAL, &f->x, "X", "how much"},
        {"-o", "--output", SH_FLAG_STRING, &f->out, "FILE", "where to"},
        {"--pattern", NULL, SH_FLAG_LIST, &f->patterns, "P", "how names are read"},
    };
    const sh_cli cli = {.usage = "cmd [OPTION]... SOURCE",
                        .summary = "A command.",
                        .flags = flags,
                        .n_flags = SH_COUNT(flags),
                        .min_args = 1,
                        .max_args = 2};
    char *argv[16] = {"cmd"};
    int argc = 1;

    while (words[argc - 1] != NULL) {
        argv[argc] = words[argc - 1];
        argc++;
    }
    return sh_cli_parse(&cli, argc, argv, &f->args, &f->helped);
}

static void clear(fixture *f)
{
    free(f->args.items);
    free(f->patterns.items);
}

static void parse__takes_flags_and_arguments_in_any_order(void **state)
{
    fixture f = {.n = 5};

    (void)state;
    assert_int_equal(parse(&f, (char *[]){"a", "--n", "-3", "--x=2.5", "-o", "f", "--pattern", "p",
                                          "--pattern=q", "--quick", "b", NULL}),
                     SH_OK);
    assert_true(f.quick);
    assert_int_equal(f.n, -3);
    assert_true(f.x == 2.5);
    assert_string_equal(f.out, "f");
    assert_int_equal(f.patterns.n, 2);
    assert_string_equal(f.patterns.items[1], "q");
    assert_int_equal(f.args.n, 2);
    assert_string_equal(f.args.items[1], "b");
    clear(&f);
}

static void parse__ends_flags_at_two_dashes(void **state)
{
    fixture f = {0};

    (void)state;
    assert_int_equal(parse(&f, (char *[]){"--", "--quick", NULL}), SH_OK);
    assert_false(f.quick);
    assert_string_equal(f.args.items[0], "--quick");
    clear(&f);
}

static void expect_refusal(char **words, const char *message)
{
    fixture f = {0};

    assert_int_equal(parse(&f, words), SH_ERR_USAGE);
    if (strstr(sh_error_message(), message) == NULL)
        fail_msg("\"%s\" is not in: %s", message, sh_error_message());
    clear(&f);
}

static void parse__names_what_is_wrong(void **state)
{
    (void)state;
    expect_refusal((char *[]){"a", "--quik", NULL}, "did you mean --quick?");
    expect_refusal((char *[]){"a", "--n", "many", NULL}, "whole number");
    expect_refusal((char *[]){"a", "--n", NULL}, "needs a value");
    expect_refusal((char *[]){"--quick", NULL}, "missing argument");
    expect_refusal((char *[]){"a", "b", "c", NULL}, "unexpected argument \"c\"");
}

static void closest__finds_near_misses_only(void **state)
{
    static const char *const words[] = {"pack", "train", "inspect"};

    (void)state;
    assert_string_equal(sh_cli_closest("trian", words, 3), "train");
    assert_string_equal(sh_cli_closest("inspct", words, 3), "inspect");
    assert_null(sh_cli_closest("zebra", words, 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parse__takes_flags_and_arguments_in_any_order),
        cmocka_unit_test(parse__ends_flags_at_two_dashes),
        cmocka_unit_test(parse__names_what_is_wrong),
        cmocka_unit_test(closest__finds_near_misses_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
