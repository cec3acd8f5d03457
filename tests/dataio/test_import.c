// SPDX-License-Identifier: Apache-2.0
// timeout: 120
#include "dataio/import.h"
#include "dataio/split.h"
#include "dataio/survey.h"
#include "tests/dataio/pack_fixture.h"

static void pattern__reads_names(void **state)
{
    static const struct {
        const char *pattern, *path;
        bool matches;
        const char *individual, *recording;
        sh_side side;
        int64_t time;
        int32_t frame, split;
    } cases[] = {
        {"{individual}_{side:l=left,r=right}_{date:%Y%m%d}_{*}.jpg", "x/201506_l_20240517_3.jpg", 1,
         "201506", NULL, SH_SIDE_LEFT, 1715904000, -1, -1},
        {"{individual}_{side:l=left,r=right}_{date:%Y%m%d}_{*}.jpg", "201506_q_20240517_3.jpg", 0,
         NULL, NULL, 0, 0, 0, 0},
        {"{individual}_{side:l=left,r=right}_{date:%Y%m%d}_{*}.jpg", "a_b_r_20240517_3.jpg", 1,
         "a_b", NULL, SH_SIDE_RIGHT, 1715904000, -1, -1},
        {"{individual}_{side:l=left,r=right}_{date:%Y%m%d}_{*}.jpg", "201506_l_20241317_3.jpg", 0,
         NULL, NULL, 0, 0, 0, 0},
        {"{individual}_{side:l=left,r=right}_{date:%Y%m%d}_{*}.jpg", "201506_l_20240230_3.jpg", 0,
         NULL, NULL, 0, 0, 0, 0},
        {"{individual}/{date:%m%d@2025}-{*}.jpg", "7/0314-2.jpg", 1, "7", NULL, SH_SIDE_UNKNOWN,
         1741910400, -1, -1},
        {"{individual}/{date:%m%d@2025}-{*}.jpg", "7/0229-2.jpg", 0, NULL, NULL, 0, 0, 0, 0},
        {"{individual}_C{camera}_seq{recording}_frame{frame}.jpg", "t/00_C1_seq004_frame0450.jpg",
         1, "00", "004", SH_SIDE_UNKNOWN, SH_NO_TIME, 450, -1},
        {"{individual}_C{camera}_seq{recording}_frame{frame}.jpg", "00_C1_seq004_frameX.jpg", 0,
         NULL, NULL, 0, 0, 0, 0},
        {"{split:training=train,testing=test}/{individual}/{frame}.pgm", "testing/s5/10.pgm", 1,
         "s5", NULL, SH_SIDE_UNKNOWN, SH_NO_TIME, 10, SH_PART_TEST},
        {"{individual}/{*}", "a/b/c.png", 0, NULL, NULL, 0, 0, 0, 0},
        {"{*}/{individual}/{*}", "a/b/c.png", 1, "b", NULL, SH_SIDE_UNKNOWN, SH_NO_TIME, -1, -1},
        {"{individual}.png", "a/.png", 0, NULL, NULL, 0, 0, 0, 0},
        {"{*}{individual}.png", "abc.png", 1, "abc", NULL, SH_SIDE_UNKNOWN, SH_NO_TIME, -1, -1},
        {"{*}", "", 1, NULL, NULL, SH_SIDE_UNKNOWN, SH_NO_TIME, -1, -1},
        {"{side}_{*}", "right_1.png", 1, NULL, NULL, SH_SIDE_RIGHT, SH_NO_TIME, -1, -1},
        {"{date}.png", "2024-05-17T00:00:01.png", 1, NULL, NULL, SH_SIDE_UNKNOWN, 1715904001, -1,
         -1},
    };

    (void)state;
    for (size_t i = 0; i < SH_COUNT(cases); i++) {
        sh_pattern *p = NULL;
        sh_strings *texts = NULL;
        sh_labels labels = SH_LABELS_NONE;
        bool matched = false;

        must(sh_pattern_parse(cases[i].pattern, &p));
        must(sh_strings_create(&texts));
        must(sh_pattern_match(p, cases[i].path, texts, &matched, &labels));
        if (matched != cases[i].matches) fail_msg("%s on %s", cases[i].pattern, cases[i].path);
        if (matched) {
            const char *texts_read[] = {labels.individual, labels.recording};
            const char *expected[] = {cases[i].individual, cases[i].recording};

            for (int k = 0; k < 2; k++)
                assert_string_equal(texts_read[k] ? texts_read[k] : "-",
                                    expected[k] ? expected[k] : "-");
            assert_int_equal(labels.side, cases[i].side);
            assert_true(labels.time == cases[i].time);
            assert_int_equal(labels.frame, cases[i].frame);
            assert_int_equal(labels.split, cases[i].split);
        }
        sh_pattern_free(&p);
        sh_strings_destroy(&texts);
    }
}

