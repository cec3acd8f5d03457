// SPDX-License-Identifier: Apache-2.0
// prefix: ref
// timeout: 900
// label: slow
/** Reference values of the EfficientNets with squeeze-and-excitation. */
#include "ref_check.h"

static const ref_case cases[] = {
    {"efficientnet_b0", false},    {"efficientnet_b5", true},    {"timm_efficientnet_b5", true},
    {"tf_efficientnet_b0", false}, {"tf_efficientnet_b5", true}, {"efficientnetv2_rw_m", true},
};

#include "ref_net_tests.h"
