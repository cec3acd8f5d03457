// SPDX-License-Identifier: Apache-2.0
/* `shoal bench data`: reading and decoding against bare libjpeg-turbo on the same bytes in memory,
 * then the whole pipeline with the default augmentation, stage by stage. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include "base/cli.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"
#include "dataio/synth.h"
#include "trainer/bench_nodes.h"
#include "trainer/commands.h"
#include "trainer/config.h"
#include "trainer/feed.h"

enum {
    N_PAIRS = 20,
    /* Order statistics 6 and 15 of 20 hold the median with probability 0.959. */
    INTERVAL_LOW = 5,
    INTERVAL_HIGH = 14,
    GROUP = 16, /* crops timed at a stretch */
    MAX_CROPS = 4096,
    PATH_BYTES = 4096,
    DEVICE_BLOCK = 128, /* images rendered at once */
    DEVICE_BLOCKS = 3,
};

typedef struct bench {
    int64_t size, threads, n_crops;
    const char *data, *device_name;
    const sh_backend *device; /* NULL: images stay with the host */
    bool json;
    sh_dataset *dataset;
    sh_slot_plan *slots; /* [n_crops] the crops to load, drawn at random */
    uint8_t **bytes;     /* [n_crops] of the encoded image, in memory */
    size_t *n_bytes;
    double mean_bytes, mean_pixels;
    sh_image image;
    uint8_t *scratch;
    size_t scratch_bytes;
} bench;

typedef struct result {
    double bare_per_second, ours_per_second; /* crops per second and core */
    double ratio, ratio_low, ratio_high;
    double core_per_second, wall_per_second, cached_per_second, device_per_second;
    sh_loader_stats stats;
} result;

/* A pack of synthetic fish, open and already without a name. */
static sh_status open_synthetic(bench *b, int threads)
{
    sh_status st = SH_OK;
    const char *base = getenv("TMPDIR");
    char folder[PATH_BYTES / 2], path[PATH_BYTES];
    const char *paths[] = {path};
    bool made = false;
    sh_synth_config config = {.individuals = 40,
                              .images = 16,
                              .recordings = 8,
                              .width = 256,
                              .height = 128,
                              .threads = threads,
                              .seed = 1};

    snprintf(folder, sizeof(folder), "%s/shoal-bench-XXXXXX", base != NULL ? base : "/tmp");
    made = mkdtemp(folder) != NULL;
    SH_CHECK(made, SH_ERR_IO, "cannot make a folder %s: set TMPDIR", folder);
    SH_TRY(sh_path_join(folder, "synth.h5", path, sizeof(path)));
    SH_TRY(sh_synth_write(&config, path, NULL));
    SH_TRY(sh_dataset_open(paths, 1, &b->dataset));
out:
    if (made) {
        sh_status removed = sh_file_remove_tree(folder);

        st = st == SH_OK ? removed : st;
    }
    return st;
}

/* Draw crops among the JPEGs and hold their bytes in memory. */
static sh_status choose_crops(bench *b)
{
    sh_status st = SH_OK;
    int64_t n_all = sh_dataset_n_crops(b->dataset), n_jpeg = 0;
    int64_t *order = calloc((size_t)n_all, sizeof(*order));
    sh_image_format format;

    SH_CHECK(order != NULL, SH_ERR_NO_MEMORY, "%lld crops", (long long)n_all);
    for (int64_t i = 0; i < n_all; i++)
        if (sh_dataset_crop(b->dataset, i)->format == SH_IMAGE_JPEG) order[n_jpeg++] = i;
    SH_CHECK(n_jpeg > 0, SH_ERR_USAGE,
             "the pack holds no JPEG: reading is measured against bare libjpeg-turbo");
    sh_rng_shuffle(sh_rng_make(1, SH_RNG_SAMPLE, 0, 0), order, n_jpeg);
    b->n_crops = n_jpeg < b->n_crops ? n_jpeg : b->n_crops;
    b->slots = calloc((size_t)b->n_crops, sizeof(*b->slots));
    b->bytes = calloc((size_t)b->n_crops, sizeof(*b->bytes));
    b->n_bytes = calloc((size_t)b->n_crops, sizeof(*b->n_bytes));
    SH_CHECK(b->slots && b->bytes && b->n_bytes, SH_ERR_NO_MEMORY, "%lld crops",
             (long long)b->n_crops);
    for (int64_t i = 0; i < b->n_crops; i++) {
        const sh_crop *crop = sh_dataset_crop(b->dataset, order[i]);
        size_t capacity = 0;

        b->slots[i] = (sh_slot_plan){.crop = order[i], .draw = (uint64_t)i};
        SH_TRY(sh_dataset_read(b->dataset, order[i], &b->bytes[i], &capacity, &b->n_bytes[i],
                               &format));
        b->mean_bytes += (double)b->n_bytes[i] / (double)b->n_crops;
        b->mean_pixels += (double)crop->width * crop->height / (double)b->n_crops;
    }
out:
    free(order);
    return st;
}

