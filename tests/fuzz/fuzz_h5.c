// SPDX-License-Identifier: Apache-2.0
/** The reader of Keras files. */
#include "fuzz/fuzz.h"
#include "fuzz/parse_weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    parse_weights(data, n_bytes);
    return 0;
}
