// SPDX-License-Identifier: Apache-2.0
/**
 * What the files of networks share. A network's `features` builds stage after stage and announces
 * each as a tap:
 *
 *     x = stage(t, x, i);
 *     if (sh_trunk_ends(t, x, "layer%d", i)) return x;
 *
 * It takes constants (BN, dropout) and what is particular to a variant (`plan`) from t->net, so
 * that one function serves a family, and a variant is data.
 */
#ifndef SH_MODELS_ZOO_NETS_H
#define SH_MODELS_ZOO_NETS_H

#include "models/zoo/zoo.h"

SH_C_BEGIN

struct sh_trunk {
    sh_program *p;
    const sh_net *net;
    const char *tap; /* where to end, no alias; "": nowhere */
    bool ended;
    void (*visit)(void *context, sh_value x, const char *name); /* told of every tap, or NULL */
    void *context;
};

/** Fields of a sh_net: colour as torchvision normalises it, and colour in [-1, 1]. */
#define SH_NET_IMAGENET_INPUT                                                                      \
    .in_channels = 3, .mean = {0.485f, 0.456f, 0.406f}, .std = {0.229f, 0.224f, 0.225f}
#define SH_NET_SYMMETRIC_INPUT                                                                     \
    .in_channels = 3, .mean = {0.5f, 0.5f, 0.5f}, .std = {0.5f, 0.5f, 0.5f}

/** Announce the tap that x is, its name composed as by printf. True: the network ends here. */
bool sh_trunk_ends(sh_trunk *t, sh_value x, const char *fmt, ...) SH_PRINTF(3, 4);

/** The name of a layer, composed as by printf. The text of a returned struct lives until the end of
 *  the expression that it is part of, long enough to be passed on to a builder. */
typedef struct sh_layer_name {
    char text[96];
} sh_layer_name;

sh_layer_name sh_layer_name_format(const char *fmt, ...) SH_PRINTF(1, 2);

/** Batch norm with the network's constants. */
sh_value sh_trunk_norm(sh_trunk *t, sh_value x, const char *name);

/** Convolution `conv`, batch norm `bn`, activation. */
sh_value sh_trunk_conv(sh_trunk *t, sh_value x, const char *conv, const char *bn, sh_act act,
                       const sh_conv_attrs *attrs);

extern const sh_net sh_net_mobilenet_v2;
extern const sh_net sh_net_mobilenet_v2_keras;
extern const sh_net sh_net_mobilenet_v3_small;
extern const sh_net sh_net_efficientnet_lite0;
extern const sh_net sh_net_efficientnet_b0;
extern const sh_net sh_net_efficientnet_b5;
extern const sh_net sh_net_timm_efficientnet_b5;
extern const sh_net sh_net_tf_efficientnet_b0;
extern const sh_net sh_net_tf_efficientnet_b5;
extern const sh_net sh_net_efficientnetv2_rw_m;
extern const sh_net sh_net_vit_small_patch16_224;
extern const sh_net sh_net_vit_small_patch16_224_dino;
extern const sh_net sh_net_vit_small_patch14_dinov2;
extern const sh_net sh_net_resnet50;
extern const sh_net sh_net_resnet101;
extern const sh_net sh_net_resnet101_v2;
extern const sh_net sh_net_vgg16;
extern const sh_net sh_net_vgg16_bn;
extern const sh_net sh_net_inception_v3;
extern const sh_net sh_net_inception_v3_keras;
extern const sh_net sh_net_inception_resnet_v2;
extern const sh_net sh_net_siamese_orl;

SH_C_END

#endif