/* CPU seconds of libjpeg-turbo as a careful user would call it: one decompressor, one buffer,
 * nothing checked, the same RGB pixels of full size. */
static double time_bare(const bench *b, int64_t from, int64_t to, JSAMPLE *pixels)
{
    double start = sh_clock_thread_cpu_seconds();
    struct jpeg_decompress_struct c;
    struct jpeg_error_mgr error;

    c.err =
        jpeg_std_error(&error); /* exits on a damaged stream; all of these were decoded before */
    jpeg_create_decompress(&c);
    for (int64_t i = from; i < to; i++) {
        jpeg_mem_src(&c, b->bytes[i], b->n_bytes[i]);
        jpeg_read_header(&c, TRUE);
        c.out_color_space = JCS_RGB;
        jpeg_start_decompress(&c);
        while (c.output_scanline < c.output_height) {
            JSAMPROW rows[8];

            for (unsigned k = 0; k < 8; k++)
                rows[k] = pixels + (size_t)(c.output_scanline + k) * c.output_width * 3;
            jpeg_read_scanlines(&c, rows, 8);
        }
        jpeg_finish_decompress(&c);
    }
    jpeg_destroy_decompress(&c);
    return sh_clock_thread_cpu_seconds() - start;
}

static sh_status time_ours(bench *b, int64_t from, int64_t to, double *seconds)
{
    sh_status st = SH_OK;
    double start = sh_clock_thread_cpu_seconds();

    for (int64_t i = from; i < to; i++) {
        size_t n_bytes;
        sh_image_format format;

        SH_TRY(sh_dataset_read(b->dataset, b->slots[i].crop, &b->scratch, &b->scratch_bytes,
                               &n_bytes, &format));
        SH_TRY(sh_image_decode(b->scratch, n_bytes,
                               sh_dataset_crop(b->dataset, b->slots[i].crop)->name, 3, 0, 0,
                               &b->image));
    }
    *seconds = sh_clock_thread_cpu_seconds() - start;
out:
    return st;
}

/* One pair: all crops both ways, in turn by small groups, so that what else runs on the machine
 * hits both alike. The order within a group alternates, since the second finds warm caches. */
static sh_status time_pair(bench *b, int pair, JSAMPLE *pixels, double *bare, double *ours)
{
    sh_status st = SH_OK;

    *bare = *ours = 0;
    for (int64_t from = 0; from < b->n_crops; from += GROUP) {
        int64_t to = from + GROUP < b->n_crops ? from + GROUP : b->n_crops;
        bool ours_first = (from / GROUP + pair) % 2 == 0;
        double seconds;

        if (!ours_first) *bare += time_bare(b, from, to, pixels);
        SH_TRY(time_ours(b, from, to, &seconds));
        *ours += seconds;
        if (ours_first) *bare += time_bare(b, from, to, pixels);
    }
out:
    return st;
}

static sh_status compare_decoding(bench *b, result *r)
{
    sh_status st = SH_OK;
    size_t most_pixels = 0;
    JSAMPLE *pixels = NULL;
    double ratio[N_PAIRS], bare_best = 0, ours_best = 0;

    for (int64_t i = 0; i < b->n_crops; i++) {
        const sh_crop *crop = sh_dataset_crop(b->dataset, b->slots[i].crop);
        size_t n = (size_t)crop->width * ((size_t)crop->height + 8) +
                   (size_t)crop->height * ((size_t)crop->width + 8); /* turned or not */

        most_pixels = n > most_pixels ? n : most_pixels;
    }
    pixels = malloc(3 * most_pixels);
    SH_CHECK(pixels != NULL, SH_ERR_NO_MEMORY, "%zu pixels", most_pixels);
    /* Warm up, and find damage here: time_bare would end the program at it. */
    SH_TRY(time_ours(b, 0, b->n_crops, &ours_best));
    for (int i = 0; i < N_PAIRS; i++) {
        double bare, ours;

        SH_TRY(time_pair(b, i, pixels, &bare, &ours));
        ratio[i] = bare / ours;
        bare_best = i == 0 || bare < bare_best ? bare : bare_best;
        ours_best = i == 0 || ours < ours_best ? ours : ours_best;
    }
    r->ratio = sh_bench_median(ratio, N_PAIRS); /* orders them */
    r->ratio_low = ratio[INTERVAL_LOW];
    r->ratio_high = ratio[INTERVAL_HIGH];
    r->bare_per_second = (double)b->n_crops / bare_best;
    r->ours_per_second = (double)b->n_crops / ours_best;
out:
    free(pixels);
    return st;
}

