// SPDX-License-Identifier: Apache-2.0
#include "dataio/dataset.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "dataio/image_codec.h"
#include "dataio/pack_file.h"

enum { PATH_BYTES = 4096 };

/* One file of crops: a pack, or a shard of one. */
typedef struct pack_file {
    char *path;
    int fd, pack;
    uint64_t images_offset;
    int64_t first; /* dataset index of its first crop */
    sh_strings *names;
} pack_file;

/* Where a crop's bytes are. */
typedef struct stored {
    uint64_t offset; /* in its file */
    uint32_t length, crc32c;
    int32_t file;
} stored;

/* Where a crop's masks are, in the crop's file. */
typedef struct stored_masks {
    uint64_t offset[SH_N_MASKS], length[SH_N_MASKS]; /* length 0: none */
    uint32_t crc32c[SH_N_MASKS];
} stored_masks;

struct sh_dataset {
    char **pack_paths;
    int n_packs;
    pack_file *files;
    int n_files;
    sh_crop *crops;
    stored *where;
    stored_masks *masks; /* [n_crops], or NULL where no pack so far has any */
    int64_t n_crops;
    sh_strings *labels[SH_N_TABLES];
    sh_drop_list dropped;
};

static sh_status open_file(const char *path, int *fd)
{
    sh_status st = SH_OK;

    *fd = open(path, O_RDONLY | O_CLOEXEC);
    SH_CHECK(*fd >= 0, errno == ENOENT ? SH_ERR_NOT_FOUND : SH_ERR_IO, "cannot open pack %s: %s",
             path, strerror(errno));
out:
    return st;
}

static sh_status grow_crops(sh_dataset *d, int64_t n_more)
{
    sh_status st = SH_OK;
    size_t n = (size_t)(d->n_crops + n_more);
    sh_crop *crops = realloc(d->crops, (n + 1) * sizeof(*crops));

    SH_CHECK(crops != NULL, SH_ERR_NO_MEMORY, "%zu crops", n);
    d->crops = crops;
    stored *where = realloc(d->where, (n + 1) * sizeof(*where));

    SH_CHECK(where != NULL, SH_ERR_NO_MEMORY, "%zu crops", n);
    d->where = where;
out:
    return st;
}

/* Once some pack has masks, there is a row for every crop so far. */
static sh_status append_masks(sh_dataset *d, const pack_file *file, const sh_pack_tables *tables)
{
    sh_status st = SH_OK;
    size_t n_before = d->masks != NULL ? (size_t)file->first : 0;
    stored_masks *masks = NULL;

    if (d->masks == NULL && !tables->has_masks) goto out;
    masks = realloc(d->masks, ((size_t)d->n_crops + 1) * sizeof(*masks));
    SH_CHECK(masks != NULL, SH_ERR_NO_MEMORY, "masks of %lld crops", (long long)d->n_crops);
    d->masks = masks;
    memset(masks + n_before, 0, ((size_t)d->n_crops - n_before) * sizeof(*masks));
    for (int64_t i = 0; i < tables->n_crops; i++)
        for (int m = 0; m < SH_N_MASKS; m++) {
            const sh_pack_record *r = &tables->records[i];
            stored_masks *at = &masks[file->first + i];

            at->offset[m] = file->images_offset + r->mask_offset[m];
            at->length[m] = r->mask_length[m];
            at->crc32c[m] = r->mask_crc32c[m];
        }
out:
    return st;
}

static sh_crop describe(const sh_pack_record *r, const char *name, int pack)
{
    return (sh_crop){
        .name = name,
        .individual = r->labels[SH_TABLE_INDIVIDUAL],
        .recording = r->labels[SH_TABLE_RECORDING],
        .camera = r->labels[SH_TABLE_CAMERA],
        .species = r->labels[SH_TABLE_SPECIES],
        .side = (sh_side)r->side,
        .time = r->time,
        .frame = r->frame,
        .width = r->size[0],
        .height = r->size[1],
        .split = r->split,
        .pixels = {r->pixels[0], r->pixels[1]},
        .pack = pack,
        .source_width = r->source_size[0],
        .source_height = r->source_size[1],
        .box = {r->box[0], r->box[1], r->box[2], r->box[3]},
        .format = (sh_image_format)r->format,
    };
}

