// SPDX-License-Identifier: Apache-2.0
/** The safetensors reader. What it accepts must be consistent: every element of it is touched. */
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "models/weights/weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    sh_weights *w = NULL;
    volatile float sum = 0;

    if (sh_weights_parse(data, n_bytes, "input", &w) == SH_OK) {
        for (int64_t i = 0; i < sh_weights_count(w); i++) {
            const sh_weight *t = sh_weights_get(w, i);

            if (sh_weights_find(w, t->name) != t) abort();
            for (int64_t k = 0; k < t->n_elems; k++) sum += t->data[k];
        }
        (void)sh_weights_metadata(w, "format");
    }
    sh_weights_destroy(&w);
    return 0;
}
