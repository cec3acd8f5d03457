// SPDX-License-Identifier: Apache-2.0
// library: sh_dataio
/** Images rendered by a real device; without one, skipped. The emulator's are in
 * test_cuda_render.c.
 */
#include <stdlib.h>

#include "models/render_on_device.h"
#include "models/usable.h"

static void cuda__renders_the_bytes_of_the_host(void **state)
{
    (void)state;
    device_backend = usable_backend("cuda");
    if (device_backend == NULL) skip();
    check_rendering();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuda__renders_the_bytes_of_the_host),
    };

    cmocka_set_test_filter(getenv("SHOAL_TESTS")); /* scripts/check-gpu */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
