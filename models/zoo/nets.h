// SPDX-License-Identifier: Apache-2.0
/** One description per network; models/zoo/zoo.c lists them. */
#ifndef SH_MODELS_ZOO_NETS_H
#define SH_MODELS_ZOO_NETS_H

#include "models/zoo/zoo.h"

SH_C_BEGIN

/** The name of a layer, composed as by printf. The text of a returned struct lives until the end of
 *  the expression that it is part of, long enough to be passed on to a builder. */
typedef struct sh_layer_name {
    char text[96];
} sh_layer_name;

sh_layer_name sh_layer_name_format(const char *fmt, ...) SH_PRINTF(1, 2);

extern const sh_net sh_net_mobilenet_v2;
extern const sh_net sh_net_efficientnet_lite0;
extern const sh_net sh_net_siamese_orl;

SH_C_END

#endif
