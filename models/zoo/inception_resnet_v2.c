// SPDX-License-Identifier: Apache-2.0
/* Inception-ResNet-v2 (Szegedy et al. 2017) with timm's names. Its blocks add a fraction of what
 * their branches give. */
#include "models/zoo/inception.h"

static const sh_branch_layer mixed_5b[] = {
    {"branch0", SH_FROM_INPUT, true, 96, {1, 1}, 1},
    {"branch1.0", SH_FROM_INPUT, false, 48, {1, 1}, 1},
    {"branch1.1", SH_FROM_LAYER, true, 64, {5, 5}, 1},
    {"branch2.0", SH_FROM_INPUT, false, 64, {1, 1}, 1},
    {"branch2.1", SH_FROM_LAYER, false, 96, {3, 3}, 1},
    {"branch2.2", SH_FROM_LAYER, true, 96, {3, 3}, 1},
    {"branch3.1", SH_FROM_POOL, true, 64, {1, 1}, 1},
};

static const sh_branch_layer block35[] = {
    {"branch0", SH_FROM_INPUT, true, 32, {1, 1}, 1},
    {"branch1.0", SH_FROM_INPUT, false, 32, {1, 1}, 1},
    {"branch1.1", SH_FROM_LAYER, true, 32, {3, 3}, 1},
    {"branch2.0", SH_FROM_INPUT, false, 32, {1, 1}, 1},
    {"branch2.1", SH_FROM_LAYER, false, 48, {3, 3}, 1},
    {"branch2.2", SH_FROM_LAYER, true, 64, {3, 3}, 1},
};

static const sh_branch_layer mixed_6a[] = {
    {"branch0", SH_FROM_INPUT, true, 384, {3, 3}, 2},
    {"branch1.0", SH_FROM_INPUT, false, 256, {1, 1}, 1},
    {"branch1.1", SH_FROM_LAYER, false, 256, {3, 3}, 1},
    {"branch1.2", SH_FROM_LAYER, true, 384, {3, 3}, 2},
    {NULL, SH_FROM_POOL, true, 0, {0, 0}, 0},
};

static const sh_branch_layer block17[] = {
    {"branch0", SH_FROM_INPUT, true, 192, {1, 1}, 1},
    {"branch1.0", SH_FROM_INPUT, false, 128, {1, 1}, 1},
    {"branch1.1", SH_FROM_LAYER, false, 160, {1, 7}, 1},
    {"branch1.2", SH_FROM_LAYER, true, 192, {7, 1}, 1},
};

static const sh_branch_layer mixed_7a[] = {
    {"branch0.0", SH_FROM_INPUT, false, 256, {1, 1}, 1},
    {"branch0.1", SH_FROM_LAYER, true, 384, {3, 3}, 2},
    {"branch1.0", SH_FROM_INPUT, false, 256, {1, 1}, 1},
    {"branch1.1", SH_FROM_LAYER, true, 288, {3, 3}, 2},
    {"branch2.0", SH_FROM_INPUT, false, 256, {1, 1}, 1},
    {"branch2.1", SH_FROM_LAYER, false, 288, {3, 3}, 1},
    {"branch2.2", SH_FROM_LAYER, true, 320, {3, 3}, 2},
    {NULL, SH_FROM_POOL, true, 0, {0, 0}, 0},
};

static const sh_branch_layer block8[] = {
    {"branch0", SH_FROM_INPUT, true, 192, {1, 1}, 1},
    {"branch1.0", SH_FROM_INPUT, false, 192, {1, 1}, 1},
    {"branch1.1", SH_FROM_LAYER, false, 224, {1, 3}, 1},
    {"branch1.2", SH_FROM_LAYER, true, 256, {3, 1}, 1},
};

/* n blocks "name.0", "name.1", ...; n = 0: one block, "name". scale 0: nothing is added to. */
typedef struct stage {
    const char *name;
    int n;
    float scale;
    bool is_last; /* without the activation behind the sum */
    sh_branches branches;
} stage;

static const stage stages[] = {
    {"mixed_5b", 0, 0, false, SH_BRANCHES(mixed_5b)},
    {"repeat", 10, 0.17f, false, SH_BRANCHES(block35)},
    {"mixed_6a", 0, 0, false, SH_BRANCHES(mixed_6a, .max = true)},
    {"repeat_1", 20, 0.10f, false, SH_BRANCHES(block17)},
    {"mixed_7a", 0, 0, false, SH_BRANCHES(mixed_7a, .max = true)},
    {"repeat_2", 9, 0.20f, false, SH_BRANCHES(block8)},
    {"block8", 0, 1, true, SH_BRANCHES(block8)},
};

static sh_value block(sh_trunk *t, sh_value x, const char *prefix, const stage *s)
{
    int64_t dims[4];
    sh_value y = sh_inception_block(t, x, prefix, &s->branches, false);

    if (s->scale == 0) return y;
    sh_program_dims(t->p, x, dims);
    y = sh_op_conv(t->p, y, sh_layer_name_format("%sconv2d", prefix).text,
                   &(sh_conv_attrs){.out_channels = (int)dims[1], .kernel = {1, 1}, .bias = true});
    x = sh_op_add_scaled(t->p, x, y, s->scale);
    return s->is_last ? x : sh_op_act(t->p, x, SH_ACT_RELU);
}

static sh_value features(sh_trunk *t, sh_value image)
{
    static const char *const stem[7] = {"conv2d_1a", "conv2d_2a", "conv2d_2b", "maxpool_3a",
                                        "conv2d_3b", "conv2d_4a", "maxpool_5a"};
    sh_value x = sh_inception_stem(t, image, stem);

    for (size_t i = 0; i < SH_COUNT(stages) && !t->ended; i++) {
        const stage *s = &stages[i];

        if (s->n == 0) x = block(t, x, sh_layer_name_format("%s.", s->name).text, s);
        for (int k = 0; k < s->n; k++) {
            x = block(t, x, sh_layer_name_format("%s.%d.", s->name, k).text, s);
            if (sh_trunk_ends(t, x, "%s.%d", s->name, k)) return x;
        }
        sh_trunk_ends(t, x, "%s", s->name);
    }
    if (t->ended) return x;
    x = sh_inception_conv(t, x, "", "conv2d_7b",
                          &(sh_conv_attrs){.out_channels = 1536, .kernel = {1, 1}});
    sh_trunk_ends(t, x, "conv2d_7b");
    return x;
}

static const sh_tap_alias aliases[] = {
    {"block35_10_ac", "repeat"}, {"block17_20_ac", "repeat_1"}, {"block8_9_ac", "repeat_2"},
    {"block8_10", "block8"},     {"conv_7b_ac", "conv2d_7b"},   {NULL, NULL},
};

const sh_net sh_net_inception_resnet_v2 = {
    .name = "inception_resnet_v2",
    .title = "Inception-ResNet-v2, 54.3 million weights without classifier (names as in timm)",
    SH_NET_SYMMETRIC_INPUT,
    .default_size = 299,
    .n_features = 1536,
    .bn_eps = 1e-3f,
    .bn_momentum = 0.1f,
    .features = features,
    .classifier = "classif",
    .aliases = aliases,
};
