// SPDX-License-Identifier: Apache-2.0
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/position.h"

/* One read or write takes so much at most, so that slow storage is seen to get on. */
enum { BUFFER_BYTES = 1 << 20, PART_BYTES = 32 << 20, PATH_BYTES = 4096 };

struct sh_file_writer {
    char path[PATH_BYTES];
    char temp[PATH_BYTES];
    int fd;
    uint8_t *buffer;
    size_t n_buffered;
    uint32_t crc32c;
    uint64_t n_bytes;
    bool committed;
};

static _Atomic int64_t points_passed = 0;
static _Atomic int64_t fault_at = -1; /* absolute count of the point that fails */
static _Atomic bool fault_dies = false;
static double slow_seconds = 0; /* set once */
static pthread_once_t fault_once = PTHREAD_ONCE_INIT;

static void arm_from_environment(void)
{
    const char *text = getenv("SHOAL_FAULT"), *slow = getenv("SHOAL_SLOW_FILES");

    if (slow != NULL) slow_seconds = strtod(slow, NULL);
    if (text != NULL) {
        fault_at = strtoll(text, NULL, 10);
        fault_dies = strstr(text, ",die") != NULL;
    }
}

void sh_file_set_fault(int64_t n, bool die)
{
    pthread_once(&fault_once, arm_from_environment);
    fault_dies = die;
    fault_at = n < 0 ? -1 : points_passed + n;
}

/* Returns 0, or -1 with errno = EIO where a test asked for it. */
static int pass_fault_point(void)
{
    pthread_once(&fault_once, arm_from_environment);
    if (slow_seconds > 0) sh_clock_sleep(slow_seconds);
    if (points_passed++ != fault_at) return 0;
    if (fault_dies) _exit(137);
    errno = EIO;
    return -1;
}

int64_t sh_file_operations(void)
{
    return points_passed;
}

/* What errno says of a write. */
static sh_status refusal(void)
{
    return errno == ENOSPC || errno == EDQUOT ? SH_ERR_NO_ROOM : SH_ERR_IO;
}

static sh_status write_all(int fd, const char *path, const void *data, size_t n_bytes)
{
    sh_status st = SH_OK;
    const uint8_t *p = data;

    while (n_bytes > 0) {
        size_t part = n_bytes < PART_BYTES ? n_bytes : PART_BYTES;
        ssize_t n = pass_fault_point() == 0 ? write(fd, p, part) : -1;

        if (n < 0 && errno == EINTR) continue;
        SH_CHECK(n >= 0, refusal(), "cannot write %s: %s", path, strerror(errno));
        p += n;
        n_bytes -= (size_t)n;
        sh_position_move();
    }
out:
    return st;
}

