// SPDX-License-Identifier: Apache-2.0
/** The reader of PyTorch files. The input is tried as a whole file, and as the pickle inside a
 * sound zip file: there a checksum would otherwise turn away nearly every change. */
#include "fuzz/fuzz.h"
#include "models/weight_files.h"

static void parse(const uint8_t *data, size_t n_bytes)
{
    sh_weights *w = NULL;
    volatile float sum = 0;

    if (sh_weights_parse(data, n_bytes, "input", &w) == SH_OK) {
        for (int64_t i = 0; i < sh_weights_count(w); i++) {
            const sh_weight *t = sh_weights_get(w, i);

            if (sh_weights_find(w, t->name) != t) abort();
            for (int64_t k = 0; k < t->n_elems; k++) sum += t->data[k];
        }
    }
    sh_weights_destroy(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static const float six[6] = {1, 2, 3, 4, 5, 6};
    static const int64_t counter = 41;
    const storage_spec storages[] = {{"0", 4, 6, six}, {"1", 8, 1, &counter}};

    parse(data, n_bytes);
    if (n_bytes >= 2 && data[0] == 0x80) {
        const bytes pickle = {.data = (uint8_t *)data, .n = n_bytes};
        bytes file = make_zip_pth(&pickle, 2, storages, (zip_style){.deflate = data[1] & 1});

        parse(file.data, file.n);
        free_bytes(&file);
    }
    return 0;
}
