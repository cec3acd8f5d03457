// SPDX-License-Identifier: Apache-2.0
#include "trainer/embedder.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/file.h"
#include "models/weights/weights.h"
#include "trainer/device.h"
#include "trainer/infer.h"
#include "trainer/run.h"

struct sh_embedder {
    sh_store *store;
    sh_infer *infer;
    bool unit_length; /* the run compares by cosine: rows are scaled to length 1 */
};

static sh_status load_weights(const char *path, const sh_net *net, bool strict, sh_store *store)
{
    sh_status st = SH_OK;
    sh_weights *weights = NULL;
    sh_load_report report;

    SH_TRY(sh_weights_read(path, &weights));
    SH_TRY(sh_weights_load(weights, net, store, strict, &report));
out:
    sh_weights_destroy(&weights);
    return st;
}

sh_status sh_embedder_create(const char *run, bool untrained, int threads, sh_embedder **out)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    const sh_backend *backend = NULL;
    sh_infer_config infer_config;
    sh_config *config = malloc(sizeof(*config));
    sh_embedder *embedder = calloc(1, sizeof(*embedder));

    SH_CHECK(config != NULL && embedder != NULL, SH_ERR_NO_MEMORY, "embedder of %s", run);
    SH_TRY(sh_run_load_config(run, config));
    SH_TRY(sh_run_path(run, "model.safetensors", path));
    SH_CHECK(untrained || sh_file_exists(path), SH_ERR_NOT_FOUND,
             "%s has no model.safetensors yet: the training has not ended (continue it with `shoal "
             "train --run %s`)",
             run, run);
    SH_CHECK(!untrained || config->init[0] == '\0' || sh_file_exists(config->init),
             SH_ERR_NOT_FOUND, "%s started from %s, which is not there", run, config->init);
    /* The training would not fall back to a CPU; its result is asked on any machine. */
    if (config->device == SH_DEVICE_CUDA) config->device = SH_DEVICE_AUTO;
    SH_TRY(sh_device_choose(config, &backend));
    if (threads <= 0) threads = sh_cpu_cores_granted();
    omp_set_num_threads(threads);
    SH_TRY(sh_infer_configure(config, threads, &infer_config));
    SH_TRY(sh_store_create(backend, &embedder->store));
    SH_TRY(sh_infer_create(&infer_config, embedder->store, &embedder->infer));
    SH_TRY(sh_store_init(embedder->store, (uint64_t)config->seed));
    if (!untrained)
        SH_TRY(load_weights(path, infer_config.net, true, embedder->store));
    else if (config->init[0] != '\0')
        SH_TRY(load_weights(config->init, infer_config.net, false, embedder->store));
    embedder->unit_length = config->loss.distance == SH_COSINE;
    *out = embedder;
    embedder = NULL;
out:
    free(config);
    sh_embedder_destroy(&embedder);
    return st;
}

void sh_embedder_destroy(sh_embedder **embedder)
{
    sh_embedder *e = *embedder;

    if (e == NULL) return;
    sh_infer_destroy(&e->infer);
    sh_store_destroy(&e->store);
    free(e);
    *embedder = NULL;
}

int sh_embedder_dim(const sh_embedder *embedder)
{
    return sh_infer_dim(embedder->infer);
}

static void scale_rows(float *rows, int64_t n, int64_t dim)
{
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;

        for (int64_t k = 0; k < dim; k++) sum += (double)rows[i * dim + k] * rows[i * dim + k];
        if (sum == 0) continue;
        for (int64_t k = 0; k < dim; k++)
            rows[i * dim + k] = (float)(rows[i * dim + k] / sqrt(sum));
    }
}

sh_status sh_embedder_run(sh_embedder *embedder, const sh_dataset *dataset, const int64_t *crops,
                          int64_t n, const char *progress, float *out)
{
    sh_status st = SH_OK;

    SH_TRY(sh_infer_run(embedder->infer, dataset, crops, n, progress, out));
    if (embedder->unit_length) scale_rows(out, n, sh_embedder_dim(embedder));
out:
    return st;
}

sh_status sh_embedder_run_image(sh_embedder *embedder, const sh_image *image, float *out)
{
    sh_status st = SH_OK;

    SH_TRY(sh_infer_run_image(embedder->infer, image, out));
    if (embedder->unit_length) scale_rows(out, 1, sh_embedder_dim(embedder));
out:
    return st;
}
