// SPDX-License-Identifier: Apache-2.0
/** PGM and PPM, binary (P5, P6) and plain (P2, P3), up to 8 bits a channel. */
#include <string.h>

#include "dataio/image_codec.h"

typedef struct pnm_header {
    int channels;
    bool plain;
    uint32_t width, height, max_value;
    size_t at; /* of the first sample */
} pnm_header;

static bool is_space(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool matches(const sh_image_source *source)
{
    return source->n_bytes >= 3 && source->data[0] == 'P' &&
           strchr("2356", source->data[1]) != NULL && source->data[1] != '\0' &&
           (is_space(source->data[2]) || source->data[2] == '#');
}

/* The next unsigned decimal after white space and comments; false at the end or where it is none.
 */
static bool read_number(const sh_image_source *source, size_t *at, uint32_t *out)
{
    size_t i = *at, n_digits = 0;
    uint32_t value = 0;

    while (i < source->n_bytes && (is_space(source->data[i]) || source->data[i] == '#')) {
        if (source->data[i] == '#')
            while (i < source->n_bytes && source->data[i] != '\n') i++;
        else
            i++;
    }
    for (; i < source->n_bytes && source->data[i] >= '0' && source->data[i] <= '9'; i++) {
        if (++n_digits > 8) return false;
        value = 10 * value + (uint32_t)(source->data[i] - '0');
    }
    *at = i;
    *out = value;
    return n_digits > 0;
}

static sh_status read_header(const sh_image_source *source, pnm_header *out)
{
    sh_status st = SH_OK;
    char kind = (char)source->data[1];
    pnm_header h = {.channels = kind == '3' || kind == '6' ? 3 : 1,
                    .plain = kind == '2' || kind == '3',
                    .at = 2};

    SH_CHECK(read_number(source, &h.at, &h.width) && read_number(source, &h.at, &h.height) &&
                 read_number(source, &h.at, &h.max_value) && h.at < source->n_bytes &&
                 is_space(source->data[h.at]),
             SH_ERR_FORMAT, "%s is a damaged PGM or PPM (its header): export it again",
             source->label);
    h.at++; /* exactly one white space ends a header */
    SH_CHECK(h.max_value <= 255, SH_ERR_UNSUPPORTED,
             "%s is a 16-bit PGM or PPM: convert it to 8 bits a channel", source->label);
    SH_CHECK(h.max_value > 0, SH_ERR_FORMAT, "%s is a PGM or PPM of maximum 0: export it again",
             source->label);
    SH_TRY(sh_image_check_size(source, h.width, h.height));
    *out = h;
out:
    return st;
}

static sh_image_info describe(const pnm_header *h)
{
    return (sh_image_info){.format = SH_IMAGE_PNM,
                           .width = (int)h->width,
                           .height = (int)h->height,
                           .channels = h->channels,
                           .orientation = 1};
}

static sh_status probe(const sh_image_source *source, sh_image_info *out)
{
    sh_status st = SH_OK;
    pnm_header h = {0};

    SH_TRY(read_header(source, &h));
    *out = describe(&h);
out:
    return st;
}

static sh_status decode(const sh_image_source *source, int channels, int min_width, int min_height,
                        sh_image_info *info, sh_image *image)
{
    sh_status st = SH_OK;
    pnm_header h = {0};

    (void)channels;
    (void)min_width;
    (void)min_height;
    SH_TRY(read_header(source, &h));
    *info = describe(&h);
    size_t n = (size_t)h.width * h.height * (size_t)h.channels;

    /* Even plain samples take a digit and a space (the last one no space). */
    SH_CHECK(source->n_bytes - h.at >= (h.plain ? 2 * n - 1 : n), SH_ERR_FORMAT,
             "%s is truncated: %zu bytes of pixels, %zu expected; copy it again", source->label,
             source->n_bytes - h.at, n);
    SH_TRY(sh_image_reserve(image, info->width, info->height, h.channels));
    if (!h.plain) memcpy(image->pixels, source->data + h.at, n);
    for (size_t i = 0; i < n && (h.plain || h.max_value != 255); i++) {
        uint32_t value = h.plain ? 0 : image->pixels[i];

        SH_CHECK(!h.plain || read_number(source, &h.at, &value), SH_ERR_FORMAT,
                 "%s is truncated: %zu of %zu samples; copy it again", source->label, i, n);
        SH_CHECK(value <= h.max_value, SH_ERR_FORMAT,
                 "%s is damaged: a sample of %u where %u is the maximum", source->label, value,
                 h.max_value);
        image->pixels[i] = (uint8_t)((value * 255 + h.max_value / 2) / h.max_value);
    }
out:
    return st;
}

const sh_image_codec sh_image_pnm_codec = {
    .format = SH_IMAGE_PNM,
    .matches = matches,
    .probe = probe,
    .decode = decode,
};
