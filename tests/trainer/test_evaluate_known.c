// SPDX-License-Identifier: Apache-2.0
/* Known fish as a classification, over made-up embeddings in the plane: who may answer, who counts,
 * what ties, sides and sub-centres do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "dataio/pack.h"
#include "trainer/evaluate_known.h"

enum { DIM = 2, MAX_CROPS = 16, SIDE_PIXELS = 4, TEXT = 256 };

#define MUST(call) assert_int_equal(call, SH_OK)
#define COUNT_OF(json, key) json_integer_value(json_object_get(json, key))

/* A crop, where its embedding lies, and whether it was trained on. */
typedef struct row {
    bool trained;
    const char *individual, *recording;
    float x, y;
} row;

typedef struct world {
    char folder[64], path[TEXT];
    sh_dataset *dataset;
    sh_eval_data queries;
    int64_t known[MAX_CROPS];
    float known_embeddings[MAX_CROPS * DIM];
    sh_known_gallery gallery;
} world;

static void write_pack(const char *path, const row *rows, int n)
{
    sh_pack_writer *writer = NULL;
    uint8_t pixels[SIDE_PIXELS * SIDE_PIXELS];
    const sh_image image = {
        .pixels = pixels, .width = SIDE_PIXELS, .height = SIDE_PIXELS, .channels = 1};

    MUST(sh_pack_writer_create(path, 0, &writer));
    for (int i = 0; i < n; i++) {
        char name[32];
        sh_labels labels = SH_LABELS_NONE;

        snprintf(name, sizeof(name), "%02d.png", i);
        labels.individual = rows[i].individual;
        labels.recording = rows[i].recording;
        memset(pixels, 10 * i, sizeof(pixels)); /* equal ones would be left out */
        MUST(sh_pack_writer_add_image(writer, name, &labels, &image, SH_IMAGE_RAW, 0));
    }
    MUST(sh_pack_writer_commit(writer));
    sh_pack_writer_destroy(&writer);
}

static void open_world(const row *rows, int n, world *w)
{
    int64_t asked[MAX_CROPS];
    int n_asked = 0;
    const char *path = w->path;

    *w = (world){.folder = "/tmp/shoal-test-XXXXXX"};
    assert_non_null(mkdtemp(w->folder));
    snprintf(w->path, TEXT, "%s/crops.h5", w->folder);
    write_pack(w->path, rows, n);
    MUST(sh_dataset_open(&path, 1, &w->dataset));
    for (int i = 0; i < n; i++) {
        if (!rows[i].trained) {
            asked[n_asked++] = i;
            continue;
        }
        w->known_embeddings[w->gallery.n * DIM] = rows[i].x;
        w->known_embeddings[w->gallery.n * DIM + 1] = rows[i].y;
        w->known[w->gallery.n++] = i;
    }
    w->gallery.crops = w->known;
    w->gallery.embeddings = w->known_embeddings;
    MUST(sh_eval_data_create(w->dataset, asked, n_asked, &w->queries));
    assert_int_equal(w->queries.n, n_asked);
    w->queries.dim = DIM;
    w->queries.embeddings = malloc((size_t)n_asked * DIM * sizeof(float));
    assert_non_null(w->queries.embeddings);
    for (int i = 0; i < n_asked; i++) {
        w->queries.embeddings[i * DIM] = rows[asked[i]].x;
        w->queries.embeddings[i * DIM + 1] = rows[asked[i]].y;
    }
}

static void close_world(world *w)
{
    sh_eval_data_clear(&w->queries);
    sh_dataset_close(&w->dataset);
    MUST(sh_file_remove_tree(w->folder));
}

/* Queries of the class called `truth` that were taken for `answer`. */
static int64_t taken_for(const json_t *section, const char *truth, const char *answer)
{
    const json_t *classes = json_object_get(section, "per_class");
    int64_t count = 0;
    size_t i;
    const json_t *cell;

    json_array_foreach(json_object_get(section, "confusion"), i, cell)
    {
        const json_t *of =
            json_array_get(classes, (size_t)json_integer_value(json_array_get(cell, 0)));
        const json_t *as =
            json_array_get(classes, (size_t)json_integer_value(json_array_get(cell, 1)));

        if (strcmp(json_string_value(json_object_get(of, "individual")), truth) == 0 &&
            strcmp(json_string_value(json_object_get(as, "individual")), answer) == 0)
            count += json_integer_value(json_array_get(cell, 2));
    }
    return count;
}

/* ---- nearest mean ---- */

/* Means of anna: (0, 0) of r1, (4, 0) of r2, (2, 0) of both; of bert (10, 0). */
#define KNOWN_FISH                                                                                 \
    {true, "anna", "r1", 0, 0}, {true, "anna", "r2", 4, 0},                                        \
    {                                                                                              \
        true, "bert", "r1", 10, 0                                                                  \
    }

