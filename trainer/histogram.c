// SPDX-License-Identifier: Apache-2.0
#include "trainer/histogram.h"

#include <math.h>
#include <string.h>

enum { CELLS = 8, MIN_SIDE = 64 };

static int cell_of(float v)
{
    int cell = (int)(v * CELLS);

    return cell < CELLS ? cell : CELLS - 1;
}

/* Hue, saturation and value in [0, 1] (Smith 1978). */
static int hsv_cell(const uint8_t *p)
{
    float r = (float)p[0] / 255, g = (float)p[1] / 255, b = (float)p[2] / 255;
    float value = fmaxf(r, fmaxf(g, b)), chroma = value - fminf(r, fminf(g, b));
    float hue = 0;

    if (chroma > 0) {
        if (value == r)
            hue = (g - b) / chroma;
        else if (value == g)
            hue = (b - r) / chroma + 2;
        else
            hue = (r - g) / chroma + 4;
        if (hue < 0) hue += 6;
    }
    return (cell_of(hue / 6) * CELLS + cell_of(value > 0 ? chroma / value : 0)) * CELLS +
           cell_of(value);
}

void sh_histogram_image(const sh_image *image, float *out)
{
    int64_t counts[SH_HISTOGRAM_DIM] = {0};
    int64_t n = (int64_t)image->width * image->height;

    for (int64_t i = 0; i < n; i++) {
        const uint8_t *p = image->pixels + i * image->channels;
        const uint8_t grey[3] = {p[0], p[0], p[0]};

        counts[hsv_cell(image->channels == 3 ? p : grey)]++;
    }
    for (int k = 0; k < SH_HISTOGRAM_DIM; k++)
        out[k] = n > 0 ? (float)sqrt((double)counts[k] / (double)n) : 0;
}

sh_status sh_histogram_crops(const sh_dataset *dataset, const int64_t *crops, int64_t n, float *out)
{
    sh_status st = SH_OK;
    int64_t failed = -1;

#pragma omp parallel
    {
        sh_image image = {0};

#pragma omp for schedule(dynamic, 16)
        for (int64_t i = 0; i < n; i++) {
            if (sh_dataset_decode(dataset, crops[i], 3, MIN_SIDE, MIN_SIDE, &image) == SH_OK) {
                sh_histogram_image(&image, out + i * SH_HISTOGRAM_DIM);
                continue;
            }
#pragma omp critical
            failed = i;
        }
        sh_image_clear(&image);
    }
    /* the message waits in the thread that failed: ask again here, where the caller is */
    if (failed >= 0) {
        sh_image image = {0};

        st = sh_dataset_decode(dataset, crops[failed], 3, MIN_SIDE, MIN_SIDE, &image);
        sh_image_clear(&image);
    }
    return st;
}
