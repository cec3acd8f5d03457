// SPDX-License-Identifier: Apache-2.0
// timeout: 120
#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dataio/staging.h"
#include "tests/dataio/pack_fixture.h"

static char pack[512], sharded[512], local[512];

static sh_status write_pack(const char *path, int n, uint64_t shard_bytes)
{
    sh_status st = SH_OK;
    sh_pack_writer *writer = NULL;
    sh_image image = {0};
    char name[32];

    SH_TRY(sh_pack_writer_create(path, shard_bytes, &writer));
    for (int i = 0; i < n; i++) {
        sh_labels labels = SH_LABELS_NONE;

        snprintf(name, sizeof(name), "crop%04d", i);
        labels.individual = i % 2 ? "a" : "b";
        fill_image(&image, 40, 30, 3, i);
        SH_TRY(sh_pack_writer_add_image(writer, name, &labels, &image, SH_IMAGE_RAW, 0));
    }
    SH_TRY(sh_pack_writer_commit(writer));
out:
    sh_image_clear(&image);
    sh_pack_writer_destroy(&writer);
    return st;
}

static sh_hash128 hash_of(const char *path)
{
    sh_dataset *d = NULL;
    uint8_t *data = NULL;
    size_t capacity = 0, n_bytes = 0;
    sh_image_format format;

    must(sh_dataset_open(&path, 1, &d));
    sh_hash128 hash = sh_dataset_hash(d);

    for (int64_t i = 0; i < sh_dataset_n_crops(d); i++) /* every image, checked */
        must(sh_dataset_read(d, i, &data, &capacity, &n_bytes, &format));
    free(data);
    sh_dataset_close(&d);
    return hash;
}

static void assert_same_pack(const char *a, const char *b)
{
    sh_hash128 x = hash_of(a), y = hash_of(b);

    assert_true(x.hi == y.hi && x.lo == y.lo);
}

static bool is_local(const char *path)
{
    return strncmp(path, local, strlen(local)) == 0;
}

/* Names below `local`/shoal-<user>; -1 where that is not there. */
static int n_left(void)
{
    char own[600];
    int n = 0;
    struct dirent *entry;

    snprintf(own, sizeof(own), "%s/shoal-%ld", local, (long)geteuid());
    DIR *dir = opendir(own);

    if (dir == NULL) return -1;
    while ((entry = readdir(dir)) != NULL) n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

static sh_staging *stage(const char *path, bool may_copy)
{
    sh_staging *s = NULL;

    must(sh_staging_open(local, &path, 1, may_copy, &s));
    return s;
}

static const char *path_of(const sh_staging *s)
{
    return sh_staging_paths(s)[0];
}

static void open__copies_and_the_last_close_removes(void **state)
{
    (void)state;
    const char *packs[] = {pack, sharded};
    sh_staging *first = NULL, *second = NULL;

    must(sh_staging_open(local, packs, 2, true, &first));
    must(sh_staging_open(local, packs, 2, false, &second));
    for (int i = 0; i < 2; i++) {
        assert_true(is_local(sh_staging_paths(first)[i]));
        assert_string_equal(sh_staging_paths(first)[i], sh_staging_paths(second)[i]);
        assert_same_pack(sh_staging_paths(first)[i], packs[i]);
    }
    sh_staging_close(&first);
    assert_same_pack(sh_staging_paths(second)[1], sharded);
    assert_int_equal(n_left(), 4);
    sh_staging_close(&second);
    assert_int_equal(n_left(), 0);
}

static void open__without_a_copy_reads_the_pack_itself(void **state)
{
    (void)state;
    sh_staging *s = stage(pack, false);

    assert_string_equal(path_of(s), pack);
    sh_staging_close(&s);
    assert_string_equal(path_of(s = stage("/nowhere/pack.h5", true)), "/nowhere/pack.h5");
    sh_staging_close(&s);
    const char *path = pack;

    must(sh_staging_open("/nowhere", &path, 1, true, &s));
    assert_string_equal(path_of(s), pack);
    sh_staging_close(&s);
}

static void open__takes_a_folder_from_the_environment(void **state)
{
    (void)state;
    sh_staging *s = NULL;
    const char *path = pack;

    assert_int_equal(setenv("SHOAL_TEST_DISK", fixture_folder, 1), 0);
    must(sh_staging_open("$SHOAL_TEST_DISK/local", &path, 1, true, &s));
    assert_true(is_local(path_of(s)));
    sh_staging_close(&s);
    must(sh_staging_open("$SHOAL_TEST_UNSET/local", &path, 1, true, &s));
    assert_string_equal(path_of(s), pack);
    sh_staging_close(&s);
}

static void damage(const char *path, long at)
{
    FILE *f = fopen(path, "r+b");

    assert_non_null(f);
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    int byte = fgetc(f);

    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    assert_int_not_equal(fputc(byte ^ 1, f), EOF);
    assert_int_equal(fclose(f), 0);
}

/* What a killed process leaves: a copy that nobody uses. */
static void leave_copy(char path[512])
{
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        sh_staging *s = NULL;
        const char *source = pack;

        _exit(sh_staging_open(local, &source, 1, true, &s) == SH_OK && is_local(path_of(s)) ? 0
                                                                                            : 1);
    }
    int status = 0;

    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(n_left(), 2);
    sh_staging *s = stage(pack, false);

    snprintf(path, 512, "%s", path_of(s));
    assert_true(is_local(path));
    /* Closing would remove it: leave it to the next copy as the dead process did. */
    child = fork();
    assert_true(child >= 0);
    if (child == 0) pause();
    sh_staging_close(&s); /* the child shares the lock, so the copy stays */
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(n_left(), 2);
}

