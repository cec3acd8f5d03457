// SPDX-License-Identifier: Apache-2.0
/** What every fuzz target defines. libFuzzer calls it, or replay.c does. */
#ifndef SH_TESTS_FUZZ_FUZZ_H
#define SH_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/** Read one input; crash, or trip a sanitizer, on a fault of ours. Returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

#endif
