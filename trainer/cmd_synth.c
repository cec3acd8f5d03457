// SPDX-License-Identifier: Apache-2.0
/* shoal synth: procedural fish with known truth, as a pack or as a folder of JPEGs. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cli.h"
#include "base/clock.h"
#include "base/log.h"
#include "dataio/synth.h"
#include "trainer/commands.h"

typedef struct options {
    const char *pack, *folder, *size;
    int64_t individuals, images, recordings, seed, threads;
} options;

static sh_status make_config(const options *o, sh_synth_config *config)
{
    sh_status st = SH_OK;
    int width = 0, height = 0;
    char rest;
    long n_cores = sysconf(_SC_NPROCESSORS_ONLN);

    SH_CHECK(o->pack != NULL || o->folder != NULL, SH_ERR_USAGE,
             "nothing to write: give a pack with -o or a folder with --folder");
    SH_CHECK(sscanf(o->size, "%dx%d%c", &width, &height, &rest) == 2, SH_ERR_USAGE,
             "--size %s is not WIDTHxHEIGHT, as in 192x96", o->size);
    SH_CHECK(o->individuals <= 99999 && o->images <= 9999 && o->recordings <= 999 &&
                 o->threads <= 256 && o->individuals > 0 && o->images > 0 && o->recordings > 0 &&
                 o->threads >= 0,
             SH_ERR_USAGE,
             "up to 99999 --individuals, 9999 --images, 999 --recordings and 256 --threads can be "
             "drawn");
    *config = (sh_synth_config){.individuals = (int)o->individuals,
                                .images = (int)o->images,
                                .recordings = (int)o->recordings,
                                .width = width,
                                .height = height,
                                .threads = (int)(o->threads > 0 ? o->threads
                                                 : n_cores > 0  ? n_cores
                                                                : 1),
                                .seed = (uint64_t)o->seed};
    SH_TRY(sh_synth_check(config));
out:
    return st;
}

sh_status sh_cmd_synth(int argc, char **argv)
{
    sh_status st = SH_OK;
    options o = {.size = "192x96", .individuals = 60, .images = 24, .recordings = 12, .seed = 1};
    sh_synth_config config;
    sh_string_list args = {0};
    bool helped = false;
    const sh_flag flags[] = {
        {"-o", "--output", SH_FLAG_STRING, &o.pack, "PACK", "the pack to write"},
        {"--folder", NULL, SH_FLAG_STRING, &o.folder, "DIR",
         "write the images here too, or instead; `shoal pack DIR --pattern "
         "'{individual}_{side}_{recording}_{frame}.jpg'` packs them"},
        {"--individuals", NULL, SH_FLAG_INT, &o.individuals, "N", "fish; default 60"},
        {"--images", NULL, SH_FLAG_INT, &o.images, "M", "images of each fish; default 24"},
        {"--recordings", NULL, SH_FLAG_INT, &o.recordings, "R",
         "recordings in all, each fish in up to four; default 12"},
        {"--seed", NULL, SH_FLAG_INT, &o.seed, "S", "other fish and waters for another; default 1"},
        {"--size", NULL, SH_FLAG_STRING, &o.size, "WxH", "pixels of an image; default 192x96"},
        {"--threads", NULL, SH_FLAG_INT, &o.threads, "N",
         "that draw, all cores by default; no influence on the result"},
    };
    const sh_cli cli = {
        .usage =
            "shoal synth -o crops.h5 [--individuals N] [--images M] [--recordings R] [--seed S] "
            "[--size WxH] [--folder DIR]",
        .summary =
            "Draw procedural fish with known truth. Identity lies in the pattern of bars and spots "
            "(left and right differ in their spots); water, light and ground belong to the "
            "recording, so colour does not give a fish away.",
        .flags = flags,
        .n_flags = (int)SH_COUNT(flags),
        .min_args = 0,
        .max_args = 0,
        .epilogue = "Example:\n  shoal synth -o synth.h5 --individuals 80 --images 32\n",
    };

    SH_TRY(sh_cli_parse(&cli, argc, argv, &args, &helped));
    if (helped) goto out;
    SH_TRY(make_config(&o, &config));
    double start = sh_clock_seconds();

    SH_TRY(sh_synth_write(&config, o.pack, o.folder));
    double seconds = sh_clock_seconds() - start;

    sh_log_info("%lld images of %d fish in %d recordings: %s%s%s, %.0f images/s",
                (long long)sh_synth_n_images(&config), config.individuals, config.recordings,
                o.pack != NULL ? o.pack : "", o.pack != NULL && o.folder != NULL ? ", " : "",
                o.folder != NULL ? o.folder : "",
                (double)sh_synth_n_images(&config) / (seconds > 0 ? seconds : 1));
out:
    free(args.items);
    return st;
}
