// SPDX-License-Identifier: Apache-2.0
/* The table of one instruction set. */
#include "models/cpu/simd/parts.h"

#define NAME2(isa) #isa
#define NAME(isa) NAME2(isa)
#define SLOT(slot) .slot = SH_SIMD(slot),

static const sh_cpu_maps maps = {SH_MAPS_SLOTS(SLOT)};

extern const sh_cpu_simd SH_SIMD(sh_cpu_simd);

const sh_cpu_simd SH_SIMD(sh_cpu_simd) = {
    .name = NAME(SH_ISA), .maps = &maps, .dot_bf16 = DOT_BF16, SH_SIMD_SLOTS(SLOT)};
