// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"
#include "dataio/augment.h"
#include "dataio/image_codec.h"

/* Thresholds of what is worth a line: see sh_fit_counts. */
static const float MUCH = 0.25f, ASPECT = 4.0f / 3.0f;

static int64_t decoded_bytes(const sh_loader_config *config, const sh_crop *crop)
{
    int min_width, min_height, d = 1;

    sh_loader_decode_size(config, crop->width, crop->height, &min_width, &min_height);
    if (crop->format == SH_IMAGE_JPEG)
        d = sh_jpeg_denominator(crop->width, crop->height, min_width, min_height);
    return (int64_t)((crop->width + d - 1) / d) * ((crop->height + d - 1) / d) * config->channels;
}

static void count_crop(const sh_loader_config *config, const sh_crop *crop, sh_fit_counts *out)
{
    float scale_x, scale_y;
    int width = crop->width, height = crop->height;

    augment_fit_scale(config, width, height, &scale_x, &scale_y);
    float filled_x = (float)width * scale_x / (float)config->width;
    float filled_y = (float)height * scale_y / (float)config->height;
    float area = filled_x * filled_y; /* below 1: padding; above: cut off */
    float aspect = scale_x > scale_y ? scale_x / scale_y : scale_y / scale_x;

    out->n_crops++;
    out->n_bytes += decoded_bytes(config, crop);
    out->n_enlarged += scale_x > 1 || scale_y > 1;
    out->n_padded += area < 1 - MUCH;
    out->n_cut += 1 / area < 1 - MUCH;
    out->n_distorted += aspect > ASPECT;
}

void sh_loader_fit_part(const sh_loader_config *config, const sh_dataset *dataset, sh_part part,
                        sh_split *split, sh_fit_counts *out)
{
    static const char *const fit_name[] = {"letterbox", "stretch", "cover"};
    static const char *const much[] = {"padded by more than a quarter", "distorted beyond 4:3",
                                       "cut by more than a quarter"};

    *out = (sh_fit_counts){0};
    for (int64_t i = 0; i < split->n; i++) {
        const sh_crop *crop = sh_dataset_crop(dataset, i);
        int shorter = crop->width < crop->height ? crop->width : crop->height;

        if (split->part[i] != part) continue;
        if (shorter < config->min_side) {
            out->n_small++;
            split->part[i] = SH_PART_NONE;
        } else {
            count_crop(config, crop, out);
        }
    }
    int64_t n_much[] = {out->n_padded, out->n_distorted, out->n_cut};

    sh_log_info(
        "%s: %lld crops to %d x %d, fit %s: %lld enlarged, %lld %s; %lld left out with a side "
        "under min_side %d",
        sh_part_name(part), (long long)out->n_crops, config->height, config->width,
        fit_name[config->fit], (long long)out->n_enlarged, (long long)n_much[config->fit],
        much[config->fit], (long long)out->n_small, config->min_side);
}
