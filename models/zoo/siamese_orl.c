// SPDX-License-Identifier: Apache-2.0
/* One tower of the siamese network of the ORL faces tutorial (harveyslash): three blocks of
 * reflection padding, convolution, ReLU and only then BN, at full resolution; three linear layers.
 * The first of them has as many inputs as the last block has outputs, so weights fit one image
 * size. */
#include "models/zoo/nets.h"

static const int channels[] = {4, 8, 8};

typedef struct layer {
    const char *name;
    int n_out;
    sh_act act;
} layer;

static const layer layers[] = {
    {"fc1.0", 500, SH_ACT_RELU},
    {"fc1.2", 500, SH_ACT_RELU},
    {"fc1.4", 5, SH_ACT_NONE},
};

static sh_value features(sh_trunk *t, sh_value image)
{
    static const int edge[4] = {1, 1, 1, 1};
    sh_value x = image;

    for (int i = 0; i < (int)SH_COUNT(channels); i++) {
        /* Pad, convolution, ReLU and BN are numbered through. */
        x = sh_op_reflect_pad(t->p, x, edge);
        x = sh_op_conv(
            t->p, x, sh_layer_name_format("cnn1.%d", 4 * i + 1).text,
            &(sh_conv_attrs){.out_channels = channels[i], .kernel = {3, 3}, .bias = true});
        x = sh_op_act(t->p, x, SH_ACT_RELU);
        x = sh_trunk_norm(t, x, sh_layer_name_format("cnn1.%d", 4 * i + 3).text);
        if (sh_trunk_ends(t, x, "cnn1.%d", 4 * i + 3)) return x;
    }
    return x;
}

static sh_value pool(sh_trunk *t, sh_value x)
{
    x = sh_op_flatten(t->p, x);
    for (size_t i = 0; i < SH_COUNT(layers); i++) {
        x = sh_op_linear(t->p, x, layers[i].name, layers[i].n_out, true);
        if (layers[i].act != SH_ACT_NONE) x = sh_op_act(t->p, x, layers[i].act);
    }
    return x;
}

const sh_net sh_net_siamese_orl = {
    .name = "siamese_orl",
    .title = "siamese tower of the ORL faces tutorial: 100x100 grey image to 5 numbers",
    .in_channels = 1,
    .default_size = 100,
    .mean = {0},
    .std = {1, 1, 1},
    .n_features = 5,
    .bn_eps = 1e-5f,
    .bn_momentum = 0.1f,
    .features = features,
    .pool = pool,
};
