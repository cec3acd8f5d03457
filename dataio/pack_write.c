// SPDX-License-Identifier: Apache-2.0
/** One pack file: HDF5 lays it out, the image bytes are copied in behind its back, the seal is
 * last. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "dataio/pack_hdf5.h"

enum { COPY_BYTES = 1 << 20 };

/* Every HDF5 call of this file in one place: a negative result is a failure to write. */
#define CHECK_HDF5(call)                                                                           \
    SH_CHECK((call) >= 0, SH_ERR_IO, "HDF5 cannot write the pack (%s): is the disk full?", #call)

/* The n_rows strings of a list. */
typedef struct string_source {
    const char *(*get)(const void *list, int64_t row);
    const void *list;
    int64_t n_rows;
    size_t longest;
} string_source;

static const char *get_from_set(const void *list, int64_t row)
{
    return sh_strings_get(list, (int32_t)row);
}

static const char *get_from_array(const void *list, int64_t row)
{
    return ((char *const *)list)[row];
}

static const char *get_shard_file(const void *list, int64_t row)
{
    return ((const sh_pack_shard *)list)[row].file;
}

static string_source set_source(const sh_strings *strings)
{
    return (string_source){get_from_set, strings, sh_strings_count(strings),
                           sh_strings_longest(strings)};
}

static string_source array_source(char *const *texts, int64_t n)
{
    string_source source = {get_from_array, texts, n, 0};

    for (int64_t i = 0; i < n; i++)
        if (strlen(texts[i]) > source.longest) source.longest = strlen(texts[i]);
    return source;
}

static sh_status create_dataset(hid_t at, const char *name, hid_t type, int n_dims,
                                const hsize_t *dims, hid_t *out)
{
    sh_status st = SH_OK;
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(n_dims, dims, NULL);

    CHECK_HDF5(plist);
    CHECK_HDF5(space);
    CHECK_HDF5(H5Pset_obj_track_times(plist, false));
    CHECK_HDF5(H5Pset_layout(plist, H5D_CONTIGUOUS));
    CHECK_HDF5(H5Pset_alloc_time(plist, H5D_ALLOC_TIME_EARLY));
    CHECK_HDF5(H5Pset_fill_time(plist, H5D_FILL_TIME_NEVER));
    *out = H5Dcreate2(at, name, type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    CHECK_HDF5(*out);
out:
    if (space >= 0) H5Sclose(space);
    if (plist >= 0) H5Pclose(plist);
    return st;
}

static sh_status write_strings(hid_t at, const char *name, const string_source *source)
{
    sh_status st = SH_OK;
    size_t width = source->longest > 0 ? source->longest : 1;
    hsize_t n_rows = (hsize_t)source->n_rows;
    hid_t type = sh_string_type(width), dataset = -1, file_space = -1, memory_space = -1;
    char *rows = calloc(SH_STRING_ROWS, width + 1);

    SH_CHECK(rows != NULL, SH_ERR_NO_MEMORY, "strings of %zu bytes", width);
    CHECK_HDF5(type);
    SH_TRY(create_dataset(at, name, type, 1, &n_rows, &dataset));
    CHECK_HDF5(file_space = H5Dget_space(dataset));
    for (hsize_t first = 0; first < n_rows; first += SH_STRING_ROWS) {
        hsize_t n = n_rows - first < SH_STRING_ROWS ? n_rows - first : SH_STRING_ROWS;

        memset(rows, 0, n * width);
        for (hsize_t i = 0; i < n; i++) {
            const char *text = source->get(source->list, (int64_t)(first + i));

            memcpy(rows + i * width, text, strlen(text));
        }
        CHECK_HDF5(memory_space = H5Screate_simple(1, &n, NULL));
        CHECK_HDF5(H5Sselect_hyperslab(file_space, H5S_SELECT_SET, &first, NULL, &n, NULL));
        CHECK_HDF5(H5Dwrite(dataset, type, memory_space, file_space, H5P_DEFAULT, rows));
        H5Sclose(memory_space);
        memory_space = -1;
    }
out:
    if (memory_space >= 0) H5Sclose(memory_space);
    if (file_space >= 0) H5Sclose(file_space);
    if (dataset >= 0) H5Dclose(dataset);
    if (type >= 0) H5Tclose(type);
    free(rows);
    return st;
}

/* Values of one column, taken from n records of record_bytes each. */
static sh_status write_column(hid_t at, const sh_column *column, const void *records,
                              size_t record_bytes, int64_t n)
{
    sh_status st = SH_OK;
    hid_t dataset = -1;
    hsize_t dims[2] = {(hsize_t)n, (hsize_t)column->width};
    size_t row_bytes = (size_t)column->width * sh_column_size(column->type);
    char *values = malloc((size_t)n * row_bytes + 1);

    SH_CHECK(values != NULL, SH_ERR_NO_MEMORY, "column %s of a pack", column->name);
    for (int64_t i = 0; i < n; i++)
        memcpy(values + (size_t)i * row_bytes,
               (const char *)records + (size_t)i * record_bytes + column->offset, row_bytes);
    SH_TRY(create_dataset(at, column->name, sh_column_file_type(column->type),
                          column->width > 1 ? 2 : 1, dims, &dataset));
    CHECK_HDF5(H5Dwrite(dataset, sh_column_memory_type(column->type), H5S_ALL, H5S_ALL, H5P_DEFAULT,
                        values));
out:
    if (dataset >= 0) H5Dclose(dataset);
    free(values);
    return st;
}

static sh_status write_attribute(hid_t at, const char *name, hid_t file_type, hid_t memory_type,
                                 const void *value)
{
    sh_status st = SH_OK;
    hid_t space = H5Screate(H5S_SCALAR), attribute = -1;

    CHECK_HDF5(space);
    CHECK_HDF5(attribute = H5Acreate2(at, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT));
    CHECK_HDF5(H5Awrite(attribute, memory_type, value));
out:
    if (attribute >= 0) H5Aclose(attribute);
    if (space >= 0) H5Sclose(space);
    return st;
}

static sh_status write_text_attribute(hid_t at, const char *name, const char *text)
{
    sh_status st = SH_OK;
    hid_t type = sh_string_type(strlen(text));

    CHECK_HDF5(type);
    SH_TRY(write_attribute(at, name, type, type, text));
out:
    if (type >= 0) H5Tclose(type);
    return st;
}

static sh_status write_root_attributes(hid_t file, sh_pack_kind kind)
{
    sh_status st = SH_OK;
    int version = SH_PACK_VERSION;

    SH_TRY(write_text_attribute(file, "format", "shoal-pack"));
    SH_TRY(write_text_attribute(file, "kind", kind == SH_PACK_INDEX ? "index" : "crops"));
    SH_TRY(write_attribute(file, "version", H5T_STD_I32LE, H5T_NATIVE_INT, &version));
out:
    return st;
}

static sh_status open_group(hid_t file, const char *name, hid_t *out)
{
    sh_status st = SH_OK;
    hid_t plist = H5Pcreate(H5P_GROUP_CREATE);

    CHECK_HDF5(plist);
    CHECK_HDF5(H5Pset_obj_track_times(plist, false));
    CHECK_HDF5(*out = H5Gcreate2(file, name, H5P_DEFAULT, plist, H5P_DEFAULT));
out:
    if (plist >= 0) H5Pclose(plist);
    return st;
}

static sh_status write_crops(hid_t file, const sh_pack_tables *tables)
{
    sh_status st = SH_OK;
    hid_t crops = -1, labels = -1, masks = -1;
    string_source names = set_source(tables->names);

    SH_TRY(open_group(file, "crops", &crops));
    SH_TRY(write_strings(crops, "name", &names));
    for (int i = 0; i < sh_pack_n_columns; i++)
        SH_TRY(write_column(crops, &sh_pack_columns[i], tables->records, sizeof(sh_pack_record),
                            tables->n_crops));
    if (tables->has_masks) SH_TRY(open_group(file, "masks", &masks));
    for (int i = 0; i < sh_mask_n_columns && tables->has_masks; i++)
        SH_TRY(write_column(masks, &sh_mask_columns[i], tables->records, sizeof(sh_pack_record),
                            tables->n_crops));
    SH_TRY(open_group(file, "labels", &labels));
    for (int t = 0; t < SH_N_TABLES; t++) {
        string_source texts = set_source(tables->labels[t]);

        SH_TRY(write_strings(labels, sh_pack_table_names[t], &texts));
    }
out:
    if (masks >= 0) H5Gclose(masks);
    if (labels >= 0) H5Gclose(labels);
    if (crops >= 0) H5Gclose(crops);
    return st;
}

static sh_status write_shards(hid_t file, const sh_pack_tables *tables)
{
    static const sh_column columns[] = {
        {"n_crops", SH_COL_I64, 1, offsetof(sh_pack_shard, n_crops)},
        {"file_bytes", SH_COL_U64, 1, offsetof(sh_pack_shard, file_bytes)},
        {"rest_crc32c", SH_COL_U32, 1, offsetof(sh_pack_shard, rest_crc32c)},
    };
    sh_status st = SH_OK;
    hid_t shards = -1;
    string_source files = {get_shard_file, tables->shards, tables->n_shards, 0};

    for (int64_t i = 0; i < tables->n_shards; i++)
        if (strlen(tables->shards[i].file) > files.longest)
            files.longest = strlen(tables->shards[i].file);
    SH_TRY(open_group(file, "shards", &shards));
    SH_TRY(write_strings(shards, "file", &files));
    for (size_t i = 0; i < SH_COUNT(columns); i++)
        SH_TRY(write_column(shards, &columns[i], tables->shards, sizeof(sh_pack_shard),
                            tables->n_shards));
out:
    if (shards >= 0) H5Gclose(shards);
    return st;
}

static sh_status write_dropped(hid_t file, const sh_drop_list *dropped)
{
    sh_status st = SH_OK;
    hid_t group = -1;
    string_source names = array_source(dropped->names, dropped->n);
    string_source reasons = array_source(dropped->reasons, dropped->n);

    SH_TRY(open_group(file, "dropped", &group));
    SH_TRY(write_strings(group, "name", &names));
    SH_TRY(write_strings(group, "reason", &reasons));
out:
    if (group >= 0) H5Gclose(group);
    return st;
}

/* Make the HDF5 file, with room for the images, and tell where that is. */
static sh_status write_layout(const char *path, sh_pack_kind kind, const sh_pack_tables *tables,
                              uint64_t images_bytes, uint64_t *images_offset)
{
    sh_status st = SH_OK;
    hid_t file = -1, images = -1;
    hid_t creation = H5Pcreate(H5P_FILE_CREATE), access = H5Pcreate(H5P_FILE_ACCESS);
    hsize_t n = images_bytes;

    CHECK_HDF5(creation);
    CHECK_HDF5(access);
    CHECK_HDF5(H5Eset_auto2(H5E_DEFAULT, NULL, NULL));
    CHECK_HDF5(H5Pset_userblock(creation, SH_SEAL_BYTES));
    CHECK_HDF5(H5Pset_obj_track_times(creation, false));
    /* Superblock 2 and checksummed headers: read by every HDF5 since 1.8 (2008). */
    CHECK_HDF5(H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18));
    CHECK_HDF5(H5Pset_file_locking(access, false, true));
    CHECK_HDF5(file = H5Fcreate(path, H5F_ACC_TRUNC, creation, access));
    SH_TRY(write_root_attributes(file, kind));
    *images_offset = SH_SEAL_BYTES;
    if (kind == SH_PACK_CROPS) {
        SH_TRY(write_crops(file, tables));
        SH_TRY(create_dataset(file, "images", H5T_STD_U8LE, 1, &n, &images));
        *images_offset = H5Dget_offset(images);
        SH_CHECK(*images_offset != HADDR_UNDEF, SH_ERR_IO, "HDF5 gave no room for images in %s",
                 path);
    } else {
        SH_TRY(write_shards(file, tables));
    }
    SH_TRY(write_dropped(file, &tables->dropped));
    if (images >= 0) H5Dclose(images);
    images = -1;
    herr_t closed = H5Fclose(file);

    file = -1;
    CHECK_HDF5(closed);
out:
    if (images >= 0) H5Dclose(images);
    if (file >= 0) H5Fclose(file);
    if (access >= 0) H5Pclose(access);
    if (creation >= 0) H5Pclose(creation);
    return st;
}

static sh_status copy_images(int from, int to, const char *path, uint64_t offset, uint64_t n_bytes)
{
    sh_status st = SH_OK;
    char *block = malloc(COPY_BYTES);

    SH_CHECK(block != NULL, SH_ERR_NO_MEMORY, "a block to write %s", path);
    for (uint64_t done = 0; done < n_bytes;) {
        size_t n = n_bytes - done < COPY_BYTES ? (size_t)(n_bytes - done) : COPY_BYTES;

        SH_TRY(sh_file_read_at(from, "the images gathered so far", done, block, n));
        for (size_t written = 0; written < n;) {
            ssize_t k = pwrite(to, block + written, n - written, (off_t)(offset + done + written));

            if (k < 0 && errno == EINTR) continue;
            SH_CHECK(k >= 0, SH_ERR_IO, "cannot write %s: %s", path, strerror(errno));
            written += (size_t)k;
        }
        done += n;
    }
out:
    free(block);
    return st;
}

sh_status sh_pack_file_write(const char *path, sh_pack_kind kind, const sh_pack_tables *tables,
                             int spool_fd, uint64_t images_bytes, sh_seal *out)
{
    sh_status st = SH_OK;
    struct stat info;
    int fd = -1;
    sh_seal seal = {.kind = kind, .images_bytes = images_bytes};

    SH_TRY(write_layout(path, kind, tables, images_bytes, &seal.images_offset));
    fd = open(path, O_RDWR | O_CLOEXEC);
    SH_CHECK(fd >= 0, SH_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    if (images_bytes > 0) SH_TRY(copy_images(spool_fd, fd, path, seal.images_offset, images_bytes));
    SH_CHECK(fstat(fd, &info) == 0, SH_ERR_IO, "cannot stat %s: %s", path, strerror(errno));
    seal.file_bytes = (uint64_t)info.st_size;
    SH_TRY(sh_seal_write(fd, path, &seal));
    SH_CHECK(fsync(fd) == 0, SH_ERR_IO, "cannot sync %s: %s", path, strerror(errno));
    *out = seal;
out:
    if (fd >= 0) close(fd);
    return st;
}
