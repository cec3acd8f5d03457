// SPDX-License-Identifier: Apache-2.0
#include "base/bytes.h"
#include "dataio/image_codec.h"

enum { TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3, ENTRY_BYTES = 12 };

/* n_bytes unsigned bytes, big or little endian. */
static uint32_t read_uint(const uint8_t *p, int n_bytes, bool big)
{
    return (uint32_t)(big ? sh_bytes_be(p, n_bytes) : sh_bytes_le(p, n_bytes));
}

int sh_exif_orientation(const uint8_t *tiff, size_t n_bytes)
{
    if (n_bytes < 10 || tiff[0] != tiff[1] || (tiff[0] != 'I' && tiff[0] != 'M')) return 1;
    bool big = tiff[0] == 'M';
    size_t ifd = read_uint(tiff + 4, 4, big);

    if (read_uint(tiff + 2, 2, big) != 42 || ifd > n_bytes - 2) return 1;
    size_t n_entries = read_uint(tiff + ifd, 2, big);

    for (size_t i = 0; i < n_entries; i++) {
        size_t at = ifd + 2 + i * ENTRY_BYTES;

        if (at + ENTRY_BYTES > n_bytes) return 1;
        if (read_uint(tiff + at, 2, big) != TAG_ORIENTATION) continue;
        uint32_t value = read_uint(tiff + at + 8, 2, big);

        return read_uint(tiff + at + 2, 2, big) == TYPE_SHORT && value >= 1 && value <= 8
                   ? (int)value
                   : 1;
    }
    return 1;
}
