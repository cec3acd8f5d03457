// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dataio/image_codec.h"

sh_hash128 sh_image_hash(const sh_image *image)
{
    size_t n = (size_t)image->width * (size_t)image->height * (size_t)image->channels;
    sh_hash128 pixels = sh_hash_content(image->pixels, n);
    uint64_t all[5] = {(uint64_t)image->width, (uint64_t)image->height, (uint64_t)image->channels,
                       pixels.hi, pixels.lo};

    return sh_hash_content(all, sizeof(all));
}

sh_status sh_image_cut(const sh_image *image, int x, int y, int width, int height, sh_image *out)
{
    sh_status st = SH_OK;
    size_t c = (size_t)image->channels;

    SH_CHECK(x >= 0 && y >= 0 && width > 0 && height > 0 && width <= image->width - x &&
                 height <= image->height - y,
             SH_ERR_USAGE, "a box of %d x %d at (%d, %d) lies outside an image of %d x %d", width,
             height, x, y, image->width, image->height);
    SH_TRY(sh_image_reserve(out, width, height, image->channels));
    for (int row = 0; row < height; row++)
        memcpy(out->pixels + (size_t)row * (size_t)width * c,
               image->pixels + ((size_t)(y + row) * (size_t)image->width + (size_t)x) * c,
               (size_t)width * c);
out:
    return st;
}

/* Weights of the input samples that one output sample is made of: first, first + 1, ... */
typedef struct taps {
    int *first;
    float *weights; /* [n_out, n_taps], each row sums to 1 */
    int n_taps;
} taps;

/* A triangle that is as wide as two output samples, or two input samples where those are larger. */
static sh_status make_taps(int n_in, int n_out, taps *out)
{
    sh_status st = SH_OK;
    double scale = (double)n_in / n_out, radius = scale > 1 ? scale : 1;

    out->n_taps = (int)ceil(2 * radius) + 1;
    if (out->n_taps > n_in) out->n_taps = n_in;
    out->first = malloc((size_t)n_out * sizeof(*out->first));
    out->weights = calloc((size_t)n_out * (size_t)out->n_taps, sizeof(*out->weights));
    SH_CHECK(out->first != NULL && out->weights != NULL, SH_ERR_NO_MEMORY, "scaling %d to %d", n_in,
             n_out);
    for (int i = 0; i < n_out; i++) {
        double centre = (i + 0.5) * scale - 0.5, sum = 0;
        int first = (int)ceil(centre - radius);
        float *weights = out->weights + (size_t)i * (size_t)out->n_taps;

        if (first > n_in - out->n_taps) first = n_in - out->n_taps;
        if (first < 0) first = 0;
        for (int k = 0; k < out->n_taps; k++) {
            double w = 1 - fabs(first + k - centre) / radius;

            weights[k] = w > 0 ? (float)w : 0;
            sum += weights[k];
        }
        for (int k = 0; k < out->n_taps; k++) weights[k] = (float)(weights[k] / sum);
        out->first[i] = first;
    }
out:
    return st;
}

/* One row of the input, scaled to the output's width. */
static void scale_row(const taps *t, const uint8_t *in, int n_out, int channels, float *out)
{
    for (int x = 0; x < n_out; x++)
        for (int c = 0; c < channels; c++) {
            float sum = 0;

            for (int k = 0; k < t->n_taps; k++)
                sum += t->weights[x * t->n_taps + k] * in[(t->first[x] + k) * channels + c];
            out[x * channels + c] = sum;
        }
}

sh_status sh_image_resize(const sh_image *image, int width, int height, sh_image *out)
{
    sh_status st = SH_OK;
    taps across = {0}, down = {0};
    size_t row_in = (size_t)image->width * (size_t)image->channels;
    size_t row_out = (size_t)width * (size_t)image->channels;
    float *rows = malloc((size_t)image->height * row_out * sizeof(*rows));

    SH_CHECK(rows != NULL, SH_ERR_NO_MEMORY, "scaling an image to %d x %d", width, height);
    SH_TRY(make_taps(image->width, width, &across));
    SH_TRY(make_taps(image->height, height, &down));
    SH_TRY(sh_image_reserve(out, width, height, image->channels));
    for (int y = 0; y < image->height; y++)
        scale_row(&across, image->pixels + (size_t)y * row_in, width, image->channels,
                  rows + (size_t)y * row_out);
    for (int y = 0; y < height; y++)
        for (size_t i = 0; i < row_out; i++) {
            float sum = 0;

            for (int k = 0; k < down.n_taps; k++)
                sum += down.weights[y * down.n_taps + k] *
                       rows[(size_t)(down.first[y] + k) * row_out + i];
            out->pixels[(size_t)y * row_out + i] = (uint8_t)(sum + 0.5F);
        }
out:
    free(across.first);
    free(across.weights);
    free(down.first);
    free(down.weights);
    free(rows);
    return st;
}
