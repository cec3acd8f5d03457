// SPDX-License-Identifier: Apache-2.0
/* The watchdog's messages. Whatever is accepted comes back the same after another trip. */
#include <stdlib.h>
#include <string.h>

#include "comm/watch.h"
#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t again[SH_WATCH_MAX_BYTES];
    sh_watch_message first, second;

    if (!sh_watch_decode(data, size, 1000, &first)) return 0;
    size_t n = sh_watch_encode(&first, again);

    if (n != size || !sh_watch_decode(again, n, 1000, &second) ||
        strcmp(first.position.what, second.position.what) != 0 || first.rank != second.rank)
        abort();
    return 0;
}
