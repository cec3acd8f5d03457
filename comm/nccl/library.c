// SPDX-License-Identifier: Apache-2.0
#include "comm/nccl/library.h"

#include <stdio.h>

sh_nccl_calls sh_nccl_lib;

#if !SHOAL_NCCL_ON_HOST

#define NAME(name) "nccl" #name,
static const char *const names[] = {SH_NCCL_CALLS(NAME)};

static int version_of(const void *calls)
{
    int version = 0;

    (void)((const sh_nccl_calls *)calls)->GetVersion(&version);
    return version;
}

sh_status sh_nccl_find(sh_dynlib *out)
{
    static const sh_dynlib_spec spec = {.file = "libnccl.so.2",
                                        .like = "libnccl.so.*",
                                        .root = "NCCL_ROOT",
                                        .functions = names,
                                        .n_functions = SH_COUNT(names),
                                        .version = version_of,
                                        .least_version = 21400}; /* groups that do not block */

    return sh_dynlib_open(&spec, &sh_nccl_lib, out);
}

#endif

static sh_status open_once(const sh_dynlib **out)
{
    static sh_dynlib library;
    sh_status st = SH_OK;

    if (library.path[0] == '\0') SH_TRY(sh_nccl_find(&library));
    *out = &library;
out:
    return st;
}

sh_status sh_nccl_open(char *text, size_t size)
{
    sh_status st = SH_OK;
    const sh_dynlib *library = NULL;
    int version = 0;

    SH_TRY(open_once(&library));
    (void)sh_nccl_lib.GetVersion(&version);
    snprintf(text, size, "NCCL %d.%d.%d", version / 10000, version / 100 % 100, version % 100);
out:
    return st;
}

void sh_nccl_examine(sh_finding *out)
{
    const sh_dynlib *library = NULL;

    *out = (sh_finding){.what = "nccl"};
    if (open_once(&library) == SH_OK) {
        sh_dynlib_describe(library, out->found, sizeof(out->found));
        return;
    }
    snprintf(out->found, sizeof(out->found), "%s", sh_error_message());
    sh_error_clear();
    snprintf(out->remedy, sizeof(out->remedy),
             "several GPUs sum through the hosts: name its folder in NCCL_ROOT, load the site's "
             "module, or pip install nvidia-nccl-cu12 or -cu13");
}
