// SPDX-License-Identifier: Apache-2.0
/** Images. Byte 0 chooses the channels, byte 1 the size asked of a scaled decoding; the rest is the
 *  file. */
#include <stdlib.h>

#include "dataio/image.h"
#include "tests/fuzz/fuzz.h"

enum { N_CONTROL = 2, MAX_PIXELS = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static const int channels[] = {0, 1, 3};
    sh_image image = {0}, scaled = {0};
    sh_image_info info;

    if (n_bytes < N_CONTROL) return 0;
    sh_status probed = sh_image_probe(data + N_CONTROL, n_bytes - N_CONTROL, "fuzz", &info);

    /* Large pictures are valid, and cost time and memory that is better spent on small ones. */
    if (probed == SH_OK && (int64_t)info.width * info.height > MAX_PIXELS) return 0;
    sh_status decoded = sh_image_decode(data + N_CONTROL, n_bytes - N_CONTROL, "fuzz",
                                        channels[data[0] % 3], data[1], data[1], &image);

    if (probed != SH_OK && decoded == SH_OK) abort(); /* what is refused is never decoded */
    if (decoded == SH_OK) {
        sh_hash128 hash = sh_image_hash(&image); /* reads every pixel */

        if (sh_image_resize(&image, 7, 5, &scaled) != SH_OK || hash.lo == 0) abort();
    }
    sh_image_clear(&image);
    sh_image_clear(&scaled);
    return 0;
}
