// SPDX-License-Identifier: Apache-2.0
/** The settings of a step, from those of a run. */
#include "trainer/device.h"
#include "trainer/step.h"

sh_status sh_step_configure(const sh_config *c, sh_step_config *out)
{
    sh_status st = SH_OK;
    sh_step_config s = {.dtype = (sh_dtype)c->dtype,
                        .batch = sh_config_batch(c),
                        .n_shards = sh_config_shards(c),
                        .loss = sh_config_loss(c),
                        .classes = sh_config_classes(c),
                        .only_classes = !sh_config_has_metric(c),
                        .classification = sh_config_classification(c),
                        .reduce = (sh_reduce_mode)c->reduce,
                        .passes = (sh_passes)c->passes,
                        .repeatable = c->deterministic,
                        .graphs = c->graphs,
                        .seed = (uint64_t)c->seed,
                        .freeze = c->freeze,
                        .lr_scale = c->optimizer.lr_scale};

    s.optim = (sh_optim_config){.kind = (sh_optim_kind)c->optimizer.kind,
                                .momentum = (float)c->optimizer.momentum,
                                .beta1 = (float)c->optimizer.beta1,
                                .beta2 = (float)c->optimizer.beta2,
                                .eps = (float)c->optimizer.eps,
                                .weight_decay = (float)c->optimizer.weight_decay,
                                .clip_norm = (float)c->optimizer.clip_norm,
                                .bad_norm = c->bad_norm,
                                .recorded = c->graphs,
                                .ema = (float)c->optimizer.ema};
    SH_TRY(sh_net_find(c->net, &s.net));
    SH_TRY(sh_config_head(c, &s.head));
    SH_TRY(sh_config_size(c, &s.height, &s.width));
    SH_TRY(sh_device_choose(c, &s.backend));
    *out = s;
out:
    return st;
}
