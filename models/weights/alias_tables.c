// SPDX-License-Identifier: Apache-2.0
/* Whose names are read beside our own. Keras files hold names as models/weights/keras.c gives them:
 * layer and PyTorch's name of the variable. */
#include "models/weights/alias.h"

#include <stddef.h>

/* ---- MobileNetV2 ---- */

static const sh_alias_rule keras_mobilenet_v2[] = {
    {"Conv1.*", "features.0.0.*", {0}},
    {"bn_Conv1.*", "features.0.1.*", {0}},
    {"expanded_conv_depthwise.*", "features.1.conv.0.0.*", {0}},
    {"expanded_conv_depthwise_BN.*", "features.1.conv.0.1.*", {0}},
    {"expanded_conv_project.*", "features.1.conv.1.*", {0}},
    {"expanded_conv_project_BN.*", "features.1.conv.2.*", {0}},
    {"block_{n}_expand.*", "features.{n+1}.conv.0.0.*", {0}},
    {"block_{n}_expand_BN.*", "features.{n+1}.conv.0.1.*", {0}},
    {"block_{n}_depthwise.*", "features.{n+1}.conv.1.0.*", {0}},
    {"block_{n}_depthwise_BN.*", "features.{n+1}.conv.1.1.*", {0}},
    {"block_{n}_project.*", "features.{n+1}.conv.2.*", {0}},
    {"block_{n}_project_BN.*", "features.{n+1}.conv.3.*", {0}},
    {"Conv_1.*", "features.18.0.*", {0}},
    {"Conv_1_bn.*", "features.18.1.*", {0}},
    {"predictions.*", "classifier.1.*", {0}},
    {"Logits.*", "classifier.1.*", {0}}, /* files before 2019 */
    {0},
};

static const int mobilenet_v2_depths[] = {1, 2, 3, 4, 3, 3, 1, 0};

static const sh_alias_rule timm_mobilenet_v2[] = {
    {"conv_stem.*", "features.0.0.*", {0}},
    {"bn1.*", "features.0.1.*", {0}},
    {"blocks.0.0.conv_dw.*", "features.1.conv.0.0.*", {0}},
    {"blocks.0.0.bn1.*", "features.1.conv.0.1.*", {0}},
    {"blocks.0.0.conv_pw.*", "features.1.conv.1.*", {0}},
    {"blocks.0.0.bn2.*", "features.1.conv.2.*", {0}},
    {"blocks.{s}.{b}.conv_pw.*", "features.{s,b+1}.conv.0.0.*", {0}},
    {"blocks.{s}.{b}.bn1.*", "features.{s,b+1}.conv.0.1.*", {0}},
    {"blocks.{s}.{b}.conv_dw.*", "features.{s,b+1}.conv.1.0.*", {0}},
    {"blocks.{s}.{b}.bn2.*", "features.{s,b+1}.conv.1.1.*", {0}},
    {"blocks.{s}.{b}.conv_pwl.*", "features.{s,b+1}.conv.2.*", {0}},
    {"blocks.{s}.{b}.bn3.*", "features.{s,b+1}.conv.3.*", {0}},
    {"conv_head.*", "features.18.0.*", {0}},
    {"bn2.*", "features.18.1.*", {0}},
    {"classifier.*", "classifier.1.*", {0}},
    {0},
};

/* ---- VGG-16 ---- */

static const sh_alias_rule keras_vgg16[] = {
    {"block1_conv1.*", "features.0.*", {0}},  {"block1_conv2.*", "features.2.*", {0}},
    {"block2_conv1.*", "features.5.*", {0}},  {"block2_conv2.*", "features.7.*", {0}},
    {"block3_conv1.*", "features.10.*", {0}}, {"block3_conv2.*", "features.12.*", {0}},
    {"block3_conv3.*", "features.14.*", {0}}, {"block4_conv1.*", "features.17.*", {0}},
    {"block4_conv2.*", "features.19.*", {0}}, {"block4_conv3.*", "features.21.*", {0}},
    {"block5_conv1.*", "features.24.*", {0}}, {"block5_conv2.*", "features.26.*", {0}},
    {"block5_conv3.*", "features.28.*", {0}}, {"fc1.weight", "classifier.0.weight", {7, 7, 512}},
    {"fc1.bias", "classifier.0.bias", {0}},   {"fc2.*", "classifier.3.*", {0}},
    {"predictions.*", "classifier.6.*", {0}}, {0},
};

