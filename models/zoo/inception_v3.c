// SPDX-License-Identifier: Apache-2.0
/* Inception-v3 (Szegedy et al. 2016) with torchvision's names, without the auxiliary classifier;
 * and the same as Keras computes it: its averages do not count padding, its running statistics move
 * by 0.01 a step. Both take images in [-1, 1]. */
#include "models/zoo/inception.h"

/* Blocks A differ in the width of the pooled branch, blocks C in that of the inner 7x7 ones. */
#define BLOCK_A(table, n_pool)                                                                     \
    static const sh_branch_layer table[] = {                                                       \
        {"branch1x1", SH_FROM_INPUT, true, 64, {1, 1}, 1},                                         \
        {"branch5x5_1", SH_FROM_INPUT, false, 48, {1, 1}, 1},                                      \
        {"branch5x5_2", SH_FROM_LAYER, true, 64, {5, 5}, 1},                                       \
        {"branch3x3dbl_1", SH_FROM_INPUT, false, 64, {1, 1}, 1},                                   \
        {"branch3x3dbl_2", SH_FROM_LAYER, false, 96, {3, 3}, 1},                                   \
        {"branch3x3dbl_3", SH_FROM_LAYER, true, 96, {3, 3}, 1},                                    \
        {"branch_pool", SH_FROM_POOL, true, n_pool, {1, 1}, 1},                                    \
    }

#define BLOCK_C(table, n_inner)                                                                    \
    static const sh_branch_layer table[] = {                                                       \
        {"branch1x1", SH_FROM_INPUT, true, 192, {1, 1}, 1},                                        \
        {"branch7x7_1", SH_FROM_INPUT, false, n_inner, {1, 1}, 1},                                 \
        {"branch7x7_2", SH_FROM_LAYER, false, n_inner, {1, 7}, 1},                                 \
        {"branch7x7_3", SH_FROM_LAYER, true, 192, {7, 1}, 1},                                      \
        {"branch7x7dbl_1", SH_FROM_INPUT, false, n_inner, {1, 1}, 1},                              \
        {"branch7x7dbl_2", SH_FROM_LAYER, false, n_inner, {7, 1}, 1},                              \
        {"branch7x7dbl_3", SH_FROM_LAYER, false, n_inner, {1, 7}, 1},                              \
        {"branch7x7dbl_4", SH_FROM_LAYER, false, n_inner, {7, 1}, 1},                              \
        {"branch7x7dbl_5", SH_FROM_LAYER, true, 192, {1, 7}, 1},                                   \
        {"branch_pool", SH_FROM_POOL, true, 192, {1, 1}, 1},                                       \
    }

BLOCK_A(a_32, 32);
BLOCK_A(a_64, 64);

static const sh_branch_layer b_layers[] = {
    {"branch3x3", SH_FROM_INPUT, true, 384, {3, 3}, 2},
    {"branch3x3dbl_1", SH_FROM_INPUT, false, 64, {1, 1}, 1},
    {"branch3x3dbl_2", SH_FROM_LAYER, false, 96, {3, 3}, 1},
    {"branch3x3dbl_3", SH_FROM_LAYER, true, 96, {3, 3}, 2},
    {NULL, SH_FROM_POOL, true, 0, {0, 0}, 0},
};

BLOCK_C(c_128, 128);
BLOCK_C(c_160, 160);
BLOCK_C(c_192, 192);

static const sh_branch_layer d_layers[] = {
    {"branch3x3_1", SH_FROM_INPUT, false, 192, {1, 1}, 1},
    {"branch3x3_2", SH_FROM_LAYER, true, 320, {3, 3}, 2},
    {"branch7x7x3_1", SH_FROM_INPUT, false, 192, {1, 1}, 1},
    {"branch7x7x3_2", SH_FROM_LAYER, false, 192, {1, 7}, 1},
    {"branch7x7x3_3", SH_FROM_LAYER, false, 192, {7, 1}, 1},
    {"branch7x7x3_4", SH_FROM_LAYER, true, 192, {3, 3}, 2},
    {NULL, SH_FROM_POOL, true, 0, {0, 0}, 0},
};

