// SPDX-License-Identifier: Apache-2.0
/*
 * PKWARE's APPNOTE, the part that PyTorch and ordinary zip programs write: an end record (and its
 * zip64 form) points to the central directory, whose records point to local headers, which stand
 * before the data.
 */
#include "models/weights/zip.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/bytes.h"

enum {
    END_BYTES = 22,
    END64_BYTES = 56,
    LOCATOR64_BYTES = 20,
    CENTRAL_BYTES = 46,
    LOCAL_BYTES = 30,
    MAX_COMMENT_BYTES = 65535,
    EXTRA_ZIP64 = 1,
    METHOD_STORED = 0,
    METHOD_DEFLATED = 8,
};

struct sh_zip {
    const uint8_t *data;
    uint64_t n_bytes;
    const char *label;
    sh_zip_entry *entries;
    int64_t n_entries;
    uint64_t budget_bytes;
};

static bool fits(const sh_zip *zip, uint64_t offset, uint64_t n_bytes)
{
    return offset <= zip->n_bytes && n_bytes <= zip->n_bytes - offset;
}

static bool has_signature(const sh_zip *zip, uint64_t offset, uint64_t n_bytes,
                          const char *last_two)
{
    return fits(zip, offset, n_bytes) && zip->data[offset] == 'P' && zip->data[offset + 1] == 'K' &&
           memcmp(zip->data + offset + 2, last_two, 2) == 0;
}

/* Where the central directory lies and how many records it has. */
static sh_status find_directory(const sh_zip *zip, uint64_t *offset, uint64_t *n_records,
                                uint64_t *n_directory)
{
    sh_status st = SH_OK;
    uint64_t lowest = zip->n_bytes > END_BYTES + MAX_COMMENT_BYTES
                          ? zip->n_bytes - END_BYTES - MAX_COMMENT_BYTES
                          : 0;
    uint64_t end = zip->n_bytes < END_BYTES ? 0 : zip->n_bytes - END_BYTES;

    while (end > lowest && !has_signature(zip, end, END_BYTES, "\5\6")) end--;
    SH_CHECK(has_signature(zip, end, END_BYTES, "\5\6"), SH_ERR_FORMAT,
             "%s: a zip archive without its end record: the file is truncated", zip->label);
    *n_records = sh_bytes_le(zip->data + end + 10, 2);
    *n_directory = sh_bytes_le(zip->data + end + 12, 4);
    *offset = sh_bytes_le(zip->data + end + 16, 4);
    if (end >= LOCATOR64_BYTES &&
        has_signature(zip, end - LOCATOR64_BYTES, LOCATOR64_BYTES, "\6\7")) {
        uint64_t end64 = sh_bytes_le(zip->data + end - LOCATOR64_BYTES + 8, 8);

        SH_CHECK(has_signature(zip, end64, END64_BYTES, "\6\6"), SH_ERR_FORMAT,
                 "%s: the zip64 end record is not where it should be", zip->label);
        *n_records = sh_bytes_le(zip->data + end64 + 32, 8);
        *n_directory = sh_bytes_le(zip->data + end64 + 40, 8);
        *offset = sh_bytes_le(zip->data + end64 + 48, 8);
    }
    SH_CHECK(fits(zip, *offset, *n_directory) && *n_records <= *n_directory / CENTRAL_BYTES,
             SH_ERR_FORMAT, "%s: the zip directory reaches outside the file", zip->label);
out:
    return st;
}

/* A zip64 extra field replaces, in this order, those of the three values that are all ones. */
static void apply_zip64(const uint8_t *extra, uint64_t n_extra, sh_zip_entry *entry)
{
    uint64_t *const values[] = {&entry->n_bytes, &entry->n_packed, &entry->header_offset};

    while (n_extra >= 4) {
        uint64_t id = sh_bytes_le(extra, 2);
        uint64_t n_field = sh_bytes_le(extra + 2, 2);

        if (n_field > n_extra - 4) return;
        if (id == EXTRA_ZIP64) {
            uint64_t at = 0;

            for (size_t i = 0; i < SH_COUNT(values); i++) {
                if (*values[i] != 0xFFFFFFFFu || at + 8 > n_field) continue;
                *values[i] = sh_bytes_le(extra + 4 + at, 8);
                at += 8;
            }
            return;
        }
        extra += 4 + n_field;
        n_extra -= 4 + n_field;
    }
}

static int compare_name_bytes(const char *a, size_t n_a, const char *b, size_t n_b)
{
    int order = memcmp(a, b, n_a < n_b ? n_a : n_b);

    return order != 0 ? order : (n_a > n_b) - (n_a < n_b);
}

