// SPDX-License-Identifier: Apache-2.0
/**
 * PNG through libpng. The header is read by hand, so that what is refused is refused with its own
 * words; libpng's errors come back by longjmp, as in image_jpeg.c. Alpha is dropped, not
 * composited: the colours under it are what the camera saw. Gamma and colour profiles are ignored.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>

#include "base/bytes.h"
#include "dataio/image_codec.h"

enum { SIGNATURE_BYTES = 8, HEADER_BYTES = 33, CHUNK_OVERHEAD = 12, MAX_CHUNK_BYTES = 1 << 23 };

typedef struct png_stream {
    const uint8_t *data;
    size_t n_bytes, at;
    char message[200];
} png_stream;

static uint32_t read_be32(const uint8_t *p)
{
    return (uint32_t)sh_bytes_be(p, 4);
}

static bool matches(const sh_image_source *source)
{
    return source->n_bytes >= SIGNATURE_BYTES &&
           memcmp(source->data, "\211PNG\r\n\032\n", SIGNATURE_BYTES) == 0;
}

/* The orientation in an eXIf chunk before the pixels, else 1. */
static int orientation_of(const sh_image_source *source)
{
    size_t at = SIGNATURE_BYTES;

    while (source->n_bytes - at >= CHUNK_OVERHEAD) {
        const uint8_t *chunk = source->data + at;
        size_t length = read_be32(chunk);

        if (length > source->n_bytes - at - CHUNK_OVERHEAD || memcmp(chunk + 4, "IDAT", 4) == 0)
            break;
        if (memcmp(chunk + 4, "eXIf", 4) == 0) return sh_exif_orientation(chunk + 8, length);
        at += length + CHUNK_OVERHEAD;
    }
    return 1;
}

static sh_status probe(const sh_image_source *source, sh_image_info *out)
{
    sh_status st = SH_OK;
    const uint8_t *header = source->data + SIGNATURE_BYTES;

    SH_CHECK(source->n_bytes >= HEADER_BYTES && memcmp(header, "\0\0\0\rIHDR", 8) == 0,
             SH_ERR_FORMAT, "%s is a damaged PNG (no header): export it again", source->label);
    uint8_t depth = header[16], colour = header[17];

    SH_CHECK(depth != 16, SH_ERR_UNSUPPORTED, "%s is a 16-bit PNG: convert it to 8 bits a channel",
             source->label);
    SH_TRY(sh_image_check_size(source, read_be32(header + 8), read_be32(header + 12)));
    *out = (sh_image_info){
        .format = SH_IMAGE_PNG,
        .width = (int)read_be32(header + 8),
        .height = (int)read_be32(header + 12),
        .channels = colour == PNG_COLOR_TYPE_GRAY || colour == PNG_COLOR_TYPE_GRAY_ALPHA ? 1 : 3,
        .orientation = orientation_of(source),
    };
out:
    return st;
}

