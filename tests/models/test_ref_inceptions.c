// SPDX-License-Identifier: Apache-2.0
// prefix: ref
// timeout: 900
// label: slow
/** Reference values of the Inceptions. */
#include "ref_check.h"

static const ref_case cases[] = {
    {"inception_v3", true},
    {"inception_v3_keras", true},
    {"inception_resnet_v2", true},
};

#include "ref_net_tests.h"
