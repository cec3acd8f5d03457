// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/options.h"

typedef struct fixture {
    bool flag;
    int64_t count;
    double rate;
    char name[SH_OPTION_TEXT];
    char files[SH_OPTION_LIST_TEXT];
    int kind;
} fixture;

static const char *const kinds[] = {"plain", "fancy", NULL};
static const sh_option rows[] = {
    {"flag", SH_OPT_BOOL, offsetof(fixture, flag), "false", SH_FREE, 0, 0, NULL, "", "a flag"},
    {"part.count", SH_OPT_INT, offsetof(fixture, count), "3", SH_FIXED, 1, 10, NULL, "items", "n"},
    {"part.rate", SH_OPT_REAL, offsetof(fixture, rate), "0.1", SH_FREE, 0, 0, NULL, "", "rate"},
    {"name", SH_OPT_TEXT, offsetof(fixture, name), "", SH_FIXED, 0, 0, NULL, "", "text"},
    {"files", SH_OPT_LIST, offsetof(fixture, files), "", SH_FREE, 0, 0, NULL, "", "files"},
    {"kind", SH_OPT_CHOICE, offsetof(fixture, kind), "plain", SH_FIXED, 0, 0, kinds, "", "kind"},
};
static const sh_option_table table = {rows, SH_COUNT(rows), NULL};

static fixture a, b;

static sh_status parse(const char *yaml, fixture *out)
{
    assert_int_equal(sh_options_defaults(&table, out), SH_OK);
    return sh_options_parse(&table, yaml, strlen(yaml), "test.yaml", out);
}

static void parse__reads_nested_keys_lists_and_choices(void **state)
{
    (void)state;
    assert_int_equal(parse("flag: yes\npart: {count: 7, rate: 2.5e-3}\nname: 'a \"b\" # c'\n"
                           "files:\n  - x.h5\n  - y z.h5\nkind: fancy\n",
                           &a),
                     SH_OK);
    assert_true(a.flag);
    assert_int_equal(a.count, 7);
    assert_true(a.rate == 2.5e-3);
    assert_string_equal(a.name, "a \"b\" # c");
    assert_string_equal(a.files, "x.h5\ny z.h5");
    assert_int_equal(a.kind, 1);
}

static void parse__leaves_defaults_in_place(void **state)
{
    (void)state;
    assert_int_equal(parse("# nothing\n", &a), SH_OK);
    assert_int_equal(a.count, 3);
    assert_true(a.rate == 0.1);
}

static void expect_refusal(const char *yaml, const char *words)
{
    sh_status st = parse(yaml, &a);

    assert_int_equal(st, SH_ERR_USAGE);
    if (strstr(sh_error_message(), words) == NULL)
        fail_msg("\"%s\" is not in: %s", words, sh_error_message());
}

static void parse__names_line_key_and_remedy(void **state)
{
    (void)state;
    expect_refusal("flag: true\npart:\n  cuont: 3\n",
                   "test.yaml:3: unknown option \"part.cuont\" (did you mean part.count?)");
    expect_refusal("part: {count: 11}\n", "from 1 to 10");
    expect_refusal("part: {count: 1.5}\n", "whole number");
    expect_refusal("part: {count: 99999999999999999999}\n", "whole number");
    expect_refusal("part: {rate: nan}\n", "must be a number");
    expect_refusal("flag: maybe\n", "true or false");
    expect_refusal("kind: plian\n", "one of plain, fancy");
    expect_refusal("name: [a, b]\n", "not a list");
    expect_refusal("flag: true\nflag: false\n", "given twice");
    expect_refusal("part: 3\n", "unknown option \"part\"");
    expect_refusal("- a\n- b\n", "not a list");
    expect_refusal("just words\n", "key: value");
    expect_refusal("a: &x 1\nb: *x\n", "");
    expect_refusal("flag: [true\n", "test.yaml:");
    expect_refusal("a: {b: {c: {d: {e: {f: {g: {h: {i: 1}}}}}}}}\n", "too deeply");
}

static void assign__sets_one_key_and_splits_lists(void **state)
{
    (void)state;
    assert_int_equal(sh_options_defaults(&table, &a), SH_OK);
    assert_int_equal(sh_options_assign(&table, "files=a.h5,b.h5", &a), SH_OK);
    assert_string_equal(a.files, "a.h5\nb.h5");
    assert_int_equal(sh_options_assign(&table, "name=x=y", &a), SH_OK);
    assert_string_equal(a.name, "x=y");
    assert_int_equal(sh_options_assign(&table, "nothing", &a), SH_ERR_USAGE);
    assert_int_equal(sh_options_assign(&table, "mane=1", &a), SH_ERR_USAGE);
    assert_non_null(strstr(sh_error_message(), "did you mean name?"));
}

static void write__reads_back_as_the_same(void **state)
{
    char *text = NULL;
    size_t n = 0;

    (void)state;
    memset(&b, 0, sizeof(b));
    assert_int_equal(parse("part: {rate: 0.30000000000000004}\nname: \"tab\\there \\\\ \\\" end\"\n"
                           "files: [\"one\", \"two, three\"]\n",
                           &a),
                     SH_OK);
    assert_int_equal(sh_options_write(&table, &a, &text, &n), SH_OK);
    assert_int_equal(sh_options_parse(&table, text, n, "written", &b), SH_OK);
    assert_memory_equal(&a, &b, sizeof(a));
    free(text);
}

static void check_resume__lists_fixed_options_that_differ(void **state)
{
    (void)state;
    assert_int_equal(parse("part: {count: 4}\nname: old\nflag: true\n", &a), SH_OK);
    assert_int_equal(parse("part: {count: 5}\nname: old\nflag: false\n", &b), SH_OK);
    assert_int_equal(sh_options_check_resume(&table, &a, &b), SH_ERR_MISMATCH);
    assert_non_null(
        strstr(sh_error_message(), "part.count: the run has \"4\", asked for is \"5\""));
    assert_null(strstr(sh_error_message(), "flag"));
    b.count = 4;
    assert_int_equal(sh_options_check_resume(&table, &a, &b), SH_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parse__reads_nested_keys_lists_and_choices),
        cmocka_unit_test(parse__leaves_defaults_in_place),
        cmocka_unit_test(parse__names_line_key_and_remedy),
        cmocka_unit_test(assign__sets_one_key_and_splits_lists),
        cmocka_unit_test(write__reads_back_as_the_same),
        cmocka_unit_test(check_resume__lists_fixed_options_that_differ),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
