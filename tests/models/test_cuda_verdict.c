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
                                   .built_for = "80-real 90a-real 90-virtual",
                                   .name = "NVIDIA H200",
                                   .capability = 90,
                                   .free_bytes = (size_t)140000 << 20,
                                   .all_bytes = (size_t)143771 << 20};

/** It says `what`; with remedy NULL it has none, else the remedy says that. */
static void check(const sh_cuda_facts *facts, const char *what, const char *remedy)
{
    sh_finding f;

    sh_cuda_verdict(facts, &f);
    assert_string_equal(f.what, "cuda");
    assert_true(f.is_needed);
    if (strstr(f.found, what) == NULL) fail_msg("\"%s\" does not say %s", f.found, what);
    if (remedy == NULL)
        assert_string_equal(f.remedy, "");
    else if (strstr(f.remedy, remedy) == NULL)
        fail_msg("\"%s\" does not say %s", f.remedy, remedy);
}

static void verdict__accepts_a_device_and_describes_it(void **state)
{
    sh_cuda_facts newer_driver = good, slice = good;

    (void)state;
    newer_driver.driver = 14010;
    slice.name = "NVIDIA H200 MIG 1g.18gb";
    slice.free_bytes = slice.all_bytes = (size_t)16384 << 20;
    check(&good, "NVIDIA H200, sm_90, 140000 of 143771 MB free", NULL);
    check(&good, "driver for 13.0", NULL);
    check(&newer_driver, "driver for 14.1", NULL);
    check(&slice, "NVIDIA H200 MIG 1g.18gb, sm_90, 16384 of 16384 MB free", NULL);
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
    const sh_cuda_facts no_driver = {
        .runtime = 13000, .failure = SH_CUDA_OTHER_REASON, .error = "CUDA driver is insufficient"};
    sh_cuda_facts old_driver = good, old_device = good, taken = good;

    (void)state;
    old_driver.driver = 12090;
    old_driver.failure = SH_CUDA_OTHER_REASON;
    old_driver.error = "CUDA driver is insufficient";
    old_device.capability = 75;
    taken.free_bytes = (size_t)300 << 20;
    check(&no_driver, "built with CUDA 13.0, no driver", "--gres=gpu:1");
    check(&no_driver, "no driver", "--nv");
    check(&old_driver, "driver for 12.9", "too old for CUDA 13: ask for 580 or later");
    check(&old_driver, "driver for 12.9", "build with CUDA 12");
    check(&old_device, "sm_75", "--constraint");
    check(&taken, "300 of 143771 MB free", "others hold its memory");
}

static void verdict__says_why_no_device_was_opened(void **state)
{
    static const struct {
        sh_cuda_failure failure;
        const char *visible, *remedy;
    } cases[] = {
        {SH_CUDA_NO_DEVICE, NULL, "ask for a device (Slurm: --gres=gpu:1)"},
        {SH_CUDA_NO_DEVICE, "", "CUDA_VISIBLE_DEVICES=\"\" hides"},
        {SH_CUDA_TAKEN, "0", "another process has the device to itself"},
        {SH_CUDA_FULL, NULL, "others hold all its memory"},
        {SH_CUDA_OTHER_REASON, NULL, "whether nvidia-smi works here"},
    };

    (void)state;
    for (size_t i = 0; i < SH_COUNT(cases); i++) {
        sh_cuda_facts facts = good;

        facts.failure = cases[i].failure;
        facts.visible = cases[i].visible;
        facts.error = "the runtime's words";
        check(&facts, "the runtime's words", cases[i].remedy);
    }
}

/** Binaries serve their major version from their minor one on, "a" only itself, PTX all later. */
static void verdict__knows_what_the_build_is_for(void **state)
{
    static const struct {
        const char *built_for;
        int capability;
        const char *remedy; /* NULL: there is code for it */
    } cases[] = {
        {"80-real 90a-real 90-virtual", 80, NULL},
        {"80-real 90a-real 90-virtual", 89, NULL},
        {"80-real 90a-real 90-virtual", 120, NULL},
        {"90a-real", 90, NULL},
        {"90a-real", 80,
         "this build is for sm_90a: ask for one of these, or build with "
         "-DCMAKE_CUDA_ARCHITECTURES=80; sinfo"},
        {"90a-real", 100, "sm_90a"},
        {"90a-virtual", 100, "sm_90a:"},
        {"86-real 100", 80, "sm_86, sm_100 and later"},
        {"86-real", 90, "sm_86:"},
        {"86-virtual", 90, NULL},
        {"100", 120, NULL},
        {"native", 90, NULL},
    };

    (void)state;
    for (size_t i = 0; i < SH_COUNT(cases); i++) {
        sh_cuda_facts facts = good;

        facts.built_for = cases[i].built_for;
        facts.capability = cases[i].capability;
        check(&facts, "sm_", cases[i].remedy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verdict__accepts_a_device_and_describes_it),
        cmocka_unit_test(verdict__takes_an_older_driver_of_the_same_major_version),
        cmocka_unit_test(verdict__says_what_to_ask_for),
        cmocka_unit_test(verdict__says_why_no_device_was_opened),
        cmocka_unit_test(verdict__knows_what_the_build_is_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
