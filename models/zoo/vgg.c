// SPDX-License-Identifier: Apache-2.0
/* VGG-16 (Simonyan and Zisserman 2015) with and without batch norm, as torchvision has them. The
 * layers of `features` are numbered through, activations and pools included. An embedding takes the
 * global average; the public classifier takes all of a 7x7 map. */
#include "models/zoo/nets.h"

enum { POOL = 0, MAP_SIDE = 7, HIDDEN = 4096 };

/* Channels of the 3x3 convolutions, and 2x2 maxima between them. */
static const int layers[] = {64,   64,  POOL, 128, 128,  POOL, 256, 256, 256,
                             POOL, 512, 512,  512, POOL, 512,  512, 512, POOL};

static sh_value features(sh_trunk *t, sh_value x)
{
    const bool has_bn = t->net->bn_eps > 0;
    int index = 0;

    for (size_t i = 0; i < SH_COUNT(layers); i++) {
        if (layers[i] == POOL) {
            x = sh_op_max_pool(t->p, x, &(sh_pool_attrs){.kernel = {2, 2}});
        } else {
            x = sh_op_conv(t->p, x, sh_layer_name_format("features.%d", index++).text,
                           &(sh_conv_attrs){.out_channels = layers[i],
                                            .kernel = {3, 3},
                                            .pad = {1, 1, 1, 1},
                                            .bias = true});
            if (has_bn) x = sh_trunk_norm(t, x, sh_layer_name_format("features.%d", index++).text);
            x = sh_op_act(t->p, x, SH_ACT_RELU);
        }
        if (sh_trunk_ends(t, x, "features.%d", index++)) return x;
    }
    return x;
}

static sh_value classify(sh_trunk *t, sh_value x, int n_classes)
{
    const char *const hidden[] = {"classifier.0", "classifier.3"};

    x = sh_op_flatten(t->p, sh_op_adaptive_avg_pool(t->p, x, MAP_SIDE, MAP_SIDE));
    for (size_t i = 0; i < SH_COUNT(hidden); i++) {
        x = sh_op_act(t->p, sh_op_linear(t->p, x, hidden[i], HIDDEN, true), SH_ACT_RELU);
        if (t->net->dropout > 0) x = sh_op_dropout(t->p, x, t->net->dropout);
    }
    return sh_op_linear(t->p, x, t->net->classifier, n_classes, true);
}

const sh_net sh_net_vgg16 = {
    .name = "vgg16",
    .title = "VGG-16, 14.7 million weights without classifier (names as in torchvision)",
    SH_NET_IMAGENET_INPUT,
    .default_size = 224,
    .dropout = 0.5f,
    .n_features = 512,
    .features = features,
    .classify = classify,
    .classifier = "classifier.6",
};

const sh_net sh_net_vgg16_bn = {
    .name = "vgg16_bn",
    .title = "VGG-16 with batch norm, 14.7 million weights without classifier (as in torchvision)",
    SH_NET_IMAGENET_INPUT,
    .default_size = 224,
    .dropout = 0.5f,
    .n_features = 512,
    .bn_eps = 1e-5f,
    .bn_momentum = 0.1f,
    .features = features,
    .classify = classify,
    .classifier = "classifier.6",
};