static void pattern__that_cannot_be_meant_is_refused(void **state)
{
    static const struct {
        const char *pattern, *word;
    } cases[] = {
        {"{indvidual}.jpg", "did you mean 'individual'"},
        {"{individual.jpg", "without its"},
        {"{individual}_{individual}.jpg", "stands twice"},
        {"{side:l=lefft}.jpg", "must read like"},
        {"{side:left}.jpg", "must read like"},
        {"{camera:x}.jpg", "takes no argument"},
        {"{date:Ymd}.jpg", "must read like"},
        {"", "empty"},
    };

    (void)state;
    for (size_t i = 0; i < SH_COUNT(cases); i++) {
        sh_pattern *p = NULL;

        assert_failed(sh_pattern_parse(cases[i].pattern, &p), SH_ERR_USAGE, cases[i].word);
        assert_null(p);
    }
}

static void pattern__stays_fast_on_hostile_names(void **state)
{
    sh_pattern *p = NULL;
    sh_strings *texts = NULL;
    sh_labels labels;
    bool matched = true;
    char name[1001];

    (void)state;
    memset(name, 'a', 1000);
    name[1000] = '\0';
    must(sh_pattern_parse("{*}a{*}a{*}a{*}a{*}a{*}a{*}a{*}a{*}ab", &p));
    must(sh_strings_create(&texts));
    must(sh_pattern_match(p, name, texts, &matched, &labels));
    assert_false(matched);
    sh_pattern_free(&p);
    sh_strings_destroy(&texts);
}

/* A folder with two fish, copies, a mislabel, damaged and foreign files. */
static const char *make_source(void)
{
    char *data = NULL;
    size_t n = 0;

    put_image("src/fish a/1.jpg", SH_IMAGE_JPEG, 1);
    put_image("src/fish a/2.PNG", SH_IMAGE_PNG, 2);
    put_image("src/fish b/x/3.jpg", SH_IMAGE_JPEG, 3);
    put_image("src/fish b/copy of 3.jpg", SH_IMAGE_JPEG, 3);
    put_image("src/fish b/is a's.png", SH_IMAGE_PNG, 2);
    put_image("src/loose.png", SH_IMAGE_PNG, 5);
    must(sh_file_get(in_folder("src/fish a/1.jpg"), 1 << 20, &data, &n));
    put_file("src/fish b/cut.jpg", data, n / 2);
    put_file("src/fish b/empty.jpg", "", 0);
    put_file("src/fish b/scan.tif", "II*\0....", 8);
    put_file("src/fish b/old \xE6.jpg", data, n);
    put_file("src/notes.txt", "hello", 5);
    put_file("src/.DS_Store", "x", 1);
    free(data);
    return in_folder("src");
}

static void plan_source(const char *source, const sh_folder_rules *rules, sh_import_plan *plan)
{
    must(sh_import_plan_folders(&source, 1, rules, plan));
}

static const char *reason_of(const sh_drop_list *list, const char *name)
{
    for (int64_t i = 0; i < list->n; i++)
        if (strcmp(list->names[i], name) == 0) return list->reasons[i];
    return "not in the list";
}

