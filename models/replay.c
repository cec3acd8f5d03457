// SPDX-License-Identifier: Apache-2.0
#include "models/replay.h"

#include <stdlib.h>
#include <string.h>

typedef struct sh_replay {
    char key[SH_REPLAY_KEY_BYTES];
    size_t n_bytes;
    sh_recording *recording; /* NULL: it was run once */
} sh_replay;

static sh_replay *find(const sh_replays *replays, const void *key, size_t n_bytes)
{
    for (int i = 0; i < replays->n; i++) {
        sh_replay *r = &replays->list[i];

        if (r->n_bytes == n_bytes && memcmp(r->key, key, n_bytes) == 0) return r;
    }
    return NULL;
}

static sh_status append(sh_replays *replays, const void *key, size_t n_bytes)
{
    sh_status st = SH_OK;
    sh_replay *list = NULL;

    SH_CHECK(n_bytes <= SH_REPLAY_KEY_BYTES, SH_ERR_INTERNAL, "a key of %zu bytes", n_bytes);
    list = realloc(replays->list, (size_t)(replays->n + 1) * sizeof(*list));
    SH_CHECK(list != NULL, SH_ERR_NO_MEMORY, "recordings");
    replays->list = list;
    list[replays->n] = (sh_replay){.n_bytes = n_bytes};
    memcpy(list[replays->n++].key, key, n_bytes);
out:
    return st;
}

/* A failure of what is launched is told rather than that of the recording, which it spoils. */
static sh_status record(const sh_recorder *recorder, sh_status (*launch)(void *context),
                        void *context, sh_recording **out)
{
    sh_status st = SH_OK, launched;

    SH_TRY(recorder->begin());
    launched = launch(context);
    if (launched != SH_OK) recorder->drop();
    SH_TRY(launched);
    SH_TRY(recorder->end(out));
out:
    return st;
}

sh_status sh_replays_run(sh_replays *replays, const sh_backend *backend, const void *key,
                         size_t n_bytes, sh_status (*launch)(void *context), void *context)
{
    sh_status st = SH_OK;
    const sh_recorder *recorder = backend->recorder;
    sh_replay *r = recorder != NULL ? find(replays, key, n_bytes) : NULL;

    if (r == NULL) {
        SH_TRY(launch(context));
        if (recorder != NULL) SH_TRY(append(replays, key, n_bytes));
        goto out;
    }
    if (r->recording == NULL) SH_TRY(record(recorder, launch, context, &r->recording));
    SH_TRY(recorder->play(r->recording));
out:
    return st;
}

void sh_replays_clear(sh_replays *replays, const sh_backend *backend)
{
    for (int i = 0; i < replays->n; i++)
        if (replays->list[i].recording != NULL)
            backend->recorder->destroy(&replays->list[i].recording);
    free(replays->list);
    *replays = (sh_replays){0};
}