/* ---- EfficientNets ---- */

static const int b0_depths[] = {1, 2, 2, 3, 3, 4, 1, 0};
static const int b5_depths[] = {3, 5, 5, 7, 7, 9, 3, 0};

static const sh_alias_rule timm_to_torchvision[] = {
    {"conv_stem.*", "features.0.0.*", {0}},
    {"bn1.*", "features.0.1.*", {0}},
    {"blocks.0.{b}.conv_dw.*", "features.1.{b}.block.0.0.*", {0}},
    {"blocks.0.{b}.bn1.*", "features.1.{b}.block.0.1.*", {0}},
    {"blocks.0.{b}.se.conv_reduce.*", "features.1.{b}.block.1.fc1.*", {0}},
    {"blocks.0.{b}.se.conv_expand.*", "features.1.{b}.block.1.fc2.*", {0}},
    {"blocks.0.{b}.conv_pw.*", "features.1.{b}.block.2.0.*", {0}},
    {"blocks.0.{b}.bn2.*", "features.1.{b}.block.2.1.*", {0}},
    {"blocks.{s}.{b}.conv_pw.*", "features.{s+1}.{b}.block.0.0.*", {0}},
    {"blocks.{s}.{b}.bn1.*", "features.{s+1}.{b}.block.0.1.*", {0}},
    {"blocks.{s}.{b}.conv_dw.*", "features.{s+1}.{b}.block.1.0.*", {0}},
    {"blocks.{s}.{b}.bn2.*", "features.{s+1}.{b}.block.1.1.*", {0}},
    {"blocks.{s}.{b}.se.conv_reduce.*", "features.{s+1}.{b}.block.2.fc1.*", {0}},
    {"blocks.{s}.{b}.se.conv_expand.*", "features.{s+1}.{b}.block.2.fc2.*", {0}},
    {"blocks.{s}.{b}.conv_pwl.*", "features.{s+1}.{b}.block.3.0.*", {0}},
    {"blocks.{s}.{b}.bn3.*", "features.{s+1}.{b}.block.3.1.*", {0}},
    {"conv_head.*", "features.8.0.*", {0}},
    {"bn2.*", "features.8.1.*", {0}},
    {"classifier.*", "classifier.1.*", {0}},
    {0},
};

static const sh_alias_rule timm_to_lukemelas[] = {
    {"conv_stem.*", "_conv_stem.*", {0}},
    {"bn1.*", "_bn0.*", {0}},
    {"blocks.0.{b}.conv_dw.*", "_blocks.{b}._depthwise_conv.*", {0}},
    {"blocks.0.{b}.bn1.*", "_blocks.{b}._bn1.*", {0}},
    {"blocks.0.{b}.conv_pw.*", "_blocks.{b}._project_conv.*", {0}},
    {"blocks.0.{b}.bn2.*", "_blocks.{b}._bn2.*", {0}},
    {"blocks.{s}.{b}.conv_pw.*", "_blocks.{s,b}._expand_conv.*", {0}},
    {"blocks.{s}.{b}.bn1.*", "_blocks.{s,b}._bn0.*", {0}},
    {"blocks.{s}.{b}.conv_dw.*", "_blocks.{s,b}._depthwise_conv.*", {0}},
    {"blocks.{s}.{b}.bn2.*", "_blocks.{s,b}._bn1.*", {0}},
    {"blocks.{s}.{b}.se.conv_reduce.*", "_blocks.{s,b}._se_reduce.*", {0}},
    {"blocks.{s}.{b}.se.conv_expand.*", "_blocks.{s,b}._se_expand.*", {0}},
    {"blocks.{s}.{b}.conv_pwl.*", "_blocks.{s,b}._project_conv.*", {0}},
    {"blocks.{s}.{b}.bn3.*", "_blocks.{s,b}._bn2.*", {0}},
    {"conv_head.*", "_conv_head.*", {0}},
    {"bn2.*", "_bn1.*", {0}},
    {"classifier.*", "_fc.*", {0}},
    {0},
};

