// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>

#include <jpeglib.h>
#include <png.h>

#include "tests/dataio/pack_fixture.h"

typedef struct bytes {
    uint8_t *data;
    size_t n;
} bytes;

static bytes encode(int width, int height, int channels, sh_image_format format)
{
    sh_image image = {0};
    bytes out = {0};

    fill_image(&image, width, height, channels, 1);
    must(sh_image_encode(&image, format, 92, &out.data, &out.n));
    sh_image_clear(&image);
    return out;
}

static void png__gives_back_every_pixel(void **state)
{
    sh_image image = {0}, again = {0};
    bytes b = {0};

    (void)state;
    for (int channels = 1; channels <= 3; channels += 2) {
        fill_image(&image, 31, 17, channels, 3);
        must(sh_image_encode(&image, SH_IMAGE_PNG, 0, &b.data, &b.n));
        must(sh_image_decode(b.data, b.n, "a.png", 0, 0, 0, &again));
        assert_int_equal(again.width, 31);
        assert_int_equal(again.height, 17);
        assert_int_equal(again.channels, channels);
        assert_memory_equal(again.pixels, image.pixels, (size_t)(31 * 17 * channels));
        free(b.data);
    }
    sh_image_clear(&image);
    sh_image_clear(&again);
}

static void jpeg__stays_close_to_a_smooth_image(void **state)
{
    sh_image image = {0}, again = {0};
    bytes b = {0};
    int worst = 0;

    (void)state;
    fill_image(&image, 64, 48, 3, 0);
    for (int i = 0; i < 64 * 48 * 3; i++) image.pixels[i] = (uint8_t)(i / 3 % 64 * 3 + i % 3 * 20);
    must(sh_image_encode(&image, SH_IMAGE_JPEG, 95, &b.data, &b.n));
    must(sh_image_decode(b.data, b.n, "a.jpg", 3, 0, 0, &again));
    for (int i = 0; i < 64 * 48 * 3; i++)
        worst = abs(again.pixels[i] - image.pixels[i]) > worst
                    ? abs(again.pixels[i] - image.pixels[i])
                    : worst;
    assert_in_range(worst, 0, 8);
    free(b.data);
    sh_image_clear(&image);
    sh_image_clear(&again);
}

static void pnm__reads_binary_plain_and_short_ranges(void **state)
{
    static const struct {
        const char *text;
        size_t n;
        int channels;
        uint8_t pixels[6];
    } cases[] = {
        {"P5\n2 1\n255\n\x05\xff", 13, 1, {5, 255}},
        {"P2\n# plain\n2 1 255\n5 255\n", 24, 1, {5, 255}},
        {"P2 2 1 255 5 255", 16, 1, {5, 255}},
        {"P6 1 2 255 abcdef", 17, 3, {'a', 'b', 'c', 'd', 'e', 'f'}},
        {"P3 1 1 15 0 15 5\n", 17, 3, {0, 255, 85}},
        {"P5 2 1 1 \x00\x01", 11, 1, {0, 255}},
    };
    sh_image image = {0};

    (void)state;
    for (size_t i = 0; i < SH_COUNT(cases); i++) {
        must(sh_image_decode(cases[i].text, cases[i].n, "a.pgm", 0, 0, 0, &image));
        assert_int_equal(image.channels, cases[i].channels);
        assert_memory_equal(image.pixels, cases[i].pixels,
                            (size_t)(image.width * image.height * image.channels));
    }
    sh_image_clear(&image);
}

static void decode__converts_between_grey_and_colour(void **state)
{
    sh_image image = {0};

    (void)state;
    must(sh_image_decode("P5 1 1 255 A", 12, "a.pgm", 3, 0, 0, &image));
    assert_int_equal(image.channels, 3);
    assert_memory_equal(image.pixels, "AAA", 3);
    must(sh_image_decode("P6 1 1 255 \xff\x00\x00", 14, "a.ppm", 1, 0, 0, &image));
    assert_int_equal(image.channels, 1);
    assert_int_equal(image.pixels[0], 76); /* 0.299 * 255 */
    sh_image_clear(&image);
}