static void import__reports_every_file_that_it_leaves_out(void **state)
{
    static const struct {
        const char *name, *word;
    } left_out[] = {
        {"fish b/cut.jpg", "damaged"}, {"fish b/empty.jpg", "empty"},
        {"fish b/scan.tif", "TIFF"},   {"fish b/old \\xE6.jpg", "UTF-8"},
        {"notes.txt", "not an image"}, {".DS_Store", "hidden"},
    };
    static const char *const names[] = {"fish a/1.jpg",         "fish a/2.PNG",
                                        "fish b/copy of 3.jpg", "fish b/is a's.png",
                                        "fish b/x/3.jpg",       "loose.png"};
    const char *path = in_folder("all.h5"), *name = NULL, *reason = NULL;
    sh_import_plan plan = {0};
    sh_import_report report = {0};
    sh_dataset *d = NULL;

    (void)state;
    plan_source(make_source(), &(sh_folder_rules){0}, &plan);
    must(sh_import_run(&plan, &(sh_import_options){.threads = 3}, path, &report));
    assert_int_equal(report.n_packed, 6);
    assert_int_equal(report.n_labelled, 5);
    assert_int_equal(report.dropped.n, SH_COUNT(left_out));
    for (size_t i = 0; i < SH_COUNT(left_out); i++)
        assert_non_null(strstr(reason_of(&report.dropped, left_out[i].name), left_out[i].word));
    assert_int_equal(report.duplicates.n, 1);
    assert_string_equal(report.duplicates.names[0], "fish b/x/3.jpg");
    assert_non_null(strstr(report.duplicates.reasons[0], "fish b/copy of 3.jpg"));
    assert_int_equal(report.mislabels.n, 1);
    assert_string_equal(report.mislabels.names[0], "fish b/is a's.png");
    must(sh_dataset_open(&path, 1, &d));
    assert_int_equal(sh_dataset_n_crops(d), SH_COUNT(names));
    for (size_t i = 0; i < SH_COUNT(names); i++)
        assert_string_equal(sh_dataset_crop(d, (int64_t)i)->name, names[i]);
    assert_string_equal(sh_dataset_individual(d, sh_dataset_crop(d, 1)->individual), "fish a");
    assert_int_equal(sh_dataset_crop(d, 5)->individual, SH_NO_LABEL);
    assert_int_equal(sh_dataset_n_dropped(d), SH_COUNT(left_out));
    for (int64_t i = 0; i < sh_dataset_n_dropped(d); i++) {
        sh_dataset_dropped(d, i, &name, &reason);
        assert_string_equal(reason_of(&report.dropped, name), reason);
    }
    sh_dataset_close(&d);
    sh_import_report_clear(&report);
    sh_import_plan_clear(&plan);
}

static void import__does_not_depend_on_threads(void **state)
{
    static const int threads[] = {1, 4};
    char *bytes[2] = {NULL}, name[32];
    size_t n[2] = {0};

    (void)state;
    for (int i = 0; i < 40; i++) {
        snprintf(name, sizeof(name), "many/f%d/%d.jpg", i % 3, i);
        put_image(name, SH_IMAGE_JPEG, i);
    }
    for (int i = 0; i < 2; i++) {
        const char *path = in_folder("threads.h5");
        sh_import_plan plan = {0};
        sh_import_report report = {0};

        plan_source(in_folder("many"), &(sh_folder_rules){0}, &plan);
        must(sh_import_run(&plan, &(sh_import_options){.threads = threads[i]}, path, &report));
        must(sh_file_get(path, 1 << 24, &bytes[i], &n[i]));
        sh_import_report_clear(&report);
        sh_import_plan_clear(&plan);
    }
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(bytes[0], bytes[1], n[0]);
    free(bytes[0]);
    free(bytes[1]);
}

