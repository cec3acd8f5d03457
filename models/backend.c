// SPDX-License-Identifier: Apache-2.0
/** The registry: the only place that knows which backends this build has. */
#include "models/backend.h"

#include <stdlib.h>

#include "models/cpu/cpu.h"
#include "models/cpu/peaks.h"
#include "models/cuda/cuda.h"
#include "models/guard.h"
#include "models/ref/ref.h"

static const sh_backend *const backends[] = {
#if SHOAL_WITH_CUDA
    &sh_backend_cuda,
#endif
    &sh_backend_cpu, &sh_backend_ref, /* always built, always last */
};

static const char guard_prefix[] = "guard:";

sh_status sh_backend_find(const char *name, const sh_backend **out)
{
    sh_status st = SH_OK;
    size_t n_prefix = sizeof(guard_prefix) - 1;
    bool is_guarded = strncmp(name, guard_prefix, n_prefix) == 0;
    const char *plain = is_guarded ? name + n_prefix : name;

    for (size_t i = 0; i < SH_COUNT(backends); i++) {
        if (strcmp(backends[i]->name, plain) != 0) continue;
        if (is_guarded && backends[i]->host_view == NULL) continue; /* not in host memory */
        *out = is_guarded ? sh_guard_wrap(backends[i], (int)i) : backends[i];
        goto out;
    }
    SH_FAIL(SH_ERR_USAGE, "there is no backend %s; there is %scpu and ref", name,
            SHOAL_WITH_CUDA ? "cuda, " : "");
out:
    return st;
}

sh_status sh_backend_check(const sh_backend *backend)
{
    sh_status st = SH_OK;
    sh_finding findings[SH_MAX_FINDINGS];
    int n = backend->examine != NULL ? backend->examine(findings, SH_MAX_FINDINGS) : 0;

    for (int i = 0; i < n; i++) {
        const sh_finding *f = &findings[i];
        SH_CHECK(!f->is_needed || f->remedy[0] == '\0', SH_ERR_UNSUPPORTED, "%s: %s: %s", f->what,
                 f->found, f->remedy);
    }
out:
    return st;
}

const sh_meter *sh_meter_of(const sh_backend *backend)
{
    return backend->meter != NULL ? backend->meter : &sh_cpu_meter;
}

sh_status sh_backend_alloc_host(const sh_backend *backend, size_t n_bytes, void **out)
{
    sh_status st = SH_OK;

    if (backend->device != NULL) {
        SH_TRY(backend->device->alloc_host(n_bytes, out));
        goto out;
    }
    *out = malloc(n_bytes);
    SH_CHECK(*out != NULL, SH_ERR_NO_MEMORY, "%zu bytes of the host's memory", n_bytes);
out:
    return st;
}

void sh_backend_free_host(const sh_backend *backend, void *memory)
{
    if (backend->device != NULL)
        backend->device->free_host(memory);
    else
        free(memory);
}

sh_status sh_backend_send(const sh_backend *backend, sh_buffer *to, size_t offset, const void *host,
                          size_t n_bytes)
{
    if (backend->device == NULL) return backend->copy_in(to, offset, host, n_bytes);
    return backend->device->send(SH_QUEUE_COMPUTE, backend->device_ptr(to, offset), host, n_bytes);
}

sh_status sh_backend_fetch(const sh_backend *backend, sh_buffer *from, size_t offset, void *host,
                           size_t n_bytes)
{
    if (backend->device == NULL) return backend->copy_out(from, offset, host, n_bytes);
    return backend->device->fetch(SH_QUEUE_COMPUTE, host, backend->device_ptr(from, offset),
                                  n_bytes);
}
