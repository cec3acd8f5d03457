// SPDX-License-Identifier: Apache-2.0
// prefix: ref
// timeout: 900
// label: slow
/** Reference values of VGG. */
#include "ref_check.h"

static const ref_case cases[] = {
    {"vgg16", true},
    {"vgg16_bn", true},
};

#include "ref_net_tests.h"
