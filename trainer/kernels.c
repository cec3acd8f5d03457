// SPDX-License-Identifier: Apache-2.0
#include "trainer/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "trainer/run.h"

static const char file_name[] = "kernels.txt";
enum { MOST_BYTES = 1 << 24 };

static sh_status measure(const sh_step_config *step, char **text)
{
    sh_status st = SH_OK;

    sh_log_info("measuring kernels for the convolutions of this run");
    SH_TRY(step->backend->set_choices("", true, step->repeatable));
    SH_TRY(sh_step_survey(step));
    SH_TRY(step->backend->get_choices(text));
out:
    return st;
}

/** Rank 0. */
static sh_status find(const char *run, bool anew, const sh_step_config *step, char **text)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    size_t n_bytes = 0;

    SH_TRY(sh_run_path(run, file_name, path));
    st = anew ? SH_ERR_NOT_FOUND : sh_file_get(path, MOST_BYTES, text, &n_bytes);
    if (st == SH_ERR_NOT_FOUND) {
        sh_error_clear();
        st = measure(step, text);
    }
out:
    return st;
}

sh_status sh_kernels_agree(sh_comm *comm, const char *run, bool anew, const sh_step_config *step,
                           char **text)
{
    sh_status st = SH_OK;
    char *found = NULL;
    int64_t n_bytes = 0;

    *text = NULL;
    if (step->backend->set_choices == NULL) goto out;
    if (!step->repeatable)
        sh_log_info("deterministic=false: kernels need not give the same bytes each time, so this "
                    "run cannot be repeated byte for byte, nor on other numbers of ranks");
    if (sh_comm_rank(comm) == 0) {
        st = find(run, anew, step, &found);
        if (st == SH_OK) n_bytes = (int64_t)strlen(found) + 1;
    }
    SH_TRY(sh_comm_agree_ok(comm, st));
    SH_TRY(sh_comm_bcast(comm, &n_bytes, sizeof(n_bytes), 0));
    if (found == NULL) found = malloc((size_t)n_bytes);
    SH_TRY(sh_comm_agree_ok(
        comm, found != NULL ? SH_OK : sh_error_set(SH_ERR_NO_MEMORY, "choices of kernels")));
    SH_TRY(sh_comm_bcast(comm, found, (size_t)n_bytes, 0));
    SH_TRY(sh_comm_agree_ok(comm, step->backend->set_choices(found, false, step->repeatable)));
    *text = found;
    found = NULL;
out:
    free(found);
    return st;
}

sh_status sh_kernels_store(const char *run, const char *text)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];

    SH_TRY(sh_run_path(run, file_name, path));
    SH_TRY(sh_file_put(path, text, strlen(text)));
out:
    return st;
}

void sh_kernels_describe(const char *text, bool repeatable, char *out, size_t size)
{
    char hash[33];

    sh_hash_format(sh_hash_content(text, strlen(text)), hash);
    snprintf(out, size, "kernels: %.*s, chosen %s%s\n", (int)strcspn(text, "\n"), text, hash,
             repeatable ? "" : ", not deterministic");
}
