// SPDX-License-Identifier: Apache-2.0
// library: sh_models_cuda_emulated
/** What `device=` means where there is a GPU that can be used: here, the emulator. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "trainer/device.h"

static void device_choose__takes_what_is_named_and_else_a_gpu(void **state)
{
    static const struct {
        sh_device_choice device;
        const char *backend;
    } cases[] = {{SH_DEVICE_AUTO, "cuda"},
                 {SH_DEVICE_CPU, "cpu"},
                 {SH_DEVICE_REF, "ref"},
                 {SH_DEVICE_CUDA, "cuda"},
                 {SH_DEVICE_AUTO, "cuda"}};
    sh_config *config = calloc(1, sizeof(*config));

    (void)state;
    assert_non_null(config);
    assert_int_equal(sh_options_defaults(sh_config_options(), config), SH_OK);
    assert_int_equal(config->device, SH_DEVICE_AUTO);
    for (size_t i = 0; i < SH_COUNT(cases); i++) {
        const sh_backend *backend = NULL;

        config->device = (int)cases[i].device;
        assert_int_equal(sh_device_choose(config, &backend), SH_OK);
        assert_string_equal(backend->name, cases[i].backend);
    }
    free(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(device_choose__takes_what_is_named_and_else_a_gpu),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
