// SPDX-License-Identifier: Apache-2.0
/** Reading zip archives from memory: stored and deflated entries, zip64. Nothing is extracted to
 * disk. */
#ifndef SH_MODELS_WEIGHTS_ZIP_H
#define SH_MODELS_WEIGHTS_ZIP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

SH_C_BEGIN

typedef struct sh_zip sh_zip;

typedef struct sh_zip_entry {
    const char *name; /* points into the archive; n_name bytes, no NUL after it */
    size_t n_name;
    uint64_t n_packed, n_bytes;
    uint64_t header_offset;
    uint32_t crc32;
    int method;
    bool encrypted;
    uint8_t *inflated; /* kept once read */
} sh_zip_entry;

/** Index the archive in data, which must outlive it. The caller owns *out. */
SH_MUST_CHECK sh_status sh_zip_open(const uint8_t *data, size_t n_bytes, const char *label,
                                    sh_zip **out);
void sh_zip_destroy(sh_zip **zip);

/** Entries in the order of their names. */
int64_t sh_zip_count(const sh_zip *zip);
const sh_zip_entry *sh_zip_get(const sh_zip *zip, int64_t index);

/** Index of the entry called name, or -1. */
int64_t sh_zip_find(const sh_zip *zip, const char *name, size_t n_name);

/** The bytes of an entry, checked against its CRC-32; they live as long as the archive.
 *  All inflated entries together may take 64 times the archive's size, plus 16 MiB. */
SH_MUST_CHECK sh_status sh_zip_read(sh_zip *zip, int64_t index, const uint8_t **bytes);

SH_C_END

#endif
