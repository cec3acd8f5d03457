// SPDX-License-Identifier: Apache-2.0
// prefix: ref
// timeout: 60
// library: sh_models_cuda_emulated
/**
 * Losses, gradients and counts against losses.h5: TensorFlow Addons, pytorch-metric-learning, the
 * siamese face network, Algorithm 1, ArcFace. Every group and every entry that the file has is
 * checked, in host memory and, where there are kernels, on a device's emulator.
 *
 * Tolerance 1e-5 of the norm. TFA computes in f32 throughout and takes distances from norms + dot,
 * so its small losses (margin 0.2 minus the difference of two squared distances near 1) carry a few
 * 1e-6: the largest deviation of a loss is 4e-6, that of a gradient 2.5e-7.
 */
#include <hdf5.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "models/class_net.h"
#include "models/cuda/cuda.h"
#include "models/loss_step.h"

#define TOLERANCE 1e-5

typedef struct fixture {
    hid_t group;
    float *embeddings;
    int32_t *labels;
    int64_t n, dim;
    int n_checked, n_on_device;
} fixture;

static sh_loss_batch batch_of(const fixture *f)
{
    return (sh_loss_batch){.embeddings = f->embeddings,
                           .labels = f->labels,
                           .fish = f->labels,
                           .n = f->n,
                           .dim = f->dim};
}

