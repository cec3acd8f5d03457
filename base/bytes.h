// SPDX-License-Identifier: Apache-2.0
/** Unsigned integers of 1 to 8 bytes as files store them, whatever the order of this machine. */
#ifndef SH_BASE_BYTES_H
#define SH_BASE_BYTES_H

#include <stdint.h>

#include "base/status.h"

SH_C_BEGIN

/** The lowest byte first. */
static inline uint64_t sh_bytes_le(const uint8_t *bytes, int n_bytes)
{
    uint64_t value = 0;

    for (int i = n_bytes - 1; i >= 0; i--) value = value << 8 | bytes[i];
    return value;
}

/** The highest byte first. */
static inline uint64_t sh_bytes_be(const uint8_t *bytes, int n_bytes)
{
    uint64_t value = 0;

    for (int i = 0; i < n_bytes; i++) value = value << 8 | bytes[i];
    return value;
}

SH_C_END

#endif
