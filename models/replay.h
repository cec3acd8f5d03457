// SPDX-License-Identifier: Apache-2.0
/**
 * Launches that are the same each time: made twice, recorded the second time, and from then on
 * launched as a whole, where a backend can do that (sh_backend.recorder).
 *
 * What is recorded has its operands' addresses in it, and every number that it was launched with:
 * those make up its key. What changes from run to run stands in the backend's memory.
 */
#ifndef SH_MODELS_REPLAY_H
#define SH_MODELS_REPLAY_H

#include "models/backend.h"

SH_C_BEGIN

enum { SH_REPLAY_KEY_BYTES = 128 };

/** One for each key that there has been. Begins as {0}. */
typedef struct sh_replays {
    struct sh_replay *list;
    int n;
} sh_replays;

/**
 * Have launch(context) happen: by calling it, or by what was recorded when it was called.
 *
 * The first call with a key runs it, since kernels may have to be loaded, which cannot be recorded.
 *
 * key     [n_bytes] at most SH_REPLAY_KEY_BYTES, compared as bytes: all that the launches depend on
 * launch  queues kernels of the backend, copies within its memory, and what is fetched from there
 *         (sh_backend_fetch), and does nothing else: what waits, brings in or allocates is
 *         an error while it is recorded
 */
SH_MUST_CHECK sh_status sh_replays_run(sh_replays *replays, const sh_backend *backend,
                                       const void *key, size_t n_bytes,
                                       sh_status (*launch)(void *context), void *context);

/** Forget all. */
void sh_replays_clear(sh_replays *replays, const sh_backend *backend);

SH_C_END

#endif