static const sh_branch_layer e_layers[] = {
    {"branch1x1", SH_FROM_INPUT, true, 320, {1, 1}, 1},
    {"branch3x3_1", SH_FROM_INPUT, false, 384, {1, 1}, 1},
    {"branch3x3_2a", SH_FROM_LAYER, true, 384, {1, 3}, 1},
    {"branch3x3_2b", SH_FROM_SAME, true, 384, {3, 1}, 1},
    {"branch3x3dbl_1", SH_FROM_INPUT, false, 448, {1, 1}, 1},
    {"branch3x3dbl_2", SH_FROM_LAYER, false, 384, {3, 3}, 1},
    {"branch3x3dbl_3a", SH_FROM_LAYER, true, 384, {1, 3}, 1},
    {"branch3x3dbl_3b", SH_FROM_SAME, true, 384, {3, 1}, 1},
    {"branch_pool", SH_FROM_POOL, true, 192, {1, 1}, 1},
};

typedef struct block {
    const char *name;
    sh_branches branches;
} block;

static const block blocks[] = {
    {"Mixed_5b", SH_BRANCHES(a_32)},
    {"Mixed_5c", SH_BRANCHES(a_64)},
    {"Mixed_5d", SH_BRANCHES(a_64)},
    {"Mixed_6a", SH_BRANCHES(b_layers, .max = true)},
    {"Mixed_6b", SH_BRANCHES(c_128)},
    {"Mixed_6c", SH_BRANCHES(c_160)},
    {"Mixed_6d", SH_BRANCHES(c_160)},
    {"Mixed_6e", SH_BRANCHES(c_192)},
    {"Mixed_7a", SH_BRANCHES(d_layers, .max = true)},
    {"Mixed_7b", SH_BRANCHES(e_layers)},
    {"Mixed_7c", SH_BRANCHES(e_layers)},
};

typedef struct variant {
    bool count_padding; /* averages divide by 9 at the border too */
} variant;

static sh_value features(sh_trunk *t, sh_value image)
{
    const variant *plan = t->net->plan;
    static const char *const stem[7] = {"Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3",
                                        "maxpool1",      "Conv2d_3b_1x1", "Conv2d_4a_3x3",
                                        "maxpool2"};
    sh_value x = sh_inception_stem(t, image, stem);

    for (size_t i = 0; i < SH_COUNT(blocks) && !t->ended; i++) {
        x = sh_inception_block(t, x, sh_layer_name_format("%s.", blocks[i].name).text,
                               &blocks[i].branches, plan->count_padding);
        sh_trunk_ends(t, x, "%s", blocks[i].name);
    }
    return x;
}

static const sh_tap_alias aliases[] = {
    {"mixed0", "Mixed_5b"}, {"mixed1", "Mixed_5c"}, {"mixed2", "Mixed_5d"},  {"mixed3", "Mixed_6a"},
    {"mixed4", "Mixed_6b"}, {"mixed5", "Mixed_6c"}, {"mixed6", "Mixed_6d"},  {"mixed7", "Mixed_6e"},
    {"mixed8", "Mixed_7a"}, {"mixed9", "Mixed_7b"}, {"mixed10", "Mixed_7c"}, {NULL, NULL},
};

const sh_net sh_net_inception_v3 = {
    .name = "inception_v3",
    .title = "Inception-v3, 21.8 million weights without classifiers (names as in torchvision)",
    SH_NET_SYMMETRIC_INPUT,
    .default_size = 299,
    .dropout = 0.5f,
    .n_features = 2048,
    .bn_eps = 1e-3f,
    .bn_momentum = 0.1f,
    .plan = &(const variant){.count_padding = true},
    .features = features,
    .classifier = "fc",
    .aliases = aliases,
};

const sh_net sh_net_inception_v3_keras = {
    .name = "inception_v3_keras",
    .title = "Inception-v3 as Keras computes it, under torchvision's names",
    SH_NET_SYMMETRIC_INPUT,
    .default_size = 299,
    .n_features = 2048,
    .bn_eps = 1e-3f,
    .bn_momentum = 0.01f,
    .plan = &(const variant){.count_padding = false},
    .features = features,
    .classifier = "fc",
    .aliases = aliases,
};