/* As training makes it, with every option at its default but the size. */
static sh_status make_loader_config(const bench *b, sh_loader_config *out)
{
    sh_status st = SH_OK;
    char size[32];
    const char *const assignments[] = {"data=pack", "steps=1", size};
    sh_config *config = malloc(sizeof(*config));

    SH_CHECK(config != NULL, SH_ERR_NO_MEMORY, "configuration");
    snprintf(size, sizeof(size), "size=%lld", (long long)b->size);
    SH_TRY(sh_config_load(NULL, assignments, SH_COUNT(assignments), config));
    SH_TRY(sh_config_loader(config, true, out));
    out->dtype = SH_F32;
    out->layout = SH_NCHW; /* as the cpu backend reads images */
    out->threads = (int)b->threads;
out:
    free(config);
    return st;
}

/* All crops once, in batches of 32, three requests ahead as training has them. */
static sh_status load_all(const bench *b, sh_loader *loader, const sh_loader_config *c,
                          float *pixels, double *seconds)
{
    sh_status st = SH_OK;
    enum { BATCH = 32, AHEAD = 3 };
    sh_tensor_desc one = {c->dtype, c->layout, {1, c->channels, c->height, c->width}};
    int64_t n_batches = (b->n_crops + BATCH - 1) / BATCH;
    double start = sh_clock_seconds();

    for (int64_t i = 0; i < n_batches + AHEAD; i++) {
        if (i >= AHEAD) SH_TRY(sh_loader_wait(loader));
        if (i >= n_batches) continue;
        int64_t n = b->n_crops - i * BATCH < BATCH ? b->n_crops - i * BATCH : BATCH;

        SH_TRY(sh_loader_request(loader, b->slots + i * BATCH, n,
                                 (uint8_t *)pixels +
                                     (size_t)(i % (AHEAD + 1)) * BATCH * sh_tensor_bytes(&one)));
    }
    *seconds = sh_clock_seconds() - start;
out:
    return st;
}

/* Best of three passes over the crops, the first to warm up; then three from the cache. */
static sh_status measure_pipeline(bench *b, result *r)
{
    sh_status st = SH_OK;
    sh_loader *loader = NULL;
    sh_loader_config config;
    float *pixels = NULL;

    SH_TRY(make_loader_config(b, &config));
    sh_tensor_desc four = {
        config.dtype, config.layout, {4 * 32, config.channels, config.height, config.width}};

    pixels = malloc(sh_tensor_bytes(&four));
    SH_CHECK(pixels != NULL, SH_ERR_NO_MEMORY, "%zu bytes of images", sh_tensor_bytes(&four));
    for (int cached = 0; cached < 2; cached++) {
        double best = 0, seconds;
        sh_loader_stats before = {0}, after;

        config.cache_bytes = cached ? SIZE_MAX / 2 : 0;
        SH_TRY(sh_loader_create(&config, b->dataset, &loader));
        for (int pass = 0; pass < 4; pass++) {
            SH_TRY(load_all(b, loader, &config, pixels, &seconds));
            if (pass == 0) sh_loader_get_stats(loader, &before);
            if (pass > 0 && (best == 0 || seconds < best)) best = seconds;
        }
        sh_loader_get_stats(loader, &after);
        double per_second = (double)b->n_crops / best;

        if (cached) {
            r->cached_per_second = per_second;
        } else {
            r->wall_per_second = per_second;
            r->core_per_second = (double)(after.n_crops - before.n_crops) /
                                 (after.busy_seconds - before.busy_seconds);
            r->stats = after;
        }
        sh_loader_destroy(&loader);
    }
out:
    sh_loader_destroy(&loader);
    free(pixels);
    return st;
}

