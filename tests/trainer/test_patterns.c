// SPDX-License-Identifier: Apache-2.0
/* Freezing and learning rates by name; the packed vector of what is trained; stages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "models/backend.h"
#include "models/optim.h"
#include "models/trained.h"
#include "trainer/config.h"
#include "trainer/patterns.h"

static sh_store *store;

static int add(const char *name, sh_slot_kind kind, int64_t n)
{
    int index = -1;

    if (sh_store_add(store, name, kind, 1, &n, &index) != SH_OK) fail_msg("%s", sh_error_message());
    return index;
}

static int open_store(void **state)
{
    const sh_backend *backend = NULL;

    (void)state;
    if (sh_backend_find("ref", &backend) != SH_OK || sh_store_create(backend, &store) != SH_OK)
        return -1;
    add("features.0.weight", SH_SLOT_PARAM, 20); /* 32 with its padding */
    add("features.1.weight", SH_SLOT_PARAM, 4);
    add("features.1.bias", SH_SLOT_PARAM, 4);
    add("features.1.running_mean", SH_SLOT_STATE, 4);
    add("features.1.running_var", SH_SLOT_STATE, 4);
    add("head.weight", SH_SLOT_PARAM, 16);
    add("head.bias", SH_SLOT_PARAM, 3);
    return sh_store_allocate(store) == SH_OK ? 0 : -1;
}

static int close_store(void **state)
{
    (void)state;
    sh_store_destroy(&store);
    return 0;
}

static void mark(const char *freeze, const char *lr_scale)
{
    if (sh_patterns_mark(freeze, lr_scale, store) != SH_OK) fail_msg("%s", sh_error_message());
}

static bool trained(const char *name)
{
    return sh_store_slot(store, sh_store_find(store, name))->trainable;
}

static void mark__freezes_a_batch_norm_with_its_scale(void **state)
{
    (void)state;
    mark("features.1.weight", NULL);
    assert_false(trained("features.1.weight"));
    assert_true(trained("features.1.bias"));
    assert_false(trained("features.1.running_mean"));
    assert_false(trained("features.1.running_var"));
    mark("*.running_mean", NULL);
    assert_true(trained("features.1.weight"));
    assert_false(trained("features.1.running_var"));
    mark(NULL, NULL);
    assert_true(trained("features.1.running_mean"));
}

static void mark__lets_later_patterns_win(void **state)
{
    (void)state;
    mark("*\n!head.*\nhead.bias", NULL);
    assert_false(trained("features.0.weight"));
    assert_true(trained("head.weight"));
    assert_false(trained("head.bias"));
    mark(NULL, "*=0.5\nhead.*=2");
    assert_true(sh_store_slot(store, 0)->lr_scale == 0.5f);
    assert_true(sh_store_slot(store, sh_store_find(store, "head.bias"))->lr_scale == 2.0f);
}

static void mark__names_what_is_near_a_pattern_without_match(void **state)
{
    (void)state;
    assert_int_equal(sh_patterns_mark("features.1.wight", NULL, store), SH_ERR_USAGE);
    assert_non_null(strstr(sh_error_message(), "features.1.weight"));
    assert_null(strstr(sh_error_message(), "head"));
    sh_error_clear();
    assert_int_equal(sh_patterns_mark(NULL, "head.*", store), SH_ERR_USAGE);
    assert_non_null(strstr(sh_error_message(), "PATTERN=FACTOR"));
    sh_error_clear();
}

static void collect__packs_only_what_is_trained(void **state)
{
    sh_trained t = {0};

    (void)state;
    mark(NULL, NULL);
    assert_int_equal(sh_trained_collect(store, &t), SH_OK);
    assert_int_equal(t.n, sh_store_n_params(store) + sh_store_n_states(store));
    for (int i = 0; i < sh_store_n_slots(store); i++) {
        const sh_slot *slot = sh_store_slot(store, i);
        int64_t base = slot->kind == SH_SLOT_STATE ? sh_store_n_params(store) : 0;

        assert_int_equal(sh_trained_place(&t, store, i), base + slot->offset);
    }
    sh_trained_clear(&t);

    mark("features.1.*", NULL);
    assert_int_equal(sh_trained_collect(store, &t), SH_OK);
    assert_int_equal(t.n_ranges, 2);
    assert_int_equal(t.n, 32 + 16 + 16); /* slots stand at multiples of 16 */
    assert_int_equal(t.n, t.n_params);
    assert_int_equal(sh_trained_place(&t, store, sh_store_find(store, "features.1.bias")), -1);
    assert_int_equal(sh_trained_place(&t, store, sh_store_find(store, "head.weight")), 32);
    sh_trained_clear(&t);
}

/* Plain SGD over a packed gradient of ones: what is frozen stays, what is scaled moves less. */
static void update__moves_what_is_trained_by_its_own_rate(void **state)
{
    const sh_optim_config config = {.kind = SH_OPTIM_SGD};
    sh_optim *optim = NULL;
    float ones[64], weights[32];

    (void)state;
    mark("features.1.*", "head.*=0.5");
    assert_int_equal(sh_optim_create(&config, store, &optim), SH_OK);
    for (int i = 0; i < 64; i++) ones[i] = 1;
    assert_int_equal(sh_optim_update(optim, ones, NULL, 0.25, 0), SH_OK);
    for (int i = 0; i < sh_store_n_slots(store); i++) {
        const sh_slot *slot = sh_store_slot(store, i);
        float expected = !slot->trainable ? 0 : i == 0 ? -0.25f : -0.125f;

        assert_int_equal(sh_store_read(store, i, weights), SH_OK);
        for (int64_t k = 0; k < slot->n_elems; k++) assert_true(weights[k] == expected);
    }
    sh_optim_destroy(&optim);
}

