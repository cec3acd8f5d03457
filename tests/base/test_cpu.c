// SPDX-License-Identifier: Apache-2.0
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "base/fingerprint.h"

enum { TEXT_BYTES = 4096 };

static void cores_granted__follow_the_affinity(void **state)
{
    cpu_set_t before, one;
    int cores = sh_cpu_cores_granted(), first = 0;

    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
    assert_in_range(cores, 1, CPU_COUNT(&before));
    assert_true(sh_cpu_cores_quota() >= cores);
    while (!CPU_ISSET(first, &before)) first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    int bound = sh_cpu_cores_granted();

    assert_int_equal(sched_setaffinity(0, sizeof(before), &before), 0);
    assert_int_equal(bound, 1);
    assert_int_equal(sh_cpu_cores_granted(), cores);
}

static void memory__is_plausible(void **state)
{
    int64_t all = sh_cpu_memory_bytes(), peak = sh_cpu_peak_resident_bytes();

    (void)state;
    assert_true(all >= 64 << 20);
    assert_true(peak > 100000 && peak < all);
}

static void features__of_the_compiled_code_are_listed(void **state)
{
    char text[TEXT_BYTES], model[TEXT_BYTES];

    (void)state;
    sh_cpu_features(text, sizeof(text));
    sh_cpu_model(model, sizeof(model));
    assert_true(strlen(model) > 0);
    assert_null(strchr(model, '\n'));
#if defined(__x86_64__)
    assert_int_equal(strstr(text, "avx2") != NULL, __builtin_cpu_supports("avx2") != 0);
    assert_int_equal(strstr(text, "avx512f") != NULL, __builtin_cpu_supports("avx512f") != 0);
#endif
    sh_cpu_features(text, 8); /* a short buffer is cut, not overrun */
    assert_true(strlen(text) < 8);
}

static void fingerprint__has_one_fact_per_line(void **state)
{
    static const char *const libraries[] = {"oneDNN: 2.6.3", "MPI: Open MPI v4.1.4"};
    static const char *const facts[] = {"shoal: ",
                                        "\ncompiler: ",
                                        "\nprocessor: ",
                                        "\ncaches: ",
                                        "\nthreads: 3\n",
                                        "\nC library: glibc ",
                                        "\nenvironment: DNNL_MAX_CPU_ISA=AVX2\n",
                                        "\noneDNN: 2.6.3\nMPI: Open MPI v4.1.4\n"};
    char text[TEXT_BYTES], again[TEXT_BYTES];

    (void)state;
    setenv("DNNL_MAX_CPU_ISA", "AVX2", 1);
    assert_int_equal(sh_fingerprint_text(3, libraries, 2, text, sizeof(text)), SH_OK);
    assert_int_equal(sh_fingerprint_text(3, libraries, 2, again, sizeof(again)), SH_OK);
    assert_string_equal(text, again);
    for (size_t i = 0; i < SH_COUNT(facts); i++) assert_non_null(strstr(text, facts[i]));
    unsetenv("DNNL_MAX_CPU_ISA");
    assert_int_equal(sh_fingerprint_text(3, libraries, 2, again, sizeof(again)), SH_OK);
    assert_string_not_equal(text, again);
    assert_non_null(strstr(again, "\nenvironment: -\n"));
}

static void fingerprint__refuses_a_short_buffer(void **state)
{
    char text[TEXT_BYTES];

    (void)state;
    memset(text, 'x', sizeof(text));
    assert_int_equal(sh_fingerprint_text(1, NULL, 0, text, 40), SH_ERR_INTERNAL);
    assert_int_equal(text[40], 'x');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cores_granted__follow_the_affinity),
        cmocka_unit_test(memory__is_plausible),
        cmocka_unit_test(features__of_the_compiled_code_are_listed),
        cmocka_unit_test(fingerprint__has_one_fact_per_line),
        cmocka_unit_test(fingerprint__refuses_a_short_buffer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