static const sh_alias_rule keras_to_lukemelas[] = {
    {"stem_conv.*", "_conv_stem.*", {0}},
    {"stem_bn.*", "_bn0.*", {0}},
    {"block{s}{b:a}_expand_conv.*", "_blocks.{s,b}._expand_conv.*", {0}},
    {"block{s}{b:a}_expand_bn.*", "_blocks.{s,b}._bn0.*", {0}},
    {"block{s}{b:a}_dwconv.*", "_blocks.{s,b}._depthwise_conv.*", {0}},
    {"block{s}{b:a}_bn.*", "_blocks.{s,b}._bn1.*", {0}},
    {"block{s}{b:a}_se_reduce.*", "_blocks.{s,b}._se_reduce.*", {0}},
    {"block{s}{b:a}_se_expand.*", "_blocks.{s,b}._se_expand.*", {0}},
    {"block{s}{b:a}_project_conv.*", "_blocks.{s,b}._project_conv.*", {0}},
    {"block{s}{b:a}_project_bn.*", "_blocks.{s,b}._bn2.*", {0}},
    {"top_conv.*", "_conv_head.*", {0}},
    {"top_bn.*", "_bn1.*", {0}},
    {"predictions.*", "_fc.*", {0}},
    {0},
};

/* ---- Inception-v3 ---- */

#define NAMES(...) ((const char *const[]){__VA_ARGS__, NULL})
#define BLOCK_A(b)                                                                                 \
    b ".branch1x1", b ".branch5x5_1", b ".branch5x5_2", b ".branch3x3dbl_1", b ".branch3x3dbl_2",  \
        b ".branch3x3dbl_3", b ".branch_pool"
#define BLOCK_C(b)                                                                                 \
    b ".branch1x1", b ".branch7x7_1", b ".branch7x7_2", b ".branch7x7_3", b ".branch7x7dbl_1",     \
        b ".branch7x7dbl_2", b ".branch7x7dbl_3", b ".branch7x7dbl_4", b ".branch7x7dbl_5",        \
        b ".branch_pool"
#define BLOCK_E(b)                                                                                 \
    b ".branch1x1", b ".branch3x3_1", b ".branch3x3_2a", b ".branch3x3_2b", b ".branch3x3dbl_1",   \
        b ".branch3x3dbl_2", b ".branch3x3dbl_3a", b ".branch3x3dbl_3b", b ".branch_pool"

static const sh_alias_group inception_v3_layers[] = {
    {1, NAMES("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3",
              BLOCK_A("Mixed_5b"), BLOCK_A("Mixed_5c"), BLOCK_A("Mixed_5d"), "Mixed_6a.branch3x3",
              "Mixed_6a.branch3x3dbl_1", "Mixed_6a.branch3x3dbl_2", "Mixed_6a.branch3x3dbl_3",
              BLOCK_C("Mixed_6b"), BLOCK_C("Mixed_6c"), BLOCK_C("Mixed_6d"), BLOCK_C("Mixed_6e"),
              "Mixed_7a.branch3x3_1", "Mixed_7a.branch3x3_2", "Mixed_7a.branch7x7x3_1",
              "Mixed_7a.branch7x7x3_2", "Mixed_7a.branch7x7x3_3", "Mixed_7a.branch7x7x3_4",
              BLOCK_E("Mixed_7b"), BLOCK_E("Mixed_7c"))},
    {0},
};

static const sh_alias_rule keras_inception_v3[] = {
    {"conv2d{#}.*", "$.conv.*", {0}},
    {"batch_normalization{#}.*", "$.bn.*", {0}},
    {"predictions.*", "fc.*", {0}},
    {0},
};

/* ---- Inception-ResNet-v2 ---- */

