// SPDX-License-Identifier: Apache-2.0
// prefix: ref
// timeout: 900
// label: slow
/** Reference values of vision transformers. */
#include "ref_check.h"

static const ref_case cases[] = {
    {"vit_small_patch16_224", true},
    {"vit_small_patch16_224_dino", true},
    {"vit_small_patch14_dinov2", true},
};

#include "ref_net_tests.h"
