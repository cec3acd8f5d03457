// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "dataio/pack_file.h"

enum { CRC_BLOCK_BYTES = 1 << 20 };

static const char *const kind_names[] = {[SH_PACK_CROPS] = "crops", [SH_PACK_INDEX] = "index"};

/* The one text that a seal has; a reader demands exactly these bytes. */
static void format_seal(const sh_seal *seal, char text[SH_SEAL_BYTES])
{
    memset(text, 0, SH_SEAL_BYTES);
    snprintf(text, SH_SEAL_BYTES,
             "shoal-pack %d\nkind %s\nfile_bytes %" PRIu64 "\nimages_offset %" PRIu64
             "\nimages_bytes %" PRIu64 "\nrest_crc32c %08" PRIx32 "\n",
             SH_PACK_VERSION, kind_names[seal->kind], seal->file_bytes, seal->images_offset,
             seal->images_bytes, seal->rest_crc32c);
}

static sh_status crc_range(int fd, const char *path, uint64_t from, uint64_t to, uint32_t *crc)
{
    sh_status st = SH_OK;
    uint8_t *block = malloc(CRC_BLOCK_BYTES);

    SH_CHECK(block != NULL, SH_ERR_NO_MEMORY, "a block to read %s", path);
    while (from < to) {
        size_t n = to - from < CRC_BLOCK_BYTES ? (size_t)(to - from) : CRC_BLOCK_BYTES;

        SH_TRY(sh_file_read_at(fd, path, from, block, n));
        *crc = sh_crc32c(*crc, block, n);
        from += n;
    }
out:
    free(block);
    return st;
}

static sh_status crc_rest(int fd, const char *path, const sh_seal *seal, uint32_t *out)
{
    sh_status st = SH_OK;
    uint32_t crc = 0;

    SH_TRY(crc_range(fd, path, SH_SEAL_BYTES, seal->images_offset, &crc));
    SH_TRY(crc_range(fd, path, seal->images_offset + seal->images_bytes, seal->file_bytes, &crc));
    *out = crc;
out:
    return st;
}

sh_status sh_seal_write(int fd, const char *path, sh_seal *seal)
{
    sh_status st = SH_OK;
    char text[SH_SEAL_BYTES];

    SH_TRY(crc_rest(fd, path, seal, &seal->rest_crc32c));
    format_seal(seal, text);
    SH_CHECK(pwrite(fd, text, SH_SEAL_BYTES, 0) == SH_SEAL_BYTES, SH_ERR_IO, "cannot write %s: %s",
             path, strerror(errno));
out:
    return st;
}

static sh_status parse_seal(const char *path, const char text[SH_SEAL_BYTES + 1], sh_seal *out)
{
    sh_status st = SH_OK;
    sh_seal seal = {0};
    char kind[16] = "", again[SH_SEAL_BYTES];
    unsigned version = 0;

    SH_CHECK(sscanf(text, "shoal-pack %9u\n", &version) == 1, SH_ERR_FORMAT,
             "%s is %s, not a pack: make one with 'shoal pack'", path,
             memcmp(text, "\211HDF", 4) == 0 ? "some other HDF5 file" : "of a foreign format");
    SH_CHECK(version == SH_PACK_VERSION, SH_ERR_FORMAT,
             "%s is a pack of version %u; this program reads version %d: pack the images again or "
             "use the program that wrote it",
             path, version, SH_PACK_VERSION);
    SH_CHECK(sscanf(text,
                    "shoal-pack %*u\nkind %15s\nfile_bytes %20" SCNu64 "\nimages_offset %20" SCNu64
                    "\nimages_bytes %20" SCNu64 "\nrest_crc32c %8" SCNx32,
                    kind, &seal.file_bytes, &seal.images_offset, &seal.images_bytes,
                    &seal.rest_crc32c) == 5,
             SH_ERR_FORMAT, "%s is damaged (its seal): copy or pack it again", path);
    seal.kind = strcmp(kind, kind_names[SH_PACK_INDEX]) == 0 ? SH_PACK_INDEX : SH_PACK_CROPS;
    format_seal(&seal, again);
    SH_CHECK(memcmp(text, again, SH_SEAL_BYTES) == 0 && seal.images_offset >= SH_SEAL_BYTES &&
                 seal.images_offset <= seal.file_bytes &&
                 seal.images_bytes <= seal.file_bytes - seal.images_offset,
             SH_ERR_FORMAT, "%s is damaged (its seal): copy or pack it again", path);
    *out = seal;
out:
    return st;
}

sh_status sh_seal_read(int fd, const char *path, sh_seal *out)
{
    sh_status st = SH_OK;
    char text[SH_SEAL_BYTES + 1] = "";
    struct stat info;
    sh_seal seal;
    uint32_t crc = 0;

    SH_CHECK(fstat(fd, &info) == 0, SH_ERR_IO, "cannot stat %s: %s", path, strerror(errno));
    SH_CHECK(S_ISREG(info.st_mode), SH_ERR_USAGE,
             "%s is not a file: packs are made with 'shoal pack'", path);
    SH_CHECK(info.st_size >= SH_SEAL_BYTES, SH_ERR_FORMAT,
             "%s is too short for a pack (%lld bytes): truncated, or another kind of file", path,
             (long long)info.st_size);
    SH_TRY(sh_file_read_at(fd, path, 0, text, SH_SEAL_BYTES));
    SH_TRY(parse_seal(path, text, &seal));
    SH_CHECK((uint64_t)info.st_size == seal.file_bytes, SH_ERR_FORMAT,
             "%s is %s: %lld bytes, its seal says %" PRIu64 "; copy it again", path,
             (uint64_t)info.st_size < seal.file_bytes ? "truncated" : "longer than it was written",
             (long long)info.st_size, seal.file_bytes);
    SH_TRY(crc_rest(fd, path, &seal, &crc));
    SH_CHECK(crc == seal.rest_crc32c, SH_ERR_FORMAT,
             "%s is damaged, or was changed after it was packed (checksum of its tables %08" PRIx32
             ", expected %08" PRIx32 "): copy or pack it again",
             path, crc, seal.rest_crc32c);
    *out = seal;
out:
    return st;
}
