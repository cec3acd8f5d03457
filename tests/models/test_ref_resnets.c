// SPDX-License-Identifier: Apache-2.0
// prefix: ref
// timeout: 900
// label: slow
/** Reference values of residual networks. */
#include "ref_check.h"

static const ref_case cases[] = {
    {"resnet50", true},
    {"resnet101", true},
    {"resnet101_v2", true},
};

#include "ref_net_tests.h"
