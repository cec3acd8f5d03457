// SPDX-License-Identifier: Apache-2.0
/**
 * Packs. An input that begins with 's' is a pack file as it is: nearly every mutation must fall to
 * the seal before HDF5 sees it. Any other input becomes the tables of a well-formed pack with an
 * honest seal, whose numbers are what the bytes say: those must fall to the checks of the reader,
 * or be harmless.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dataio/dataset.h"
#include "dataio/pack_file.h"
#include "tests/fuzz/fuzz.h"

enum { MAX_CROPS = 4, MAX_PIXELS = 1 << 20 };

/* Files in memory, made once: a path that HDF5 can open. */
static int memory_file(const char *name)
{
    int fd = memfd_create(name, 0);

    if (fd < 0) abort();
    return fd;
}

static void use_pack(const char *path)
{
    sh_dataset *d = NULL;
    uint8_t *bytes = NULL;
    size_t capacity = 0, n_bytes = 0;
    sh_image_format format;
    sh_image image = {0};

    if (sh_dataset_open(&path, 1, &d) != SH_OK) return;
    for (int64_t i = 0; i < sh_dataset_n_crops(d); i++) {
        const sh_crop *c = sh_dataset_crop(d, i);
        sh_image_info info;

        if (strlen(c->name) + strlen(sh_dataset_individual(d, c->individual)) > 1u << 20) abort();
        if (sh_dataset_find(d, 0, c->name) != i) abort();
        if (sh_dataset_read(d, i, &bytes, &capacity, &n_bytes, &format) != SH_OK) continue;
        if (format != SH_IMAGE_RAW && (sh_image_probe(bytes, n_bytes, "fuzz", &info) != SH_OK ||
                                       (int64_t)info.width * info.height > MAX_PIXELS))
            continue;
        if (sh_dataset_decode(d, i, i % 2 ? 3 : 1, 0, 0, &image) == SH_OK)
            (void)sh_image_hash(&image);
        for (int m = 0; m < SH_N_MASKS; m++)
            if (sh_dataset_has_mask(d, i, (sh_mask)m) &&
                (int64_t)c->width * c->height <= MAX_PIXELS &&
                sh_dataset_decode_mask(d, i, (sh_mask)m, &image) == SH_OK)
                (void)sh_image_hash(&image);
    }
    (void)sh_dataset_hash(d);
    free(bytes);
    sh_image_clear(&image);
    sh_dataset_close(&d);
}

static void use_file(const uint8_t *data, size_t n_bytes)
{
    static int fd = -1;
    char path[64];

    if (fd < 0) fd = memory_file("pack");
    if (ftruncate(fd, 0) != 0 || pwrite(fd, data, n_bytes, 0) != (ssize_t)n_bytes) abort();
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    use_pack(path);
}

/* The next n bytes of the input, zeros behind its end. */
static void take(const uint8_t **data, size_t *n_left, void *out, size_t n)
{
    size_t n_taken = *n_left < n ? *n_left : n;

    memset(out, 0, n);
    memcpy(out, *data, n_taken);
    *data += n_taken;
    *n_left -= n_taken;
}

static void use_tables(const uint8_t *data, size_t n_bytes)
{
    static int fd = -1, spool = -1;
    char path[64], name[24];
    uint8_t sizes[1 + SH_N_TABLES];
    sh_pack_record records[MAX_CROPS];
    sh_pack_tables tables = {.records = records};
    sh_seal seal;
    int32_t index;

    if (fd < 0) fd = memory_file("tables");
    if (spool < 0) spool = memory_file("spool");
    take(&data, &n_bytes, sizes, sizeof(sizes));
    tables.n_crops = sizes[0] % (MAX_CROPS + 1);
    tables.has_masks = sizes[1] >= 128;
    take(&data, &n_bytes, records, (size_t)tables.n_crops * sizeof(*records));
    if (sh_strings_create(&tables.names) != SH_OK) abort();
    for (int64_t i = 0; i < tables.n_crops; i++) {
        snprintf(name, sizeof(name), "crop%d", (int)i);
        if (sh_strings_add(tables.names, name, &index, NULL) != SH_OK) abort();
        /* Fuzzers do not find checksums: every other crop gets the right one where it has bytes. */
        if (i % 2 == 0 && records[i].offset < n_bytes && records[i].length <= n_bytes &&
            records[i].offset <= n_bytes - records[i].length)
            records[i].crc32c = sh_crc32c(0, data + records[i].offset, records[i].length);
    }
    for (int t = 0; t < SH_N_TABLES; t++) {
        if (sh_strings_create(&tables.labels[t]) != SH_OK) abort();
        for (int k = 0; k < sizes[1 + t] % 4; k++) { /* few, so that indices are often wrong */
            snprintf(name, sizeof(name), "label%d", k);
            if (sh_strings_add(tables.labels[t], name, &index, NULL) != SH_OK) abort();
        }
    }
    if (ftruncate(spool, 0) != 0 || pwrite(spool, data, n_bytes, 0) != (ssize_t)n_bytes) abort();
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (n_bytes > 0 &&
        sh_pack_file_write(path, SH_PACK_CROPS, &tables, spool, n_bytes, &seal) == SH_OK)
        use_pack(path);
    tables.records = NULL; /* on the stack */
    sh_pack_tables_clear(&tables);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    if (n_bytes > 0 && data[0] == 's')
        use_file(data, n_bytes);
    else if (n_bytes > 0)
        use_tables(data + 1, n_bytes - 1);
    return 0;
}