/* Append a file's crops, with the file's label indices turned into the dataset's. */
static sh_status append_tables(sh_dataset *d, pack_file *file, sh_pack_tables *tables)
{
    sh_status st = SH_OK;
    int32_t *ids[SH_N_TABLES] = {NULL};

    for (int t = 0; t < SH_N_TABLES; t++) {
        int32_t n = sh_strings_count(tables->labels[t]);

        ids[t] = malloc(((size_t)n + 1) * sizeof(**ids));
        SH_CHECK(ids[t] != NULL, SH_ERR_NO_MEMORY, "%d names of %s", n, file->path);
        for (int32_t i = 0; i < n; i++)
            SH_TRY(sh_strings_add(d->labels[t], sh_strings_get(tables->labels[t], i), &ids[t][i],
                                  NULL));
    }
    SH_TRY(grow_crops(d, tables->n_crops));
    file->first = d->n_crops;
    for (int64_t i = 0; i < tables->n_crops; i++) {
        sh_pack_record *r = &tables->records[i];

        SH_CHECK(r->length <= UINT32_MAX, SH_ERR_FORMAT, "%s: crop %s of more than 4 GB",
                 file->path, sh_strings_get(tables->names, (int32_t)i));
        for (int t = 0; t < SH_N_TABLES; t++)
            if (r->labels[t] >= 0) r->labels[t] = ids[t][r->labels[t]];
        d->crops[d->n_crops] = describe(r, sh_strings_get(tables->names, (int32_t)i), file->pack);
        d->where[d->n_crops++] = (stored){.offset = file->images_offset + r->offset,
                                          .length = (uint32_t)r->length,
                                          .crc32c = r->crc32c,
                                          .file = (int32_t)(file - d->files)};
    }
    SH_TRY(append_masks(d, file, tables));
    for (int64_t i = 0; i < tables->dropped.n; i++)
        SH_TRY(sh_drop_list_add(&d->dropped, tables->dropped.names[i], tables->dropped.reasons[i]));
    file->names = tables->names; /* the crops point into it */
    tables->names = NULL;
out:
    for (int t = 0; t < SH_N_TABLES; t++) free(ids[t]);
    return st;
}

static sh_status append_file(sh_dataset *d, const char *path, int pack, pack_file **out)
{
    sh_status st = SH_OK;
    pack_file *files = realloc(d->files, ((size_t)d->n_files + 1) * sizeof(*files));

    SH_CHECK(files != NULL, SH_ERR_NO_MEMORY, "pack %s", path);
    d->files = files;
    *out = &files[d->n_files++];
    **out = (pack_file){.path = strdup(path), .fd = -1, .pack = pack};
    SH_CHECK((*out)->path != NULL, SH_ERR_NO_MEMORY, "pack %s", path);
    SH_TRY(open_file(path, &(*out)->fd));
out:
    return st;
}

/* A shard must be the very file that the index was written with. */
static sh_status open_shard(sh_dataset *d, const char *index_path, const sh_pack_shard *shard,
                            int pack)
{
    sh_status st = SH_OK;
    char path[PATH_BYTES];
    const char *slash = strrchr(index_path, '/');
    sh_seal seal;
    sh_pack_tables tables = {0};
    pack_file *file = NULL;

    SH_CHECK(snprintf(path, sizeof(path), "%.*s%s",
                      slash != NULL ? (int)(slash + 1 - index_path) : 0, index_path,
                      shard->file) < PATH_BYTES,
             SH_ERR_USAGE, "path too long: %.200s...", index_path);
    SH_TRY(append_file(d, path, pack, &file));
    SH_TRY(sh_pack_file_read(file->fd, path, &seal, &tables));
    SH_CHECK(seal.kind == SH_PACK_CROPS && seal.file_bytes == shard->file_bytes &&
                 seal.rest_crc32c == shard->rest_crc32c && tables.n_crops == shard->n_crops,
             SH_ERR_FORMAT,
             "%s is not the shard that the index %s was written with: copy all files of the pack "
             "again, or pack again",
             path, index_path);
    file->images_offset = seal.images_offset;
    SH_TRY(append_tables(d, file, &tables));
out:
    sh_pack_tables_clear(&tables);
    return st;
}

