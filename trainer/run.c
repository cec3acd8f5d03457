// SPDX-License-Identifier: Apache-2.0
#include "trainer/run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

enum { MAX_JSON_BYTES = 256 << 20, LOCK_BYTES = 512 };

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

struct sh_run_lock {
    char path[SH_RUN_PATH];
    int fd;
    int64_t incarnation;
};

/* The lock file's text: "<incarnation> <host> <pid>". An empty or foreign file counts as 0. */
static void read_lock(int fd, char text[LOCK_BYTES], int64_t *incarnation)
{
    ssize_t n = pread(fd, text, LOCK_BYTES - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    *incarnation = strtoll(text, NULL, 10);
}

sh_status sh_run_lock_take(const char *run, sh_run_lock **out)
{
    sh_status st = SH_OK;
    char text[LOCK_BYTES], host[256] = "unknown host";
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    sh_run_lock *lock = calloc(1, sizeof(*lock));

    SH_CHECK(lock != NULL, SH_ERR_NO_MEMORY, "run lock");
    lock->fd = -1;
    SH_TRY(sh_run_path(run, "lock", lock->path));
    lock->fd = open(lock->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    SH_CHECK(lock->fd >= 0, SH_ERR_IO, "cannot open %s: %s", lock->path, strerror(errno));
    read_lock(lock->fd, text, &lock->incarnation);
    /* An open-file-description lock: released by the kernel however the process ends. */
    SH_CHECK(fcntl(lock->fd, F_OFD_SETLK, &whole) == 0, SH_ERR_MISMATCH,
             "the run %s is being written by another process (incarnation, host, process: %s); "
             "wait for it, or stop it first",
             run, text[0] ? text : "unknown");
    read_lock(lock->fd, text, &lock->incarnation);
    lock->incarnation++;
    gethostname(host, sizeof(host) - 1);
    int n = snprintf(text, sizeof(text), "%lld %s %ld\n", (long long)lock->incarnation, host,
                     (long)getpid());

    SH_CHECK(ftruncate(lock->fd, 0) == 0 && pwrite(lock->fd, text, (size_t)n, 0) == n &&
                 fsync(lock->fd) == 0,
             SH_ERR_IO, "cannot write %s: %s", lock->path, strerror(errno));
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
    int64_t newest = 0;
    int fd = open(lock->path, O_RDONLY | O_CLOEXEC);

    SH_CHECK(fd >= 0, SH_ERR_IO, "cannot open %s: %s", lock->path, strerror(errno));
    read_lock(fd, text, &newest);
    SH_CHECK(newest == lock->incarnation, SH_ERR_MISMATCH,
             "a newer process has taken over this run (incarnation %lld; this one is %lld): "
             "nothing more is written here",
             (long long)newest, (long long)lock->incarnation);
out:
    if (fd >= 0) close(fd);
    return st;
}

int64_t sh_run_lock_incarnation(const sh_run_lock *lock)
{
    return lock->incarnation;
}

sh_status sh_run_lock_look(const char *run, bool *held)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = -1;

    *held = false;
    SH_TRY(sh_run_path(run, "lock", path));
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) goto out; /* nobody ever took it */
    SH_CHECK(fd >= 0 && fcntl(fd, F_OFD_GETLK, &whole) == 0, SH_ERR_IO, "cannot look at %s: %s",
             path, strerror(errno));
    *held = whole.l_type != F_UNLCK;
out:
    if (fd >= 0) close(fd);
    return st;
}

/* ---- logs ---- */

struct sh_run_log {
    char path[SH_RUN_PATH];
    FILE *file;
};

sh_status sh_run_log_open(const char *run, const char *name, int64_t keep_bytes, sh_run_log **out)
{
    sh_status st = SH_OK;
    sh_run_log *log = calloc(1, sizeof(*log));

    SH_CHECK(log != NULL, SH_ERR_NO_MEMORY, "log %s", name);
    SH_TRY(sh_run_path(run, name, log->path));
    log->file = fopen(log->path, "a");
    SH_CHECK(log->file != NULL, SH_ERR_IO, "cannot open %s: %s", log->path, strerror(errno));
    SH_CHECK(fseek(log->file, 0, SEEK_END) == 0 && ftell(log->file) >= keep_bytes, SH_ERR_FORMAT,
             "%s is shorter than its checkpoint says (%lld bytes): was it edited or truncated?",
             log->path, (long long)keep_bytes);
    SH_CHECK(ftruncate(fileno(log->file), keep_bytes) == 0, SH_ERR_IO, "cannot rewind %s: %s",
             log->path, strerror(errno));
    setvbuf(log->file, NULL, _IOLBF, BUFSIZ);
    *out = log;
    log = NULL;
out:
    sh_run_log_close(&log);
    return st;
}

sh_status sh_run_log_line(sh_run_log *log, const char *line)
{
    sh_status st = SH_OK;

    SH_CHECK(fprintf(log->file, "%s\n", line) > 0, SH_ERR_IO, "cannot write %s: %s", log->path,
             strerror(errno));
out:
    return st;
}

sh_status sh_run_log_sync(sh_run_log *log, int64_t *n_bytes)
{
    sh_status st = SH_OK;

    SH_CHECK(fflush(log->file) == 0 && fdatasync(fileno(log->file)) == 0, SH_ERR_IO,
             "cannot write %s: %s", log->path, strerror(errno));
    SH_CHECK(fseek(log->file, 0, SEEK_END) == 0, SH_ERR_IO, "cannot seek %s", log->path);
    *n_bytes = ftell(log->file);
out:
    return st;
}

void sh_run_log_close(sh_run_log **log)
{
    if (*log == NULL) return;
    if ((*log)->file != NULL) fclose((*log)->file);
    free(*log);
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
