// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <string.h>

#include "models/weights/internal.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "weight files are little-endian");

static float load_f32(const uint8_t *stored)
{
    float value;

    memcpy(&value, stored, sizeof(value));
    return value;
}

static float load_f64(const uint8_t *stored)
{
    double value;

    memcpy(&value, stored, sizeof(value));
    return (float)value;
}

static float load_bf16(const uint8_t *stored)
{
    uint16_t bits;

    memcpy(&bits, stored, sizeof(bits));
    return sh_bf16_to_f32(bits);
}

/* IEEE half: 1 sign, 5 exponent (bias 15), 10 fraction bits. */
static float load_f16(const uint8_t *stored)
{
    uint16_t bits;

    memcpy(&bits, stored, sizeof(bits));
    int exponent = bits >> 10 & 31;
    int fraction = bits & 1023;
    float size = exponent == 0    ? ldexpf((float)fraction, -24)
                 : exponent == 31 ? (fraction == 0 ? INFINITY : NAN)
                                  : ldexpf((float)(fraction + 1024), exponent - 25);

    return bits & 0x8000 ? -size : size;
}

static float load_i64(const uint8_t *stored)
{
    int64_t value;

    memcpy(&value, stored, sizeof(value));
    return (float)value;
}

static float load_i32(const uint8_t *stored)
{
    int32_t value;

    memcpy(&value, stored, sizeof(value));
    return (float)value;
}

static float load_i16(const uint8_t *stored)
{
    int16_t value;

    memcpy(&value, stored, sizeof(value));
    return value;
}

static float load_i8(const uint8_t *stored)
{
    return (int8_t)*stored;
}

static float load_u8(const uint8_t *stored)
{
    return *stored;
}

static float load_bool(const uint8_t *stored)
{
    return *stored != 0;
}

static const sh_elem_type types[] = {
    {"F32", "FloatStorage", 4, load_f32},      {"F16", "HalfStorage", 2, load_f16},
    {"BF16", "BFloat16Storage", 2, load_bf16}, {"F64", "DoubleStorage", 8, load_f64},
    {"I64", "LongStorage", 8, load_i64},       {"I32", "IntStorage", 4, load_i32},
    {"I16", "ShortStorage", 2, load_i16},      {"I8", "CharStorage", 1, load_i8},
    {"U8", "ByteStorage", 1, load_u8},         {"BOOL", "BoolStorage", 1, load_bool},
};

const sh_elem_type *sh_elem_by_name(const char *name)
{
    for (size_t i = 0; i < SH_COUNT(types); i++)
        if (strcmp(types[i].name, name) == 0) return &types[i];
    return NULL;
}

const sh_elem_type *sh_elem_by_storage(const char *name, size_t n_chars)
{
    for (size_t i = 0; i < SH_COUNT(types); i++)
        if (strlen(types[i].torch_storage) == n_chars &&
            memcmp(types[i].torch_storage, name, n_chars) == 0)
            return &types[i];
    return NULL;
}
