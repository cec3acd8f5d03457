// SPDX-License-Identifier: Apache-2.0
#include "models/zoo/zoo.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "models/zoo/nets.h"

static const sh_net *const nets[] = {
    &sh_net_mobilenet_v2,
    &sh_net_efficientnet_lite0,
    &sh_net_siamese_orl,
    NULL,
};

/* Only a row of zeros meets it: such a row stays zero instead of becoming NaN. */
static const float norm_eps = 1e-12f;

sh_layer_name sh_layer_name_format(const char *fmt, ...)
{
    sh_layer_name name;
    va_list args;

    va_start(args, fmt);
    vsnprintf(name.text, sizeof(name.text), fmt, args);
    va_end(args);
    return name;
}

const sh_net *const *sh_net_list(void)
{
    return nets;
}

sh_status sh_net_find(const char *name, const sh_net **out)
{
    sh_status st = SH_OK;
    char known[512] = "";
    size_t n = 0;

    for (int i = 0; nets[i] != NULL; i++) {
        if (strcmp(nets[i]->name, name) == 0) {
            *out = nets[i];
            goto out;
        }
        if (n < sizeof(known))
            n += (size_t)snprintf(known + n, sizeof(known) - n, "%s%s", i == 0 ? "" : ", ",
                                  nets[i]->name);
    }
    SH_FAIL(SH_ERR_USAGE, "unknown network '%s'; known are %s", name, known);
out:
    return st;
}

sh_value sh_net_classifier(sh_program *p, const sh_net *net, sh_value image, int n_classes)
{
    sh_value x = net->trunk(p, image);

    if (net->classifier == NULL) return x;
    if (net->dropout > 0) x = sh_op_dropout(p, x, net->dropout);
    return sh_op_linear(p, x, net->classifier, n_classes, true);
}

sh_value sh_net_embedding(sh_program *p, const sh_net *net, sh_value image, int dim, float dropout,
                          bool normalize)
{
    sh_value x = net->trunk(p, image);

    if (dropout > 0) x = sh_op_dropout(p, x, dropout);
    if (dim > 0) x = sh_op_linear(p, x, "head", dim, true);
    return normalize ? sh_op_l2_norm(p, x, norm_eps) : x;
}
