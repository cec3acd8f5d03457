// SPDX-License-Identifier: Apache-2.0
// prefix: cuda
// library: sh_models_cuda_emulated sh_dataio
/** What the emulated device renders from parcels has the bytes of what the host renders. */
#include "models/cuda/cuda.h"
#include "models/cuda/emulator/order.h"
#include "models/render_on_device.h"

static void render__has_the_bytes_of_the_host(void **state)
{
    (void)state;
    device_backend = &sh_backend_cuda;
    for (int order = SH_EMULATOR_FORWARD; order <= SH_EMULATOR_SHUFFLED; order++) {
        sh_emulator_set_order((sh_emulator_order)order);
        check_rendering();
        assert_null(sh_emulator_fault());
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(render__has_the_bytes_of_the_host),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
