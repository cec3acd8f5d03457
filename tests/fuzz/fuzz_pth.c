// SPDX-License-Identifier: Apache-2.0
/** The reader of PyTorch files. The input is tried as a whole file, and as the pickle inside a
 * sound zip file: there a checksum would otherwise turn away nearly every change. */
#include "fuzz/fuzz.h"
#include "fuzz/parse_weights.h"
#include "models/weight_files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static const float six[6] = {1, 2, 3, 4, 5, 6};
    static const int64_t counter = 41;
    const storage_spec storages[] = {{"0", 4, 6, six}, {"1", 8, 1, &counter}};

    parse_weights(data, n_bytes);
    if (n_bytes >= 2 && data[0] == 0x80) {
        const bytes pickle = {.data = (uint8_t *)data, .n = n_bytes};
        bytes file = make_zip_pth(&pickle, 2, storages, (zip_style){.deflate = data[1] & 1});

        parse_weights(file.data, file.n);
        free_bytes(&file);
    }
    return 0;
}