/* A 4-bit palette and a 1-bit grey PNG, a grey PNG with alpha: written by libpng itself. */
static bytes write_png(int colour, int depth, const uint8_t *rows, size_t row_bytes, int width,
                       int height)
{
    static png_color palette[] = {{10, 20, 30}, {200, 100, 50}};
    bytes b = {0};
    FILE *file = open_memstream((char **)&b.data, &b.n);
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);

    assert_non_null(file);
    png_init_io(png, file);
    png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, depth, colour,
                 PNG_INTERLACE_ADAM7, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (colour == PNG_COLOR_TYPE_PALETTE) png_set_PLTE(png, info, palette, 2);
    png_write_info(png, info);
    png_set_interlace_handling(png);
    for (int pass = 0; pass < 7; pass++)
        for (int y = 0; y < height; y++) png_write_row(png, rows + (size_t)y * row_bytes);
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    fclose(file);
    return b;
}

static void png__expands_palettes_and_short_grey_and_drops_alpha(void **state)
{
    static const uint8_t palette_rows[] = {0x01, 0x10}, grey_rows[] = {0x40, 0x80};
    static const uint8_t alpha_rows[] = {7, 0, 9, 255};
    sh_image image = {0};
    bytes b;

    (void)state;
    b = write_png(PNG_COLOR_TYPE_PALETTE, 4, palette_rows, 1, 2, 2);
    must(sh_image_decode(b.data, b.n, "p.png", 0, 0, 0, &image));
    assert_int_equal(image.channels, 3);
    assert_memory_equal(image.pixels, "\x0a\x14\x1e\xc8\x64\x32\xc8\x64\x32\x0a\x14\x1e", 12);
    free(b.data);
    b = write_png(PNG_COLOR_TYPE_GRAY, 1, grey_rows, 1, 2, 2);
    must(sh_image_decode(b.data, b.n, "g.png", 0, 0, 0, &image));
    assert_int_equal(image.channels, 1);
    assert_memory_equal(image.pixels, "\x00\xff\xff\x00", 4);
    free(b.data);
    b = write_png(PNG_COLOR_TYPE_GRAY_ALPHA, 8, alpha_rows, 2, 1, 2);
    must(sh_image_decode(b.data, b.n, "a.png", 0, 0, 0, &image));
    assert_int_equal(image.channels, 1);
    assert_memory_equal(image.pixels, "\x07\x09", 2);
    free(b.data);
    sh_image_clear(&image);
}

