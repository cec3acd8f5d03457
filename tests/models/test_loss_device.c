// SPDX-License-Identifier: Apache-2.0
// timeout: 120
/** Mining and losses on a real device; without one, skipped. The emulator's are in
 * test_cuda_loss.c.
 */
#include <stdlib.h>

#include "models/classes_on_device.h"
#include "models/usable.h"

static void cuda__agrees_with_the_host(void **state)
{
    (void)state;
    device_backend = usable_backend("cuda");
    if (device_backend == NULL) skip();
    check_losses_on_device();
    check_classes_on_device();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuda__agrees_with_the_host),
    };

    cmocka_set_test_filter(getenv("SHOAL_TESTS")); /* scripts/check-gpu */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
