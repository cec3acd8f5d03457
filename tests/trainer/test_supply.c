// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <string.h>

#include "base/cpu.h"
#include "trainer/supply.h"

enum { WINDOW = SH_SUPPLY_WINDOW_SECONDS };

static const sh_supply fits = {
    .threads = 4, .cores = 4, .decoded_bytes = 1000000, .cache_bytes = 1 << 20};

/* A minute in which steps waited for so long and the threads were busy for so long each. */
static bool look_after(const sh_supply *supply, double waited, double busy, int64_t n_cached,
                       char *text)
{
    sh_supply_meter meter = {0};
    sh_loader_stats stats = {
        .n_crops = 5000, .n_cached = 10, .busy_seconds = 40, .wait_seconds = 30};

    assert_false(sh_supply_look(&meter, supply, 100, &stats, text)); /* the window begins */
    stats.n_crops += 6000;
    stats.n_cached += n_cached;
    stats.wait_seconds += waited;
    stats.busy_seconds += busy * supply->threads;
    return sh_supply_look(&meter, supply, 100 + WINDOW, &stats, text);
}

static void look__names_what_would_help(void **state)
{
    char text[SH_SUPPLY_TEXT];
    sh_supply little = fits, few = fits;

    (void)state;
    little.cache_bytes = 1000;
    little.decoded_bytes = (int64_t)5 << 20;
    few.cores = 9;
    assert_true(look_after(&little, 12, 55, 0, text));
    assert_non_null(strstr(text, "20 % of the last 60 s"));
    assert_non_null(strstr(text, "100 images/s"));
    assert_non_null(strstr(text, "loader.cache_mb=6"));
    assert_true(look_after(&fits, 12, 20, 6000, text));
    assert_non_null(strstr(text, "loader.copy_to"));
    assert_true(look_after(&few, 12, 55, 6000, text));
    assert_non_null(strstr(text, "loader.threads=9"));
    assert_true(look_after(&fits, 12, 55, 6000, text));
    assert_non_null(strstr(text, "more cores"));
}

static void look__is_silent_where_nothing_is_wrong(void **state)
{
    char text[SH_SUPPLY_TEXT];

    (void)state;
    assert_false(look_after(&fits, 1, 55, 6000, text));  /* hardly any waiting */
    assert_false(look_after(&fits, 40, 55, 3000, text)); /* the cache is being filled */
}

static void look__speaks_once_and_copes_with_a_new_loader(void **state)
{
    char text[SH_SUPPLY_TEXT];
    sh_supply_meter meter = {0};
    sh_loader_stats stats = {.n_crops = 100, .n_cached = 100};
    int n_said = 0;

    (void)state;
    for (int i = 0; i < 10; i++) { /* half of the time */
        stats.n_crops += 100;
        stats.n_cached += 100;
        stats.wait_seconds += WINDOW / 2.0;
        n_said += sh_supply_look(&meter, &fits, 50 + i * WINDOW, &stats, text);
    }
    assert_int_equal(n_said, 1);

    meter = (sh_supply_meter){0};
    assert_false(sh_supply_look(&meter, &fits, 50, &stats, text));
    stats = (sh_loader_stats){.n_crops = 5, .n_cached = 5, .wait_seconds = WINDOW};
    assert_false(sh_supply_look(&meter, &fits, 50 + WINDOW, &stats, text));
}

static void cache__is_what_was_asked_for_or_a_share_of_the_host(void **state)
{
    (void)state;
    assert_int_equal(sh_supply_cache_bytes(3, 4), 3 << 20);
    assert_int_equal(sh_supply_cache_bytes(0, 4), 0);
    assert_int_equal(sh_supply_cache_bytes(-1, 2), sh_cpu_memory_bytes() / 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(look__names_what_would_help),
        cmocka_unit_test(look__is_silent_where_nothing_is_wrong),
        cmocka_unit_test(look__speaks_once_and_copes_with_a_new_loader),
        cmocka_unit_test(cache__is_what_was_asked_for_or_a_share_of_the_host),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
