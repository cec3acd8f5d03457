// SPDX-License-Identifier: Apache-2.0
/* Vision transformers of the small size (Dosovitskiy et al. 2021, Touvron et al. 2021) as timm has
 * them: 16x16 patches as trained by AugReg and DINO, 14x14 patches with LayerScale as in DINOv2.
 * Features are the class token behind the last layer norm.
 *
 * The public classifier is called `head`, so that a head of one layer is `head.0` here, also where
 * the network has no classifier: files of the other ViT-S/16 load into it.
 *
 * The position embedding belongs to one image size; models/weights resamples it for another. */
#include "models/graph.h"
#include "models/zoo/nets.h"

enum { WIDTH = 384, HEADS = 6, DEPTH = 12, MLP_WIDTH = 4 * WIDTH };

static const float norm_eps = 1e-6f;

typedef struct variant {
    int patch; /* side of a patch in pixels */
    bool has_layer_scale;
} variant;

/* x + scale of branch(norm(x)): what both halves of a block end with. */
static sh_value add_branch(sh_program *p, sh_value x, sh_value branch, const char *scale)
{
    if (scale != NULL) branch = sh_op_scale(p, branch, scale);
    return sh_op_add(p, x, branch);
}

static sh_value block(sh_program *p, sh_value x, int index, bool has_layer_scale)
{
    const sh_layer_name name = sh_layer_name_format("blocks.%d.", index);
    const char *prefix = name.text;
    const sh_layer_name ls1 = sh_layer_name_format("%sls1.gamma", prefix);
    const sh_layer_name ls2 = sh_layer_name_format("%sls2.gamma", prefix);

    sh_value y = sh_op_layer_norm(p, x, sh_layer_name_format("%snorm1", prefix).text, norm_eps);
    y = sh_op_linear(p, y, sh_layer_name_format("%sattn.qkv", prefix).text, 3 * WIDTH, true);
    y = sh_op_attention(p, y, HEADS);
    y = sh_op_linear(p, y, sh_layer_name_format("%sattn.proj", prefix).text, WIDTH, true);
    x = add_branch(p, x, y, has_layer_scale ? ls1.text : NULL);

    y = sh_op_layer_norm(p, x, sh_layer_name_format("%snorm2", prefix).text, norm_eps);
    y = sh_op_linear(p, y, sh_layer_name_format("%smlp.fc1", prefix).text, MLP_WIDTH, true);
    y = sh_op_act(p, y, SH_ACT_GELU);
    y = sh_op_linear(p, y, sh_layer_name_format("%smlp.fc2", prefix).text, WIDTH, true);
    return add_branch(p, x, y, has_layer_scale ? ls2.text : NULL);
}

/* Patches must cover the image: pixels that are left over would be ignored. */
static sh_status check_sides(sh_trunk *t, sh_value image, int patch)
{
    sh_status st = SH_OK;
    int64_t dims[4];

    sh_program_dims(t->p, image, dims);
    SH_CHECK(dims[2] % patch == 0 && dims[3] % patch == 0, SH_ERR_USAGE,
             "%s takes images whose sides are multiples of %d, not %lldx%lld", t->net->name, patch,
             (long long)dims[2], (long long)dims[3]);
out:
    return st;
}

static sh_value features(sh_trunk *t, sh_value image)
{
    const variant *plan = t->net->plan;
    const int patch = plan->patch;

    sh_graph_fail(t->p, check_sides(t, image, patch));
    sh_value x = sh_op_conv(
        t->p, image, "patch_embed.proj",
        &(sh_conv_attrs){
            .out_channels = WIDTH, .kernel = {patch, patch}, .stride = patch, .bias = true});

    x = sh_op_tokens(t->p, x, "cls_token", "pos_embed");
    for (int i = 0; i < DEPTH; i++) {
        x = block(t->p, x, i, plan->has_layer_scale);
        if (sh_trunk_ends(t, x, "blocks.%d", i)) return x;
    }
    x = sh_op_layer_norm(t->p, x, "norm", norm_eps);
    sh_trunk_ends(t, x, "norm");
    return x;
}

static sh_value class_token(sh_trunk *t, sh_value x)
{
    return sh_op_take_token(t->p, x, 0);
}

const sh_net sh_net_vit_small_patch16_224 = {
    .name = "vit_small_patch16_224",
    .title = "ViT-S/16, 21.7 million weights without classifier (AugReg weights of timm)",
    SH_NET_SYMMETRIC_INPUT,
    .default_size = 224,
    .n_features = WIDTH,
    .plan = &(const variant){.patch = 16},
    .features = features,
    .pool = class_token,
    .head = "head.0",
    .classifier = "head",
};

const sh_net sh_net_vit_small_patch16_224_dino = {
    .name = "vit_small_patch16_224_dino",
    .title = "ViT-S/16 for DINO weights: the same network, another normalisation",
    SH_NET_IMAGENET_INPUT,
    .default_size = 224,
    .n_features = WIDTH,
    .plan = &(const variant){.patch = 16},
    .features = features,
    .pool = class_token,
    .head = "head.0",
};

const sh_net sh_net_vit_small_patch14_dinov2 = {
    .name = "vit_small_patch14_dinov2",
    .title = "ViT-S/14 of DINOv2, 22.1 million weights (names as in timm)",
    SH_NET_IMAGENET_INPUT,
    .default_size = 518,
    .n_features = WIDTH,
    .plan = &(const variant){.patch = 14, .has_layer_scale = true},
    .features = features,
    .pool = class_token,
    .head = "head.0",
};