/* A JPEG, 48 x 32, whose top left 16 x 16 is white, with an EXIF block of this orientation. */
static bytes oriented_jpeg(int orientation, bool big_endian)
{
    uint8_t exif[] = {0xFF, 0xE1, 0,    34, 'E', 'x', 'i', 'f', 0, 0, 'I', 'I', 42, 0, 8, 0, 0, 0,
                      1,    0,    0x12, 1,  3,   0,   1,   0,   0, 0, 0,   0,   0,  0, 0, 0, 0, 0};
    static const uint8_t big[] = {'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1};
    sh_image image = {0};
    bytes plain = {0}, out = {0};

    fill_image(&image, 48, 32, 3, 0);
    memset(image.pixels, 0, image.capacity);
    for (int y = 0; y < 16; y++) memset(image.pixels + y * 48 * 3, 255, 16 * 3);
    must(sh_image_encode(&image, SH_IMAGE_JPEG, 95, &plain.data, &plain.n));
    exif[28] = (uint8_t)orientation;
    if (big_endian) {
        memcpy(exif + 10, big, sizeof(big));
        exif[28] = 0;
        exif[29] = (uint8_t)orientation;
    }
    out.n = plain.n + sizeof(exif);
    out.data = malloc(out.n);
    assert_non_null(out.data);
    memcpy(out.data, plain.data, 2);
    memcpy(out.data + 2, exif, sizeof(exif));
    memcpy(out.data + 2 + sizeof(exif), plain.data + 2, plain.n - 2);
    free(plain.data);
    sh_image_clear(&image);
    return out;
}

static void exif_orientation__is_applied(void **state)
{
    /* Where the stored top left corner is to be seen: right, bottom; and is the image turned? */
    static const struct {
        bool right, bottom, turned;
    } expected[9] = {[1] = {0, 0, 0}, [2] = {1, 0, 0}, [3] = {1, 1, 0}, [4] = {0, 1, 0},
                     [5] = {0, 0, 1}, [6] = {1, 0, 1}, [7] = {1, 1, 1}, [8] = {0, 1, 1}};
    sh_image image = {0};

    (void)state;
    for (int o = 1; o <= 8; o++)
        for (int big = 0; big < 2; big++) {
            bytes b = oriented_jpeg(o, big);
            sh_image_info info;

            must(sh_image_probe(b.data, b.n, "o.jpg", &info));
            assert_int_equal(info.orientation, o);
            must(sh_image_decode(b.data, b.n, "o.jpg", 1, 0, 0, &image));
            assert_int_equal(image.width, expected[o].turned ? 32 : 48);
            assert_int_equal(image.height, expected[o].turned ? 48 : 32);
            for (int corner = 0; corner < 4; corner++) {
                int x = corner & 1 ? image.width - 5 : 4, y = corner & 2 ? image.height - 5 : 4;
                bool here = (corner & 1) == expected[o].right && corner >> 1 == expected[o].bottom;

                assert_int_equal(image.pixels[y * image.width + x] > 128, here);
            }
            /* Scaled decoding counts in the turned image: 20 x 10 fits a half of 48 x 32 only. */
            must(sh_image_decode(b.data, b.n, "o.jpg", 1, 10, 20, &image));
            assert_int_equal(image.width, expected[o].turned ? 16 : 48);
            free(b.data);
        }
    sh_image_clear(&image);
}

static void jpeg__is_decoded_at_the_smallest_size_that_will_do(void **state)
{
    static const struct {
        int min_width, min_height, width, height;
    } cases[] = {{0, 0, 321, 240},     {300, 10, 321, 240},  {160, 120, 161, 120},
                 {161, 120, 161, 120}, {162, 120, 321, 240}, {80, 60, 81, 60},
                 {1, 1, 41, 30}};
    sh_image image = {0};
    bytes b = encode(321, 240, 3, SH_IMAGE_JPEG);

    (void)state;
    for (size_t i = 0; i < SH_COUNT(cases); i++) {
        must(sh_image_decode(b.data, b.n, "s.jpg", 3, cases[i].min_width, cases[i].min_height,
                             &image));
        assert_int_equal(image.width, cases[i].width);
        assert_int_equal(image.height, cases[i].height);
    }
    free(b.data);
    sh_image_clear(&image);
}

static void every_truncation__is_an_error(void **state)
{
    static const sh_image_format formats[] = {SH_IMAGE_JPEG, SH_IMAGE_PNG};
    sh_image image = {0};

    (void)state;
    for (size_t f = 0; f < SH_COUNT(formats); f++) {
        bytes b = encode(33, 29, 3, formats[f]);

        must(sh_image_decode(b.data, b.n, "whole", 0, 0, 0, &image));
        for (size_t n = 0; n < b.n; n++) {
            uint8_t *cut = malloc(n + 1); /* its own block, so that reading beyond shows */
            sh_status st;

            assert_non_null(cut);
            memcpy(cut, b.data, n);
            st = sh_image_decode(cut, n, "cut", 0, 0, 0, &image);
            /* A JPEG without its two closing bytes lacks no pixel, but is not whole. */
            if (st == SH_OK) fail_msg("%zu of %zu bytes were taken for an image", n, b.n);
            assert_int_equal(st, SH_ERR_FORMAT);
            free(cut);
        }
        free(b.data);
    }
    sh_image_clear(&image);
}

static bytes cmyk_jpeg(void)
{
    struct jpeg_compress_struct c = {0};
    struct jpeg_error_mgr err;
    bytes b = {0};
    unsigned long n = 0;
    uint8_t row[16 * 4] = {0};
    JSAMPROW rows = row;

    c.err = jpeg_std_error(&err);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &b.data, &n);
    c.image_width = c.image_height = 16;
    c.input_components = 4;
    c.in_color_space = JCS_CMYK;
    jpeg_set_defaults(&c);
    jpeg_start_compress(&c, TRUE);
    while (c.next_scanline < 16) jpeg_write_scanlines(&c, &rows, 1);
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    b.n = n;
    return b;
}