/* One pass over the crops by whole blocks, two on their way while one is rendered. */
static sh_status feed_all(const bench *b, sh_feed *feed, const sh_tensor_desc *block, void *images,
                          sh_mark *done, double *seconds)
{
    sh_status st = SH_OK;
    const sh_device *device = b->device->device;
    sh_slot_plan slots[DEVICE_BLOCK];
    int64_t n_blocks = (b->n_crops + DEVICE_BLOCK - 1) / DEVICE_BLOCK;
    double start = sh_clock_seconds();

    for (int64_t i = 0; i < n_blocks + DEVICE_BLOCKS; i++) {
        int place = (int)(i % DEVICE_BLOCKS);
        sh_input input;

        if (i >= DEVICE_BLOCKS) {
            SH_TRY(sh_feed_wait(feed, place, &input));
            SH_TRY(device->render(SH_QUEUE_COMPUTE, input.parcel, block, images));
            SH_TRY(sh_feed_send(feed));
        }
        if (i >= n_blocks) continue;
        for (int64_t k = 0; k < DEVICE_BLOCK; k++)
            slots[k] = b->slots[(i * DEVICE_BLOCK + k) % b->n_crops];
        SH_TRY(sh_feed_request(feed, place, slots));
    }
    SH_TRY(device->mark_put(done, SH_QUEUE_COMPUTE));
    SH_TRY(device->mark_wait(done));
    *seconds = (sh_clock_seconds() - start) / (double)(n_blocks * DEVICE_BLOCK);
out:
    return st;
}

/* From the cache to images in bf16 in a device's memory: best of three passes, after one that fills
 * the cache. */
static sh_status measure_device(const bench *b, result *r)
{
    sh_status st = SH_OK;
    const sh_device *device = b->device->device;
    sh_loader_config loader;
    sh_feed *feed = NULL;
    sh_mark *done = NULL;
    void *images = NULL;
    double best = 0, seconds;

    SH_TRY(make_loader_config(b, &loader));
    loader.cache_bytes = SIZE_MAX / 2;
    sh_tensor_desc block = {.dtype = SH_BF16,
                            .dims = {DEVICE_BLOCK, loader.channels, loader.height, loader.width}};
    block.layout = b->device->layout_of(block.dtype, block.dims, true);
    const sh_tensor_desc blocks[DEVICE_BLOCKS] = {block, block, block};
    const sh_feed_config config = {.backend = b->device,
                                   .dataset = b->dataset,
                                   .loader = loader,
                                   .blocks = blocks,
                                   .n_places = DEVICE_BLOCKS};

    SH_TRY(device->alloc(sh_tensor_bytes(&block), &images));
    SH_TRY(device->mark_create(&done));
    SH_TRY(sh_feed_create(&config, &feed));
    for (int pass = 0; pass < 4; pass++) {
        SH_TRY(feed_all(b, feed, &block, images, done, &seconds));
        if (pass > 0 && (best == 0 || seconds < best)) best = seconds;
    }
    r->device_per_second = 1 / best;
out:
    sh_feed_destroy(&feed);
    if (done != NULL) device->mark_destroy(&done);
    device->free(images);
    return st;
}

static void print_result(const bench *b, const result *r)
{
    const sh_loader_stats *s = &r->stats;
    const struct {
        const char *name;
        double seconds;
    } stages[] = {{"read", s->read_seconds},
                  {"decode", s->decode_seconds},
                  {"warp", s->warp_seconds},
                  {"colour", s->colour_seconds},
                  {"store", s->store_seconds}};
    double all = 0;

    for (size_t i = 0; i < SH_COUNT(stages); i++) all += stages[i].seconds;
    if (b->json) {
        printf("{\"crops\": %lld, \"size\": %lld, \"threads\": %lld, \"bare_per_second\": %.1f, "
               "\"read_decode_per_second\": %.1f, \"ratio\": %.4f, \"ratio_low\": %.4f, "
               "\"ratio_high\": %.4f, \"core_per_second\": %.1f, \"images_per_second\": %.1f, "
               "\"cached_per_second\": %.1f, \"device_per_second\": %.1f, "
               "\"core_ms_per_image\": %.4f, \"shares\": {",
               (long long)b->n_crops, (long long)b->size, (long long)b->threads, r->bare_per_second,
               r->ours_per_second, r->ratio, r->ratio_low, r->ratio_high, r->core_per_second,
               r->wall_per_second, r->cached_per_second, r->device_per_second,
               1e3 / r->core_per_second);
        for (size_t i = 0; i < SH_COUNT(stages); i++)
            printf("%s\"%s\": %.4f", i > 0 ? ", " : "", stages[i].name, stages[i].seconds / all);
        printf("}}\n");
        return;
    }
    printf("%lld JPEG crops, on average %.0f bytes and %.0f pixels\n\n", (long long)b->n_crops,
           b->mean_bytes, b->mean_pixels);
    printf("reading and decoding, full size      crops/s per core\n");
    printf("  bare libjpeg-turbo, from memory    %8.0f\n", r->bare_per_second);
    printf("  from the pack, checked             %8.0f\n", r->ours_per_second);
    printf("  ratio, median of %d pairs          %8.3f  [%.3f, %.3f]\n\n", N_PAIRS, r->ratio,
           r->ratio_low, r->ratio_high);
    printf("to %lld x %lld with augmentation        images/s\n", (long long)b->size,
           (long long)b->size);
    printf("  per core                           %8.0f  (%.3f ms)\n", r->core_per_second,
           1e3 / r->core_per_second);
    printf("  %3lld thread%s                        %8.0f\n", (long long)b->threads,
           b->threads == 1 ? " " : "s", r->wall_per_second);
    printf("  %3lld thread%s, from the cache        %8.0f\n", (long long)b->threads,
           b->threads == 1 ? " " : "s", r->cached_per_second);
    if (b->device != NULL)
        printf("  from the cache to %-10s       %8.0f\n", b->device_name, r->device_per_second);
    printf("  shares of the time                ");
    for (size_t i = 0; i < SH_COUNT(stages); i++)
        printf(" %s %.0f %%%s", stages[i].name, 100 * stages[i].seconds / all,
               i + 1 < SH_COUNT(stages) ? "," : "\n");
}