static sh_status open_pack(sh_dataset *d, const char *path, int pack)
{
    sh_status st = SH_OK;
    sh_seal seal;
    sh_pack_tables tables = {0};
    pack_file *file = NULL;

    SH_TRY(append_file(d, path, pack, &file));
    SH_TRY(sh_pack_file_read(file->fd, path, &seal, &tables));
    if (seal.kind == SH_PACK_CROPS) {
        file->images_offset = seal.images_offset;
        SH_TRY(append_tables(d, file, &tables));
        goto out;
    }
    for (int64_t i = 0; i < tables.n_shards; i++)
        SH_TRY(open_shard(d, path, &tables.shards[i], pack));
    for (int64_t i = 0; i < tables.dropped.n; i++)
        SH_TRY(sh_drop_list_add(&d->dropped, tables.dropped.names[i], tables.dropped.reasons[i]));
out:
    sh_pack_tables_clear(&tables);
    return st;
}

sh_status sh_dataset_open(const char *const *paths, int n_paths, sh_dataset **out)
{
    sh_status st = SH_OK;
    sh_dataset *d = calloc(1, sizeof(*d));

    SH_CHECK(d != NULL, SH_ERR_NO_MEMORY, "a dataset");
    SH_CHECK(n_paths > 0, SH_ERR_USAGE, "no pack was named");
    d->pack_paths = calloc((size_t)n_paths, sizeof(*d->pack_paths));
    SH_CHECK(d->pack_paths != NULL, SH_ERR_NO_MEMORY, "a dataset");
    for (int t = 0; t < SH_N_TABLES; t++) SH_TRY(sh_strings_create(&d->labels[t]));
    for (int i = 0; i < n_paths; i++) {
        d->pack_paths[i] = strdup(paths[i]);
        d->n_packs++;
        SH_CHECK(d->pack_paths[i] != NULL, SH_ERR_NO_MEMORY, "pack %s", paths[i]);
        for (int k = 0; k < i; k++)
            SH_CHECK(strcmp(sh_path_name(paths[i]), sh_path_name(paths[k])) != 0, SH_ERR_USAGE,
                     "two packs are called %s: rename one, so that their crops can be told apart",
                     sh_path_name(paths[i]));
        SH_TRY(open_pack(d, paths[i], i));
    }
    *out = d;
    d = NULL;
out:
    sh_dataset_close(&d);
    return st;
}

void sh_dataset_close(sh_dataset **dataset)
{
    sh_dataset *d = *dataset;

    if (d == NULL) return;
    for (int i = 0; i < d->n_files; i++) {
        if (d->files[i].fd >= 0) close(d->files[i].fd);
        sh_strings_destroy(&d->files[i].names);
        free(d->files[i].path);
    }
    for (int i = 0; i < d->n_packs; i++) free(d->pack_paths[i]);
    for (int t = 0; t < SH_N_TABLES; t++) sh_strings_destroy(&d->labels[t]);
    sh_drop_list_clear(&d->dropped);
    free(d->pack_paths);
    free(d->files);
    free(d->crops);
    free(d->where);
    free(d->masks);
    free(d);
    *dataset = NULL;
}

int64_t sh_dataset_n_crops(const sh_dataset *dataset)
{
    return dataset->n_crops;
}

const sh_crop *sh_dataset_crop(const sh_dataset *dataset, int64_t index)
{
    return &dataset->crops[index];
}

int sh_dataset_n_individuals(const sh_dataset *dataset)
{
    return sh_strings_count(dataset->labels[SH_TABLE_INDIVIDUAL]);
}

int sh_dataset_n_recordings(const sh_dataset *dataset)
{
    return sh_strings_count(dataset->labels[SH_TABLE_RECORDING]);
}

int sh_dataset_n_cameras(const sh_dataset *dataset)
{
    return sh_strings_count(dataset->labels[SH_TABLE_CAMERA]);
}

int sh_dataset_n_species(const sh_dataset *dataset)
{
    return sh_strings_count(dataset->labels[SH_TABLE_SPECIES]);
}

