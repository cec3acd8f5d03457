// SPDX-License-Identifier: Apache-2.0
#include "dataio/image.h"

#include <stdlib.h>
#include <string.h>

#include "dataio/image_codec.h"

static const sh_image_codec *const codecs[] = {
    &sh_image_jpeg_codec,
    &sh_image_png_codec,
    &sh_image_pnm_codec,
};

/* Formats that are recognised only to say what they are. */
static const struct {
    size_t offset;
    const char *magic;
    size_t n_magic;
    const char *name;
} foreign[] = {
    {0, "II*\0", 4, "TIFF"},     {0, "MM\0*", 4, "TIFF"},
    {0, "II+\0", 4, "BigTIFF"},  {0, "MM\0+", 4, "BigTIFF"},
    {4, "ftyphei", 7, "HEIC"},   {4, "ftyphev", 7, "HEIC"},
    {4, "ftypmif1", 8, "HEIC"},  {4, "ftypavif", 8, "AVIF"},
    {0, "GIF8", 4, "GIF"},       {0, "BM", 2, "BMP"},
    {8, "WEBP", 4, "WebP"},      {0, "P1", 2, "bitmap PBM"},
    {0, "P4", 2, "bitmap PBM"},  {0, "P7", 2, "PAM"},
    {0, "Pf", 2, "PFM"},         {0, "PF", 2, "PFM"},
    {0, "8BPS", 4, "Photoshop"}, {0, "\377\117\377\121", 4, "JPEG 2000"},
    {4, "jP  ", 4, "JPEG 2000"}, {0, "\377\n", 2, "JPEG XL"},
    {4, "JXL ", 4, "JPEG XL"},
};

static sh_status find_codec(const sh_image_source *source, const sh_image_codec **out)
{
    sh_status st = SH_OK;

    SH_CHECK(source->n_bytes > 0, SH_ERR_FORMAT, "%s is empty (0 bytes): copy it again",
             source->label);
    for (size_t i = 0; i < SH_COUNT(codecs); i++) {
        if (!codecs[i]->matches(source)) continue;
        *out = codecs[i];
        goto out;
    }
    for (size_t i = 0; i < SH_COUNT(foreign); i++) {
        if (source->n_bytes < foreign[i].offset + foreign[i].n_magic ||
            memcmp(source->data + foreign[i].offset, foreign[i].magic, foreign[i].n_magic) != 0)
            continue;
        SH_FAIL(SH_ERR_UNSUPPORTED,
                "%s is a %s image, which is not read: convert it to PNG or JPEG", source->label,
                foreign[i].name);
    }
    SH_FAIL(SH_ERR_FORMAT, "%s is not an image that is known here (JPEG, PNG, PGM, PPM)",
            source->label);
out:
    return st;
}

sh_status sh_image_check_size(const sh_image_source *source, int64_t width, int64_t height)
{
    sh_status st = SH_OK;

    SH_CHECK(width > 0 && height > 0, SH_ERR_FORMAT, "%s has no pixels (%lld x %lld): remove it",
             source->label, (long long)width, (long long)height);
    SH_CHECK(width <= SH_IMAGE_MAX_SIDE && height <= SH_IMAGE_MAX_SIDE, SH_ERR_UNSUPPORTED,
             "%s is huge (%lld x %lld, at most %d a side): cut the fish out or scale it down",
             source->label, (long long)width, (long long)height, SH_IMAGE_MAX_SIDE);
out:
    return st;
}

sh_status sh_image_reserve(sh_image *image, int width, int height, int channels)
{
    sh_status st = SH_OK;
    size_t n_bytes = (size_t)width * (size_t)height * (size_t)channels;

    if (image->capacity < n_bytes) {
        free(image->pixels);
        image->pixels = malloc(n_bytes);
        image->capacity = image->pixels != NULL ? n_bytes : 0;
        SH_CHECK(image->pixels != NULL, SH_ERR_NO_MEMORY, "an image of %d x %d x %d", width, height,
                 channels);
    }
    image->width = width;
    image->height = height;
    image->channels = channels;
out:
    return st;
}