static void known_means__compare_with_other_recordings_of_the_own_fish_only(void **state)
{
    const row rows[] = {
        KNOWN_FISH,
        {false, "anna", "r1", 6.5f, 0},  /* 2.5 from r2's: anna */
        {false, "anna", "r2", 6.25f, 0}, /* 6.25 from r1's, 3.75 from bert's */
        {false, "anna", "r3", 6.75f, 0}, /* 4.75 from both's, 3.25 from bert's */
        {false, "bert", "r2", 5, 0},     /* 3 from all of anna's, her r2 too */
    };
    world w;
    json_t *section = NULL;

    (void)state;
    open_world(rows, (int)SH_COUNT(rows), &w);
    MUST(sh_eval_known_means(&w.queries, &w.gallery, 1, &section));
    assert_int_equal(COUNT_OF(section, "crops"), 4);
    assert_int_equal(COUNT_OF(section, "unmatched"), 0);
    assert_int_equal(taken_for(section, "anna", "anna"), 1);
    assert_int_equal(taken_for(section, "anna", "bert"), 2);
    assert_int_equal(taken_for(section, "bert", "anna"), 1);
    assert_true(json_number_value(json_object_get(section, "accuracy")) == 0.25);
    json_decref(section);
    close_world(&w);
}

static void known_means__count_what_cannot_be_compared(void **state)
{
    const row rows[] = {
        KNOWN_FISH,
        {true, "cleo", NULL, 0, 10},
        {false, "anna", NULL, 2, 0},  /* its recording may be r1 or r2 */
        {false, "bert", "r1", 10, 0}, /* its own recording alone */
        {false, "cleo", "r4", 0, 10}, /* trained on in a recording that is not known */
        {false, "dora", "r4", 0, 0},  /* not trained on */
        {false, "anna", "r4", 2, 0},
    };
    world w;
    json_t *section = NULL;

    (void)state;
    open_world(rows, (int)SH_COUNT(rows), &w);
    MUST(sh_eval_known_means(&w.queries, &w.gallery, 1, &section));
    assert_int_equal(COUNT_OF(section, "unmatched"), 3);
    assert_int_equal(COUNT_OF(section, "left_out_not_trained_on"), 1);
    assert_int_equal(COUNT_OF(section, "crops"), 1);
    assert_int_equal(COUNT_OF(section, "classes"), 3);
    assert_int_equal(COUNT_OF(section, "classes_tested"), 1);
    assert_int_equal(taken_for(section, "anna", "anna"), 1);
    json_decref(section);
    close_world(&w);
}

static void known_means__keep_all_crops_of_data_without_recordings(void **state)
{
    const row rows[] = {
        {true, "anna", NULL, 0, 0},      {true, "anna", NULL, 4, 0}, {true, "bert", NULL, 10, 0},
        {false, "anna", NULL, 5.75f, 0}, /* 3.75 from the mean of both */
        {false, "bert", NULL, 6.5f, 0},
    };
    world w;
    json_t *section = NULL;

    (void)state;
    open_world(rows, (int)SH_COUNT(rows), &w);
    assert_true(w.queries.within_recording);
    MUST(sh_eval_known_means(&w.queries, &w.gallery, 1, &section));
    assert_int_equal(COUNT_OF(section, "unmatched"), 0);
    assert_int_equal(taken_for(section, "anna", "anna"), 1);
    assert_int_equal(taken_for(section, "bert", "bert"), 1);
    json_decref(section);
    close_world(&w);
}

static void known_means__decide_a_tie_whoever_asks(void **state)
{
    const row rows[] = {
        KNOWN_FISH,
        {false, "anna", "r3", 6, 0}, /* 4 from either */
        {false, "bert", "r3", 6, 0},
    };
    world w;
    json_t *section = NULL;

    (void)state;
    open_world(rows, (int)SH_COUNT(rows), &w);
    MUST(sh_eval_known_means(&w.queries, &w.gallery, 1, &section));
    assert_int_equal(taken_for(section, "anna", "anna"), 1);
    assert_int_equal(taken_for(section, "bert", "anna"), 1);
    json_decref(section);
    close_world(&w);
}

static void known_means__without_a_known_fish_are_null(void **state)
{
    const row rows[] = {KNOWN_FISH, {false, "dora", "r4", 0, 0}};
    world w;
    json_t *section = NULL;

    (void)state;
    open_world(rows, (int)SH_COUNT(rows), &w);
    MUST(sh_eval_known_means(&w.queries, &w.gallery, 1, &section));
    assert_true(json_is_null(section));
    assert_int_equal(sh_known_count(&w.queries, w.gallery.crops, w.gallery.n), 0);
    json_decref(section);
    close_world(&w);
}

/* ---- learnt classes ---- */

/* classes.csv with these lines behind its header, in the world's folder. */
static void write_classes(world *w, const char *lines, char path[TEXT])
{
    char text[TEXT];
    int n = snprintf(text, TEXT, "label,individual,side,crops\n%s", lines);

    snprintf(path, TEXT, "%s/classes.csv", w->folder);
    MUST(sh_file_put(path, text, (size_t)n));
}

