// SPDX-License-Identifier: Apache-2.0
/**
 * Private to dataio: one pack file, as tables in memory and as bytes on disk.
 *
 * A pack begins with a seal of 512 bytes, an HDF5 user block that HDF5 tools skip. It states the
 * file's length, where the images lie, and a CRC-32C of everything else. A reader checks it before
 * HDF5 sees the file: the library was not made for damaged input, and so never gets any.
 */
#ifndef SH_DATAIO_PACK_FILE_H
#define SH_DATAIO_PACK_FILE_H

#include "dataio/pack.h"
#include "dataio/strings.h"

enum { SH_SEAL_BYTES = 512 };

typedef enum sh_pack_kind { SH_PACK_CROPS, SH_PACK_INDEX } sh_pack_kind;

typedef struct sh_seal {
    sh_pack_kind kind;
    uint64_t file_bytes;
    uint64_t images_offset, images_bytes;
    uint32_t rest_crc32c; /* of all bytes behind the seal but the images */
} sh_seal;

/** One crop as the pack's columns hold it; indices refer to the file's own string tables. */
typedef struct sh_pack_record {
    uint64_t offset, length; /* in /images */
    uint64_t pixels[2];      /* hi, lo */
    int64_t time;
    uint32_t crc32c;
    int32_t labels[4]; /* by sh_label_table */
    int32_t frame;
    int32_t size[2]; /* width, height */
    int32_t source_size[2];
    int32_t box[4];
    uint8_t format, side;
    int8_t split;
    uint64_t mask_offset[SH_N_MASKS], mask_length[SH_N_MASKS]; /* in /images; length 0: none */
    uint32_t mask_crc32c[SH_N_MASKS];
} sh_pack_record;

typedef enum sh_label_table {
    SH_TABLE_INDIVIDUAL,
    SH_TABLE_RECORDING,
    SH_TABLE_CAMERA,
    SH_TABLE_SPECIES,
    SH_N_TABLES
} sh_label_table;

/** A shard as an index names it. */
typedef struct sh_pack_shard {
    char *file; /* name beside the index */
    int64_t n_crops;
    uint64_t file_bytes;
    uint32_t rest_crc32c;
} sh_pack_shard;

/** All of a pack file but its images. */
typedef struct sh_pack_tables {
    int64_t n_crops;
    sh_pack_record *records;
    sh_strings *names;               /* of the crops, in order */
    sh_strings *labels[SH_N_TABLES]; /* sorted bytewise */
    sh_drop_list dropped;
    bool has_masks;
    sh_pack_shard *shards; /* of an index */
    int64_t n_shards;
} sh_pack_tables;

/** Columns of /crops: the one description that the writer and the reader share. */
typedef enum sh_column_type {
    SH_COL_U8,
    SH_COL_I8,
    SH_COL_U32,
    SH_COL_I32,
    SH_COL_I64,
    SH_COL_U64
} sh_column_type;
typedef struct sh_column {
    const char *name;
    sh_column_type type;
    int width;     /* values per crop */
    size_t offset; /* in sh_pack_record */
} sh_column;
extern const sh_column sh_pack_columns[];
extern const int sh_pack_n_columns;
extern const sh_column sh_mask_columns[]; /* of /masks, which is there if any crop has a mask */
extern const int sh_mask_n_columns;
extern const char *const sh_pack_table_names[SH_N_TABLES];
size_t sh_column_size(sh_column_type type);

void sh_pack_tables_clear(sh_pack_tables *tables);

/** Write a pack file at `path` in place (not beside): tables, and image bytes from spool_fd. */
SH_MUST_CHECK sh_status sh_pack_file_write(const char *path, sh_pack_kind kind,
                                           const sh_pack_tables *tables, int spool_fd,
                                           uint64_t images_bytes, sh_seal *out);

/** Check the seal of an open file and read its tables, every number checked against the others.
 *  The caller clears *tables, whatever is returned. */
SH_MUST_CHECK sh_status sh_pack_file_read(int fd, const char *path, sh_seal *seal,
                                          sh_pack_tables *tables);

/** Read and verify the seal alone, the checksum included. */
SH_MUST_CHECK sh_status sh_seal_read(int fd, const char *path, sh_seal *out);

/** Compute the checksum of an open file whose layout `seal` states, and put the seal in front. */
SH_MUST_CHECK sh_status sh_seal_write(int fd, const char *path, sh_seal *seal);

#endif
