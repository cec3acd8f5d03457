// SPDX-License-Identifier: Apache-2.0
// timeout: 120
/**
 * Kernels for AVX2, which a processor with AVX-512 does not choose by itself, against the
 * reference: some cases of the conformance suite, operands ending at guarded pages.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "models/conformance.h"
#include "models/cpu/simd/simd.h"

static void guard_cpu_avx2__agrees_with_ref(void **state)
{
    const sh_backend *backend = NULL;

    (void)state;
    if (strcmp(sh_cpu_simd_get()->name, "avx2") != 0) {
        print_message("no AVX2 on this processor, or in this build\n");
        skip();
    }
    assert_int_equal(sh_backend_find("guard:cpu", &backend), SH_OK);
    check_backend(backend, 1, 13);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guard_cpu_avx2__agrees_with_ref),
    };

    setenv("SHOAL_CPU_ISA", "avx2", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
