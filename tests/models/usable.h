// SPDX-License-Identifier: Apache-2.0
/** Backends that tests can run on. */
#ifndef TESTS_MODELS_USABLE_H
#define TESTS_MODELS_USABLE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "models/backend.h"

/** The backend, or NULL, said aloud, where this build does not have it or this machine no device.
 */
static inline const sh_backend *usable_backend(const char *name)
{
    const sh_backend *backend = NULL;
    char found[512];

    if (sh_backend_find(name, &backend) != SH_OK) {
        print_message("no backend %s in this build\n", name);
        return NULL;
    }
    const char *remedy = backend->examine != NULL ? backend->examine(found, sizeof(found)) : NULL;
    if (remedy == NULL) return backend;
    print_message("%s: %s: %s\n", name, found, remedy);
    return NULL;
}

#endif
