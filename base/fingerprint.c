// SPDX-License-Identifier: Apache-2.0
#include "base/fingerprint.h"

#include <gnu/libc-version.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cpu.h"

enum { FACT_BYTES = 512 };

#ifdef __clang__
#define COMPILER __VERSION__ /* names itself */
#else
#define COMPILER "gcc " __VERSION__
#endif

/* Variables that make Shoal's kernels or a library compute with other instructions. */
static const char *const variables[] = {
    "SHOAL_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_CPU_ISA_HINTS",
    "ONEDNN_CPU_ISA_HINTS",
    "DNNL_DEFAULT_FPMATH_MODE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "GLIBC_TUNABLES",
    "JSIMD_FORCENONE",
};

typedef struct writer {
    char *text;
    size_t size, used;
} writer;

SH_PRINTF(2, 3) static void add(writer *w, const char *fmt, ...)
{
    va_list args;
    size_t room = w->used < w->size ? w->size - w->used : 0;

    va_start(args, fmt);
    w->used += (size_t)vsnprintf(room > 0 ? w->text + w->used : NULL, room, fmt, args);
    va_end(args);
}

static void add_environment(writer *w)
{
    bool any = false;

    add(w, "environment:");
    for (size_t i = 0; i < SH_COUNT(variables); i++) {
        const char *value = getenv(variables[i]);

        if (value != NULL) add(w, " %s=%s", variables[i], value);
        any = any || value != NULL;
    }
    add(w, "%s\n", any ? "" : " -");
}

sh_status sh_fingerprint_text(int threads, const char *const *libraries, int n_libraries,
                              char *text, size_t size)
{
    sh_status st = SH_OK;
    writer w = {.text = text, .size = size};
    char model[FACT_BYTES], features[FACT_BYTES], caches[FACT_BYTES];

    sh_cpu_model(model, sizeof(model));
    sh_cpu_features(features, sizeof(features));
    sh_cpu_caches(caches, sizeof(caches));
    add(&w, "shoal: %s\n", SHOAL_VERSION);
    add(&w, "compiler: %s\n", COMPILER);
    add(&w, "processor: %s\n", model);
    add(&w, "instructions: %s\n", features);
    add(&w, "caches: %s\n", caches);
    add(&w, "threads: %d\n", threads);
    add(&w, "C library: glibc %s\n", gnu_get_libc_version());
    add_environment(&w);
    for (int i = 0; i < n_libraries; i++) add(&w, "%s\n", libraries[i]);
    SH_CHECK(w.used < size, SH_ERR_INTERNAL, "the fingerprint has %zu bytes, more than %zu", w.used,
             size);
out:
    return st;
}
