// SPDX-License-Identifier: Apache-2.0
/** What of a configuration is about losses. */
#include "trainer/config.h"

/* Values of loss.kind behind those of sh_loss_kind, in the order of its names (config.c). */
enum { CROSS_ENTROPY = SH_LOSS_KINDS, ARCFACE, SUB_ARCFACE };

bool sh_config_has_metric(const sh_config *c)
{
    return c->loss.kind < SH_LOSS_KINDS;
}

sh_loss_config sh_config_loss(const sh_config *c)
{
    bool cosine = c->loss.kind == SH_LOSS_MULTI_SIMILARITY || c->loss.kind == SH_LOSS_NT_XENT;

    return (sh_loss_config){.kind = (sh_loss_kind)c->loss.kind,
                            .distance = cosine ? SH_COSINE : (sh_distance)c->loss.distance,
                            .margin = (float)c->loss.margin,
                            .soft = c->loss.soft,
                            .reduction = SH_NONZERO_MEAN,
                            .max_per_label =
                                c->sampling.kind == SH_SAMPLING_PK ? c->sampling.images : 0,
                            .alpha = (float)c->loss.alpha,
                            .beta = (float)c->loss.beta,
                            .base = (float)c->loss.base,
                            .epsilon = (float)c->loss.epsilon,
                            .temperature = (float)c->loss.temperature,
                            .seed = (uint64_t)c->seed};
}

sh_class_config sh_config_classes(const sh_config *c)
{
    bool arcface = c->loss.kind == ARCFACE || c->loss.kind == SUB_ARCFACE;
    sh_class_config classes = {.n_centres = c->loss.kind == SUB_ARCFACE ? c->loss.centres : 1,
                               .scale = (float)c->loss.scale,
                               .margin = (float)c->loss.margin,
                               .smoothing = (float)c->loss.smoothing};

    if (arcface)
        classes.kind = SH_CLASS_ARCFACE;
    else if (c->loss.kind == CROSS_ENTROPY || c->loss.classification > 0)
        classes.kind = SH_CLASS_CROSS_ENTROPY;
    return classes;
}

float sh_config_classification(const sh_config *c)
{
    return sh_config_has_metric(c) ? (float)c->loss.classification : 1;
}

sh_status sh_config_check_loss(const sh_config *c)
{
    sh_status st = SH_OK;
    bool classifies = sh_config_classes(c).kind != SH_CLASS_NONE;

    SH_CHECK(
        sh_config_has_metric(c) || c->loss.classification == 0, SH_ERR_USAGE,
        "loss.classification adds a cross-entropy to a loss over embeddings, and loss.kind is a "
        "classification already");
    SH_CHECK(classifies || (c->loss.smoothing == 0 && c->loss.class_weights == 0), SH_ERR_USAGE,
             "loss.smoothing and loss.class_weights are settings of a classification, and there is "
             "none: loss.kind is a loss over embeddings and loss.classification is 0");
    SH_CHECK(sh_config_has_metric(c) || c->loss.kind == CROSS_ENTROPY || c->loss.margin <= 1.57,
             SH_ERR_USAGE,
             "loss.margin=%g: ArcFace's margin is an angle in radians, at most 1.57; 28.6 degrees "
             "are 0.5",
             c->loss.margin);
out:
    return st;
}
