// SPDX-License-Identifier: Apache-2.0
#include "trainer/run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/position.h"

enum { MAX_JSON_BYTES = 256 << 20, LOCK_BYTES = 512 };

static const double turn_seconds = 10; /* for a process that takes the run at the same instant */

sh_status sh_run_path(const char *run, const char *name, char *path)
{
    return sh_path_join(run, name, path, SH_RUN_PATH);
}

sh_status sh_run_load_config(const char *run, sh_config *out)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];

    SH_TRY(sh_run_path(run, "config.yaml", path));
    SH_CHECK(sh_file_exists(path), SH_ERR_NOT_FOUND,
             "%s is not a run folder: it has no config.yaml (make one with `shoal train ... --run "
             "%s`)",
             run, run);
    SH_TRY(sh_config_load(path, NULL, 0, out));
out:
    return st;
}

sh_status sh_run_put_config(const char *run, const char *name, const sh_config *config)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    char *text = NULL;
    size_t n_bytes = 0;

    SH_TRY(sh_options_write(sh_config_options(), config, &text, &n_bytes));
    SH_TRY(sh_run_path(run, name, path));
    SH_TRY(sh_file_put(path, text, n_bytes));
out:
    free(text);
    return st;
}

sh_status sh_run_check_config(const char *run, const sh_config *wanted, bool *exists)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    sh_config *stored = calloc(1, sizeof(*stored));

    SH_CHECK(stored != NULL, SH_ERR_NO_MEMORY, "configuration");
    SH_TRY(sh_run_path(run, "config.yaml", path));
    *exists = sh_file_exists(path);
    if (!*exists) goto out;
    SH_TRY(sh_run_load_config(run, stored));
    SH_TRY(sh_options_check_resume(sh_config_options(), stored, wanted));
    SH_CHECK(stored->steps == wanted->steps || stored->schedule.kind != SH_SCHEDULE_COSINE,
             SH_ERR_MISMATCH,
             "steps may not change when a run with schedule.kind=cosine continues: the run has "
             "%lld, asked for are %lld",
             (long long)stored->steps, (long long)wanted->steps);
out:
    free(stored);
    return st;
}

sh_status sh_run_open_data(const char *run, const sh_config *config, sh_dataset **dataset,
                           sh_split *split)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    char **paths = NULL;
    int n_paths = 0;
    sh_dataset *opened = NULL;

    SH_TRY(sh_config_data_paths(config, &paths, &n_paths));
    SH_TRY(sh_dataset_open((const char *const *)paths, n_paths, &opened));
    SH_TRY(sh_run_path(run, "split.csv", path));
    SH_TRY(sh_split_read(opened, path, split));
    *dataset = opened;
    opened = NULL;
out:
    sh_dataset_close(&opened);
    sh_config_free_paths(&paths, n_paths);
    return st;
}

/* ---- lock ---- */

/* Two fences. The kernel's lock on the file keeps a second process out while the first one lives,
 * and is released however that ends. The file's text - "<incarnation> <host> <process> <job>" - is
 * the newest process that took the run: one that no longer finds its own text there has been
 * replaced, and writes nothing more. The second holds where the first cannot: on file systems
 * without locks, and where a batch system starts a job again whose first copy it only believes to
 * be dead.
 *
 * Two bytes are locked: LIVES for as long as the process lives, TAKES while it looks who has the
 * run and writes its own text. So the text that is found is whole and is that of whoever lives,
 * though several processes take the run at the same instant. */
struct sh_run_lock {
    char path[SH_RUN_PATH];
    char text[LOCK_BYTES]; /* what this process wrote; no newline */
    int fd;
    int64_t incarnation;
};

typedef enum lock_byte { LIVES, TAKES } lock_byte;

/* 0, or the errno for which it was not locked. */
static int lock_byte_of(int fd, lock_byte byte, short type)
{
    struct flock range = {.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};

    return fcntl(fd, F_OFD_SETLK, &range) == 0 ? 0 : errno;
}

static bool is_held(int error)
{
    return error == EAGAIN || error == EACCES;
}