static const sh_alias_group inception_resnet_v2_layers[] = {
    {1, NAMES("conv2d_1a", "conv2d_2a", "conv2d_2b", "conv2d_3b", "conv2d_4a", "mixed_5b.branch0",
              "mixed_5b.branch1.0", "mixed_5b.branch1.1", "mixed_5b.branch2.0",
              "mixed_5b.branch2.1", "mixed_5b.branch2.2", "mixed_5b.branch3.1")},
    {10, NAMES("repeat.{i}.branch0", "repeat.{i}.branch1.0", "repeat.{i}.branch1.1",
               "repeat.{i}.branch2.0", "repeat.{i}.branch2.1", "repeat.{i}.branch2.2")},
    {1,
     NAMES("mixed_6a.branch0", "mixed_6a.branch1.0", "mixed_6a.branch1.1", "mixed_6a.branch1.2")},
    {20, NAMES("repeat_1.{i}.branch0", "repeat_1.{i}.branch1.0", "repeat_1.{i}.branch1.1",
               "repeat_1.{i}.branch1.2")},
    {1,
     NAMES("mixed_7a.branch0.0", "mixed_7a.branch0.1", "mixed_7a.branch1.0", "mixed_7a.branch1.1",
           "mixed_7a.branch2.0", "mixed_7a.branch2.1", "mixed_7a.branch2.2")},
    {9, NAMES("repeat_2.{i}.branch0", "repeat_2.{i}.branch1.0", "repeat_2.{i}.branch1.1",
              "repeat_2.{i}.branch1.2")},
    {1, NAMES("block8.branch0", "block8.branch1.0", "block8.branch1.1", "block8.branch1.2")},
    {0},
};

static const sh_alias_rule keras_inception_resnet_v2[] = {
    {"conv2d{#}.*", "$.conv.*", {0}},
    {"batch_normalization{#}.*", "$.bn.*", {0}},
    {"block35_{n}_conv.*", "repeat.{n-1}.conv2d.*", {0}},
    {"block17_{n}_conv.*", "repeat_1.{n-1}.conv2d.*", {0}},
    {"block8_10_conv.*", "block8.conv2d.*", {0}},
    {"block8_{n}_conv.*", "repeat_2.{n-1}.conv2d.*", {0}},
    {"conv_7b.*", "conv2d_7b.conv.*", {0}},
    {"conv_7b_bn.*", "conv2d_7b.bn.*", {0}},
    {"predictions.*", "classif.*", {0}},
    {0},
};

static const sh_alias_rule cadene_inception_resnet_v2[] = {
    {"last_linear.*", "classif.*", {0}},
    {0},
};

static const sh_alias aliases[] = {
    {.net = "mobilenet_v2_keras", .source = "Keras", .rules = keras_mobilenet_v2},
    {.net = "mobilenet_v2",
     .source = "timm",
     .rules = timm_mobilenet_v2,
     .depths = mobilenet_v2_depths},
    {.net = "vgg16", .source = "Keras", .rules = keras_vgg16},
    {.net = "inception_v3_keras",
     .source = "Keras",
     .rules = keras_inception_v3,
     .sequence = inception_v3_layers},
    {.net = "inception_resnet_v2",
     .source = "Keras",
     .rules = keras_inception_resnet_v2,
     .sequence = inception_resnet_v2_layers},
    {.net = "inception_resnet_v2", .source = "Cadene", .rules = cadene_inception_resnet_v2},
    {.net = "efficientnet_b0", .source = "timm", .rules = timm_to_torchvision, .depths = b0_depths},
    {.net = "tf_efficientnet_b0",
     .source = "timm",
     .rules = timm_to_lukemelas,
     .depths = b0_depths},
    {.net = "tf_efficientnet_b5",
     .source = "timm",
     .rules = timm_to_lukemelas,
     .depths = b5_depths},
    {.net = "tf_efficientnet_b0",
     .source = "Keras",
     .rules = keras_to_lukemelas,
     .depths = b0_depths,
     .first_stage = 1},
    {.net = "tf_efficientnet_b5",
     .source = "Keras",
     .rules = keras_to_lukemelas,
     .depths = b5_depths,
     .first_stage = 1},
    {0},
};

const sh_alias *sh_alias_list(void)
{
    return aliases;
}
