// SPDX-License-Identifier: Apache-2.0
/**
 * Kernels chosen by measurement: what this process uses for each key. As text it is a line that
 * names the library and the device, then "key: choice" per line, sorted.
 */
#ifndef SH_MODELS_CUDA_CHOICES_H
#define SH_MODELS_CUDA_CHOICES_H

#include "models/backend.h"

SH_C_BEGIN

enum { SH_CHOICE_BYTES = 256 };

/** See sh_backend.set_choices and get_choices. */
SH_MUST_CHECK sh_status sh_cuda_set_choices(const char *text, bool measure, bool repeatable);
SH_MUST_CHECK sh_status sh_cuda_get_choices(char **text);

/** May what has no choice be measured? */
bool sh_cuda_measures(void);

/** Must kernels give the same bytes each time? They must until set_choices says otherwise. */
bool sh_cuda_repeats(void);

/** The choice for a key into out; false: there is none. */
bool sh_cuda_find_choice(const char *key, char out[SH_CHOICE_BYTES]);

/** Remember it. A key has one choice: a second one is an internal error. */
SH_MUST_CHECK sh_status sh_cuda_add_choice(const char *key, const char *choice);

SH_C_END

#endif