/* The first line of the lock file; "" where it has none. */
static void read_lock(int fd, char text[LOCK_BYTES])
{
    ssize_t n = pread(fd, text, LOCK_BYTES - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
}

static const char *own_job(void)
{
    const char *job = getenv("SLURM_JOB_ID");

    return job != NULL && job[0] != '\0' ? job : "-";
}

/* Was this line written by an earlier start of the job that this process belongs to? */
static bool is_own_job(const char *text)
{
    const char *job = strrchr(text, ' ');

    return job != NULL && strcmp(own_job(), "-") != 0 && strcmp(job + 1, own_job()) == 0;
}

/* Whoever takes the run at this instant is done soon, or was stopped while it did: then it is not
 * waited for any longer, and of the two the one that writes its text last has the run. */
static void await_turn(const sh_run_lock *lock)
{
    double begin = sh_clock_seconds();
    int error;

    while (is_held(error = lock_byte_of(lock->fd, TAKES, F_WRLCK))) {
        if (sh_clock_seconds() - begin > turn_seconds) {
            sh_log_warning("%s: another process has been taking this run for %.0f s; going on "
                           "without waiting for it",
                           lock->path, turn_seconds);
            break;
        }
        sh_clock_sleep(0.02);
    }
    if (error != 0 && !is_held(error))
        sh_log_warning("%s: this file system has no locks (%s); a second process that writes this "
                       "run is noticed later, at its first checkpoint",
                       lock->path, strerror(error));
}

/* The kernel's lock, or the right to do without. */
static sh_status exclude_others(const sh_run_lock *lock, const char *run)
{
    sh_status st = SH_OK;
    char text[LOCK_BYTES];

    if (!is_held(lock_byte_of(lock->fd, LIVES, F_WRLCK))) goto out;
    read_lock(lock->fd, text);
    SH_CHECK(
        is_own_job(text), SH_ERR_MISMATCH,
        "the run %s is being written by another process (incarnation, host, process, job: %s); "
        "wait for it, or stop it first",
        run, text[0] ? text : "unknown");
    sh_log_warning("an earlier start of job %s still holds the run %s (incarnation, host, process, "
                   "job: %s): it is taken over, and what that one would still write is refused",
                   own_job(), run, text);
out:
    return st;
}

/* This process as the newest that took the run. Written over and then cut: a reader finds the old
 * line or the new one. */
static sh_status sign(sh_run_lock *lock)
{
    sh_status st = SH_OK;
    char host[256] = "unknown host";

    read_lock(lock->fd, lock->text);
    lock->incarnation =
        strtoll(lock->text, NULL, 10) + 1; /* an empty or foreign file counts as 0 */
    gethostname(host, sizeof(host) - 1);
    int n = snprintf(lock->text, sizeof(lock->text), "%lld %s %ld %.64s\n",
                     (long long)lock->incarnation, host, (long)getpid(), own_job());

    SH_CHECK(pwrite(lock->fd, lock->text, (size_t)n, 0) == n && ftruncate(lock->fd, n) == 0 &&
                 fsync(lock->fd) == 0,
             SH_ERR_IO, "cannot write %s: %s", lock->path, strerror(errno));
    lock->text[n - 1] = '\0';
out:
    return st;
}

sh_status sh_run_lock_take(const char *run, sh_run_lock **out)
{
    sh_status st = SH_OK;
    sh_run_lock *lock = calloc(1, sizeof(*lock));

    SH_CHECK(lock != NULL, SH_ERR_NO_MEMORY, "run lock");
    lock->fd = -1;
    SH_TRY(sh_run_path(run, "lock", lock->path));
    lock->fd = open(lock->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    SH_CHECK(lock->fd >= 0, SH_ERR_IO, "cannot open %s: %s", lock->path, strerror(errno));
    await_turn(lock);
    SH_TRY(exclude_others(lock, run));
    SH_TRY(sign(lock));
    sh_run_lock_thaw(lock);
    *out = lock;
    lock = NULL;
out:
    sh_run_lock_release(&lock);
    return st;
}

void sh_run_lock_release(sh_run_lock **lock)
{
    if (*lock == NULL) return;
    if ((*lock)->fd >= 0) close((*lock)->fd);
    free(*lock);
    *lock = NULL;
}

sh_status sh_run_lock_check(const sh_run_lock *lock)
{
    sh_status st = SH_OK;
    char text[LOCK_BYTES];
    int fd = open(lock->path, O_RDONLY | O_CLOEXEC);

    SH_CHECK(fd >= 0, errno == ENOENT ? SH_ERR_MISMATCH : SH_ERR_IO,
             "cannot open %s: %s; was the run's folder removed?", lock->path, strerror(errno));
    read_lock(fd, text);
    SH_CHECK(strcmp(text, lock->text) == 0, SH_ERR_MISMATCH,
             "a newer process has taken over this run (incarnation, host, process, job: %s; this "
             "one is %s): nothing more is written here",
             text, lock->text);
    /* A process that took the run over holds its lock as soon as the one before has ended. */
    lock_byte_of(lock->fd, LIVES, F_WRLCK);
out:
    if (fd >= 0) close(fd);
    return st;
}

sh_status sh_run_lock_freeze(const sh_run_lock *lock)
{
    sh_status st = SH_OK;

    await_turn(lock);
    SH_TRY(sh_run_lock_check(lock));
out:
    if (st != SH_OK) sh_run_lock_thaw(lock);
    return st;
}

void sh_run_lock_thaw(const sh_run_lock *lock)
{
    lock_byte_of(lock->fd, TAKES, F_UNLCK);
}

int64_t sh_run_lock_incarnation(const sh_run_lock *lock)
{
    return lock->incarnation;
}

sh_status sh_run_lock_look(const char *run, bool *held)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    struct flock range = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)LIVES, .l_len = 1};
    int fd = -1;

    *held = false;
    SH_TRY(sh_run_path(run, "lock", path));
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) goto out; /* nobody ever took it */
    SH_CHECK(fd >= 0 && fcntl(fd, F_OFD_GETLK, &range) == 0, SH_ERR_IO, "cannot look at %s: %s",
             path, strerror(errno));
    *held = range.l_type != F_UNLCK;
