// SPDX-License-Identifier: Apache-2.0
// prefix: cuda
// library: sh_models_cuda_emulated
/** What is said of a CUDA device that cannot be used. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "models/cuda/verdict.h"

/** An H200 as it should be. */
static const sh_cuda_facts good = {.driver = 13000,
                                   .runtime = 13000,
                                   .name = "NVIDIA H200",
                                   .capability = 90,
                                   .free_bytes = (size_t)140000 << 20,
                                   .all_bytes = (size_t)143771 << 20};

static void check(const sh_cuda_facts *facts, const char *what, const char *remedy)
{
    char found[512] = "";
    const char *told = sh_cuda_verdict(facts, found, sizeof(found));

    if (strstr(found, what) == NULL) fail_msg("\"%s\" does not say %s", found, what);
    if (remedy == NULL) {
        assert_null(told);
    } else {
        assert_non_null(told);
        if (strstr(told, remedy) == NULL) fail_msg("\"%s\" does not say %s", told, remedy);
    }
}

static void verdict__accepts_a_device_and_describes_it(void **state)
{
    sh_cuda_facts newer_driver = good;

    (void)state;
    newer_driver.driver = 14010;
    check(&good, "NVIDIA H200, sm_90, 140000 of 143771 MB free", NULL);
    check(&good, "driver for 13.0", NULL);
    check(&newer_driver, "driver for 14.1", NULL);
}

static void verdict__takes_an_older_driver_of_the_same_major_version(void **state)
{
    sh_cuda_facts facts = good;

    (void)state;
    facts.runtime = 13020;
    check(&facts, "built with CUDA 13.2, driver for 13.0", NULL);
}

static void verdict__says_what_to_ask_for(void **state)
{
    const sh_cuda_facts no_driver = {.runtime = 13000, .error = "CUDA driver is insufficient"};
    sh_cuda_facts old_driver = good, no_device = good, old_device = good, taken = good;

    (void)state;
    old_driver.driver = 12090;
    old_driver.error = "CUDA driver is insufficient";
    no_device.error = "no CUDA-capable device is detected";
    old_device.capability = 75;
    taken.free_bytes = (size_t)300 << 20;
    check(&no_driver, "built with CUDA 13.0, no driver", "--gres=gpu:1");
    check(&old_driver, "driver for 12.9", "driver is too old");
    check(&no_device, "no CUDA-capable device is detected", "--gres=gpu:1");
    check(&old_device, "sm_75", "--constraint");
    check(&taken, "300 of 143771 MB free", "others hold its memory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verdict__accepts_a_device_and_describes_it),
        cmocka_unit_test(verdict__takes_an_older_driver_of_the_same_major_version),
        cmocka_unit_test(verdict__says_what_to_ask_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