const char *sh_dataset_individual(const sh_dataset *dataset, int32_t id)
{
    return sh_strings_get(dataset->labels[SH_TABLE_INDIVIDUAL], id);
}

const char *sh_dataset_recording(const sh_dataset *dataset, int32_t id)
{
    return sh_strings_get(dataset->labels[SH_TABLE_RECORDING], id);
}

const char *sh_dataset_camera(const sh_dataset *dataset, int32_t id)
{
    return sh_strings_get(dataset->labels[SH_TABLE_CAMERA], id);
}

const char *sh_dataset_species(const sh_dataset *dataset, int32_t id)
{
    return sh_strings_get(dataset->labels[SH_TABLE_SPECIES], id);
}

int sh_dataset_n_packs(const sh_dataset *dataset)
{
    return dataset->n_packs;
}

const char *sh_dataset_pack_name(const sh_dataset *dataset, int pack)
{
    return sh_path_name(dataset->pack_paths[pack]);
}

int64_t sh_dataset_find(const sh_dataset *dataset, int pack, const char *name)
{
    for (int i = 0; i < dataset->n_files; i++) {
        const pack_file *file = &dataset->files[i];
        int32_t index =
            file->pack == pack && file->names != NULL ? sh_strings_find(file->names, name) : -1;

        if (index >= 0) return file->first + index;
    }
    return -1;
}

int64_t sh_dataset_n_dropped(const sh_dataset *dataset)
{
    return dataset->dropped.n;
}

void sh_dataset_dropped(const sh_dataset *dataset, int64_t index, const char **name,
                        const char **reason)
{
    *name = dataset->dropped.names[index];
    *reason = dataset->dropped.reasons[index];
}

/* One crop's line of the hash: everything in text, so that indices and packs do not matter. */
static uint64_t hash_crop(uint64_t hash, const sh_dataset *d, int64_t i)
{
    const sh_crop *c = &d->crops[i];
    const char *texts[] = {c->name, sh_dataset_individual(d, c->individual),
                           sh_dataset_recording(d, c->recording), sh_dataset_camera(d, c->camera),
                           sh_dataset_species(d, c->species)};
    int64_t numbers[] = {c->individual >= 0, (int64_t)c->side,   c->time,           c->frame,
                         c->split,           d->where[i].length, d->where[i].crc32c};

    for (size_t k = 0; k < SH_COUNT(texts); k++)
        hash = sh_fnv1a(hash, texts[k], strlen(texts[k]) + 1);
    return sh_fnv1a(hash, numbers, sizeof(numbers));
}

sh_hash128 sh_dataset_hash(const sh_dataset *dataset)
{
    uint64_t parts[2] = {SH_FNV1A_START, SH_FNV1A_START};

    /* Two halves with different starts: FNV alone is 64 bits, the pixels add the rest. */
    for (int64_t i = 0; i < dataset->n_crops; i++) {
        parts[0] = hash_crop(parts[0], dataset, i);
        parts[1] = sh_fnv1a(parts[1], &dataset->crops[i].pixels, sizeof(sh_hash128));
    }
    return sh_hash_content(parts, sizeof(parts));
}

sh_status sh_dataset_read(const sh_dataset *dataset, int64_t index, uint8_t **data,
                          size_t *capacity, size_t *n_bytes, sh_image_format *format)
{
    sh_status st = SH_OK;
    const stored *at = &dataset->where[index];
    const pack_file *file = &dataset->files[at->file];

    if (*capacity < at->length) {
        uint8_t *grown = realloc(*data, at->length);

        SH_CHECK(grown != NULL, SH_ERR_NO_MEMORY, "%" PRIu32 " bytes of crop %s", at->length,
                 dataset->crops[index].name);
        *data = grown;
        *capacity = at->length;
    }
    SH_TRY(sh_file_read_at(file->fd, file->path, at->offset, *data, at->length));
    uint32_t crc = sh_crc32c(0, *data, at->length);

    SH_CHECK(crc == at->crc32c, SH_ERR_FORMAT,
             "%s is damaged: crop %s has checksum %08" PRIx32 ", expected %08" PRIx32
             "; copy or pack it again",
             file->path, dataset->crops[index].name, crc, at->crc32c);
    *n_bytes = at->length;
    *format = dataset->crops[index].format;
out:
    return st;
}