static void stages__begin_where_the_one_before_ends(void **state)
{
    static const char *const assignments[] = {"stages.0.steps=10", "stages.0.lr=0.5",
                                              "stages.1.steps=5",  "stages.1.fresh_optimizer=false",
                                              "stages.2.name=all", "steps=100",
                                              "optimizer.lr=0.25"};
    sh_config *c = malloc(sizeof(*c));
    int64_t begin = -1;

    (void)state;
    assert_non_null(c);
    if (sh_config_load(NULL, assignments, SH_COUNT(assignments), c) != SH_OK)
        fail_msg("%s", sh_error_message());
    assert_int_equal(sh_config_n_stages(c), 3);
    assert_int_equal(sh_config_stage(c, 9, &begin), 0);
    assert_int_equal(begin, 0);
    assert_int_equal(sh_config_stage(c, 10, &begin), 1);
    assert_int_equal(begin, 10);
    assert_int_equal(sh_config_stage(c, 99, &begin), 2);
    assert_int_equal(begin, 15);
    assert_int_equal(sh_config_optimizer_begin(c, 12), 0);
    assert_int_equal(sh_config_optimizer_begin(c, 15), 15);
    assert_true(sh_config_learning_rate(c, 9) == 0.5);
    assert_true(sh_config_learning_rate(c, 10) == 0.25);
    free(c);
}

static void stages__survive_writing_and_reading(void **state)
{
    static const char yaml[] = "stages:\n  - {name: head, steps: 7, freeze: [\"a.*\", \"!a.b\"]}\n"
                               "  - {name: all, lr: 0.125}\n";
    sh_config *a = calloc(1, sizeof(*a)), *b = calloc(1, sizeof(*b));
    const sh_option_table *table = sh_config_options();
    char *text = NULL;
    size_t n = 0;

    (void)state;
    assert_true(a != NULL && b != NULL);
    assert_int_equal(sh_options_defaults(table, a), SH_OK);
    assert_int_equal(sh_options_defaults(table, b), SH_OK);
    if (sh_options_parse(table, yaml, strlen(yaml), "yaml", a) != SH_OK)
        fail_msg("%s", sh_error_message());
    assert_string_equal(a->stages[0].freeze, "a.*\n!a.b");
    assert_int_equal(sh_options_write(table, a, &text, &n), SH_OK);
    assert_int_equal(sh_options_parse(table, text, n, "written", b), SH_OK);
    assert_memory_equal(a, b, sizeof(*a));
    free(text);
    free(a);
    free(b);
}

static void stages__refuse_gaps_and_open_ends(void **state)
{
    static const char *const open[] = {"stages.0.name=head", "stages.1.name=all", "steps=10"};
    static const char *const gap[] = {"stages.0.steps=1", "stages.2.steps=1"};
    sh_config *c = malloc(sizeof(*c));

    (void)state;
    assert_non_null(c);
    assert_int_equal(sh_config_load(NULL, open, SH_COUNT(open), c), SH_ERR_USAGE);
    assert_non_null(strstr(sh_error_message(), "stages.0 needs steps"));
    assert_int_equal(sh_config_load(NULL, gap, SH_COUNT(gap), c), SH_ERR_USAGE);
    assert_non_null(strstr(sh_error_message(), "stages.1 is not"));
    sh_error_clear();
    free(c);
}

static void stages__name_a_setting_of_a_stage_that_is_not_there(void **state)
{
    static const char *const lone[][2] = {
        {"stages.0.freeze=*", "stages.0.freeze is set"},
        {"stages.0.lr=0.1", "stages.0.lr is set"},
        {"stages.0.shallow=true", "stages.0.shallow is set"},
        {"stages.0.fresh_optimizer=false", "stages.0.fresh_optimizer is set"}};
    sh_config *c = malloc(sizeof(*c));

    (void)state;
    assert_non_null(c);
    for (size_t i = 0; i < SH_COUNT(lone); i++) {
        assert_int_equal(sh_config_load(NULL, &lone[i][0], 1, c), SH_ERR_USAGE);
        assert_non_null(strstr(sh_error_message(), lone[i][1]));
    }
    sh_error_clear();
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mark__freezes_a_batch_norm_with_its_scale),
        cmocka_unit_test(mark__lets_later_patterns_win),
        cmocka_unit_test(mark__names_what_is_near_a_pattern_without_match),
        cmocka_unit_test(collect__packs_only_what_is_trained),
        cmocka_unit_test(update__moves_what_is_trained_by_its_own_rate),
        cmocka_unit_test(stages__begin_where_the_one_before_ends),
        cmocka_unit_test(stages__survive_writing_and_reading),
        cmocka_unit_test(stages__refuse_gaps_and_open_ends),
        cmocka_unit_test(stages__name_a_setting_of_a_stage_that_is_not_there),
    };

    return cmocka_run_group_tests(tests, open_store, close_store);
}
