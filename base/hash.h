// SPDX-License-Identifier: Apache-2.0
/** Checksums against damage (CRC32C) and hashes for identity (128-bit XXH3). None is cryptographic.
 */
#ifndef SH_BASE_HASH_H
#define SH_BASE_HASH_H

#include <stdint.h>

#include "base/status.h"

SH_C_BEGIN

/** CRC-32C (Castagnoli, reflected, as in iSCSI and SSE4.2) of data, continued from `crc`; start at
 * 0. */
uint32_t sh_crc32c(uint32_t crc, const void *data, size_t n_bytes);

/** FNV-1a, 64 bits, of data, continued from `hash`; start with SH_FNV1A_START. */
uint64_t sh_fnv1a(uint64_t hash, const void *data, size_t n_bytes);
#define SH_FNV1A_START 0xCBF29CE484222325u

typedef struct sh_hash128 {
    uint64_t hi, lo;
} sh_hash128;

/** XXH3-128 of data: equal content has an equal hash; unequal content practically never. */
sh_hash128 sh_hash_content(const void *data, size_t n_bytes);

/** 32 lower-case hex digits and a NUL into text. */
void sh_hash_format(sh_hash128 hash, char text[33]);

SH_C_END

#endif
