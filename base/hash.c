// SPDX-License-Identifier: Apache-2.0
#include "base/hash.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#define CRC32C_POLYNOMIAL 0x82F63B78u /* 0x1EDC6F41, reflected */

static uint32_t table[256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void fill_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;

        for (int k = 0; k < 8; k++) c = (c & 1) ? (c >> 1) ^ CRC32C_POLYNOMIAL : c >> 1;
        table[i] = c;
    }
}

static uint32_t crc_portable(uint32_t c, const uint8_t *p, size_t n)
{
    pthread_once(&table_once, fill_table);
    for (size_t i = 0; i < n; i++) c = table[(c ^ p[i]) & 0xFF] ^ (c >> 8);
    return c;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc_sse42(uint32_t c, const uint8_t *p, size_t n)
{
    uint64_t c64 = c;

    for (; n >= 8; n -= 8, p += 8) {
        uint64_t word;

        memcpy(&word, p, 8);
        c64 = __builtin_ia32_crc32di(c64, word);
    }
    c = (uint32_t)c64;
    for (; n > 0; n--, p++) c = __builtin_ia32_crc32qi(c, *p);
    return c;
}
#endif

uint32_t sh_crc32c(uint32_t crc, const void *data, size_t n_bytes)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) return ~crc_sse42(~crc, data, n_bytes);
#endif
    return ~crc_portable(~crc, data, n_bytes);
}

uint64_t sh_fnv1a(uint64_t hash, const void *data, size_t n_bytes)
{
    const uint8_t *p = data;

    for (size_t i = 0; i < n_bytes; i++) hash = (hash ^ p[i]) * 0x100000001B3u;
    return hash;
}

sh_hash128 sh_hash_content(const void *data, size_t n_bytes)
{
    XXH128_hash_t h = XXH3_128bits(data, n_bytes);

    return (sh_hash128){.hi = h.high64, .lo = h.low64};
}

void sh_hash_format(sh_hash128 hash, char text[33])
{
    snprintf(text, 33, "%016" PRIx64 "%016" PRIx64, hash.hi, hash.lo);
}
