// SPDX-License-Identifier: Apache-2.0
/** A set of strings, each with a dense index in the order of first addition. */
#ifndef SH_DATAIO_STRINGS_H
#define SH_DATAIO_STRINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

SH_C_BEGIN

typedef struct sh_strings sh_strings;

SH_MUST_CHECK sh_status sh_strings_create(sh_strings **out);
void sh_strings_destroy(sh_strings **strings);

/** Copy `text` in unless it is there; *index is its place, *added (may be NULL) whether it is new.
 */
SH_MUST_CHECK sh_status sh_strings_add(sh_strings *strings, const char *text, int32_t *index,
                                       bool *added);

/** Index of `text`, or -1. */
int32_t sh_strings_find(const sh_strings *strings, const char *text);

int32_t sh_strings_count(const sh_strings *strings);

/** Valid until destroy, whatever is added later. "" for index -1. */
const char *sh_strings_get(const sh_strings *strings, int32_t index);

/** Bytes of the longest string. */
size_t sh_strings_longest(const sh_strings *strings);

/** order[i] = index of the i-th string in bytewise order; malloc'd, the caller frees. */
SH_MUST_CHECK sh_status sh_strings_sort(const sh_strings *strings, int32_t **order);

SH_C_END

#endif