sh_status sh_file_writer_create(const char *path, sh_file_writer **out)
{
    sh_status st = SH_OK;
    sh_file_writer *writer = calloc(1, sizeof(*writer));

    SH_CHECK(writer != NULL, SH_ERR_NO_MEMORY, "writer of %s", path);
    writer->fd = -1;
    writer->buffer = malloc(BUFFER_BYTES);
    SH_CHECK(writer->buffer != NULL, SH_ERR_NO_MEMORY, "write buffer of %s", path);
    SH_CHECK(snprintf(writer->path, PATH_BYTES, "%s", path) < PATH_BYTES &&
                 snprintf(writer->temp, PATH_BYTES, "%s.tmp.%ld", path, (long)getpid()) <
                     PATH_BYTES,
             SH_ERR_USAGE, "path too long: %.200s...", path);
    if (pass_fault_point() == 0)
        writer->fd = open(writer->temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    SH_CHECK(writer->fd >= 0, refusal(), "cannot create %s: %s", writer->temp, strerror(errno));
    *out = writer;
    writer = NULL;
out:
    sh_file_writer_destroy(&writer);
    return st;
}

static sh_status flush_buffer(sh_file_writer *writer)
{
    size_t n = writer->n_buffered;

    writer->n_buffered = 0;
    return write_all(writer->fd, writer->temp, writer->buffer, n);
}

sh_status sh_file_write(sh_file_writer *writer, const void *data, size_t n_bytes)
{
    sh_status st = SH_OK;

    writer->crc32c = sh_crc32c(writer->crc32c, data, n_bytes);
    writer->n_bytes += n_bytes;
    if (writer->n_buffered + n_bytes > BUFFER_BYTES) SH_TRY(flush_buffer(writer));
    if (n_bytes >= BUFFER_BYTES) {
        SH_TRY(write_all(writer->fd, writer->temp, data, n_bytes));
    } else if (n_bytes > 0) {
        memcpy(writer->buffer + writer->n_buffered, data, n_bytes);
        writer->n_buffered += n_bytes;
    }
out:
    return st;
}

uint32_t sh_file_writer_crc32c(const sh_file_writer *writer)
{
    return writer->crc32c;
}

uint64_t sh_file_writer_bytes(const sh_file_writer *writer)
{
    return writer->n_bytes;
}

static void parent_of(const char *path, char parent[PATH_BYTES])
{
    const char *slash = strrchr(path, '/');

    if (slash == NULL)
        strcpy(parent, ".");
    else if (slash == path)
        strcpy(parent, "/");
    else
        snprintf(parent, PATH_BYTES, "%.*s", (int)(slash - path), path);
}

sh_status sh_file_sync_dir(const char *path)
{
    sh_status st = SH_OK;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    SH_CHECK(fd >= 0, SH_ERR_IO, "cannot open folder %s: %s", path, strerror(errno));
    /* Some network file systems refuse fsync on folders; the rename is still atomic there. */
    SH_CHECK(pass_fault_point() == 0 && (fsync(fd) == 0 || errno == EINVAL), SH_ERR_IO,
             "cannot sync folder %s: %s", path, strerror(errno));
out:
    if (fd >= 0) close(fd);
    return st;
}

sh_status sh_file_rename(const char *from, const char *to)
{
    sh_status st = SH_OK;
    char parent[PATH_BYTES];

    SH_CHECK(pass_fault_point() == 0 && rename(from, to) == 0, refusal(),
             "cannot rename %s to %s: %s", from, to, strerror(errno));
    parent_of(to, parent);
    SH_TRY(sh_file_sync_dir(parent));
out:
    return st;
}

sh_status sh_file_writer_commit(sh_file_writer *writer)
{
    sh_status st = SH_OK;

    SH_TRY(flush_buffer(writer));
    SH_CHECK(pass_fault_point() == 0 && fsync(writer->fd) == 0, refusal(), "cannot sync %s: %s",
             writer->temp, strerror(errno));
    SH_CHECK(close(writer->fd) == 0, refusal(), "cannot close %s: %s", writer->temp,
             strerror(errno));
    writer->fd = -1;
    SH_TRY(sh_file_rename(writer->temp, writer->path));
    writer->committed = true;
out:
    return st;
}

void sh_file_writer_destroy(sh_file_writer **writer)
{
    sh_file_writer *w = *writer;

    if (w == NULL) return;
    if (w->fd >= 0) close(w->fd);
    if (!w->committed && w->temp[0] != '\0') unlink(w->temp);
    free(w->buffer);
    free(w);
    *writer = NULL;
}

sh_status sh_file_put(const char *path, const void *data, size_t n_bytes)
{
    sh_status st = SH_OK;
    sh_file_writer *writer = NULL;

    SH_TRY(sh_file_writer_create(path, &writer));
    SH_TRY(sh_file_write(writer, data, n_bytes));
    SH_TRY(sh_file_writer_commit(writer));
out:
    sh_file_writer_destroy(&writer);
    return st;
}

sh_status sh_file_get(const char *path, size_t max_bytes, char **data, size_t *n_bytes)
{
    sh_status st = SH_OK;
    char *buffer = NULL;
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    SH_CHECK(fd >= 0, errno == ENOENT ? SH_ERR_NOT_FOUND : SH_ERR_IO, "cannot open %s: %s", path,
             strerror(errno));
    SH_CHECK(fstat(fd, &info) == 0, SH_ERR_IO, "cannot stat %s: %s", path, strerror(errno));
    SH_CHECK(S_ISREG(info.st_mode), SH_ERR_USAGE, "%s is not a file", path);
    SH_CHECK((uint64_t)info.st_size <= max_bytes, SH_ERR_FORMAT,
             "%s is too large: %lld bytes, at most %zu expected", path, (long long)info.st_size,
             max_bytes);
    buffer = malloc((size_t)info.st_size + 1);
    SH_CHECK(buffer != NULL, SH_ERR_NO_MEMORY, "%lld bytes to read %s", (long long)info.st_size,
             path);
    SH_TRY(sh_file_read_at(fd, path, 0, buffer, (size_t)info.st_size));
    buffer[info.st_size] = '\0';
    *data = buffer;
    *n_bytes = (size_t)info.st_size;
    buffer = NULL;
out:
    free(buffer);
    if (fd >= 0) close(fd);
    return st;
}

sh_status sh_file_read_at(int fd, const char *path, uint64_t offset, void *data, size_t n_bytes)
{
    sh_status st = SH_OK;
    uint8_t *p = data;
    size_t left = n_bytes;

    while (left > 0) {
        size_t part = left < PART_BYTES ? left : PART_BYTES;
        ssize_t n = pread(fd, p, part, (off_t)(offset + (n_bytes - left)));

        if (n < 0 && errno == EINTR) continue;
        SH_CHECK(n >= 0, SH_ERR_IO, "cannot read %s: %s", path, strerror(errno));
        SH_CHECK(n > 0, SH_ERR_FORMAT, "%s ends at byte %llu, %zu bytes short: truncated?", path,
                 (unsigned long long)(offset + (n_bytes - left)), left);
        p += n;
        left -= (size_t)n;
        sh_position_move();
    }
out:
    return st;
}

static sh_status make_dirs(const char *path, mode_t last_mode)
{
    sh_status st = SH_OK;
    char part[PATH_BYTES];

    SH_CHECK(snprintf(part, sizeof(part), "%s", path) < PATH_BYTES, SH_ERR_USAGE,
             "path too long: %.200s...", path);
    for (char *p = part + 1;; p++) {
        char end = *p;

        if (end != '/' && end != '\0') continue;
        bool last = p[strspn(p, "/")] == '\0';

        *p = '\0';
        SH_CHECK(mkdir(part, last ? last_mode : 0777) == 0 || errno == EEXIST, refusal(),
                 "cannot create folder %s: %s", part, strerror(errno));
        *p = end;
        if (end == '\0') break;
    }
    SH_CHECK(sh_file_is_dir(path), SH_ERR_IO, "%s exists and is not a folder", path);
out:
    return st;
}

sh_status sh_file_make_dirs(const char *path)
{
    return make_dirs(path, 0777);
}

sh_status sh_file_make_private_dir(const char *path)
{
    return make_dirs(path, 0700);
}

sh_status sh_file_remove_tree(const char *path)
{
    sh_status st = SH_OK;
    DIR *dir = NULL;
    struct dirent *entry;
    char child[PATH_BYTES];

    if (unlink(path) == 0 || errno == ENOENT) goto out;
    SH_CHECK(sh_file_is_dir(path), SH_ERR_IO, "cannot remove %s: %s", path, strerror(errno));
    dir = opendir(path);
    SH_CHECK(dir != NULL, SH_ERR_IO, "cannot list %s: %s", path, strerror(errno));
    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        SH_TRY(sh_path_join(path, entry->d_name, child, sizeof(child)));
        SH_TRY(sh_file_remove_tree(child));
    }
    SH_CHECK(rmdir(path) == 0, SH_ERR_IO, "cannot remove folder %s: %s", path, strerror(errno));
out:
    if (dir != NULL) closedir(dir);
    return st;
}

