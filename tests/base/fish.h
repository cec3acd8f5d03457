// SPDX-License-Identifier: Apache-2.0
/** The header of a small library that is looked for at run time (fish.c). */
#ifndef TESTS_BASE_FISH_H
#define TESTS_BASE_FISH_H

int fish_version(void);
int fish_count(int n);

#endif
