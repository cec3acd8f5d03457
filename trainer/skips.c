// SPDX-License-Identifier: Apache-2.0
#include "trainer/skips.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

enum { MAX_BYTES = 64 << 20, LINE_BYTES = 1024 };

static sh_status read_text(const char *run, char **text, size_t *n_bytes)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];

    SH_TRY(sh_run_path(run, "skipped.csv", path));
    if (sh_file_exists(path)) SH_TRY(sh_file_get(path, MAX_BYTES, text, n_bytes));
out:
    return st;
}

static sh_status append(sh_skips *skips, int64_t step)
{
    sh_status st = SH_OK;
    int64_t *grown = realloc(skips->steps, (size_t)(skips->n + 1) * sizeof(*grown));

    SH_CHECK(grown != NULL, SH_ERR_NO_MEMORY, "list of skipped steps");
    skips->steps = grown;
    skips->steps[skips->n++] = step;
out:
    return st;
}

static sh_status parse(const char *text, const char *run, sh_skips *skips)
{
    sh_status st = SH_OK;

    while (*text != '\0') {
        char *end = NULL;
        long long step = strtoll(text, &end, 10);

        SH_CHECK(end != text && *end == ',' && step >= 0, SH_ERR_FORMAT,
                 "%s/skipped.csv: \"%.*s\" is not a step and a reason", run,
                 (int)strcspn(text, "\n"), text);
        SH_TRY(append(skips, step));
        text = strchr(end, '\n');
        if (text == NULL) break;
        text++;
    }
out:
    return st;
}

sh_status sh_skips_load(sh_comm *comm, const char *run, sh_skips *out)
{
    sh_status st = SH_OK, local = SH_OK;
    char *text = NULL;
    size_t n_bytes = 0;
    sh_skips skips = {0};

    if (sh_comm_rank(comm) == 0) {
        local = read_text(run, &text, &n_bytes);
        if (local == SH_OK && text != NULL) local = parse(text, run, &skips);
    }
    SH_TRY(sh_comm_agree_ok(comm, local));
    int n = skips.n;

    SH_TRY(sh_comm_bcast(comm, &n, sizeof(n), 0));
    if (n > skips.n) { /* not rank 0 */
        skips.steps = calloc((size_t)n, sizeof(*skips.steps));
        SH_CHECK(skips.steps != NULL, SH_ERR_NO_MEMORY, "list of skipped steps");
        skips.n = n;
    }
    SH_TRY(sh_comm_bcast(comm, skips.steps, (size_t)n * sizeof(*skips.steps), 0));
    *out = skips;
    skips = (sh_skips){0};
out:
    sh_skips_clear(&skips);
    free(text);
    return st;
}

void sh_skips_clear(sh_skips *skips)
{
    free(skips->steps);
    *skips = (sh_skips){0};
}

/* The whole file anew, with one line more. */
static sh_status write_line(const char *run, const sh_run_lock *lock, int64_t step,
                            const char *reason)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH], line[LINE_BYTES];
    char *text = NULL, *grown = NULL;
    size_t n_bytes = 0;
    int n = snprintf(line, sizeof(line), "%lld,%.900s\n", (long long)step, reason);

    SH_TRY(sh_run_lock_check(lock));
    SH_TRY(sh_run_path(run, "skipped.csv", path));
    SH_TRY(read_text(run, &text, &n_bytes));
    grown = realloc(text, n_bytes + (size_t)n);
    SH_CHECK(grown != NULL, SH_ERR_NO_MEMORY, "%s", path);
    text = grown;
    memcpy(text + n_bytes, line, (size_t)n);
    SH_TRY(sh_file_put(path, text, n_bytes + (size_t)n));
out:
    free(text);
    return st;
}

sh_status sh_skips_add(sh_comm *comm, const char *run, const sh_run_lock *lock, int64_t step,
                       const char *reason, sh_skips *skips)
{
    sh_status st = SH_OK, local = SH_OK;

    if (sh_comm_rank(comm) == 0) local = write_line(run, lock, step, reason);
    SH_TRY(sh_comm_agree_ok(comm, local));
    SH_TRY(append(skips, step));
out:
    return st;
}

bool sh_skips_has(const sh_skips *skips, int64_t step)
{
    for (int i = 0; i < skips->n; i++)
        if (skips->steps[i] == step) return true;
    return false;
}

int sh_skips_since(const sh_skips *skips, int64_t first)
{
    int n = 0;

    for (int i = 0; i < skips->n; i++) n += skips->steps[i] >= first;
    return n;
}