static void drop_duplicates__leaves_the_first_and_never_a_mislabel(void **state)
{
    const char *path = in_folder("unique.h5");
    sh_import_plan plan = {0};
    sh_import_report report = {0};
    sh_dataset *d = NULL;

    (void)state;
    plan_source(make_source(), &(sh_folder_rules){0}, &plan);
    must(sh_import_run(&plan, &(sh_import_options){.threads = 2, .drop_duplicates = true}, path,
                       &report));
    assert_int_equal(report.n_packed, 5);
    assert_non_null(strstr(reason_of(&report.dropped, "fish b/x/3.jpg"), "same picture"));
    must(sh_dataset_open(&path, 1, &d));
    assert_true(sh_dataset_find(d, 0, "fish b/copy of 3.jpg") >= 0);
    assert_true(sh_dataset_find(d, 0, "fish b/is a's.png") >= 0);
    assert_int_equal(sh_dataset_find(d, 0, "fish b/x/3.jpg"), -1);
    sh_dataset_close(&d);
    sh_import_report_clear(&report);
    sh_import_plan_clear(&plan);
}

static void unmatched_names__are_left_out_by_name_or_kept_unlabelled(void **state)
{
    static const char *const patterns[] = {"{individual}_{*}.jpg", "{*}/{individual}.png"};
    sh_folder_rules rules = {.patterns = patterns, .n_patterns = 2};
    sh_import_plan plan = {0};

    (void)state;
    put_image("pat/a/f1_2.jpg", SH_IMAGE_JPEG, 0);
    put_image("pat/a/f2.png", SH_IMAGE_PNG, 1);
    put_image("pat/a/b/f3.png", SH_IMAGE_PNG, 2);
    plan_source(in_folder("pat"), &rules, &plan);
    assert_int_equal(plan.n, 2);
    assert_int_equal(plan.items[0].rule, 0);
    assert_string_equal(plan.items[0].labels.individual, "f1");
    assert_int_equal(plan.items[1].rule, 1);
    assert_string_equal(plan.items[1].labels.individual, "f2");
    assert_string_equal(reason_of(&plan.dropped, "a/b/f3.png"), "matches no --pattern");
    sh_import_plan_clear(&plan);
    rules.keep_unmatched = true;
    plan_source(in_folder("pat"), &rules, &plan);
    assert_int_equal(plan.n, 3);
    assert_string_equal(plan.items[0].name, "a/b/f3.png");
    assert_null(plan.items[0].labels.individual);
    sh_import_plan_clear(&plan);
}

static void manifest__gives_labels_and_boxes(void **state)
{
    static const char text[] =
        "\xEF\xBB\xBFpath,individual,side,date,frame,x,y,w,h,split\r\n"
        "m/1.png,\"Anna, the \"\"old\"\" one\",left,2024-05-17,7,,,,,train\r\n"
        "m/1.png,Ben,right,,,-3,2,10,5,test\r\n"
        "\r\n"
        "m/1.png,,,,,100,100,5,5,\r\n";
    const char *path = in_folder("man.h5");
    sh_import_plan plan = {0};
    sh_import_report report = {0};
    sh_dataset *d = NULL;
    sh_image whole = {0}, cut = {0};

    (void)state;
    put_image("m/1.png", SH_IMAGE_PNG, 0);
    put_file("list.csv", text, sizeof(text) - 1);
    must(sh_import_plan_manifest(in_folder("list.csv"), NULL, &plan));
    assert_int_equal(plan.n, 3);
    must(sh_import_run(&plan, &(sh_import_options){.threads = 1}, path, &report));
    assert_non_null(strstr(reason_of(&report.dropped, "m/1.png#100,100,5,5"), "outside"));
    must(sh_dataset_open(&path, 1, &d));
    assert_int_equal(sh_dataset_n_crops(d), 2);
    const sh_crop *anna = sh_dataset_crop(d, sh_dataset_find(d, 0, "m/1.png"));
    const sh_crop *ben = sh_dataset_crop(d, sh_dataset_find(d, 0, "m/1.png#-3,2,10,5"));

    assert_string_equal(sh_dataset_individual(d, anna->individual), "Anna, the \"old\" one");
    assert_int_equal(anna->side, SH_SIDE_LEFT);
    assert_true(anna->time == 1715904000);
    assert_string_equal(sh_dataset_recording(d, anna->recording), "2024-05-17");
    assert_int_equal(anna->frame, 7);
    assert_int_equal(anna->split, SH_PART_TRAIN);
    assert_int_equal(ben->split, SH_PART_TEST);
    assert_int_equal(ben->recording, -1);
    assert_int_equal(ben->width, 7); /* clipped on the left */
    assert_int_equal(ben->box[0], 0);
    assert_int_equal(ben->source_width, 20);
    must(sh_dataset_decode(d, sh_dataset_find(d, 0, "m/1.png"), 0, 0, 0, &whole));
    must(sh_dataset_decode(d, sh_dataset_find(d, 0, "m/1.png#-3,2,10,5"), 0, 0, 0, &cut));
    for (int y = 0; y < 5; y++)
        assert_memory_equal(cut.pixels + y * 21, whole.pixels + (y + 2) * 60, 21);
    sh_image_clear(&whole);
    sh_image_clear(&cut);
    sh_dataset_close(&d);
    sh_import_report_clear(&report);
    sh_import_plan_clear(&plan);
}