bool sh_file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

bool sh_file_is_dir(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

sh_status sh_path_join(const char *a, const char *b, char *out, size_t size)
{
    sh_status st = SH_OK;
    const char *slash = a[0] != '\0' && a[strlen(a) - 1] != '/' ? "/" : "";

    SH_CHECK((size_t)snprintf(out, size, "%s%s%s", a, slash, b) < size, SH_ERR_USAGE,
             "path too long: %.200s...", a);
out:
    return st;
}

const char *sh_path_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}

sh_status sh_path_home(const char *name, char *out, size_t size)
{
    sh_status st = SH_OK;
    const char *home = getenv("SHOAL_HOME"), *user = getenv("HOME");
    bool own = home != NULL && home[0] != '\0';

    SH_CHECK(own || user != NULL, SH_ERR_USAGE, "set SHOAL_HOME to the folder that keeps \"%s\"",
             name);
    SH_CHECK((size_t)snprintf(out, size, "%s%s/%s", own ? home : user,
                              own ? "" : "/.local/share/shoal", name) < size,
             SH_ERR_USAGE, "SHOAL_HOME is too long");
out:
    return st;
}

sh_status sh_path_program(char *out, size_t size)
{
    sh_status st = SH_OK;
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self));

    SH_CHECK(n > 0 && (size_t)n < sizeof(self), SH_ERR_IO,
             "cannot tell where this program lies: %s", n < 0 ? strerror(errno) : "path too long");
    self[n] = '\0';
    char *name = strrchr(self, '/') + 1, *folder = NULL;

    /* A bundle starts its own loader as the program, and is itself started by a script. */
    if (strncmp(name, "ld-", 3) == 0) {
        name[-1] = '\0';
        folder = strrchr(self, '/');
    }
    if (folder != NULL) {
        *folder = '\0';
        SH_TRY(sh_path_join(self, "bin/shoal", out, size));
        goto out;
    }
    SH_CHECK((size_t)snprintf(out, size, "%s", self) < size, SH_ERR_IO,
             "the path of this program is too long: %s", self);
out:
    return st;
}
