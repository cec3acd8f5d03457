// SPDX-License-Identifier: Apache-2.0
/**
 * JPEG through libjpeg-turbo.
 *
 * libjpeg reports errors by calling back and expects not to be returned to, so every function that
 * calls it does so under setjmp and returns whether it got through. Warnings that mean missing or
 * guessed pixels are errors here: a grey half of a fish would train and match like a real one.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

#include "dataio/image_codec.h"

enum {
    MAX_SCANS = 500, /* a progressive file of a few kB may otherwise ask for minutes of work */
    EXIF_PREFIX = 6, /* "Exif\0\0" */
};

typedef struct jpeg_guard {
    struct jpeg_error_mgr err; /* first, so that cinfo->err is also a jpeg_guard */
    jmp_buf escape;
    char message[JMSG_LENGTH_MAX];
} jpeg_guard;

typedef struct jpeg_reader {
    struct jpeg_decompress_struct cinfo;
    struct jpeg_progress_mgr progress;
    jpeg_guard guard;
} jpeg_reader;

static _Noreturn void leave(j_common_ptr cinfo)
{
    jpeg_guard *guard = (jpeg_guard *)cinfo->err;

    cinfo->err->format_message(cinfo, guard->message);
    longjmp(guard->escape, 1);
}

/* Warnings after which every pixel is still as the encoder meant it. */
static bool is_harmless(int code)
{
    return code == JWRN_EXTRANEOUS_DATA || code == JWRN_JFIF_MAJOR || code == JWRN_ADOBE_XFORM ||
           code == JWRN_BOGUS_PROGRESSION;
}

static void on_message(j_common_ptr cinfo, int level)
{
    if (level < 0 && !is_harmless(cinfo->err->msg_code)) leave(cinfo);
}

static void on_output(j_common_ptr cinfo)
{
    (void)cinfo;
}

static void on_progress(j_common_ptr cinfo)
{
    j_decompress_ptr d = (j_decompress_ptr)cinfo;

    if (d->input_scan_number > MAX_SCANS) {
        snprintf(((jpeg_guard *)cinfo->err)->message, JMSG_LENGTH_MAX, "more than %d scans",
                 MAX_SCANS);
        longjmp(((jpeg_guard *)cinfo->err)->escape, 1);
    }
}

static void guard_init(jpeg_guard *guard)
{
    jpeg_std_error(&guard->err);
    guard->err.error_exit = leave;
    guard->err.emit_message = on_message;
    guard->err.output_message = on_output;
    guard->message[0] = '\0';
}

static bool read_header(jpeg_reader *r, const sh_image_source *source)
{
    guard_init(&r->guard);
    r->cinfo.err = &r->guard.err;
    if (setjmp(r->guard.escape)) return false;
    jpeg_create_decompress(&r->cinfo);
    r->progress.progress_monitor = on_progress;
    r->cinfo.progress = &r->progress;
    jpeg_save_markers(&r->cinfo, JPEG_APP0 + 1, 0xFFFF);
    jpeg_mem_src(&r->cinfo, source->data, source->n_bytes);
    jpeg_read_header(&r->cinfo, TRUE);
    return true;
}

static bool read_pixels(jpeg_reader *r, int channels, int denominator, sh_image *image)
{
    struct jpeg_decompress_struct *c = &r->cinfo;
    size_t stride = (size_t)image->width * (size_t)channels;

    if (setjmp(r->guard.escape)) return false;
    c->out_color_space = channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    c->scale_num = 1;
    c->scale_denom = (unsigned)denominator;
    c->dct_method = JDCT_ISLOW;
    jpeg_start_decompress(c);
    while (c->output_scanline < c->output_height) {
        JSAMPROW rows[8];
        JDIMENSION n = 0;

        for (; n < 8 && c->output_scanline + n < c->output_height; n++)
            rows[n] = image->pixels + (c->output_scanline + n) * stride;
        jpeg_read_scanlines(c, rows, n);
    }
    jpeg_finish_decompress(c);
    return true;
}

static int orientation_of(const jpeg_reader *r)
{
    for (jpeg_saved_marker_ptr m = r->cinfo.marker_list; m != NULL; m = m->next)
        if (m->data_length > EXIF_PREFIX && memcmp(m->data, "Exif\0", EXIF_PREFIX) == 0)
            return sh_exif_orientation(m->data + EXIF_PREFIX, m->data_length - EXIF_PREFIX);
    return 1;
}