static bytes from_text(const char *text, size_t n)
{
    bytes b = {malloc(n + 1), n};

    assert_non_null(b.data);
    memcpy(b.data, text, n);
    return b;
}

static bytes huge_png(void)
{
    bytes b = encode(8, 8, 3, SH_IMAGE_PNG);

    b.data[18] = 0x4E; /* width 19976 + 8, the checksum left wrong */
    return b;
}

static bytes sixteen_bit_png(void)
{
    static const uint8_t rows[4] = {1, 2, 3, 4};

    return write_png(PNG_COLOR_TYPE_GRAY, 16, rows, 2, 1, 2);
}

static bytes damaged_png(void)
{
    bytes b = encode(40, 40, 3, SH_IMAGE_PNG);

    b.data[b.n / 2] ^= 0x10;
    return b;
}

static bytes damaged_jpeg(void)
{
    bytes b = encode(120, 120, 3, SH_IMAGE_JPEG);

    memset(b.data + b.n / 2, 0xFF, 64);
    return b;
}

static void bad_images__are_refused_with_reason_and_name(void **state)
{
#define TEXT(t) from_text(t, sizeof(t) - 1)
    const struct {
        bytes b;
        sh_status status;
        const char *word;
    } cases[] = {
        {from_text("", 0), SH_ERR_FORMAT, "empty"},
        {TEXT("hello"), SH_ERR_FORMAT, "not an image"},
        {TEXT("II*\0\x08\0\0\0"), SH_ERR_UNSUPPORTED, "TIFF"},
        {TEXT("\0\0\0\x18"
              "ftypheic\0\0\0\0"),
         SH_ERR_UNSUPPORTED, "HEIC"},
        {TEXT("\0\0\0\x18"
              "ftypmif1\0\0\0\0"),
         SH_ERR_UNSUPPORTED, "HEIC"},
        {TEXT("GIF89a\1\0\1\0"), SH_ERR_UNSUPPORTED, "GIF"},
        {TEXT("BM\x36\0\0\0\0\0"), SH_ERR_UNSUPPORTED, "BMP"},
        {TEXT("RIFF\0\0\0\0WEBPVP8 "), SH_ERR_UNSUPPORTED, "WebP"},
        {TEXT("P4 8 1 \0"), SH_ERR_UNSUPPORTED, "bitmap"},
        {TEXT("P5 1 0 255 "), SH_ERR_FORMAT, "no pixels"},
        {TEXT("P5 0 1 255 "), SH_ERR_FORMAT, "no pixels"},
        {TEXT("P5 1 1 65535 ab"), SH_ERR_UNSUPPORTED, "16-bit"},
        {TEXT("P5 2 2 255 abc"), SH_ERR_FORMAT, "truncated"},
        {TEXT("P2 2 2 255 1 2 3 "), SH_ERR_FORMAT, "truncated"},
        {TEXT("P2 1 1 9 10"), SH_ERR_FORMAT, "maximum"},
        {TEXT("P5 20000 1 255 a"), SH_ERR_UNSUPPORTED, "huge"},
        {TEXT("P5 99999999999 1 255 a"), SH_ERR_FORMAT, "header"},
        {TEXT("\377\330\377\331"), SH_ERR_FORMAT, "damaged"},
        {cmyk_jpeg(), SH_ERR_UNSUPPORTED, "CMYK"},
        {sixteen_bit_png(), SH_ERR_UNSUPPORTED, "16-bit"},
        {huge_png(), SH_ERR_UNSUPPORTED, "huge"},
        {damaged_png(), SH_ERR_FORMAT, "damaged"},
        {damaged_jpeg(), SH_ERR_FORMAT, "damaged"},
    };
#undef TEXT
    sh_image image = {0};

    (void)state;
    for (size_t i = 0; i < SH_COUNT(cases); i++) {
        sh_status st =
            sh_image_decode(cases[i].b.data, cases[i].b.n, "dir/fish7.jpg", 0, 0, 0, &image);

        assert_failed(st, cases[i].status, cases[i].word);
        assert_non_null(strstr(sh_error_message(), "dir/fish7.jpg"));
        free(cases[i].b.data);
    }
    sh_image_clear(&image);
}