static void open__finds_damage_in_a_copy_that_was_left_and_makes_it_again(void **state)
{
    (void)state;
    static const char *const names[] = {"", "/../sums"};
    char path[512], file[600];

    for (int i = 0; i < 2; i++)
        for (long at = 7; at < 80; at += 24) {
            leave_copy(path);
            snprintf(file, sizeof(file), "%.*s%s",
                     (int)(i == 0 ? strlen(path) : (size_t)(strrchr(path, '/') - path)), path,
                     i == 0 ? names[0] : names[1] + 3);
            struct stat info;

            assert_int_equal(stat(file, &info), 0);
            damage(file, at % (long)info.st_size);
            sh_staging *s = stage(pack, true);

            assert_true(is_local(path_of(s)));
            assert_same_pack(path_of(s), pack);
            sh_staging_close(&s);
            assert_int_equal(n_left(), 0);
        }
}

static void open__removes_copies_that_nobody_uses(void **state)
{
    (void)state;
    char path[512];

    leave_copy(path);
    sh_staging *s = stage(sharded, true);

    assert_true(is_local(path_of(s)));
    assert_int_equal(n_left(), 2);
    assert_false(sh_file_exists(path));
    sh_staging_close(&s);
    assert_int_equal(n_left(), 0);
}

static void open__survives_every_fault_of_the_disk(void **state)
{
    (void)state;
    int n_faults = 0;

    for (bool copied = false; !copied; n_faults++) {
        sh_file_set_fault(n_faults, false);
        sh_staging *s = stage(pack, true);

        sh_file_set_fault(-1, false);
        copied = is_local(path_of(s));
        assert_same_pack(path_of(s), pack);
        sh_staging_close(&s);
        assert_true(n_left() <= 0);
    }
    assert_true(n_faults > 5);
}

static void open__after_a_process_that_died_at_any_write_copies_anew(void **state)
{
    (void)state;
    int status = 1, n_deaths = 0;

    for (; status != 0; n_deaths++) {
        pid_t child = fork();

        assert_true(child >= 0);
        if (child == 0) {
            const char *path = sharded;
            sh_staging *s = NULL;

            sh_file_set_fault(n_deaths, true);
            _exit(sh_staging_open(local, &path, 1, true, &s) == SH_OK ? 0 : 1);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 137 || status == 0));
        sh_staging *s = stage(sharded, true);

        assert_true(is_local(path_of(s)));
        assert_same_pack(path_of(s), sharded);
        sh_staging_close(&s);
        assert_int_equal(n_left(), 0);
    }
    assert_true(n_deaths > 10);
}

/* Processes that open, read and close at the same moments, some of which are killed. */
static void open__of_many_processes_at_once_always_reads_the_pack(void **state)
{
    (void)state;
    enum { N_PROCESSES = 6, N_ROUNDS = 8 };
    sh_hash128 expected = hash_of(pack);
    pid_t children[N_PROCESSES];

    for (int round = 0; round < N_ROUNDS; round++) {
        for (int p = 0; p < N_PROCESSES; p++) {
            children[p] = fork();
            assert_true(children[p] >= 0);
            if (children[p] != 0) continue;
            bool good = true;

            for (int i = 0; i < 3 && good; i++) {
                const char *path = pack;
                sh_staging *s = NULL;

                if (sh_staging_open(local, &path, 1, true, &s) != SH_OK) _exit(1);
                good = is_local(path_of(s));
                sh_hash128 hash = hash_of(path_of(s));

                good = good && hash.hi == expected.hi && hash.lo == expected.lo;
                sh_staging_close(&s);
            }
            _exit(good ? 0 : 1);
        }
        usleep(1000 + 3000 * (unsigned)round);
        assert_int_equal(kill(children[round % N_PROCESSES], SIGKILL), 0);
        for (int p = 0; p < N_PROCESSES; p++) {
            int status = 0;

            assert_int_equal(waitpid(children[p], &status, 0), children[p]);
            assert_true(status == 0 || p == round % N_PROCESSES);
        }
    }
    sh_staging *s = stage(pack, true);

    assert_true(is_local(path_of(s)));
    sh_staging_close(&s);
    assert_int_equal(n_left(), 0);
}

static int set_up(void **state)
{
    /* Hundreds of copies are synced: in memory, where there is such a folder. */
    if (sh_file_is_dir("/dev/shm"))
        snprintf(fixture_folder, sizeof(fixture_folder), "/dev/shm/shoal-XXXXXX");
    if (set_up_folder(state) != 0) return -1;
    snprintf(pack, sizeof(pack), "%s", in_folder("crops.h5"));
    snprintf(sharded, sizeof(sharded), "%s", in_folder("many.h5"));
    snprintf(local, sizeof(local), "%s", in_folder("local"));
    return mkdir(local, 0700) != 0 || write_pack(pack, 40, 0) != SH_OK ||
           write_pack(sharded, 40, 40000) != SH_OK;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open__copies_and_the_last_close_removes),
        cmocka_unit_test(open__without_a_copy_reads_the_pack_itself),
        cmocka_unit_test(open__takes_a_folder_from_the_environment),
        cmocka_unit_test(open__finds_damage_in_a_copy_that_was_left_and_makes_it_again),
        cmocka_unit_test(open__removes_copies_that_nobody_uses),
        cmocka_unit_test(open__survives_every_fault_of_the_disk),
        cmocka_unit_test(open__after_a_process_that_died_at_any_write_copies_anew),
        cmocka_unit_test(open__of_many_processes_at_once_always_reads_the_pack),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down_folder);
}