/* Header read, checked and described; r is live (jpeg_destroy_decompress) whatever comes back. */
static sh_status open_jpeg(jpeg_reader *r, const sh_image_source *source, sh_image_info *out)
{
    sh_status st = SH_OK;
    const struct jpeg_decompress_struct *c = &r->cinfo;

    SH_CHECK(read_header(r, source), SH_ERR_FORMAT, "%s is a damaged JPEG (%s): export it again",
             source->label, r->guard.message);
    SH_CHECK(c->jpeg_color_space != JCS_CMYK && c->jpeg_color_space != JCS_YCCK, SH_ERR_UNSUPPORTED,
             "%s is a CMYK JPEG, made for print: convert it to RGB", source->label);
    SH_CHECK(c->jpeg_color_space != JCS_UNKNOWN, SH_ERR_UNSUPPORTED,
             "%s is a JPEG of %d components of unknown colour: convert it to RGB", source->label,
             c->num_components);
    SH_TRY(sh_image_check_size(source, c->image_width, c->image_height));
    *out = (sh_image_info){
        .format = SH_IMAGE_JPEG,
        .width = (int)c->image_width,
        .height = (int)c->image_height,
        .channels = c->jpeg_color_space == JCS_GRAYSCALE ? 1 : 3,
        .orientation = orientation_of(r),
    };
out:
    return st;
}

static bool matches(const sh_image_source *source)
{
    return source->n_bytes >= 3 && memcmp(source->data, "\377\330\377", 3) == 0;
}

static sh_status probe(const sh_image_source *source, sh_image_info *out)
{
    sh_status st = SH_OK;
    jpeg_reader r = {0};

    SH_TRY(open_jpeg(&r, source, out));
out:
    jpeg_destroy_decompress(&r.cinfo);
    return st;
}

int sh_jpeg_denominator(int width, int height, int min_width, int min_height)
{
    int denominator = min_width > 0 && min_height > 0 ? 8 : 1;

    while (denominator > 1 && ((width + denominator - 1) / denominator < min_width ||
                               (height + denominator - 1) / denominator < min_height))
        denominator /= 2;
    return denominator;
}

static sh_status decode(const sh_image_source *source, int channels, int min_width, int min_height,
                        sh_image_info *info, sh_image *image)
{
    sh_status st = SH_OK;
    jpeg_reader r = {0};

    SH_TRY(open_jpeg(&r, source, info));
    if (channels == 0) channels = info->channels;
    bool turned = info->orientation >= 5; /* the caller's sizes are those of the turned image */
    int denominator =
        sh_jpeg_denominator(info->width, info->height, turned ? min_height : min_width,
                            turned ? min_width : min_height);

    SH_TRY(sh_image_reserve(image, (info->width + denominator - 1) / denominator,
                            (info->height + denominator - 1) / denominator, channels));
    SH_CHECK(read_pixels(&r, channels, denominator, image), SH_ERR_FORMAT,
             "%s is a damaged JPEG (%s): copy or export it again", source->label, r.guard.message);
out:
    jpeg_destroy_decompress(&r.cinfo);
    return st;
}

const sh_image_codec sh_image_jpeg_codec = {
    .format = SH_IMAGE_JPEG,
    .matches = matches,
    .probe = probe,
    .decode = decode,
};

typedef struct jpeg_writer {
    struct jpeg_compress_struct cinfo;
    jpeg_guard guard;
    unsigned char *data;
    unsigned long n_bytes;
} jpeg_writer;

static bool write_jpeg(jpeg_writer *w, const sh_image *image, int quality)
{
    struct jpeg_compress_struct *c = &w->cinfo;
    size_t stride = (size_t)image->width * (size_t)image->channels;

    guard_init(&w->guard);
    c->err = &w->guard.err;
    if (setjmp(w->guard.escape)) return false;
    jpeg_create_compress(c);
    jpeg_mem_dest(c, &w->data, &w->n_bytes);
    c->image_width = (JDIMENSION)image->width;
    c->image_height = (JDIMENSION)image->height;
    c->input_components = image->channels;
    c->in_color_space = image->channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(c);
    jpeg_set_quality(c, quality, TRUE);
    if (quality >= 90) { /* keep the colour of fine patterns: no chroma subsampling */
        c->comp_info[0].h_samp_factor = 1;
        c->comp_info[0].v_samp_factor = 1;
    }
    c->dct_method = JDCT_ISLOW;
    jpeg_start_compress(c, TRUE);
    while (c->next_scanline < c->image_height) {
        JSAMPROW row = image->pixels + c->next_scanline * stride;

        jpeg_write_scanlines(c, &row, 1);
    }
    jpeg_finish_compress(c);
    return true;
}

sh_status sh_jpeg_encode(const sh_image *image, int quality, uint8_t **data, size_t *n_bytes)
{
    sh_status st = SH_OK;
    jpeg_writer w = {0};

    SH_CHECK(write_jpeg(&w, image, quality), SH_ERR_NO_MEMORY, "cannot encode a JPEG: %s",
             w.guard.message);
    *data = w.data;
    *n_bytes = w.n_bytes;
    w.data = NULL;
out:
    jpeg_destroy_compress(&w.cinfo);
    free(w.data);
    return st;
}