static void hash__tells_pixels_and_shapes_apart(void **state)
{
    sh_image a = {0}, b = {0};

    (void)state;
    fill_image(&a, 6, 4, 1, 2);
    fill_image(&b, 4, 6, 1, 2);
    sh_hash128 x = sh_image_hash(&a), y = sh_image_hash(&b);

    assert_false(x.hi == y.hi && x.lo == y.lo);
    fill_image(&b, 6, 4, 1, 2);
    y = sh_image_hash(&b);
    assert_true(x.hi == y.hi && x.lo == y.lo);
    b.pixels[5]++;
    y = sh_image_hash(&b);
    assert_false(x.hi == y.hi && x.lo == y.lo);
    sh_image_clear(&a);
    sh_image_clear(&b);
}

static void resize__keeps_constants_and_means(void **state)
{
    static const int sizes[][2] = {{1, 1}, {7, 3}, {40, 90}, {200, 2}};
    sh_image image = {0}, out = {0};

    (void)state;
    for (size_t i = 0; i < SH_COUNT(sizes); i++) {
        fill_image(&image, 37, 23, 3, 0);
        memset(image.pixels, 77, image.capacity);
        must(sh_image_resize(&image, sizes[i][0], sizes[i][1], &out));
        assert_int_equal(out.width, sizes[i][0]);
        assert_int_equal(out.height, sizes[i][1]);
        for (int k = 0; k < out.width * out.height * 3; k++) assert_int_equal(out.pixels[k], 77);
    }
    /* A ramp halved: the mean stays, and each pixel is the ramp at its centre. */
    fill_image(&image, 64, 1, 1, 0);
    for (int x = 0; x < 64; x++) image.pixels[x] = (uint8_t)(3 * x);
    must(sh_image_resize(&image, 32, 1, &out));
    for (int x = 2; x < 30; x++) assert_in_range(out.pixels[x], 6 * x + 1, 6 * x + 2);
    sh_image_clear(&image);
    sh_image_clear(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(png__gives_back_every_pixel),
        cmocka_unit_test(jpeg__stays_close_to_a_smooth_image),
        cmocka_unit_test(pnm__reads_binary_plain_and_short_ranges),
        cmocka_unit_test(decode__converts_between_grey_and_colour),
        cmocka_unit_test(png__expands_palettes_and_short_grey_and_drops_alpha),
        cmocka_unit_test(exif_orientation__is_applied),
        cmocka_unit_test(jpeg__is_decoded_at_the_smallest_size_that_will_do),
        cmocka_unit_test(every_truncation__is_an_error),
        cmocka_unit_test(bad_images__are_refused_with_reason_and_name),
        cmocka_unit_test(hash__tells_pixels_and_shapes_apart),
        cmocka_unit_test(resize__keeps_constants_and_means),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