static void manifest__that_is_wrong_is_refused_by_line(void **state)
{
    static const struct {
        const char *text, *word;
    } cases[] = {
        {"path,indvidual\na,b\n", "did you mean 'individual'"},
        {"individual\nb\n", "no column 'path'"},
        {"path,path\na,b\n", "twice"},
        {"path,side\na,left\nb,lefft\n", "line 3: side is 'lefft'"},
        {"path,date\na,yesterday\n", "line 2: date"},
        {"path,frame\na,-5\n", "line 2: frame"},
        {"path,x,y\na,1,2\n", "all of x, y, w, h"},
        {"path,x,y,w,h\na,1,2,0,4\n", "line 2: w"},
        {"path,split\na,training\n", "train, val, test"},
        {"path,side\na\n", "1 fields, 2 expected"},
        {"path\na\na\n", "two images are called a"},
        {"path\n\"a\n", "never closes"},
        {"", "empty"},
    };

    (void)state;
    for (size_t i = 0; i < SH_COUNT(cases); i++) {
        sh_import_plan plan = {0};

        put_file("bad.csv", cases[i].text, strlen(cases[i].text));
        sh_status st = sh_import_plan_manifest(in_folder("bad.csv"), NULL, &plan);

        assert_failed(st, st == SH_ERR_FORMAT ? SH_ERR_FORMAT : SH_ERR_USAGE, cases[i].word);
        sh_import_plan_clear(&plan);
    }
}

static void zebrafish__boxes_are_cut_from_the_frames(void **state)
{
    static const char text[] =
        "Filename;Object ID;Annotation tag;Upper left corner X;Upper left corner Y;Lower right "
        "corner X;Lower right corner Y;Right,Turning,Occlusion,Glitch;Buffer;;\n"
        "Vid1_000012.png;2;Zebrafish;1;2;9;8;1,0,0,0;0;;\n"
        "Vid1_000012.png;3;Zebrafish;5;5;12;15;0,0,1,0;0;;\n"
        "Vid2_000100.png;4;Zebrafish;0;0;20;16;1,1,0,0;0;;\n";
    const char *path = in_folder("zebra.h5");
    sh_import_plan plan = {0};
    sh_import_report report = {0};
    sh_dataset *d = NULL;
    static const sh_side sides[] = {SH_SIDE_RIGHT, SH_SIDE_LEFT, SH_SIDE_UNKNOWN};

    (void)state;
    put_image("zebra/data/Vid1_000012.png", SH_IMAGE_PNG, 0);
    put_image("zebra/data/Vid2_000100.png", SH_IMAGE_PNG, 5);
    put_file("zebra/annotations.csv", text, sizeof(text) - 1);
    must(sh_import_plan_zebrafish(in_folder("zebra/annotations.csv"), NULL, &plan));
    must(sh_import_run(&plan, &(sh_import_options){.threads = 2}, path, &report));
    must(sh_dataset_open(&path, 1, &d));
    assert_int_equal(sh_dataset_n_crops(d), 3);
    for (int i = 0; i < 3; i++) assert_int_equal(sh_dataset_crop(d, i)->side, sides[i]);
    const sh_crop *c = sh_dataset_crop(d, 1);

    assert_string_equal(c->name, "Vid1_000012.png#3");
    assert_string_equal(sh_dataset_individual(d, c->individual), "3");
    assert_string_equal(sh_dataset_recording(d, c->recording), "Vid1");
    assert_string_equal(sh_dataset_species(d, c->species), "Zebrafish");
    assert_int_equal(c->frame, 12);
    assert_int_equal(c->width, 7);
    assert_int_equal(c->height, 10);
    sh_dataset_close(&d);
    sh_import_report_clear(&report);
    sh_import_plan_clear(&plan);
}

