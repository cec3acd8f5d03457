// SPDX-License-Identifier: Apache-2.0
/**
 * Writing packs (docs/pack.md): crops are added one by one, in the order that readers will see.
 *
 * The files are written beside their final names, synced and renamed by commit, the index of a
 * sharded pack last; whatever happens before leaves an earlier pack of that name as it was. The
 * bytes are a pure function of what was added: no time, host or path goes in.
 */
#ifndef SH_DATAIO_PACK_H
#define SH_DATAIO_PACK_H

#include "dataio/dataset.h"

SH_C_BEGIN

enum { SH_PACK_VERSION = 1, SH_PACK_MAX_NAME = 1023 };

typedef struct sh_pack_writer sh_pack_writer;

/** What is known of a crop. NULL or "": unknown. */
typedef struct sh_labels {
    const char *individual;
    const char *recording;
    const char *camera;
    const char *species;
    sh_side side;
    int64_t time;  /* seconds since 1970-01-01 UTC, or SH_NO_TIME */
    int32_t frame; /* -1: unknown */
    int32_t split; /* an sh_part, or -1 */
} sh_labels;

/** Nothing known. */
#define SH_LABELS_NONE                                                                             \
    ((sh_labels){.side = SH_SIDE_UNKNOWN, .time = SH_NO_TIME, .frame = -1, .split = -1})

/** A list of names with a reason each; a name may stand in it twice. Zeroed: empty. Text that is no
 *  UTF-8 is kept with its odd bytes written as "\xE6". */
typedef struct sh_drop_list {
    char **names, **reasons;
    int64_t n, capacity;
} sh_drop_list;
SH_MUST_CHECK sh_status sh_drop_list_add(sh_drop_list *list, const char *name, const char *reason);
/** Bytewise by name; rows of one name by reason. */
SH_MUST_CHECK sh_status sh_drop_list_sort(sh_drop_list *list);
void sh_drop_list_clear(sh_drop_list *list);

/** Whether text is well-formed UTF-8. */
bool sh_is_utf8(const char *text);

typedef struct sh_pack_crop {
    const char *name; /* UTF-8, unique in the pack, at most SH_PACK_MAX_NAME bytes */
    sh_labels labels;
    sh_image_format format;
    int32_t width, height;               /* after orientation */
    int32_t source_width, source_height; /* of the image that it was cut from */
    int32_t box[4];                      /* x, y, width, height in the source */
    sh_hash128 pixels;                   /* sh_image_hash of the decoded image */
    const void *data;                    /* encoded bytes, or pixels for SH_IMAGE_RAW */
    size_t n_bytes;
    struct {
        const void *data; /* an encoded image of the crop's size; NULL: none */
        size_t n_bytes;
    } masks[SH_N_MASKS];
} sh_pack_crop;

/** Start a pack at `path`. shard_bytes > 0: several files PATH-0000.h5 ... of about so many bytes
 * of images, and an index at PATH; 0: one file. The caller owns *out. */
SH_MUST_CHECK sh_status sh_pack_writer_create(const char *path, uint64_t shard_bytes,
                                              sh_pack_writer **out);

/** Append a crop. A name that is there already is SH_ERR_USAGE, as is one that is no UTF-8. */
SH_MUST_CHECK sh_status sh_pack_writer_add(sh_pack_writer *writer, const sh_pack_crop *crop);

/** Append an image that is wholly known here: it is encoded (quality: see sh_image_encode; format
 *  SH_IMAGE_RAW stores the pixels) and hashed as a reader will see it. */
SH_MUST_CHECK sh_status sh_pack_writer_add_image(sh_pack_writer *writer, const char *name,
                                                 const sh_labels *labels, const sh_image *image,
                                                 sh_image_format format, int quality);

/** Record that a file was left out, and why. */
SH_MUST_CHECK sh_status sh_pack_writer_drop(sh_pack_writer *writer, const char *name,
                                            const char *reason);

int64_t sh_pack_writer_n_crops(const sh_pack_writer *writer);

/** Write everything, sync and rename. A pack without crops is SH_ERR_USAGE. */
SH_MUST_CHECK sh_status sh_pack_writer_commit(sh_pack_writer *writer);

/** Free *writer and set it to NULL; removes what was not committed. NULL is fine. */
void sh_pack_writer_destroy(sh_pack_writer **writer);

SH_C_END

#endif
