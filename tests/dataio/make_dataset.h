// SPDX-License-Identifier: Apache-2.0
/** For tests: a dataset of given fish, sides and recordings, its crops as small as can be. */
#ifndef SH_TESTS_DATAIO_MAKE_DATASET_H
#define SH_TESTS_DATAIO_MAKE_DATASET_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "dataio/pack.h"
#include "dataio/split.h"
#include "dataio/synth.h"

/** n_images[f] images of fish f, round robin over n_recordings[f] recordings of its own. */
typedef struct fish_set {
    int n_fish;
    const int *n_images, *n_recordings;
    bool sides; /* odd images show the right side, even ones the left */
} fish_set;

#define MUST(call)                                                                                 \
    do {                                                                                           \
        if ((call) != SH_OK) fail_msg("%s: %s", #call, sh_error_message());                        \
    } while (0)

/** A new folder below TMPDIR; the caller removes it with sh_file_remove_tree. */
static inline void make_temp_folder(char path[256])
{
    const char *base = getenv("TMPDIR");

    snprintf(path, 256, "%s/shoal-test-XXXXXX", base != NULL ? base : "/tmp");
    assert_non_null(mkdtemp(path));
}

static inline sh_dataset *make_dataset(const fish_set *set)
{
    char folder[256], path[300];
    const char *paths[] = {path};
    sh_pack_writer *writer = NULL;
    sh_dataset *dataset = NULL;
    uint8_t grey[4] = {0};
    sh_image image = {.width = 2, .height = 2, .channels = 1, .pixels = grey, .capacity = 4};

    make_temp_folder(folder);
    snprintf(path, sizeof(path), "%s/crops.h5", folder);
    MUST(sh_pack_writer_create(path, 0, &writer));
    for (int f = 0; f < set->n_fish; f++)
        for (int i = 0; i < set->n_images[f]; i++) {
            char name[64], fish[32], recording[64];
            sh_labels labels = SH_LABELS_NONE;

            snprintf(name, sizeof(name), "fish%d/%d.png", f, i);
            snprintf(fish, sizeof(fish), "fish%d", f);
            snprintf(recording, sizeof(recording), "fish%d-rec%d", f, i % set->n_recordings[f]);
            labels.individual = fish;
            labels.recording = recording;
            if (set->sides) labels.side = i % 2 == 0 ? SH_SIDE_LEFT : SH_SIDE_RIGHT;
            for (int k = 0; k < 4; k++) grey[k] = (uint8_t)(i >> k ^ f);
            MUST(sh_pack_writer_add_image(writer, name, &labels, &image, SH_IMAGE_PNG, 0));
        }
    MUST(sh_pack_writer_commit(writer));
    sh_pack_writer_destroy(&writer);
    MUST(sh_dataset_open(paths, 1, &dataset));
    MUST(sh_file_remove_tree(folder)); /* the dataset keeps its files open */
    return dataset;
}

/** Fish as `shoal synth` draws them. */
static inline sh_dataset *make_synth_dataset(const sh_synth_config *config)
{
    char folder[256], path[300];
    const char *paths[] = {path};
    sh_dataset *dataset = NULL;

    make_temp_folder(folder);
    snprintf(path, sizeof(path), "%s/synth.h5", folder);
    MUST(sh_synth_write(config, path, NULL));
    MUST(sh_dataset_open(paths, 1, &dataset));
    MUST(sh_file_remove_tree(folder)); /* the dataset keeps its files open */
    return dataset;
}

/** Every crop in the training part. */
static inline sh_split all_train(const sh_dataset *dataset)
{
    sh_split split = {.n = sh_dataset_n_crops(dataset)};

    split.part = malloc((size_t)split.n + 1);
    assert_non_null(split.part);
    memset(split.part, SH_PART_TRAIN, (size_t)split.n);
    return split;
}

#endif
