// SPDX-License-Identifier: Apache-2.0
#include "trainer/bench_batch.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/file.h"
#include "base/parcel.h"
#include "base/rng.h"

enum { DIM = 128, MOST_KERNEL_BYTES = 1 << 24 };

/** As for a new run, or as the file says. */
static sh_status choose_kernels(const sh_bench_options *o, const sh_backend *backend)
{
    sh_status st = SH_OK;
    char *text = NULL;
    size_t n_bytes = 0;

    if (backend->set_choices == NULL) goto out;
    st = o->kernels != NULL ? sh_file_get(o->kernels, MOST_KERNEL_BYTES, &text, &n_bytes)
                            : SH_ERR_NOT_FOUND;
    if (st == SH_ERR_NOT_FOUND) {
        sh_error_clear();
        st = SH_OK;
    }
    SH_TRY(st);
    SH_TRY(backend->set_choices(text != NULL ? text : "", true, !o->is_free));
out:
    free(text);
    return st;
}

sh_status sh_bench_keep_kernels(const sh_bench_options *o, const sh_backend *backend)
{
    sh_status st = SH_OK;
    char *text = NULL;

    if (o->kernels == NULL || backend->get_choices == NULL || sh_file_exists(o->kernels)) goto out;
    SH_TRY(backend->get_choices(&text));
    SH_TRY(sh_file_put(o->kernels, text, strlen(text)));
out:
    free(text);
    return st;
}

sh_status sh_bench_network(sh_bench_options *o, sh_step_config *out)
{
    sh_status st = SH_OK;
    sh_step_config c = {.batch = o->batch,
                        .repeatable = !o->is_free,
                        .graphs = true,
                        .dtype = strcmp(o->dtype, "bf16") == 0 ? SH_BF16 : SH_F32};

    SH_TRY(sh_net_find(o->net, &c.net));
    SH_TRY(sh_net_check_tap(c.net, o->tap));
    SH_TRY(sh_backend_find(o->backend, &c.backend));
    SH_TRY(sh_backend_check(c.backend));
    SH_TRY(choose_kernels(o, c.backend));
    SH_CHECK(c.dtype == SH_BF16 || strcmp(o->dtype, "f32") == 0, SH_ERR_USAGE,
             "--dtype %s: f32 or bf16", o->dtype);
    if (o->size == 0) o->size = c.net->default_size;
    if (o->threads == 0) o->threads = sh_cpu_cores_granted();
    SH_CHECK(o->size > 0 && o->batch > 0 && o->threads > 0, SH_ERR_USAGE,
             "--size, --batch and --threads: at least 1");
    omp_set_num_threads((int)o->threads);
    c.height = c.width = (int)o->size;
    c.head = (sh_head){.tap = o->tap, .dim = DIM, .dropout = c.net->dropout, .normalize = true};
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
    c.optim = (sh_optim_config){
        .kind = SH_OPTIM_ADAM, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .recorded = true};
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

/** Images of a shard as a parcel that needs nothing but to be brought into the network's layout. */
static sh_status make_parcel(const sh_tensor_desc *images, const sh_device *device, void **out)
{
    sh_status st = SH_OK;
    const int64_t n = images->dims[0], head = sh_parcel_head_bytes(n);
    const int64_t *d = images->dims;
    const sh_tensor_desc ready = {
        .dims = {d[0], d[1], d[2], d[3]}, .dtype = SH_F32, .layout = SH_NHWC};
    const int64_t n_bytes = head + (int64_t)sh_tensor_bytes(&ready);
    void *memory = NULL;
    sh_parcel *parcel = calloc(1, (size_t)n_bytes);

    SH_CHECK(parcel != NULL, SH_ERR_NO_MEMORY, "a parcel of %lld images", (long long)n);
    *parcel = (sh_parcel){.n_bytes = n_bytes, .n_images = n};
    sh_parcel_image *image = (sh_parcel_image *)(parcel + 1);

    for (int64_t i = 0; i < n; i++)
        image[i] = (sh_parcel_image){.kind = SH_PARCEL_READY,
                                     .width = (int32_t)images->dims[3],
                                     .height = (int32_t)images->dims[2],
                                     .pixels = head + i * ((n_bytes - head) / n)};
    sh_bench_images(&ready, (char *)parcel + head);
    SH_TRY(device->alloc((size_t)n_bytes, &memory));
    SH_TRY(device->copy_in(memory, parcel, (size_t)n_bytes));
    *out = memory;
    memory = NULL;
out:
    if (memory != NULL) device->free(memory);
    free(parcel);
    return st;
}

static sh_status make_pixels(const sh_tensor_desc *images, const sh_device *device, void **out)
{
    sh_status st = SH_OK;

    if (device != NULL) {
        SH_TRY(make_parcel(images, device, out));
        goto out;
    }
    *out = malloc(sh_tensor_bytes(images));
    SH_CHECK(*out != NULL, SH_ERR_NO_MEMORY, "%lld images", (long long)images->dims[0]);
    sh_bench_images(images, *out);
out:
    return st;
}

sh_status sh_bench_batch_make(const sh_step *step, sh_bench_batch *out)
{
    sh_status st = SH_OK;
    const sh_step_config *config = sh_step_get_config(step);
    sh_tensor_desc desc = sh_step_input_desc(step, 0); /* no shard is larger */

    *out = (sh_bench_batch){.slots = calloc((size_t)config->batch, sizeof(*out->slots)),
                            .device = config->backend->device};
    SH_CHECK(out->slots != NULL, SH_ERR_NO_MEMORY, "a batch of %lld images",
             (long long)config->batch);
    for (int64_t i = 0; i < config->batch; i++) {
        int32_t fish = (int32_t)(i / SH_BENCH_PER_FISH);

        out->slots[i] = (sh_slot_plan){.crop = i, .label = fish, .fish = fish};
    }
    SH_TRY(make_pixels(&desc, out->device, &out->pixels));
out:
    return st;
}

void sh_bench_batch_clear(sh_bench_batch *batch)
{
    free(batch->slots);
    if (batch->device != NULL)
        batch->device->free(batch->pixels);
    else
        free(batch->pixels);
    *batch = (sh_bench_batch){0};
}

sh_status sh_bench_batch_pixels(void *batch, int shard, sh_input *input)
{
    const sh_bench_batch *b = batch;

    (void)shard;
    *input = (sh_input){.host = b->device == NULL ? b->pixels : NULL,
                        .parcel = b->device != NULL ? b->pixels : NULL};
    return SH_OK;
}