static void raw__stores_pixels_of_one_size(void **state)
{
    const char *path = in_folder("raw.h5");
    sh_import_plan plan = {0};
    sh_import_report report = {0};
    sh_dataset *d = NULL;
    sh_image image = {0};

    (void)state;
    put_image("rawsrc/a/1.png", SH_IMAGE_PNG, 0);
    put_image("rawsrc/a/2.png", SH_IMAGE_PNG, 3);
    put_file("rawsrc/b/grey.pgm", "P5 2 2 255 abcd", 15);
    plan_source(in_folder("rawsrc"), &(sh_folder_rules){0}, &plan);
    must(sh_import_run(&plan, &(sh_import_options){.threads = 2, .raw_width = 20, .raw_height = 16},
                       path, &report));
    assert_int_equal(report.n_resized, 2);
    must(sh_dataset_open(&path, 1, &d));
    for (int i = 0; i < 3; i++) {
        must(sh_dataset_decode(d, i, 0, 0, 0, &image));
        assert_int_equal(image.width, 20);
        assert_int_equal(image.height, 16);
        assert_int_equal(image.channels, i == 2 ? 1 : 3);
        assert_int_equal(sh_dataset_crop(d, i)->format, SH_IMAGE_RAW);
    }
    must(sh_dataset_decode(d, 2, 3, 0, 0, &image));
    assert_int_equal(image.channels, 3);
    sh_image_clear(&image);
    sh_dataset_close(&d);
    sh_import_report_clear(&report);
    sh_import_plan_clear(&plan);
}

static void masks__follow_their_image_and_its_box(void **state)
{
    static const char text[] =
        "path,x,y,w,h\na/1.jpg,,,,\na/1.jpg,3,4,5,6\na/2.jpg,,,,\na/5.jpg,,,,\n";
    char file[512];
    const char *path = file;
    sh_import_plan plan = {0};
    sh_import_report report = {0};
    sh_dataset *d = NULL;
    sh_image mask = {0}, cut = {0};

    (void)state;
    snprintf(file, sizeof(file), "%s", in_folder("masks.h5"));
    put_image("mk/a/1.jpg", SH_IMAGE_JPEG, 0);
    put_image("mk/a/2.jpg", SH_IMAGE_JPEG, 1);
    put_image("mk/a/5.jpg", SH_IMAGE_JPEG, 3);
    put_image("fish/a/1.png", SH_IMAGE_PNG, 0);
    put_image("fish/a/5.png", SH_IMAGE_PNG, 2); /* of another size */
    put_file("mk/list.csv", text, sizeof(text) - 1);
    must(sh_import_plan_manifest(in_folder("mk/list.csv"), NULL, &plan));
    must(sh_import_run(
        &plan,
        &(sh_import_options){.threads = 2, .mask_folders = {[SH_MASK_FISH] = in_folder("fish")}},
        path, &report));
    assert_int_equal(report.n_masks, 2);
    assert_non_null(strstr(reason_of(&report.dropped, "a/5.jpg"), "its mask"));
    must(sh_dataset_open(&path, 1, &d));
    int64_t whole = sh_dataset_find(d, 0, "a/1.jpg"),
            box = sh_dataset_find(d, 0, "a/1.jpg#3,4,5,6");

    assert_true(sh_dataset_has_mask(d, whole, SH_MASK_FISH));
    assert_false(sh_dataset_has_mask(d, whole, SH_MASK_PATTERN));
    assert_false(sh_dataset_has_mask(d, sh_dataset_find(d, 0, "a/2.jpg"), SH_MASK_FISH));
    assert_int_equal(sh_dataset_decode_mask(d, whole, SH_MASK_PATTERN, &mask), SH_ERR_NOT_FOUND);
    must(sh_dataset_decode_mask(d, whole, SH_MASK_FISH, &mask));
    must(sh_dataset_decode_mask(d, box, SH_MASK_FISH, &cut));
    assert_int_equal(mask.width, 20);
    assert_int_equal(cut.width, 5);
    assert_int_equal(cut.height, 6);
    for (int y = 0; y < 6; y++)
        assert_memory_equal(cut.pixels + y * 5, mask.pixels + (y + 4) * 20 + 3, 5);
    sh_image_clear(&mask);
    sh_image_clear(&cut);
    sh_dataset_close(&d);
    sh_import_report_clear(&report);
    sh_import_plan_clear(&plan);
}

