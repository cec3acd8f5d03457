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

    if (sh_backend_find(name, &backend) != SH_OK) {
        print_message("no backend %s in this build\n", name);
        return NULL;
    }
    if (sh_backend_check(backend) == SH_OK) return backend;
    print_message("%s\n", sh_error_message());
    return NULL;
}

#endif
