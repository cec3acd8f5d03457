// SPDX-License-Identifier: Apache-2.0
#include "base/tensor.h"

const char *sh_dtype_name(sh_dtype dtype)
{
    static const char *const names[] = {
        [SH_F32] = "f32", [SH_BF16] = "bf16", [SH_U8] = "u8", [SH_I32] = "i32"};

    return names[dtype];
}

const char *sh_layout_name(sh_layout layout)
{
    static const char *const names[] = {
        [SH_NCHW] = "nchw", [SH_NHWC] = "nhwc", [SH_NHWC8] = "nhwc8", [SH_NCHW16C] = "nchw16c"};

    return names[layout];
}
