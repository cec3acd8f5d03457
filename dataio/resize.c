// SPDX-License-Identifier: Apache-2.0
#include "dataio/resize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dataio/simd.h"

static sh_status reserve(resize_axis *axis, size_t n_weights)
{
    sh_status st = SH_OK;

    if (n_weights <= axis->capacity) goto out;
    resize_axis_clear(axis);
    axis->weight = malloc(n_weights * sizeof(*axis->weight));
    axis->start = malloc(n_weights * sizeof(*axis->start));
    SH_CHECK(axis->weight != NULL && axis->start != NULL, SH_ERR_NO_MEMORY, "resize by %zu weights",
             n_weights);
    axis->capacity = n_weights;
out:
    return st;
}

static double triangle(int pixel, double centre, double radius)
{
    return fmax(0, 1 - fabs(pixel + 0.5 - centre) / radius);
}

sh_status resize_axis_plan(resize_axis *axis, int src_n, float lo, float hi, int n, int flip)
{
    sh_status st = SH_OK;
    double scale = ((double)hi - lo) / n;
    double radius = scale > 1 ? scale : 1;
    int taps = (int)ceil(radius) * 2 + 1;

    taps = taps < src_n ? taps : src_n;
    SH_TRY(reserve(axis, (size_t)taps * (size_t)n));
    axis->n = n;
    axis->taps = 1;
    memset(axis->weight, 0, (size_t)taps * (size_t)n * sizeof(*axis->weight));
    for (int i = 0; i < n; i++) {
        int out_i = flip ? n - 1 - i : i;
        double centre = lo + (i + 0.5) * scale, sum = 0;
        int first = (int)fmax(0, floor(centre - radius + 0.5));
        int end = (int)fmin(src_n, floor(centre + radius + 0.5));

        /* Pixels at the triangle's very ends weigh nothing. */
        while (first < end - 1 && triangle(first, centre, radius) == 0) first++;
        while (end - 1 > first && triangle(end - 1, centre, radius) == 0) end--;
        for (int k = first; k < end; k++) sum += triangle(k, centre, radius);
        for (int k = first; k < end; k++)
            axis->weight[(size_t)(k - first) * (size_t)n + (size_t)out_i] =
                (float)(triangle(k, centre, radius) / sum);
        axis->start[out_i] = first;
        if (end - first > axis->taps) axis->taps = end - first;
    }
out:
    return st;
}

void resize_axis_clear(resize_axis *axis)
{
    free(axis->start);
    free(axis->weight);
    *axis = (resize_axis){0};
}

SH_SIMD_CLONES
static void set_scaled(float *restrict sum, const uint8_t *restrict row, float weight, size_t n)
{
    for (size_t i = 0; i < n; i++) sum[i] = weight * (float)row[i];
}

SH_SIMD_CLONES
static void add_scaled(float *restrict sum, const uint8_t *restrict row, float weight, size_t n)
{
    for (size_t i = 0; i < n; i++) sum[i] += weight * (float)row[i];
}

SH_SIMD_CLONES
static void split_planes(const float *restrict line, float *restrict planes, size_t stride,
                         size_t n)
{
    float *red = planes, *green = planes + stride, *blue = planes + 2 * stride;

    for (size_t i = 0; i < n; i++) {
        red[i] = line[3 * i];
        green[i] = line[3 * i + 1];
        blue[i] = line[3 * i + 2];
    }
}

SH_SIMD_CLONES
static void gather_row(const float *restrict line, const int *restrict start,
                       const float *restrict weight, int taps, int n, float *restrict out)
{
    for (int i = 0; i < n; i++) out[i] = weight[i] * line[start[i]];
    for (int k = 1; k < taps; k++)
        for (int i = 0; i < n; i++)
            out[i] += weight[(size_t)k * (size_t)n + i] * line[start[i] + k];
}

void resize_row(const sh_image *image, const resize_axis *x, const resize_axis *y_axis, int y,
                float *line, float *planes, size_t stride)
{
    size_t row_bytes = (size_t)image->width * (size_t)image->channels;
    size_t plane = SH_SIMD_ROUND_UP(image->width + x->taps);
    float *split = line + 3 * plane;
    int first = 1;

    for (int k = 0; k < y_axis->taps; k++) {
        float weight = y_axis->weight[(size_t)k * (size_t)y_axis->n + y] / 255;
        const uint8_t *row = image->pixels + (size_t)(y_axis->start[y] + k) * row_bytes;

        if (weight == 0) continue;
        if (first)
            set_scaled(line, row, weight, row_bytes);
        else
            add_scaled(line, row, weight, row_bytes);
        first = 0;
    }
    if (image->channels == 3)
        split_planes(line, split, plane, (size_t)image->width);
    else
        memcpy(split, line, row_bytes * sizeof(*line));
    for (int c = 0; c < image->channels; c++) {
        /* Windows at the right border may name columns beyond it, with weight 0. */
        memset(split + (size_t)c * plane + image->width, 0, (size_t)x->taps * sizeof(*split));
        gather_row(split + (size_t)c * plane, x->start, x->weight, x->taps, x->n,
                   planes + (size_t)c * stride);
    }
}