static void *read_dataset(hid_t group, const char *name, hid_t type, size_t size)
{
    hid_t set = H5Dopen2(group, name, H5P_DEFAULT);

    assert_true(set >= 0);
    hid_t space = H5Dget_space(set);
    hssize_t n = H5Sget_simple_extent_npoints(space);
    void *data = malloc((size_t)n * size);

    assert_non_null(data);
    assert_true(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Sclose(space);
    H5Dclose(set);
    return data;
}

static double read_scalar(hid_t group, const char *name)
{
    double *p = read_dataset(group, name, H5T_NATIVE_DOUBLE, sizeof(double)), value = *p;

    free(p);
    return value;
}

static double relative_error(const float *a, const float *b, int64_t n)
{
    double difference = 0, norm = 0;

    for (int64_t i = 0; i < n; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    return norm > 0 ? sqrt(difference / norm) : sqrt(difference);
}

/* One step, in host memory or a backend's, against the file. */
static void check_step_in(fixture *f, const sh_backend *backend, const char *entry,
                          const char *suffix, const sh_loss_config *config)
{
    char name[160];
    sh_loss_batch batch = batch_of(f);
    loss_outcome o = run_loss_step(backend, config, &batch, 1);

    snprintf(name, sizeof(name), "%s/loss%s", entry, suffix);
    double expected = read_scalar(f->group, name), error;

    snprintf(name, sizeof(name), "%s/gradient%s", entry, suffix);
    float *reference = read_dataset(f->group, name, H5T_NATIVE_FLOAT, sizeof(float));

    error = relative_error(o.grad, reference, f->n * f->dim);
    if (fabs(o.stats.loss - expected) > TOLERANCE * fabs(expected) || !(error <= TOLERANCE))
        fail_msg("%s%s: loss %.9g, expected %.9g; gradient off by %.3g", entry, suffix,
                 o.stats.loss, expected, error);
    snprintf(name, sizeof(name), "%s/n_triplets", entry);
    if (H5Lexists(f->group, name, H5P_DEFAULT) > 0)
        assert_int_equal(o.stats.n_triplets, (int64_t)read_scalar(f->group, name));
    free(reference);
    loss_outcome_free(&o);
}

static void check_step(fixture *f, const char *entry, const char *suffix,
                       const sh_loss_config *given)
{
    sh_loss_config config = *given;
    sh_loss_batch batch = batch_of(f);

    check_step_in(f, NULL, entry, suffix, &config);
    f->n_checked++;
    config.max_per_label = most_per_label(&batch);
    check_step_in(f, &sh_backend_cuda, entry, suffix, &config);
    f->n_on_device++;
}

static void check_tfa(fixture *f, const char *entry)
{
    const char *margin = strstr(entry, "margin"), *l2 = strrchr(entry, '_') + 1;

    assert_non_null(margin);
    check_step(f, entry, "",
               &(sh_loss_config){
                   .kind = strstr(entry, "semihard") ? SH_LOSS_SEMI_HARD : SH_LOSS_BATCH_HARD,
                   .soft = strstr(entry, "soft") != NULL,
                   .distance = strcmp(l2, "L2") == 0 ? SH_EUCLIDEAN : SH_SQUARED,
                   .margin = strtof(margin + strlen("margin"), NULL),
               });
}

static void check_pml(fixture *f, const char *entry)
{
    static const char *const suffixes[] = {
        [SH_MEAN] = "_mean", [SH_NONZERO_MEAN] = "_nonzero_mean", [SH_SUM] = "_sum"};
    const char *margin = strstr(entry, "margin"), *power = strstr(entry, "power");
    char name[160];

    assert_true(margin != NULL && power != NULL);
    for (int r = 0; r < (int)SH_COUNT(suffixes); r++) {
        sh_loss_config config = {
            .kind = strstr(entry, "semihard") ? SH_LOSS_PML_SEMI_HARD
                    : strstr(entry, "hard")   ? SH_LOSS_PML_HARD
                                              : SH_LOSS_BATCH_ALL,
            .distance = strcmp(power, "power1") == 0 ? SH_EUCLIDEAN : SH_SQUARED,
            .margin = strtof(margin + strlen("margin"), NULL),
            .reduction = (sh_reduction)r,
        };

        snprintf(name, sizeof(name), "%s/loss%s", entry, suffixes[r]);
        if (H5Lexists(f->group, name, H5P_DEFAULT) > 0) {
            check_step(f, entry, suffixes[r], &config);
            continue;
        }
        /* Without a triplet the reference gives no loss; ours is 0, and so is the gradient. */
        sh_loss_batch batch = batch_of(f);
        loss_outcome o = run_loss_step(NULL, &config, &batch, 1);

        snprintf(name, sizeof(name), "%s/n_triplets", entry);
        assert_int_equal((int64_t)read_scalar(f->group, name), 0);
        assert_int_equal(o.stats.n_triplets, 0);
        assert_true(o.stats.loss == 0);
        for (int64_t k = 0; k < f->n * f->dim; k++) assert_true(o.grad[k] == 0);
        f->n_checked++;
        loss_outcome_free(&o);
    }
}

static void check_contrastive(fixture *f, const char *entry)
{
    check_step(f, entry, "", &(sh_loss_config){.kind = SH_LOSS_CONTRASTIVE, .margin = 2});
}

/* ArcFace by its head's program, with the file's class weights. */
static void check_arcface(fixture *f, const char *entry)
{
    const char *margin = strstr(entry, "margin"), *scale = strstr(entry, "scale");
    char name[160];
    float *parts[3];
    double *x = malloc((size_t)(f->n * f->dim) * sizeof(double));

    assert_true(margin != NULL && scale != NULL && x != NULL);
    for (int i = 0; i < 3; i++) {
        static const char *const suffixes[] = {"weight", "gradient", "gradient_weight"};

        snprintf(name, sizeof(name), "%s/%s", entry, suffixes[i]);
        parts[i] = read_dataset(f->group, name, H5T_NATIVE_FLOAT, sizeof(float));
    }
    sh_class_config config = {.kind = SH_CLASS_ARCFACE,
                              .n_centres = 1,
                              .scale = strtof(scale + strlen("scale"), NULL),
                              .margin = strtof(margin + strlen("margin"), NULL) *
                                        (float)(acos(-1) / 180)};

    for (int64_t i = 0; i < f->n; i++)
        if (f->labels[i] >= config.n_classes) config.n_classes = f->labels[i] + 1;
    for (int64_t i = 0; i < f->n * f->dim; i++) x[i] = f->embeddings[i];
    snprintf(name, sizeof(name), "%s/loss", entry);
    double expected = read_scalar(f->group, name);

    for (int b = 0; b < 3; b++) {
        static const char *const backends[] = {"ref", "cpu", "cuda"};
        class_result r =
            class_run(backends[b], &config, NULL, NULL, x, f->n, f->dim, f->labels, parts[0], 3);
        float *grad = malloc((size_t)(f->n * f->dim) * sizeof(float));

        for (int64_t i = 0; i < f->n * f->dim; i++) grad[i] = (float)r.grad[i];
        double error = relative_error(grad, parts[1], f->n * f->dim);
        double weight_error = relative_error(r.grad_weight, parts[2], config.n_classes * f->dim);

        if (!(fabs(r.stats.loss - expected) <= TOLERANCE * expected && error <= TOLERANCE &&
              weight_error <= TOLERANCE))
            fail_msg("%s: loss %.9g, expected %.9g; gradient off by %.3g, of the weight by %.3g",
                     entry, r.stats.loss, expected, error, weight_error);
        free(grad);
        class_free(&r);
    }
    f->n_checked++;
    free(x);
    for (int i = 0; i < 3; i++) free(parts[i]);
}

static void check_candidates(fixture *f, const char *entry)
{
    sh_loss *loss = NULL;
    sh_loss_config config = {.kind = SH_LOSS_ALGORITHM1,
                             .margin = strtof(strstr(entry, "margin") + strlen("margin"), NULL)};
    sh_loss_batch batch = batch_of(f);
    int32_t *counts = malloc((size_t)(f->n * f->n) * sizeof(int32_t));
    int32_t *expected = read_dataset(f->group, entry, H5T_NATIVE_INT32, sizeof(int32_t));
    int64_t n_positive = 0;

    assert_int_equal(sh_loss_create(&config, NULL, f->n, f->dim, &loss), SH_OK);
    assert_int_equal(sh_loss_count_candidates(loss, &batch, counts), SH_OK);
    for (int64_t at = 0; at < f->n * f->n; at++) {
        bool pair = f->labels[at / f->n] == f->labels[at % f->n] && at / f->n != at % f->n;

        if (pair && counts[at] != expected[at])
            fail_msg("%s: anchor %d, positive %d: %d candidates, expected %d", entry,
                     (int)(at / f->n), (int)(at % f->n), counts[at], expected[at]);
        n_positive += pair;
    }
    assert_true(n_positive > 0);
    f->n_checked++;
    free(expected);
    free(counts);
    sh_loss_destroy(&loss);
}

static herr_t check_entry(hid_t group, const char *name, const H5L_info_t *info, void *context)
{
    static const struct {
        const char *prefix;
        void (*check)(fixture *f, const char *entry);
    } checks[] = {{"tfa_", check_tfa},
                  {"pml_all", check_pml},
                  {"pml_semihard", check_pml},
                  {"pml_hard", check_pml},
                  {"pml_arcface", check_arcface},
                  {"contrastive", check_contrastive},
                  {"algorithm1_candidates", check_candidates}};

    (void)group;
    (void)info;
    for (size_t i = 0; i < SH_COUNT(checks); i++)
        if (strncmp(name, checks[i].prefix, strlen(checks[i].prefix)) == 0)
            checks[i].check(context, name);
    return 0;
}

static herr_t check_group(hid_t file, const char *name, const H5L_info_t *info, void *context)
{
    fixture f = {.group = H5Gopen2(file, name, H5P_DEFAULT)};
    hsize_t dims[2];

    (void)info;
    assert_true(f.group >= 0);
    hid_t set = H5Dopen2(f.group, "embeddings", H5P_DEFAULT);
    hid_t space = H5Dget_space(set);

    assert_int_equal(H5Sget_simple_extent_dims(space, dims, NULL), 2);
    H5Sclose(space);
    H5Dclose(set);
    f.n = (int64_t)dims[0];
    f.dim = (int64_t)dims[1];
    f.embeddings = read_dataset(f.group, "embeddings", H5T_NATIVE_FLOAT, sizeof(float));
    f.labels = read_dataset(f.group, "labels", H5T_NATIVE_INT32, sizeof(int32_t));
    H5Literate(f.group, H5_INDEX_NAME, H5_ITER_INC, NULL, check_entry, &f);
    printf("group %s: %d entries agree, %d of them on a device too\n", name, f.n_checked,
           f.n_on_device);
    assert_true(f.n_checked > 0 && f.n_on_device > 0);
    *(int *)context += f.n_checked;
    free(f.embeddings);
    free(f.labels);
    H5Gclose(f.group);
    return 0;
}

static void losses__agree_with_the_reference_file(void **state)
{
    const char *folder = getenv("SHOAL_REF"), *source = getenv("SHOAL_SOURCE");
    char path[4096];
    int n_checked = 0;

    (void)state;
    if (folder != NULL) {
        snprintf(path, sizeof(path), "%s/losses.h5", folder);
    } else {
        snprintf(path, sizeof(path), "%s/../shared/ref/losses.h5", source ? source : ".");
    }
    FILE *probe = fopen(path, "rb");

    if (probe == NULL) {
        printf("skipped: no %s (set SHOAL_REF)\n", path);
        exit(77);
    }
    fclose(probe);
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);

    assert_true(file >= 0);
    H5Literate(file, H5_INDEX_NAME, H5_ITER_INC, NULL, check_group, &n_checked);
    assert_true(n_checked > 0);
    H5Fclose(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(losses__agree_with_the_reference_file)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