/* Raw pixels to an image of the wanted channels. */
static sh_status unpack_raw(const sh_crop *crop, const uint8_t *data, size_t n_bytes, int channels,
                            sh_image *image)
{
    sh_status st = SH_OK;
    size_t n = (size_t)crop->width * (size_t)crop->height;
    char header[64];
    uint8_t *whole = NULL;

    if (channels == 0 || n_bytes == n * (size_t)channels) {
        SH_TRY(sh_image_reserve(image, crop->width, crop->height, (int)(n_bytes / n)));
        memcpy(image->pixels, data, n_bytes);
        goto out;
    }
    /* The rare conversion goes through PNM, which the decoder converts as it does any other. */
    int n_header = snprintf(header, sizeof(header), "P%d\n%d %d\n255\n", n_bytes == n ? 5 : 6,
                            crop->width, crop->height);

    whole = malloc((size_t)n_header + n_bytes);
    SH_CHECK(whole != NULL, SH_ERR_NO_MEMORY, "crop %s", crop->name);
    memcpy(whole, header, (size_t)n_header);
    memcpy(whole + n_header, data, n_bytes);
    SH_TRY(sh_image_decode(whole, (size_t)n_header + n_bytes, crop->name, channels, 0, 0, image));
out:
    free(whole);
    return st;
}

sh_status sh_dataset_decode(const sh_dataset *dataset, int64_t index, int channels, int min_width,
                            int min_height, sh_image *image)
{
    sh_status st = SH_OK;
    uint8_t *data = NULL;
    size_t capacity = 0, n_bytes = 0;
    sh_image_format format = SH_IMAGE_UNKNOWN;
    const sh_crop *crop = &dataset->crops[index];

    SH_TRY(sh_dataset_read(dataset, index, &data, &capacity, &n_bytes, &format));
    if (format == SH_IMAGE_RAW)
        SH_TRY(unpack_raw(crop, data, n_bytes, channels, image));
    else
        SH_TRY(sh_image_decode(data, n_bytes, crop->name, channels, min_width, min_height, image));
out:
    free(data);
    return st;
}

bool sh_dataset_has_mask(const sh_dataset *dataset, int64_t index, sh_mask mask)
{
    return dataset->masks != NULL && dataset->masks[index].length[mask] > 0;
}

sh_status sh_dataset_decode_mask(const sh_dataset *dataset, int64_t index, sh_mask mask,
                                 sh_image *image)
{
    sh_status st = SH_OK;
    uint8_t *data = NULL;
    sh_image_info info;
    const sh_crop *crop = &dataset->crops[index];
    const pack_file *file = &dataset->files[dataset->where[index].file];

    SH_CHECK(sh_dataset_has_mask(dataset, index, mask), SH_ERR_NOT_FOUND,
             "crop %s has no such mask", crop->name);
    const stored_masks *at = &dataset->masks[index];
    size_t n_bytes = at->length[mask];

    data = malloc(n_bytes);
    SH_CHECK(data != NULL, SH_ERR_NO_MEMORY, "a mask of %zu bytes", n_bytes);
    SH_TRY(sh_file_read_at(file->fd, file->path, at->offset[mask], data, n_bytes));
    SH_CHECK(sh_crc32c(0, data, n_bytes) == at->crc32c[mask], SH_ERR_FORMAT,
             "%s is damaged: a mask of crop %s has a wrong checksum; copy or pack it again",
             file->path, crop->name);
    SH_TRY(sh_image_probe(data, n_bytes, crop->name, &info));
    SH_CHECK(info.width == crop->width && info.height == crop->height && info.orientation == 1,
             SH_ERR_FORMAT, "%s: a mask of crop %s is %d x %d, the crop %d x %d", file->path,
             crop->name, info.width, info.height, crop->width, crop->height);
    SH_TRY(sh_image_decode(data, n_bytes, crop->name, 1, 0, 0, image));
out:
    free(data);
    return st;
}