static void clear_bench(bench *b)
{
    for (int64_t i = 0; b->bytes != NULL && i < b->n_crops; i++) free(b->bytes[i]);
    free(b->bytes);
    free(b->n_bytes);
    free(b->slots);
    free(b->scratch);
    sh_image_clear(&b->image);
    sh_dataset_close(&b->dataset);
}

sh_status sh_bench_data(int argc, char **argv)
{
    sh_status st = SH_OK;
    bench b = {.size = 128, .threads = 2, .n_crops = 512};
    result r = {0};
    sh_string_list args = {0};
    bool helped = false;
    const sh_flag flags[] = {
        {"--data", NULL, SH_FLAG_STRING, &b.data, "PACK", "crops to load; default: synthetic fish"},
        {"--size", NULL, SH_FLAG_INT, &b.size, "S", "pixels of the input's sides; default 128"},
        {"--threads", NULL, SH_FLAG_INT, &b.threads, "N", "loader threads; default 2"},
        {"--crops", NULL, SH_FLAG_INT, &b.n_crops, "N", "crops per pass; default 512"},
        {"--device", NULL, SH_FLAG_STRING, &b.device_name, "NAME",
         "cuda: also from the cache into its memory, rendered there"},
        {"--json", NULL, SH_FLAG_BOOL, &b.json, NULL, "one JSON object instead of a table"},
    };
    const sh_cli cli = {
        .usage = "shoal bench data [--data PACK] [--size S] [--threads N] [--crops N] "
                 "[--device NAME] [--json]",
        .summary =
            "Reading and decoding against bare libjpeg-turbo on the same bytes in memory, and "
            "the whole loader with the default augmentation, stage by stage.",
        .flags = flags,
        .n_flags = (int)SH_COUNT(flags),
    };

    SH_TRY(sh_cli_parse(&cli, argc, argv, &args, &helped));
    if (helped) goto out;
    SH_CHECK(b.size >= 1 && b.size <= 4096 && b.threads >= 1 && b.threads <= 1024 &&
                 b.n_crops >= 1 && b.n_crops <= MAX_CROPS,
             SH_ERR_USAGE, "--size takes 1 to 4096, --threads 1 to 1024, --crops 1 to %d",
             MAX_CROPS);
    if (b.device_name != NULL) {
        SH_TRY(sh_backend_find(b.device_name, &b.device));
        SH_CHECK(b.device->device != NULL, SH_ERR_USAGE, "--device %s: no device of its own",
                 b.device_name);
    }
    if (b.data != NULL)
        SH_TRY(sh_dataset_open(&b.data, 1, &b.dataset));
    else
        SH_TRY(open_synthetic(&b, (int)b.threads < 256 ? (int)b.threads : 256));
    SH_TRY(choose_crops(&b));
    SH_TRY(compare_decoding(&b, &r));
    SH_TRY(measure_pipeline(&b, &r));
    if (b.device != NULL) SH_TRY(measure_device(&b, &r));
    print_result(&b, &r);
out:
    clear_bench(&b);
    free(args.items);
    return st;
}