/* Import a real set with all threads and survey it. */
static void survey_set(const char *source, const char *pattern, sh_dataset **d, sh_survey *survey)
{
    const char *path = in_folder("real.h5");
    sh_folder_rules rules = {.patterns = &pattern, .n_patterns = pattern != NULL};
    sh_import_plan plan = {0};
    sh_import_report report = {0};

    plan_source(source, &rules, &plan);
    must(sh_import_run(&plan, &(sh_import_options){.threads = 2}, path, &report));
    must(sh_dataset_open(&path, 1, d));
    must(sh_survey_make(*d, survey));
    assert_int_equal(report.duplicates.n, survey->duplicates.n);
    assert_int_equal(report.mislabels.n, survey->mislabels.n);
    sh_import_report_clear(&report);
    sh_import_plan_clear(&plan);
}

static void real_sets__import_whole(void **state)
{
    static const struct {
        const char *set, *pattern;
        int64_t n_crops, n_duplicates;
        int n_individuals, n_recordings, n_cameras;
    } sets[] = {
        {"fs48_train", "{individual}_C{camera}_seq{recording}_frame{frame}.jpg", 6378, 15, 24, 84,
         3},
        {"orl_faces", "{split:training=train,testing=test}/{individual}/{frame}.pgm", 400, 0, 40, 0,
         0},
        {"cattle/datasets_v2", NULL, 3621, 0, 82, 0, 0},
    };

    (void)state;
    if (real_set("fs48_train") == NULL) skip();
    for (size_t i = 0; i < SH_COUNT(sets); i++) {
        sh_dataset *d = NULL;
        sh_survey survey = {0};
        const char *source = real_set(sets[i].set);

        assert_non_null(source);
        survey_set(source, sets[i].pattern, &d, &survey);
        assert_int_equal(survey.n_crops, sets[i].n_crops);
        assert_int_equal(survey.n_labelled, sets[i].n_crops);
        assert_int_equal(survey.duplicates.n, sets[i].n_duplicates);
        assert_int_equal(survey.mislabels.n, 0);
        assert_int_equal(survey.individuals.n, sets[i].n_individuals);
        assert_int_equal(survey.recordings.n, sets[i].n_recordings);
        assert_int_equal(survey.cameras.n, sets[i].n_cameras);
        sh_survey_clear(&survey);
        sh_dataset_close(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pattern__reads_names),
        cmocka_unit_test(pattern__that_cannot_be_meant_is_refused),
        cmocka_unit_test(pattern__stays_fast_on_hostile_names),
        cmocka_unit_test(import__reports_every_file_that_it_leaves_out),
        cmocka_unit_test(import__does_not_depend_on_threads),
        cmocka_unit_test(drop_duplicates__leaves_the_first_and_never_a_mislabel),
        cmocka_unit_test(unmatched_names__are_left_out_by_name_or_kept_unlabelled),
        cmocka_unit_test(manifest__gives_labels_and_boxes),
        cmocka_unit_test(manifest__that_is_wrong_is_refused_by_line),
        cmocka_unit_test(zebrafish__boxes_are_cut_from_the_frames),
        cmocka_unit_test(raw__stores_pixels_of_one_size),
        cmocka_unit_test(masks__follow_their_image_and_its_box),
        cmocka_unit_test(real_sets__import_whole),
    };

    return cmocka_run_group_tests(tests, set_up_folder, tear_down_folder);
}
