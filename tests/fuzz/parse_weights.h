// SPDX-License-Identifier: Apache-2.0
/** Read a weight file and touch all that was accepted, so that a sanitizer sees what is wrong. */
#ifndef SH_TESTS_FUZZ_PARSE_WEIGHTS_H
#define SH_TESTS_FUZZ_PARSE_WEIGHTS_H

#include <stdlib.h>

#include "models/weights/weights.h"

static volatile float sink; /* keeps the reads alive */

static inline void parse_weights(const uint8_t *data, size_t n_bytes)
{
    sh_weights *w = NULL;

    if (sh_weights_parse(data, n_bytes, "input", &w) == SH_OK) {
        for (int64_t i = 0; i < sh_weights_count(w); i++) {
            const sh_weight *t = sh_weights_get(w, i);

            if (sh_weights_find(w, t->name) != t) abort();
            for (int64_t k = 0; k < t->n_elems; k++) sink = t->data[k];
        }
        (void)sh_weights_metadata(w, "format");
    }
    sh_weights_destroy(&w);
}

#endif
