// SPDX-License-Identifier: Apache-2.0
// prefix: ref
/** Weights as other packages save them, read, run and written for the package to load again.
 *  scripts/compare-round-trip makes the folder (SHOAL_ROUND_TRIP), runs this, and loads what it
 *  wrote. */
#include "host_value.h"
#include "ref_file.h"

#include "models/weights/weights.h"
#include "models/zoo/zoo.h"

static const char *const containers[] = {"weights.zip.pth", "weights.legacy.pth", "weights.h5"};

/* f32 rounding in another order of additions, in networks of up to 200 layers. */
static const double bound = 1e-4;

typedef struct fixture {
    const char *folder;
    const sh_net *net;
    const sh_backend *backend;
    sh_store *store;
    sh_program *program;
    sh_buffer *arena;
    sh_value image, y;
    double *pixels, *logits;
    int64_t n_logits;
} fixture;

static void path_of(const fixture *f, const char *name, char path[4200])
{
    snprintf(path, 4200, "%s/%s", f->folder, name);
}

static void read_dims(hid_t file, const char *name, int n, hsize_t *dims)
{
    hid_t set = H5Dopen2(file, name, H5P_DEFAULT), space = H5Dget_space(set);

    assert_int_equal(H5Sget_simple_extent_ndims(space), n);
    H5Sget_simple_extent_dims(space, dims, NULL);
    H5Sclose(space);
    H5Dclose(set);
}

static void find_net(hid_t file, fixture *f)
{
    char name[256];

    ref_read_text(file, "net", name);
    assert_ok(sh_net_find(name, &f->net));
}

static bool open_fixture(fixture *f)
{
    char path[4200];
    hsize_t image[4], logits[2];
    int64_t n = 0;

    *f = (fixture){.folder = getenv("SHOAL_ROUND_TRIP")};
    if (f->folder == NULL) return false;
    path_of(f, "case.h5", path);
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_true(file >= 0);
    find_net(file, f);
    read_dims(file, "image", 4, image);
    read_dims(file, "logits", 2, logits);
    f->pixels = ref_read(file, "image", &n);
    f->logits = ref_read(file, "logits", &f->n_logits);
    H5Fclose(file);

    assert_ok(sh_backend_find("cpu", &f->backend));
    assert_ok(sh_store_create(f->backend, &f->store));
    const sh_program_config config = {
        .backend = f->backend, .store = f->store, .dtype = SH_F32, .share = 1, .prefix = ""};
    const int64_t dims[4] = {(int64_t)image[0], (int64_t)image[1], (int64_t)image[2],
                             (int64_t)image[3]};
    assert_ok(sh_program_create(&config, &f->program));
    f->image = sh_program_input(f->program, "image", dims);
    f->y = sh_program_output(f->program, "logits",
                             sh_net_classifier(f->program, f->net, f->image, (int)logits[1]));
    assert_ok(sh_program_plan(f->program));
    assert_ok(sh_store_allocate(f->store));
    assert_ok(f->backend->alloc(sh_program_arena_bytes(f->program), &f->arena));
    return true;
}

static void close_fixture(fixture *f)
{
    if (f->backend != NULL) f->backend->free(&f->arena);
    sh_program_destroy(&f->program);
    sh_store_destroy(&f->store);
    free(f->pixels);
    free(f->logits);
}

/** Load one container into the store; false where it was not made. */
static bool load(fixture *f, const char *name)
{
    sh_weights *weights = NULL;
    sh_load_report report;
    char path[4200];

    path_of(f, name, path);
    if (access(path, R_OK) != 0) return false;
    assert_ok(sh_weights_read(path, &weights));
    assert_ok(sh_weights_load(weights, f->net, f->store, true, &report));
    if (report.n_extra > 0) print_message("    %s: %s\n", name, report.text);
    sh_weights_destroy(&weights);
    return true;
}

/** The largest difference of the logits, relative to the largest logit. */
static double logits_error(fixture *f)
{
    const sh_run_args args = {.arena = f->arena};
    double worst = 0, largest = 0;

    write_value(f->program, f->arena, f->image, f->pixels);
    assert_ok(sh_program_run(f->program, SH_PHASE_CONSTANTS, &args));
    assert_ok(sh_program_run(f->program, SH_PHASE_FORWARD, &args));
    double *logits = read_value(f->program, f->arena, f->y);

    for (int64_t i = 0; i < f->n_logits; i++) {
        double error = fabs(logits[i] - f->logits[i]);

        if (!(error <= worst)) worst = error;
        largest = fmax(largest, fabs(f->logits[i]));
    }
    free(logits);
    return worst / largest;
}

static void every_container__gives_the_logits_of_the_package(void **state)
{
    fixture f;
    char path[4200];
    int n_read = 0;

    (void)state;
    if (!open_fixture(&f)) skip();
    for (size_t i = 0; i < SH_COUNT(containers); i++) {
        if (!load(&f, containers[i])) continue;
        double error = logits_error(&f);

        print_message("%s from %s: logits %.2g\n", f.net->name, containers[i], error);
        assert_true(error <= bound);
        n_read++;
    }
    assert_true(n_read > 0);
    path_of(&f, "back.safetensors", path);
    assert_ok(sh_weights_save(path, f.store, NULL, 0, NULL, NULL));
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_container__gives_the_logits_of_the_package),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
