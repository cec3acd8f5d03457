// SPDX-License-Identifier: Apache-2.0
#include "trainer/bench_batch.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/rng.h"

enum { DIM = 128 };

sh_status sh_bench_network(sh_bench_options *o, sh_step_config *out)
{
    sh_status st = SH_OK;
    sh_step_config c = {.batch = o->batch,
                        .dtype = strcmp(o->dtype, "bf16") == 0 ? SH_BF16 : SH_F32};

    SH_TRY(sh_net_find(o->net, &c.net));
    SH_TRY(sh_backend_find(o->backend, &c.backend));
    if (c.backend->set_choices != NULL) /* measured, as for a new run */
        SH_TRY(c.backend->set_choices("", true, true));
    SH_CHECK(c.dtype == SH_BF16 || strcmp(o->dtype, "f32") == 0, SH_ERR_USAGE,
             "--dtype %s: f32 or bf16", o->dtype);
    if (o->size == 0) o->size = c.net->default_size;
    if (o->threads == 0) o->threads = sh_cpu_cores_granted();
    SH_CHECK(o->size > 0 && o->batch > 0 && o->threads > 0, SH_ERR_USAGE,
             "--size, --batch and --threads: at least 1");
    omp_set_num_threads((int)o->threads);
    c.height = c.width = (int)o->size;
    c.head = (sh_head){.dim = DIM, .dropout = c.net->dropout, .normalize = true};
    *out = c;
out:
    return st;
}

sh_status sh_bench_step_config(sh_bench_options *o, sh_step_config *out)
{
    sh_status st = SH_OK;
    sh_step_config c;

    SH_TRY(sh_bench_network(o, &c));
    SH_CHECK(o->batch >= 2 * SH_BENCH_PER_FISH && o->batch % SH_BENCH_PER_FISH == 0, SH_ERR_USAGE,
             "--batch %lld: a multiple of %d, at least %d", (long long)o->batch, SH_BENCH_PER_FISH,
             2 * SH_BENCH_PER_FISH);
    c.loss = (sh_loss_config){
        .kind = SH_LOSS_SEMI_HARD, .distance = SH_EUCLIDEAN, .margin = 0.2f, .reduction = SH_MEAN};
    c.optim =
        (sh_optim_config){.kind = SH_OPTIM_ADAM, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f};
    c.seed = 1;
    *out = c;
out:
    return st;
}

void sh_bench_images(const sh_tensor_desc *desc, void *out)
{
    sh_rng_key key = sh_rng_make(1, SH_RNG_TEST, 0, 0);
    int64_t n = sh_tensor_stored_elems(desc), stored = sh_tensor_stored_channels(desc);

    for (int64_t i = 0; i < n; i++) {
        bool is_padding = i % stored >= desc->dims[1]; /* of images, which have it innermost */
        float value = is_padding ? 0 : sh_rng_range(key, (uint64_t)i, -2, 2);

        if (desc->dtype == SH_BF16)
            ((uint16_t *)out)[i] = sh_bf16_from_f32(value);
        else
            ((float *)out)[i] = value;
    }
}

sh_status sh_bench_batch_make(const sh_step *step, sh_bench_batch *out)
{
    sh_status st = SH_OK;
    sh_tensor_desc desc = sh_step_input_desc(step, 0); /* no shard is larger */
    int64_t batch = sh_step_get_config(step)->batch;

    *out = (sh_bench_batch){.slots = calloc((size_t)batch, sizeof(*out->slots)),
                            .pixels = malloc(sh_tensor_bytes(&desc))};
    SH_CHECK(out->slots != NULL && out->pixels != NULL, SH_ERR_NO_MEMORY, "a batch of %lld images",
             (long long)batch);
    for (int64_t i = 0; i < batch; i++) {
        int32_t fish = (int32_t)(i / SH_BENCH_PER_FISH);

        out->slots[i] = (sh_slot_plan){.crop = i, .label = fish, .fish = fish};
    }
    sh_bench_images(&desc, out->pixels);
out:
    return st;
}

void sh_bench_batch_clear(sh_bench_batch *batch)
{
    free(batch->slots);
    free(batch->pixels);
    *batch = (sh_bench_batch){0};
}

sh_status sh_bench_batch_pixels(void *batch, int shard, sh_input *input)
{
    (void)shard;
    *input = (sh_input){.host = ((sh_bench_batch *)batch)->pixels};
    return SH_OK;
}
