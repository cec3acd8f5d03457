// SPDX-License-Identifier: Apache-2.0
#include "trainer/snapshot.h"

#include <stdlib.h>
#include <string.h>

#include "models/weights/weights.h"

sh_status sh_snapshot_create(const sh_store *store, sh_snapshot *out)
{
    sh_status st = SH_OK;
    sh_snapshot s = {0};

    s.params = calloc((size_t)sh_store_n_params(store) + 1, sizeof(float));
    s.states = calloc((size_t)sh_store_n_states(store) + 1, sizeof(float));
    SH_CHECK(s.params && s.states, SH_ERR_NO_MEMORY, "snapshot of the weights");
    *out = s;
    s = (sh_snapshot){0};
out:
    sh_snapshot_clear(&s);
    return st;
}

void sh_snapshot_clear(sh_snapshot *snapshot)
{
    free(snapshot->params);
    free(snapshot->states);
    *snapshot = (sh_snapshot){0};
}

static sh_status copy_out(const sh_store *store, const sh_buffer *buffer, float *host, int64_t n)
{
    if (n == 0) return SH_OK;
    return sh_store_backend(store)->copy_out(buffer, 0, host, (size_t)n * sizeof(float));
}

static sh_status copy_in(const sh_store *store, sh_buffer *buffer, const float *host, int64_t n)
{
    if (n == 0) return SH_OK;
    return sh_store_backend(store)->copy_in(buffer, 0, host, (size_t)n * sizeof(float));
}

sh_status sh_snapshot_take(sh_snapshot *snapshot, sh_store *store)
{
    sh_status st = SH_OK;

    SH_TRY(copy_out(store, sh_store_params(store), snapshot->params, sh_store_n_params(store)));
    SH_TRY(copy_out(store, sh_store_states(store), snapshot->states, sh_store_n_states(store)));
out:
    return st;
}

sh_status sh_snapshot_take_result(sh_snapshot *snapshot, sh_store *store, sh_optim *optim)
{
    sh_status st = SH_OK;
    int64_t n_params, n_states;
    sh_buffer *params = sh_optim_arena_buffer(optim, SH_OPTIM_EMA_PARAMS, &n_params);
    sh_buffer *states = sh_optim_arena_buffer(optim, SH_OPTIM_EMA_STATES, &n_states);

    SH_TRY(sh_snapshot_take(snapshot, store));
    if (params != NULL) SH_TRY(copy_out(store, params, snapshot->params, n_params));
    if (states != NULL) SH_TRY(copy_out(store, states, snapshot->states, n_states));
out:
    return st;
}

sh_status sh_snapshot_swap_in(const sh_snapshot *snapshot, sh_store *store, sh_snapshot *saved)
{
    sh_status st = SH_OK;

    if (saved != NULL) SH_TRY(sh_snapshot_take(saved, store));
    SH_TRY(copy_in(store, sh_store_params(store), snapshot->params, sh_store_n_params(store)));
    SH_TRY(copy_in(store, sh_store_states(store), snapshot->states, sh_store_n_states(store)));
out:
    return st;
}

sh_status sh_snapshot_write(const sh_snapshot *snapshot, const sh_store *store, const char *without,
                            const char *path, const char *const (*metadata)[2], int n_metadata,
                            uint32_t *crc32c, uint64_t *n_bytes)
{
    sh_status st = SH_OK;
    int n_slots = sh_store_n_slots(store), n = 0;
    sh_weight_out *tensors = calloc((size_t)n_slots + 1, sizeof(*tensors));

    SH_CHECK(tensors != NULL, SH_ERR_NO_MEMORY, "list of %d tensors", n_slots);
    for (int i = 0; i < n_slots; i++) {
        const sh_slot *slot = sh_store_slot(store, i);
        const float *arena = slot->kind == SH_SLOT_PARAM ? snapshot->params : snapshot->states;

        if (without != NULL && strncmp(slot->name, without, strlen(without)) == 0) continue;
        tensors[n] = (sh_weight_out){.name = slot->name,
                                     .dtype = SH_F32,
                                     .n_dims = slot->n_dims,
                                     .data = arena + slot->offset};
        memcpy(tensors[n++].dims, slot->dims, sizeof(slot->dims));
    }
    SH_TRY(sh_weights_write(path, tensors, n, metadata, n_metadata, crc32c, n_bytes));
out:
    free(tensors);
    return st;
}