sh_status sh_image_probe(const void *data, size_t n_bytes, const char *label, sh_image_info *out)
{
    sh_status st = SH_OK;
    sh_image_source source = {data, n_bytes, label};
    const sh_image_codec *codec = NULL;

    SH_TRY(find_codec(&source, &codec));
    SH_TRY(codec->probe(&source, out));
out:
    return st;
}

/* Grey to RGB, or RGB to grey with the weights of JPEG's Y. */
static sh_status convert_channels(sh_image *image, int channels)
{
    sh_status st = SH_OK;
    sh_image other = {0};
    size_t n = (size_t)image->width * (size_t)image->height;

    if (channels == 0 || channels == image->channels) goto out;
    SH_TRY(sh_image_reserve(&other, image->width, image->height, channels));
    for (size_t i = 0; i < n && channels == 3; i++)
        memset(other.pixels + 3 * i, image->pixels[i], 3);
    for (size_t i = 0; i < n && channels == 1; i++) {
        const uint8_t *p = image->pixels + 3 * i;

        other.pixels[i] = (uint8_t)((19595u * p[0] + 38470u * p[1] + 7471u * p[2] + 32768u) >> 16);
    }
    sh_image_clear(image);
    *image = other;
    other = (sh_image){0};
out:
    sh_image_clear(&other);
    return st;
}

/* EXIF orientations as (transposed first, then mirrored in x, then in y). */
static const struct {
    bool transpose, mirror_x, mirror_y;
} orientations[9] = {
    [2] = {false, true, false}, [3] = {false, true, true}, [4] = {false, false, true},
    [5] = {true, false, false}, [6] = {true, true, false}, [7] = {true, true, true},
    [8] = {true, false, true},
};

static sh_status apply_orientation(sh_image *image, int orientation)
{
    sh_status st = SH_OK;
    sh_image other = {0};
    bool transpose = orientations[orientation].transpose;
    size_t c = (size_t)image->channels;

    if (orientation == 1) goto out;
    SH_TRY(sh_image_reserve(&other, transpose ? image->height : image->width,
                            transpose ? image->width : image->height, image->channels));
    for (int y = 0; y < other.height; y++) {
        int v = orientations[orientation].mirror_y ? other.height - 1 - y : y;

        for (int x = 0; x < other.width; x++) {
            int u = orientations[orientation].mirror_x ? other.width - 1 - x : x;
            size_t from = transpose ? (size_t)u * (size_t)image->width + (size_t)v
                                    : (size_t)v * (size_t)image->width + (size_t)u;

            memcpy(other.pixels + ((size_t)y * (size_t)other.width + (size_t)x) * c,
                   image->pixels + from * c, c);
        }
    }
    sh_image_clear(image);
    *image = other;
    other = (sh_image){0};
out:
    sh_image_clear(&other);
    return st;
}

sh_status sh_image_decode(const void *data, size_t n_bytes, const char *label, int channels,
                          int min_width, int min_height, sh_image *image)
{
    sh_status st = SH_OK;
    sh_image_source source = {data, n_bytes, label};
    const sh_image_codec *codec = NULL;
    sh_image_info info = {0};

    SH_TRY(find_codec(&source, &codec));
    SH_TRY(codec->decode(&source, channels, min_width, min_height, &info, image));
    SH_TRY(convert_channels(image, channels));
    SH_TRY(apply_orientation(image, info.orientation));
out:
    return st;
}

sh_status sh_image_encode(const sh_image *image, sh_image_format format, int quality,
                          uint8_t **data, size_t *n_bytes)
{
    sh_status st = SH_OK;

    SH_CHECK(image->width > 0 && image->height > 0 &&
                 (image->channels == 1 || image->channels == 3),
             SH_ERR_INTERNAL, "cannot encode an image of %d x %d x %d", image->width, image->height,
             image->channels);
    SH_CHECK(format == SH_IMAGE_JPEG || format == SH_IMAGE_PNG, SH_ERR_INTERNAL,
             "cannot encode image format %d", (int)format);
    SH_TRY(format == SH_IMAGE_JPEG ? sh_jpeg_encode(image, quality, data, n_bytes)
                                   : sh_png_encode(image, data, n_bytes));
out:
    return st;
}

void sh_image_clear(sh_image *image)
{
    free(image->pixels);
    *image = (sh_image){0};
}
