// SPDX-License-Identifier: Apache-2.0
/**
 * How exact the vector functions behind activations are, against double functions, over all
 * magnitudes. One unit is the distance of neighbouring f32 numbers at the exact result; where a
 * result is a small difference of large terms (GELU below 0, slopes), at the largest term.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "models/cpu/simd/simd.h"
#include "models/ops.h"

enum { N = 1 << 16 };

static double unit(double x)
{
    return ldexp(1, (x == 0 ? -126 : ilogb(x)) - 23);
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

static double silu_slope(double x)
{
    double s = 1 / (1 + exp(-x));

    return s + x * s * (1 - s);
}

static double gelu(double x)
{
    return x * erfc(-x / sqrt(2)) / 2;
}

static double gelu_slope(double x)
{
    return erfc(-x / sqrt(2)) / 2 + x * exp(-x * x / 2) / sqrt(2 * acos(-1));
}

static double hard_sigmoid(double x)
{
    return fmin(fmax(x / 6 + 0.5, 0), 1);
}

static double hard_swish(double x)
{
    return x * hard_sigmoid(x);
}

static double hard_swish_slope(double x)
{
    return fabs(x) < 3 ? x / 3 + 0.5 : x > 0;
}

/** The largest error over [lo, hi], in units of the result or, if that is larger, of the term. */
static double worst(sh_act act, bool is_slope, double lo, double hi, double (*exact)(double),
                    double term)
{
    static float x[N], y[N], ones[N];
    double most = 0;

    for (int i = 0; i < N; i++) {
        x[i] = (float)(lo + (hi - lo) * i / (N - 1));
        ones[i] = 1;
    }
    if (is_slope)
        sh_cpu_simd_get()->act_grad(ones, x, y, N, SH_F32, (int)act);
    else
        sh_cpu_simd_get()->act(x, y, N, SH_F32, (int)act);
    for (int i = 0; i < N; i++) {
        double want = exact(x[i]), scale = fabs(want) > term * fabs(x[i]) ? want : term * x[i];
        double error = fabs(y[i] - want) / unit(scale);
        if (!(error <= most)) most = error;
    }
    return most;
}

static void activations__are_exact_to_few_units(void **state)
{
    static const struct {
        sh_act act;
        bool is_slope;
        double lo, hi, term, bound;
        double (*exact)(double);
    } rows[] = {
        {SH_ACT_SILU, false, 0, 100, 0, 4, silu},
        {SH_ACT_SILU, false, -80, 0, 0, 6, silu},
        {SH_ACT_SILU, true, -80, 100, 1, 4, silu_slope},
        /* x times 1 - sigmoid, which cancels */ {SH_ACT_GELU, false, 0, 20, 0, 4, gelu},
        {SH_ACT_GELU, false, -12, 0, 0.5, 2, gelu}, /* x / 2 plus x erf / 2 */
        {SH_ACT_GELU, true, -12, 12, 0.5, 6, gelu_slope},
        {SH_ACT_HARD_SIGMOID, false, -6, 6, 0.5, 2, hard_sigmoid},
        {SH_ACT_HARD_SWISH, false, -6, 6, 0.5, 2, hard_swish},
        {SH_ACT_HARD_SWISH, true, -6, 6, 0.5, 4, hard_swish_slope},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        double most = worst(rows[i].act, rows[i].is_slope, rows[i].lo, rows[i].hi, rows[i].exact,
                            rows[i].term);
        print_message("%s%s on [%g, %g]: %.2f units\n", sh_act_name(rows[i].act),
                      rows[i].is_slope ? "'s slope" : "", rows[i].lo, rows[i].hi, most);
        assert_true(most <= rows[i].bound);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(activations__are_exact_to_few_units)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