static _Noreturn void on_error(png_structp png, png_const_charp message)
{
    png_stream *stream = png_get_error_ptr(png);

    snprintf(stream->message, sizeof(stream->message), "%s", message);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

static void on_read(png_structp png, png_bytep out, size_t n)
{
    png_stream *stream = png_get_io_ptr(png);

    if (n > stream->n_bytes - stream->at) png_error(png, "the file ends early");
    memcpy(out, stream->data + stream->at, n);
    stream->at += n;
}

static bool read_pixels(png_structp png, png_infop info, sh_image *image)
{
    size_t stride = (size_t)image->width * (size_t)image->channels;

    if (setjmp(png_jmpbuf(png))) return false;
    png_set_user_limits(png, SH_IMAGE_MAX_SIDE, SH_IMAGE_MAX_SIDE);
    /* What is no pixel, palette or header is passed over unread. libpng would believe the length of
     * an eXIf chunk, whatever limit is set, and ask for that much memory. */
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    png_set_chunk_malloc_max(png, MAX_CHUNK_BYTES);
    png_read_info(png, info);
    png_byte colour = png_get_color_type(png, info);

    if (colour == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
    if (colour == PNG_COLOR_TYPE_GRAY) png_set_expand_gray_1_2_4_to_8(png);
    png_set_strip_alpha(png);
    int n_passes = png_set_interlace_handling(png);

    png_read_update_info(png, info);
    if (png_get_rowbytes(png, info) != stride ||
        png_get_image_height(png, info) != (png_uint_32)image->height)
        png_error(png, "the header changes its mind");
    for (int pass = 0; pass < n_passes; pass++)
        for (int y = 0; y < image->height; y++)
            png_read_row(png, image->pixels + (size_t)y * stride, NULL);
    png_read_end(png, NULL);
    return true;
}

static sh_status decode(const sh_image_source *source, int channels, int min_width, int min_height,
                        sh_image_info *info, sh_image *image)
{
    sh_status st = SH_OK;
    png_stream stream = {.data = source->data, .n_bytes = source->n_bytes};
    png_structp png = NULL;
    png_infop png_info = NULL;

    (void)channels;
    (void)min_width;
    (void)min_height;
    SH_TRY(probe(source, info));
    SH_TRY(sh_image_reserve(image, info->width, info->height, info->channels));
    png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &stream, on_error, on_warning);
    if (png != NULL) png_info = png_create_info_struct(png);
    SH_CHECK(png_info != NULL, SH_ERR_NO_MEMORY, "a PNG reader");
    png_set_read_fn(png, &stream, on_read);
    SH_CHECK(read_pixels(png, png_info, image), SH_ERR_FORMAT,
             "%s is a damaged PNG (%s): copy or export it again", source->label, stream.message);
out:
    png_destroy_read_struct(&png, &png_info, NULL);
    return st;
}

const sh_image_codec sh_image_png_codec = {
    .format = SH_IMAGE_PNG,
    .matches = matches,
    .probe = probe,
    .decode = decode,
};

typedef struct png_sink {
    png_stream stream; /* first: the error handler sees a png_stream */
    uint8_t *data;
    size_t n_bytes, capacity;
} png_sink;

static void on_write(png_structp png, png_bytep data, size_t n)
{
    png_sink *sink = png_get_io_ptr(png);

    if (sink->capacity - sink->n_bytes < n) {
        size_t capacity = 2 * sink->capacity + n;
        uint8_t *grown = realloc(sink->data, capacity);

        if (grown == NULL) png_error(png, "out of memory");
        sink->data = grown;
        sink->capacity = capacity;
    }
    memcpy(sink->data + sink->n_bytes, data, n);
    sink->n_bytes += n;
}

static void on_flush(png_structp png)
{
    (void)png;
}

static bool write_png(png_structp png, png_infop info, const sh_image *image)
{
    size_t stride = (size_t)image->width * (size_t)image->channels;

    if (setjmp(png_jmpbuf(png))) return false;
    png_set_IHDR(png, info, (png_uint_32)image->width, (png_uint_32)image->height, 8,
                 image->channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (int y = 0; y < image->height; y++) png_write_row(png, image->pixels + (size_t)y * stride);
    png_write_end(png, info);
    return true;
}

sh_status sh_png_encode(const sh_image *image, uint8_t **data, size_t *n_bytes)
{
    sh_status st = SH_OK;
    png_sink sink = {0};
    png_infop info = NULL;
    png_structp png =
        png_create_write_struct(PNG_LIBPNG_VER_STRING, &sink.stream, on_error, on_warning);

    if (png != NULL) info = png_create_info_struct(png);
    SH_CHECK(info != NULL, SH_ERR_NO_MEMORY, "a PNG writer");
    png_set_write_fn(png, &sink, on_write, on_flush);
    SH_CHECK(write_png(png, info, image), SH_ERR_NO_MEMORY, "cannot encode a PNG: %s",
             sink.stream.message);
    *data = sink.data;
    *n_bytes = sink.n_bytes;
    sink.data = NULL;
out:
    png_destroy_write_struct(&png, &info);
    free(sink.data);
    return st;
}
