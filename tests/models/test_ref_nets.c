// SPDX-License-Identifier: Apache-2.0
// prefix: ref
// timeout: 600
// label: slow
/** Reference values of the small networks: see ref_check.h. */
#include "ref_check.h"

static const ref_case cases[] = {
    {"mobilenet_v2", false},       {"mobilenet_v2_keras", false}, {"mobilenet_v3_small", false},
    {"efficientnet_lite0", false}, {"siamese_orl", false},
};

#include "ref_net_tests.h"
