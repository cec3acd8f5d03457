// SPDX-License-Identifier: Apache-2.0
// prefix: ref
/* Verification, retrieval and classification figures of metrics.h5 (scikit-learn): every group of
 * the file that has embeddings, whatever it is called. */
#include <hdf5.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "trainer/metrics.h"
#include "trainer/retrieval.h"

/* cmocka compares as f32; scores are compared as they are */
#define assert_close(a, b, tolerance) assert_true(fabs((a) - (b)) <= (tolerance))

static char path[4096];
static int n_groups_seen;

/* Read a whole dataset of `group` as `type`; NULL if it is absent. n_elems may be NULL. */
static void *read_all(hid_t group, const char *name, hid_t type, int64_t *n_elems)
{
    if (H5Lexists(group, name, H5P_DEFAULT) <= 0) return NULL;

    hid_t d = H5Dopen2(group, name, H5P_DEFAULT), space = H5Dget_space(d);
    hssize_t n = H5Sget_simple_extent_npoints(space);
    void *data = calloc((size_t)n + 1, 8);

    assert_true(H5Dread(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    if (n_elems != NULL) *n_elems = n;
    H5Sclose(space);
    H5Dclose(d);
    return data;
}

static double read_number(hid_t group, const char *name)
{
    double *p = read_all(group, name, H5T_NATIVE_DOUBLE, NULL);

    assert_non_null(p);
    double value = p[0];

    free(p);
    return value;
}

typedef struct fixture {
    float *embeddings;
    int32_t *labels, *predictions;
    int64_t n, dim;
    int n_classes;
} fixture;

static void check_verification(hid_t group, const fixture *f)
{
    int64_t n_pairs = 0;
    sh_pair *pairs = malloc((size_t)(f->n * (f->n - 1) / 2) * sizeof(*pairs));
    sh_levels levels = {0};
    hid_t g = H5Gopen2(group, "verification", H5P_DEFAULT);

    for (int64_t a = 0; a < f->n; a++) {
        for (int64_t b = a + 1; b < f->n; b++) {
            double s = 0;

            for (int64_t k = 0; k < f->dim; k++) {
                double d = (double)f->embeddings[a * f->dim + k] - f->embeddings[b * f->dim + k];

                s += d * d;
            }
            /* the note: distances rounded to 3 decimals; thousandths are exact in f32 */
            pairs[n_pairs++] = (sh_pair){(float)rint(sqrt(s) * 1000), f->labels[a], f->labels[b]};
        }
    }
    sh_pairs_sort(pairs, n_pairs);
    assert_int_equal(sh_levels_from_pairs(pairs, n_pairs, (sh_pair_weights){0}, &levels), SH_OK);
    assert_close(sh_levels_auc(&levels), read_number(g, "auc"), 1e-9);
    assert_close(sh_levels_tpr_at_fpr(&levels, 0.001), read_number(g, "tpr_at_fpr_0.001"), 1e-9);
    assert_close(sh_levels_tpr_at_fpr(&levels, 0.01), read_number(g, "tpr_at_fpr_0.01"), 1e-9);
    assert_close(sh_levels_tpr_at_fpr(&levels, 0.1), read_number(g, "tpr_at_fpr_0.1"), 1e-9);
    sh_levels_clear(&levels);
    free(pairs);
    H5Gclose(g);
}

static void check_retrieval(hid_t group, const fixture *f)
{
    hid_t g = H5Gopen2(group, "retrieval", H5P_DEFAULT);
    double *ranks = read_all(g, "rank_1_5_10", H5T_NATIVE_DOUBLE, NULL);
    sh_eval_set set = {.n = f->n,
                       .dim = f->dim,
                       .embeddings = f->embeddings,
                       .individual = f->labels,
                       .n_individuals = f->n_classes,
                       .within_recording = true}; /* "each row queries all others" */
    sh_query *queries = malloc((size_t)f->n * sizeof(*queries));
    sh_rank_scores s;

    assert_non_null(ranks);
    assert_int_equal(sh_retrieve(&set, &(sh_gallery_rule){0}, queries), SH_OK);
    assert_int_equal(sh_rank_average(queries, f->n, NULL, 0, &s, NULL), SH_OK);
    assert_close(s.rank1, ranks[0], 1e-9);
    assert_close(s.rank5, ranks[1], 1e-9);
    assert_close(s.rank10, ranks[2], 1e-9);
    assert_close(s.map, read_number(g, "map"), 1e-7);
    free(queries);
    free(ranks);
    H5Gclose(g);
}

static void check_classification(hid_t group, const fixture *f)
{
    hid_t g = H5Gopen2(group, "classification", H5P_DEFAULT);
    int64_t n = 0;
    int32_t *want = read_all(g, "confusion", H5T_NATIVE_INT32, &n);
    int64_t *confusion = calloc((size_t)f->n_classes * (size_t)f->n_classes, sizeof(*confusion));
    sh_classification c;

    assert_non_null(want);
    assert_int_equal(n, f->n_classes * f->n_classes);
    sh_classify_score(f->labels, f->predictions, f->n, f->n_classes, confusion, &c);
    for (int64_t i = 0; i < n; i++) assert_int_equal(confusion[i], want[i]);
    assert_close(c.accuracy, read_number(g, "accuracy"), 1e-9);
    assert_close(c.macro_precision, read_number(g, "macro_precision"), 1e-9);
    assert_close(c.macro_recall, read_number(g, "macro_recall"), 1e-9);
    assert_close(c.macro_f1, read_number(g, "macro_f1"), 1e-9);
    free(confusion);
    free(want);
    H5Gclose(g);
}

typedef void check(hid_t group, const fixture *f);

static herr_t visit(hid_t file, const char *name, const H5L_info_t *info, void *context)
{
    hid_t group = H5Gopen2(file, name, H5P_DEFAULT);
    fixture f = {0};

    (void)info;
    f.embeddings = read_all(group, "embeddings", H5T_NATIVE_FLOAT, &f.dim);
    if (f.embeddings != NULL) {
        f.labels = read_all(group, "labels", H5T_NATIVE_INT32, &f.n);
        f.predictions = read_all(group, "predictions", H5T_NATIVE_INT32, NULL);
        assert_non_null(f.labels);
        assert_non_null(f.predictions);
        f.dim /= f.n;
        for (int64_t i = 0; i < f.n; i++) {
            if (f.labels[i] >= f.n_classes) f.n_classes = f.labels[i] + 1;
            if (f.predictions[i] >= f.n_classes) f.n_classes = f.predictions[i] + 1;
        }
        (*(check **)context)(group, &f);
        n_groups_seen++;
    }
    free(f.embeddings);
    free(f.labels);
    free(f.predictions);
    H5Gclose(group);
    return 0;
}

static void every_group(check *function)
{
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);

    assert_true(file >= 0);
    n_groups_seen = 0;
    assert_true(H5Literate(file, H5_INDEX_NAME, H5_ITER_INC, NULL, visit, &function) >= 0);
    assert_true(n_groups_seen > 0);
    H5Fclose(file);
}

static void verification__equals_the_reference(void **state)
{
    (void)state;
    every_group(check_verification);
}

static void retrieval__equals_the_reference(void **state)
{
    (void)state;
    every_group(check_retrieval);
}

static void classification__equals_the_reference(void **state)
{
    (void)state;
    every_group(check_classification);
}

int main(void)
{
    const char *folder = getenv("SHOAL_REF"), *source = getenv("SHOAL_SOURCE");

    if (folder != NULL)
        snprintf(path, sizeof(path), "%s/metrics.h5", folder);
    else
        snprintf(path, sizeof(path), "%s/../shared/ref/metrics.h5", source != NULL ? source : ".");
    if (!sh_file_exists(path)) {
        fprintf(stderr, "skipped: %s is absent\n", path);
        return 77;
    }

    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verification__equals_the_reference),
        cmocka_unit_test(retrieval__equals_the_reference),
        cmocka_unit_test(classification__equals_the_reference),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