static int compare_entries(const void *a, const void *b)
{
    const sh_zip_entry *x = a;
    const sh_zip_entry *y = b;

    return compare_name_bytes(x->name, x->n_name, y->name, y->n_name);
}

static sh_status read_directory(sh_zip *zip, uint64_t offset, uint64_t n_records,
                                uint64_t n_directory)
{
    sh_status st = SH_OK;
    const uint8_t *p = zip->data + offset;
    uint64_t n_left = n_directory;

    for (uint64_t i = 0; i < n_records; i++) {
        SH_CHECK(n_left >= CENTRAL_BYTES && memcmp(p, "PK\1\2", 4) == 0, SH_ERR_FORMAT,
                 "%s: damaged zip directory at record %llu", zip->label, (unsigned long long)i);

        uint64_t n_name = sh_bytes_le(p + 28, 2), n_extra = sh_bytes_le(p + 30, 2);
        uint64_t n_record = CENTRAL_BYTES + n_name + n_extra + sh_bytes_le(p + 32, 2);

        SH_CHECK(n_record <= n_left, SH_ERR_FORMAT, "%s: damaged zip directory at record %llu",
                 zip->label, (unsigned long long)i);

        sh_zip_entry *entry = &zip->entries[zip->n_entries++];

        *entry = (sh_zip_entry){.name = (const char *)p + CENTRAL_BYTES,
                                .n_name = n_name,
                                .n_packed = sh_bytes_le(p + 20, 4),
                                .n_bytes = sh_bytes_le(p + 24, 4),
                                .header_offset = sh_bytes_le(p + 42, 4),
                                .crc32 = (uint32_t)sh_bytes_le(p + 16, 4),
                                .method = (int)sh_bytes_le(p + 10, 2),
                                .encrypted = p[8] & 1};
        apply_zip64(p + CENTRAL_BYTES + n_name, n_extra, entry);
        p += n_record;
        n_left -= n_record;
    }
    qsort(zip->entries, (size_t)zip->n_entries, sizeof(*zip->entries), compare_entries);
    for (int64_t i = 1; i < zip->n_entries; i++)
        SH_CHECK(compare_entries(&zip->entries[i - 1], &zip->entries[i]) != 0, SH_ERR_FORMAT,
                 "%s: two zip entries are named '%.*s'", zip->label,
                 (int)(zip->entries[i].n_name < 200 ? zip->entries[i].n_name : 200),
                 zip->entries[i].name);
out:
    return st;
}

sh_status sh_zip_open(const uint8_t *data, size_t n_bytes, const char *label, sh_zip **out)
{
    sh_status st = SH_OK;
    uint64_t offset = 0, n_records = 0, n_directory = 0;
    sh_zip *zip = calloc(1, sizeof(*zip));

    SH_CHECK(zip != NULL, SH_ERR_NO_MEMORY, "%s: zip index", label);
    zip->data = data;
    zip->n_bytes = n_bytes;
    zip->label = label;
    zip->budget_bytes = 64 * (uint64_t)n_bytes + (16 << 20);
    SH_TRY(find_directory(zip, &offset, &n_records, &n_directory));
    zip->entries = calloc((size_t)n_records + 1, sizeof(*zip->entries));
    SH_CHECK(zip->entries != NULL, SH_ERR_NO_MEMORY, "%s: %llu zip entries", label,
             (unsigned long long)n_records);
    SH_TRY(read_directory(zip, offset, n_records, n_directory));
    *out = zip;
    zip = NULL;
out:
    sh_zip_destroy(&zip);
    return st;
}

void sh_zip_destroy(sh_zip **zip)
{
    sh_zip *z = *zip;

    if (z == NULL) return;
    for (int64_t i = 0; i < z->n_entries; i++) free(z->entries[i].inflated);
    free(z->entries);
    free(z);
    *zip = NULL;
}

int64_t sh_zip_count(const sh_zip *zip)
{
    return zip->n_entries;
}

const sh_zip_entry *sh_zip_get(const sh_zip *zip, int64_t index)
{
    return &zip->entries[index];
}