static void known_classes__sides_and_centres_are_of_their_fish(void **state)
{
    const row rows[] = {
        {false, "anna", NULL, 1, 0},   /* anna's left side, first centre */
        {false, "anna", NULL, 0, 1},   /* her right side, second centre */
        {false, "bert", NULL, -1, 0},  /* first centre */
        {false, "bert", NULL, 0, -1},  /* second centre */
        {false, "dora", NULL, 0, -2},  /* no class */
        {false, "bert", NULL, .5f, 0}, /* looks like anna's left side */
    };
    const float weights[6 * DIM] = {1, 0, .1f, .1f, .1f, .1f, 0, 1, -1, 0, 0, -1};
    world w;
    char classes[TEXT];
    json_t *section = NULL;

    (void)state;
    open_world(rows, (int)SH_COUNT(rows), &w);
    write_classes(&w, "0,anna,left,3\n1,anna,right,3\n2,bert,,4\n", classes);
    MUST(sh_eval_known_classes(&w.queries, classes, weights, 6, false, 1, &section));
    assert_int_equal(COUNT_OF(section, "classes"), 2);
    assert_int_equal(COUNT_OF(section, "crops"), 5);
    assert_int_equal(COUNT_OF(section, "left_out_not_trained_on"), 1);
    assert_int_equal(taken_for(section, "anna", "anna"), 2);
    assert_int_equal(taken_for(section, "bert", "bert"), 2);
    assert_int_equal(taken_for(section, "bert", "anna"), 1);
    json_decref(section);
    close_world(&w);
}

static void known_classes__angles_do_not_depend_on_lengths(void **state)
{
    const row rows[] = {{false, "anna", NULL, 1, 0}, {false, "bert", NULL, 0, 1}};
    const float weights[2 * DIM] = {.1f, 0, 9, 10};
    world w;
    char classes[TEXT];
    json_t *angles = NULL, *products = NULL;

    (void)state;
    open_world(rows, (int)SH_COUNT(rows), &w);
    write_classes(&w, "0,anna,,1\n1,bert,,1\n", classes);
    MUST(sh_eval_known_classes(&w.queries, classes, weights, 2, true, 1, &angles));
    MUST(sh_eval_known_classes(&w.queries, classes, weights, 2, false, 1, &products));
    assert_int_equal(taken_for(angles, "anna", "anna"), 1);
    assert_int_equal(taken_for(products, "anna", "bert"), 1);
    assert_int_equal(taken_for(angles, "bert", "bert"), 1);
    json_decref(angles);
    json_decref(products);
    close_world(&w);
}

static void known_classes__refuse_weights_and_names_that_do_not_fit(void **state)
{
    const row rows[] = {{false, "anna", NULL, 1, 0}, {false, "bert", NULL, 0, 1}};
    const float weights[3 * DIM] = {0};
    world w;
    char classes[TEXT];
    json_t *section = NULL;

    (void)state;
    open_world(rows, (int)SH_COUNT(rows), &w);
    write_classes(&w, "0,anna,,1\n1,bert,,1\n", classes);
    assert_int_equal(sh_eval_known_classes(&w.queries, classes, weights, 3, false, 1, &section),
                     SH_ERR_MISMATCH);
    write_classes(&w, "0,anna,,1\n1,emil,,1\n", classes);
    assert_int_equal(sh_eval_known_classes(&w.queries, classes, weights, 2, false, 1, &section),
                     SH_ERR_MISMATCH);
    assert_non_null(strstr(sh_error_message(), "emil"));
    sh_error_clear();
    close_world(&w);
}

static void known_column__of_equals_is_the_first(void **state)
{
    const float weights[3 * DIM] = {0, 1, 2, 0, 2, 5};

    (void)state;
    assert_int_equal(sh_known_column((const float[DIM]){1, 0}, weights, 3, DIM, false), 1);
    assert_int_equal(sh_known_column((const float[DIM]){1, 0}, weights, 3, DIM, true), 1);
    assert_int_equal(sh_known_column((const float[DIM]){0, 1}, weights, 3, DIM, false), 2);
    assert_int_equal(sh_known_column((const float[DIM]){0, 1}, weights, 3, DIM, true), 0);
    assert_int_equal(sh_known_column((const float[DIM]){0, 0}, weights, 3, DIM, false), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_means__compare_with_other_recordings_of_the_own_fish_only),
        cmocka_unit_test(known_means__count_what_cannot_be_compared),
        cmocka_unit_test(known_means__keep_all_crops_of_data_without_recordings),
        cmocka_unit_test(known_means__decide_a_tie_whoever_asks),
        cmocka_unit_test(known_means__without_a_known_fish_are_null),
        cmocka_unit_test(known_classes__sides_and_centres_are_of_their_fish),
        cmocka_unit_test(known_classes__angles_do_not_depend_on_lengths),
        cmocka_unit_test(known_classes__refuse_weights_and_names_that_do_not_fit),
        cmocka_unit_test(known_column__of_equals_is_the_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
