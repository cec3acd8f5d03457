// SPDX-License-Identifier: Apache-2.0
#include "trainer/device.h"

#include "base/log.h"

static const char *const names[] = {[SH_DEVICE_AUTO] = "cuda",
                                    [SH_DEVICE_CPU] = "cpu",
                                    [SH_DEVICE_REF] = "ref",
                                    [SH_DEVICE_CUDA] = "cuda"};

static const sh_backend *automatic; /* what auto is in this process; NULL: not chosen yet */

static sh_status agree(sh_comm *comm, sh_status mine)
{
    return comm != NULL ? sh_comm_agree_ok(comm, mine) : mine;
}

static sh_status choose_automatic(sh_comm *comm, const sh_backend *gpu)
{
    sh_status st = SH_OK;

    SH_TRY(sh_backend_find("cpu", &automatic));
    if (gpu == NULL) goto out;
    if (agree(comm, sh_backend_check(gpu)) == SH_OK) {
        automatic = gpu;
    } else {
        sh_log_info("device=auto is the CPU: %s", sh_error_message());
        sh_error_clear();
    }
out:
    return st;
}

static sh_status choose(const sh_config *c, sh_comm *comm, const sh_backend **out)
{
    sh_status st = SH_OK;
    const sh_backend *named = NULL;
    bool is_automatic = c->device == SH_DEVICE_AUTO;
    sh_status found = sh_backend_find(names[c->device], &named);

    SH_CHECK(found == SH_OK || is_automatic, SH_ERR_UNSUPPORTED,
             "device=%s: this build has no such backend; use device=cpu", names[c->device]);
    if (found != SH_OK) sh_error_clear();
    if (is_automatic && automatic == NULL) SH_TRY(choose_automatic(comm, named));
    if (!is_automatic) SH_TRY(agree(comm, sh_backend_check(named)));
    *out = is_automatic ? automatic : named;
out:
    return st;
}

sh_status sh_device_choose(const sh_config *c, const sh_backend **out)
{
    return choose(c, NULL, out);
}

sh_status sh_device_choose_all(const sh_config *c, sh_comm *comm, const sh_backend **out)
{
    sh_status st = SH_OK;
    sh_finding findings[SH_MAX_FINDINGS];
    int n = 0;

    SH_TRY(choose(c, comm, out));
    if ((*out)->examine != NULL) n = (*out)->examine(findings, SH_MAX_FINDINGS);
    for (int i = 0; i < n; i++)
        sh_log_info("%s: %s%s%s", findings[i].what, findings[i].found,
                    findings[i].remedy[0] != '\0' ? "; " : "", findings[i].remedy);
out:
    return st;
}