int64_t sh_zip_find(const sh_zip *zip, const char *name, size_t n_name)
{
    int64_t lo = 0, hi = zip->n_entries;

    while (lo < hi) {
        int64_t mid = lo + (hi - lo) / 2;
        const sh_zip_entry *entry = &zip->entries[mid];
        int order = compare_name_bytes(name, n_name, entry->name, entry->n_name);

        if (order == 0) return mid;
        if (order < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return -1;
}

/* Fill out[n_out] from a raw deflate stream; false unless it ends exactly there. zlib counts in 32
 * bits, so large entries go in pieces. */
static bool inflate_all(const uint8_t *packed, uint64_t n_packed, uint8_t *out, uint64_t n_out)
{
    const uint64_t piece = 1u << 30;
    z_stream stream = {0};
    int result = inflateInit2(&stream, -MAX_WBITS);
    uint64_t in_done = 0, out_done = 0;

    if (result != Z_OK) return false;
    do {
        uint64_t n_in = n_packed - in_done < piece ? n_packed - in_done : piece;
        uint64_t room = n_out - out_done < piece ? n_out - out_done : piece;

        stream.next_in = (Bytef *)packed + in_done;
        stream.avail_in = (uInt)n_in;
        stream.next_out = out + out_done;
        stream.avail_out = (uInt)room;
        result = inflate(&stream, Z_NO_FLUSH);
        in_done += n_in - stream.avail_in;
        out_done += room - stream.avail_out;
    } while (result == Z_OK);
    inflateEnd(&stream);
    return result == Z_STREAM_END && out_done == n_out;
}

static uint32_t crc32_of(const uint8_t *bytes, uint64_t n)
{
    uLong crc = 0;

    for (uint64_t done = 0; done < n;) {
        uint64_t piece = n - done < (1u << 30) ? n - done : 1u << 30;

        crc = crc32(crc, bytes + done, (uInt)piece);
        done += piece;
    }
    return (uint32_t)crc;
}

static sh_status inflate_entry(sh_zip *zip, sh_zip_entry *entry, const uint8_t *packed,
                               const char *shown)
{
    sh_status st = SH_OK;

    if (entry->inflated != NULL) goto out;
    SH_CHECK(entry->n_bytes <= zip->budget_bytes, SH_ERR_FORMAT,
             "%s: entry '%s' unpacks to %llu bytes, out of proportion to the file; refused",
             zip->label, shown, (unsigned long long)entry->n_bytes);
    zip->budget_bytes -= entry->n_bytes;
    entry->inflated = malloc(entry->n_bytes + 1);
    SH_CHECK(entry->inflated != NULL, SH_ERR_NO_MEMORY, "%s: entry '%s', %llu bytes", zip->label,
             shown, (unsigned long long)entry->n_bytes);
    SH_CHECK(inflate_all(packed, entry->n_packed, entry->inflated, entry->n_bytes), SH_ERR_FORMAT,
             "%s: entry '%s' does not unpack: the file is damaged", zip->label, shown);
out:
    return st;
}

sh_status sh_zip_read(sh_zip *zip, int64_t index, const uint8_t **bytes)
{
    sh_status st = SH_OK;
    sh_zip_entry *entry = &zip->entries[index];
    uint64_t at = entry->header_offset;
    char shown[128];

    snprintf(shown, sizeof(shown), "%.*s", (int)(entry->n_name < 120 ? entry->n_name : 120),
             entry->name);
    SH_CHECK(!entry->encrypted &&
                 (entry->method == METHOD_STORED || entry->method == METHOD_DEFLATED),
             SH_ERR_UNSUPPORTED,
             "%s: entry '%s' is encrypted or packed by method %d; only stored and "
             "deflated entries are read",
             zip->label, shown, entry->method);
    SH_CHECK(has_signature(zip, at, LOCAL_BYTES, "\3\4"), SH_ERR_FORMAT,
             "%s: entry '%s' does not begin at byte %llu: the file is damaged", zip->label, shown,
             (unsigned long long)at);
    at += LOCAL_BYTES + sh_bytes_le(zip->data + at + 26, 2) + sh_bytes_le(zip->data + at + 28, 2);
    SH_CHECK(fits(zip, at, entry->n_packed), SH_ERR_FORMAT,
             "%s: entry '%s' reaches outside the file: it is truncated", zip->label, shown);

    const uint8_t *content = zip->data + at;

    if (entry->method == METHOD_DEFLATED) {
        SH_TRY(inflate_entry(zip, entry, content, shown));
        content = entry->inflated;
    } else {
        SH_CHECK(entry->n_packed == entry->n_bytes, SH_ERR_FORMAT,
                 "%s: stored entry '%s' has two sizes", zip->label, shown);
    }
    SH_CHECK(crc32_of(content, entry->n_bytes) == entry->crc32, SH_ERR_FORMAT,
             "%s: entry '%s' differs from its checksum: the file is damaged", zip->label, shown);
    *bytes = content;
out:
    return st;
}
