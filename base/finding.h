// SPDX-License-Identifier: Apache-2.0
/** What an examination found, for shoal doctor and for the reasons that others give. */
#ifndef SH_BASE_FINDING_H
#define SH_BASE_FINDING_H

#include <stdbool.h>

enum { SH_FINDING_TEXT = 2048, SH_MAX_FINDINGS = 8 }; /* of one examination */

typedef struct sh_finding {
    const char *what;             /* "cudnn", a static string */
    char found[SH_FINDING_TEXT];  /* "9.19.0, /usr/lib/libcudnn_graph.so.9" */
    char remedy[SH_FINDING_TEXT]; /* what to do where something is missing; "": nothing */
    bool is_needed;               /* what is missing stops the whole */
} sh_finding;

#endif
