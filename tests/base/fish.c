// SPDX-License-Identifier: Apache-2.0
/** A small library for test_dynlib.c: version 2.3.4; or old, 2.1.0; or poor, without fish_count.
 */
#include "base/fish.h"

int fish_version(void)
{
#ifdef FISH_old
    return 20100;
#else
    return 20304;
#endif
}

#ifndef FISH_poor
int fish_count(int n)
{
    return n + 1;
}
#endif
