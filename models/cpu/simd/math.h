// SPDX-License-Identifier: Apache-2.0
/* Functions of a vector of numbers that only maps need. */
#ifndef SH_MODELS_CPU_SIMD_MATH_H
#define SH_MODELS_CPU_SIMD_MATH_H

#include "models/cpu/simd/act.h"

/** Where the mask (all ones or all zeros per lane) is set a, else b. */
SH_INLINE vf vec_choose(vi mask, vf a, vf b)
{
    return (vf)((mask & (vi)a) | (~mask & (vi)b));
}

SH_INLINE vf vec_abs(vf x)
{
    return (vf)((vi)x & 0x7FFFFFFF);
}

/** erf, to 2 units in the last place: x plus x times a polynomial of x^2 up to 1, from there 1 -
 * exp of a polynomial. Both were fitted to the double functions with the error spread evenly. */
SH_INLINE vf vec_erf(vf x)
{
    static const float near[] = {7.853902934584767e-05f, -8.010207093320787e-04f,
                                 5.188329610973597e-03f, -2.6853812858462334e-02f,
                                 1.128358542919159e-01f, -3.761262595653534e-01f,
                                 1.2837916612625122e-01f};
    static const float far[] = {2.1697587907531902e-05f, -4.414722789078951e-04f,
                                4.205282777547836e-03f,  -2.5210333988070488e-02f,
                                1.0842208564281464e-01f, 6.33216381072998e-01f,
                                1.1295802593231201f,     -1.884664234239608e-04f};
    vf s = x * x, a = vec_min(vec_abs(x), vec_set(4));
    vf p = vec_set(near[0]), q = vec_set(far[0]);

    for (int i = 1; i < 7; i++) p = p * s + vec_set(near[i]);
    for (int i = 1; i < 8; i++) q = q * a + vec_set(far[i]);
    q = vec_set(1) - vec_exp(-q);
    q = (vf)((vi)q | ((vi)x & (vi)vec_set(-0.0f)));
    return vec_choose(a < vec_set(1), x + x * p, q);
}

/** ln x for normal x > 0, to 2 units in the last place: x = 2^n m with m near 1, and ln m = 2
 *  artanh((m - 1) / (m + 1)). */
SH_INLINE vf vec_log(vf x)
{
    vi bits = (vi)x - 0x3F3504F3; /* sqrt(1/2): from there to sqrt(2) n is 0 */
    vi whole = bits >> 23;
    vf n = __builtin_convertvector(whole, vf), m = (vf)((vi)x - (whole << 23));
    vf s = (m - vec_set(1)) / (m + vec_set(1)), q = s * s;
    vf p = vec_set(1.0f / 11);

    p = p * q + vec_set(1.0f / 9);
    p = p * q + vec_set(1.0f / 7);
    p = p * q + vec_set(1.0f / 5);
    p = p * q + vec_set(1.0f / 3);
    vf ln = s + s * q * p;
    return n * vec_set(0.693359375f) + (ln + ln - n * vec_set(2.12194440e-4f));
}

/** x to the power p, x > 0 and normal. */
SH_INLINE vf vec_pow(vf x, vf p)
{
    return vec_exp(vec_max(vec_set(-87), vec_min(vec_set(87), p * vec_log(x))));
}

/** x (1 + erf(x / sqrt(2))) / 2 */
SH_INLINE vf vec_gelu(vf x)
{
    vf half = vec_set(0.5f);

    return x * (half + half * vec_erf(x * vec_set(0.70710678f)));
}

/** The derivative of gelu at x. */
SH_INLINE vf vec_gelu_slope(vf x)
{
    vf half = vec_set(0.5f);
    vf density = vec_exp(vec_max(vec_set(-87), -half * x * x)) * vec_set(0.39894228f);

    return half + half * vec_erf(x * vec_set(0.70710678f)) + x * density;
}

#endif
