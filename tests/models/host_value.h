// SPDX-License-Identifier: Apache-2.0
/** Between row-major doubles on the host and values of a program in whatever layout and type. */
#ifndef SH_TESTS_MODELS_HOST_VALUE_H
#define SH_TESTS_MODELS_HOST_VALUE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "models/program.h"

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        if ((call) != SH_OK) fail_msg("%s: %s", #call, sh_error_message());                        \
    } while (0)

/** Scalars of a run, in a backend's memory: device_ptr of it goes into sh_run_args. The caller
 * frees.
 */
static inline sh_buffer *put_scalars(const sh_backend *backend, const sh_run_scalars *scalars)
{
    sh_buffer *buffer = NULL;

    assert_ok(backend->alloc(sizeof(*scalars), &buffer));
    assert_ok(backend->copy_in(buffer, 0, scalars, sizeof(*scalars)));
    return buffer;
}

/** Write row-major doubles to a value. */
static inline void write_value(sh_program *p, sh_buffer *arena, sh_value v, const double *values)
{
    sh_tensor_desc d = sh_program_desc(p, v);
    char *host = calloc(1, sh_tensor_bytes(&d));
    int64_t i = 0;

    assert_non_null(host);
    for (int64_t n = 0; n < d.dims[0]; n++)
        for (int64_t c = 0; c < d.dims[1]; c++)
            for (int64_t h = 0; h < d.dims[2]; h++)
                for (int64_t w = 0; w < d.dims[3]; w++, i++) {
                    int64_t at = sh_tensor_offset(&d, n, c, h, w);

                    if (d.dtype == SH_F32)
                        ((float *)host)[at] = (float)values[i];
                    else
                        ((uint16_t *)host)[at] = sh_bf16_from_f32((float)values[i]);
                }
    assert_ok(sh_program_write(p, arena, v, host));
    free(host);
}

/** Read a value as row-major doubles; the caller frees. */
static inline double *read_value(sh_program *p, sh_buffer *arena, sh_value v)
{
    sh_tensor_desc d = sh_program_desc(p, v);
    char *host = malloc(sh_tensor_bytes(&d));
    double *values =
        malloc((size_t)(d.dims[0] * d.dims[1] * d.dims[2] * d.dims[3]) * sizeof(*values));
    int64_t i = 0;

    assert_true(host != NULL && values != NULL);
    assert_ok(sh_program_read(p, arena, v, host));
    for (int64_t n = 0; n < d.dims[0]; n++)
        for (int64_t c = 0; c < d.dims[1]; c++)
            for (int64_t h = 0; h < d.dims[2]; h++)
                for (int64_t w = 0; w < d.dims[3]; w++, i++) {
                    int64_t at = sh_tensor_offset(&d, n, c, h, w);

                    values[i] = d.dtype == SH_F32 ? ((float *)host)[at]
                                                  : sh_bf16_to_f32(((uint16_t *)host)[at]);
                }
    free(host);
    return values;
}

#endif