out:
    if (fd >= 0) close(fd);
    return st;
}

/* ---- logs ---- */

/* Lines that the disk refuses wait in memory: one that is full for a while loses none. */
struct sh_run_log {
    char path[SH_RUN_PATH];
    int fd;
    int64_t n_written; /* bytes in the file */
    char *waiting;
    size_t n_waiting, capacity;
};

/* The part of the log that stays, as a new file in the old one's place: a process that was replaced
 * and still holds the old one open writes into nothing. */
static sh_status cut_log(const char *path, int64_t keep_bytes)
{
    sh_status st = SH_OK;
    char *data = NULL;
    size_t n_bytes = 0;

    if (sh_file_exists(path)) SH_TRY(sh_file_get(path, SIZE_MAX, &data, &n_bytes));
    SH_CHECK(n_bytes >= (size_t)keep_bytes, SH_ERR_FORMAT,
             "%s is shorter than its checkpoint says (%lld bytes): was it edited or truncated?",
             path, (long long)keep_bytes);
    SH_TRY(sh_file_put(path, data != NULL ? data : "", (size_t)keep_bytes));
out:
    free(data);
    return st;
}

sh_status sh_run_log_open(const char *run, const char *name, int64_t keep_bytes, sh_run_log **out)
{
    sh_status st = SH_OK;
    sh_run_log *log = calloc(1, sizeof(*log));

    SH_CHECK(log != NULL, SH_ERR_NO_MEMORY, "log %s", name);
    log->fd = -1;
    log->n_written = keep_bytes;
    SH_TRY(sh_run_path(run, name, log->path));
    SH_TRY(cut_log(log->path, keep_bytes));
    log->fd = open(log->path, O_WRONLY | O_CLOEXEC);
    SH_CHECK(log->fd >= 0, SH_ERR_IO, "cannot open %s: %s", log->path, strerror(errno));
    *out = log;
    log = NULL;
out:
    sh_run_log_close(&log);
    return st;
}

static sh_status write_waiting(sh_run_log *log)
{
    sh_status st = SH_OK;

    sh_position_enter(SH_AT_FILES, "%s", log->path);
    while (log->n_waiting > 0) {
        ssize_t n = pwrite(log->fd, log->waiting, log->n_waiting, log->n_written);

        if (n < 0 && errno == EINTR) continue;
        SH_CHECK(n > 0, SH_ERR_IO, "cannot write %s: %s", log->path, strerror(errno));
        log->n_written += n;
        log->n_waiting -= (size_t)n;
        memmove(log->waiting, log->waiting + n, log->n_waiting);
    }
out:
    sh_position_leave();
    return st;
}

sh_status sh_run_log_line(sh_run_log *log, const char *line)
{
    sh_status st = SH_OK;
    size_t n = strlen(line), needed = log->n_waiting + n + 1;

    if (needed > log->capacity) {
        char *grown = realloc(log->waiting, 2 * needed);

        SH_CHECK(grown != NULL, SH_ERR_NO_MEMORY, "lines of %s", log->path);
        log->waiting = grown;
        log->capacity = 2 * needed;
    }
    memcpy(log->waiting + log->n_waiting, line, n);
    log->waiting[needed - 1] = '\n';
    log->n_waiting = needed;
    /* What cannot be written now waits for the next sync, which reports it. */
    if (write_waiting(log) != SH_OK) sh_error_clear();
out:
    return st;
}

sh_status sh_run_log_sync(sh_run_log *log, int64_t *n_bytes)
{
    sh_status st = SH_OK;

    SH_TRY(write_waiting(log));
    SH_CHECK(fdatasync(log->fd) == 0, SH_ERR_IO, "cannot sync %s: %s", log->path, strerror(errno));
    *n_bytes = log->n_written;
out:
    return st;
}

void sh_run_log_close(sh_run_log **log)
{
    sh_run_log *l = *log;

    if (l == NULL) return;
    if (l->fd >= 0) {
        if (write_waiting(l) != SH_OK)
            sh_error_clear(); /* past the last checkpoint: cut off anyway */
        close(l->fd);
    }
    free(l->waiting);
    free(l);
    *log = NULL;
}

/* ---- JSON ---- */

sh_status sh_run_put_json(const char *run, const char *name, const json_t *document)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    char *text =
        json_dumps(document, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));

    SH_CHECK(text != NULL, SH_ERR_INTERNAL, "%s cannot be written as JSON", name);
    SH_TRY(sh_run_path(run, name, path));
    SH_TRY(sh_file_put(path, text, strlen(text)));
out:
    free(text);
    return st;
}

sh_status sh_run_get_json(const char *run, const char *name, json_t **out)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    char *text = NULL;
    size_t n_bytes = 0;
    json_error_t error;

    SH_TRY(sh_run_path(run, name, path));
    SH_TRY(sh_file_get(path, MAX_JSON_BYTES, &text, &n_bytes));
    *out = json_loadb(text, n_bytes, JSON_REJECT_DUPLICATES, &error);
    SH_CHECK(*out != NULL, SH_ERR_FORMAT, "%s:%d: %s", path, error.line, error.text);
out:
    free(text);
    return st;
}
