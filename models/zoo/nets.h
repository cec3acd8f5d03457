// SPDX-License-Identifier: Apache-2.0
/** One description per network; models/zoo/zoo.c lists them. */
#ifndef SH_MODELS_ZOO_NETS_H
#define SH_MODELS_ZOO_NETS_H

#include "models/zoo/zoo.h"

SH_C_BEGIN

extern const sh_net sh_net_mobilenet_v2;
extern const sh_net sh_net_efficientnet_lite0;
extern const sh_net sh_net_siamese_orl;

SH_C_END

#endif
