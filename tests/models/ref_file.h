// SPDX-License-Identifier: Apache-2.0
/** Reading the reference files (HDF5), and the rule by which they make weights from names. A fault
 *  here is a fault of the files or of the test, so it ends the test at once. */
#ifndef SH_TESTS_MODELS_REF_FILE_H
#define SH_TESTS_MODELS_REF_FILE_H

#include <hdf5.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/hash.h"

/** The reference file `name`.h5: in SHOAL_REF, or else in the folder that scripts/make-reference
 *  fills. False where neither has it. */
static inline bool ref_find(const char *name, char path[4200])
{
    const char *named = getenv("SHOAL_REF"), *source = getenv("SHOAL_SOURCE");

    if (source == NULL) source = ".";
    if (named != NULL)
        snprintf(path, 4200, "%s/%s.h5", named, name);
    else
        snprintf(path, 4200, "%s/../shared/ref/%s.h5", source, name);
    if (access(path, R_OK) == 0) return true;
    snprintf(path, 4200, "%s/build/reference/%s.h5", source, name);
    return access(path, R_OK) == 0;
}

/** Read a numeric dataset or attribute, whole, as doubles; the caller frees. */
static inline double *ref_read(hid_t file, const char *name, int64_t *n)
{
    hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
    assert_true(set >= 0);
    hid_t space = H5Dget_space(set);
    *n = H5Sget_simple_extent_npoints(space);
    double *values = malloc((size_t)*n * sizeof(*values) + 1);

    assert_non_null(values);
    assert_true(H5Dread(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Sclose(space);
    H5Dclose(set);
    return values;
}

/** A list of names; the caller frees the list and each name. */
static inline char **ref_read_names(hid_t file, const char *name, int64_t *n)
{
    hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
    assert_true(set >= 0);
    hid_t space = H5Dget_space(set), type = H5Dget_type(set);
    *n = H5Sget_simple_extent_npoints(space);
    char **names = calloc((size_t)*n + 1, sizeof(*names));

    assert_non_null(names);
    assert_true(H5Tis_variable_str(type) > 0);
    assert_true(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, names) >= 0);
    H5Tclose(type);
    H5Sclose(space);
    H5Dclose(set);
    return names;
}

static inline void ref_free_names(char **names, int64_t n)
{
    for (int64_t i = 0; i < n; i++) H5free_memory(names[i]);
    free(names);
}

/** A numeric attribute of at most max values. */
static inline void ref_read_attribute(hid_t file, const char *name, int max, double *values)
{
    hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
    assert_true(attribute >= 0);
    hid_t space = H5Aget_space(attribute);

    assert_true(H5Sget_simple_extent_npoints(space) <= max);
    assert_true(H5Aread(attribute, H5T_NATIVE_DOUBLE, values) >= 0);
    H5Sclose(space);
    H5Aclose(attribute);
}

/** A text attribute. */
static inline void ref_read_text(hid_t file, const char *name, char out[256])
{
    char *text = NULL;
    hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
    assert_true(attribute >= 0);
    hid_t type = H5Aget_type(attribute);

    assert_true(H5Tis_variable_str(type) > 0 && H5Aread(attribute, type, &text) >= 0);
    snprintf(out, 256, "%s", text != NULL ? text : "");
    H5free_memory(text);
    H5Tclose(type);
    H5Aclose(attribute);
}

/** The rule's generator: element i of `name`, in [-1, 1), exact in f32. */
static inline double ref_unit(uint64_t hash, uint64_t i)
{
    uint64_t z = hash + (i + 1) * 0x9E3779B97F4A7C15u;

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return (double)(z >> 40) * 0x1p-23 - 1;
}

static inline uint64_t ref_hash(const char *salt, const char *name)
{
    return sh_fnv1a(sh_fnv1a(SH_FNV1A_START, salt, strlen(salt)), name, strlen(name));
}

static inline int ref_ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), n_end = strlen(end);

    return n >= n_end && strcmp(name + n - n_end, end) == 0;
}

/** Fill values[n] as the rule makes the state-dict entry `name`. */
static inline void ref_fill(const char *salt, const char *name, int n_dims, const int64_t *dims,
                            int64_t n, float *values)
{
    uint64_t hash = ref_hash(salt, name);
    double base = 0, scale = 0.1, fan = 1;

    for (int i = 1; i < n_dims; i++) fan *= (double)dims[i];
    if (ref_ends_with(name, "running_mean")) {
        scale = 0.1;
    } else if (ref_ends_with(name, "running_var")) {
        base = 1;
        scale = 0.5;
    } else if (n_dims >= 2) {
        scale = sqrt(6 / fan);
    } else if (ref_ends_with(name, "weight")) {
        base = 1;
        scale = 0.25;
    }
    for (int64_t i = 0; i < n; i++) values[i] = (float)(base + scale * ref_unit(hash, (uint64_t)i));
}

#endif
