// SPDX-License-Identifier: Apache-2.0
#include "dataio/staging.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/position.h"
#include "dataio/pack_file.h"

enum { PATH_BYTES = 4096, BLOCK_BYTES = 1 << 20, MAX_SUMS_BYTES = 64 << 20 };

static const char sums_name[] = "sums";
static const double look_seconds = 0.05; /* between two looks at a lock that others hold */
static const double patience_seconds = 60;

/* The local copy of one pack. */
typedef struct copy {
    const char *source;
    char path[PATH_BYTES];   /* of the pack in it */
    char folder[PATH_BYTES]; /* whole, or absent */
    char beside[PATH_BYTES]; /* the same while it is being made */
    char lock[PATH_BYTES];
    int fd; /* of the lock; -1: not held */
} copy;

struct sh_staging {
    char folder[PATH_BYTES];
    copy *copies; /* [n] */
    const char **paths;
    int n;
};

/* ---- the lock ---- */

static void let_go(copy *c)
{
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
}

/* Take the lock, or change how it is held; *held = false where others are in the way. A lock file
 * that was removed in the meantime is a lock on nothing. */
static sh_status try_lock(copy *c, short type, bool *held)
{
    sh_status st = SH_OK;
    struct flock whole = {.l_type = type, .l_whence = SEEK_SET};
    struct stat mine, there;

    *held = false;
    if (c->fd < 0) c->fd = open(c->lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    SH_CHECK(c->fd >= 0, SH_ERR_IO, "cannot open %s: %s", c->lock, strerror(errno));
    if (fcntl(c->fd, F_OFD_SETLK, &whole) != 0) {
        SH_CHECK(errno == EAGAIN || errno == EACCES, SH_ERR_IO, "cannot lock %s: %s", c->lock,
                 strerror(errno));
        goto out;
    }
    *held = fstat(c->fd, &mine) == 0 && stat(c->lock, &there) == 0 && mine.st_ino == there.st_ino;
    if (!*held) let_go(c);
out:
    if (st != SH_OK) let_go(c);
    return st;
}

/* Whoever copies notes here how far it is, for those that wait. */
static void note_progress(const copy *c, uint64_t n_bytes)
{
    sh_position_move();
    if (pwrite(c->fd, &n_bytes, sizeof(n_bytes), 0) < 0) errno = 0; /* then they wait less long */
}

static uint64_t look_at_progress(const copy *c)
{
    uint64_t n_bytes = 0;

    return c->fd >= 0 && pread(c->fd, &n_bytes, sizeof(n_bytes), 0) == (ssize_t)sizeof(n_bytes)
               ? n_bytes
               : 0;
}

/* Held alone: remove the copy, whole or not, and the lock file last. */
static sh_status discard(copy *c)
{
    sh_status st = SH_OK;

    SH_TRY(sh_file_remove_tree(c->beside));
    SH_TRY(sh_file_remove_tree(c->folder));
    SH_TRY(sh_file_remove_tree(c->lock));
out:
    let_go(c);
    return st;
}

/* Nobody's copy is removed. The lock is given back before it is asked for alone: of several that
 * close at once the last one succeeds. */
static void discard_unused(copy *c)
{
    bool alone = false;

    let_go(c);
    if (try_lock(c, F_WRLCK, &alone) != SH_OK || (alone && discard(c) != SH_OK)) {
        sh_log_warning("a local copy is left: %s", sh_error_message());
        sh_error_clear();
    }
    let_go(c);
}

/* ---- checksums ---- */

static sh_status sum_file(const copy *c, const char *path, uint32_t *crc, uint64_t *n_bytes)
{
    sh_status st = SH_OK;
    struct stat info;
    uint8_t *block = malloc(BLOCK_BYTES);
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    SH_CHECK(block != NULL, SH_ERR_NO_MEMORY, "a block to read %s", path);
    SH_CHECK(fd >= 0 && fstat(fd, &info) == 0, SH_ERR_IO, "cannot open %s: %s", path,
             strerror(errno));
    *crc = 0;
    *n_bytes = (uint64_t)info.st_size;
    for (uint64_t at = 0; at < *n_bytes; at += BLOCK_BYTES) {
        size_t n = *n_bytes - at < BLOCK_BYTES ? (size_t)(*n_bytes - at) : BLOCK_BYTES;

        SH_TRY(sh_file_read_at(fd, path, at, block, n));
        *crc = sh_crc32c(*crc, block, n);
        note_progress(c, at);
    }
out:
    if (fd >= 0) close(fd);
    free(block);
    return st;
}

/* Are all files of the copy as `sums` says? */
static sh_status verify(const copy *c)
{
    sh_status st = SH_OK;
    char sums[PATH_BYTES], path[PATH_BYTES], name[NAME_MAX + 1];
    char *text = NULL, *line = NULL;
    size_t n_bytes = 0;
    long long n_files = 0;
    uint32_t crc = 0, expected_crc;
    uint64_t length = 0, expected_length;

    SH_TRY(sh_path_join(c->folder, sums_name, sums, sizeof(sums)));
    SH_TRY(sh_file_get(sums, MAX_SUMS_BYTES, &text, &n_bytes));
    SH_CHECK(sscanf(text, "files %9lld", &n_files) == 1 && n_files > 0, SH_ERR_FORMAT,
             "%s is damaged", sums);
    line = text;
    for (long long i = 0; i < n_files; i++) {
        line = strchr(line, '\n');
        SH_CHECK(line != NULL && sscanf(++line, "%8" SCNx32 " %20" SCNu64 " %255[^/\n]",
                                        &expected_crc, &expected_length, name) == 3,
                 SH_ERR_FORMAT, "%s is damaged", sums);
        SH_TRY(sh_path_join(c->folder, name, path, sizeof(path)));
        SH_TRY(sum_file(c, path, &crc, &length));
        SH_CHECK(crc == expected_crc && length == expected_length, SH_ERR_FORMAT,
                 "the copy %s is damaged (checksum %08" PRIx32 ", expected %08" PRIx32 ")", path,
                 crc, expected_crc);
    }
out:
    free(text);
    return st;
}

/* ---- copying ---- */

/* One file into the folder beside. What arrived must be whole by its own seal, and the line in
 * `sums` is of what was read, so that reading the copy back finds what the disk made of it. */
static sh_status copy_file(const copy *c, const char *source, const char *name, FILE *sums)
{
    sh_status st = SH_OK;
    char path[PATH_BYTES];
    struct stat info;
    sh_seal seal;
    sh_file_writer *writer = NULL;
    uint8_t *block = malloc(BLOCK_BYTES);
    int from = open(source, O_RDONLY | O_CLOEXEC), to = -1;

    SH_CHECK(block != NULL, SH_ERR_NO_MEMORY, "a block to read %s", source);
    SH_CHECK(from >= 0 && fstat(from, &info) == 0, SH_ERR_IO, "cannot open %s: %s", source,
             strerror(errno));
    SH_TRY(sh_path_join(c->beside, name, path, sizeof(path)));
    SH_TRY(sh_file_writer_create(path, &writer));
    for (off_t at = 0; at < info.st_size; at += BLOCK_BYTES) {
        size_t n = info.st_size - at < BLOCK_BYTES ? (size_t)(info.st_size - at) : BLOCK_BYTES;

        SH_TRY(sh_file_read_at(from, source, (uint64_t)at, block, n));
        SH_TRY(sh_file_write(writer, block, n));
        note_progress(c, (uint64_t)at);
    }
    SH_TRY(sh_file_writer_commit(writer));
    to = open(path, O_RDONLY | O_CLOEXEC);
    SH_CHECK(to >= 0, SH_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    posix_fadvise(to, 0, 0, POSIX_FADV_DONTNEED); /* what is read back comes from the disk */
    SH_TRY(sh_seal_read(to, path, &seal));
    fprintf(sums, "%08" PRIx32 " %" PRIu64 " %s\n", sh_file_writer_crc32c(writer),
            sh_file_writer_bytes(writer), name);
out:
    sh_file_writer_destroy(&writer);
    if (from >= 0) close(from);
    if (to >= 0) close(to);
    free(block);
    return st;
}

/* A full disk is other people's trouble too: not even begun where it will not do. */
static sh_status check_room(const copy *c, const sh_seal *seal, const sh_pack_tables *tables)
{
    sh_status st = SH_OK;
    struct statvfs disk;
    uint64_t needed = seal->file_bytes;

    for (int64_t i = 0; i < tables->n_shards; i++) needed += tables->shards[i].file_bytes;
    SH_CHECK(statvfs(c->beside, &disk) == 0, SH_ERR_IO, "cannot look at %s: %s", c->beside,
             strerror(errno));
    uint64_t free_bytes = (uint64_t)disk.f_bavail * disk.f_frsize;

    SH_CHECK(needed < free_bytes, SH_ERR_IO, "it needs %.1f MB, and %.1f MB are free",
             (double)needed / 1e6, (double)free_bytes / 1e6);
out:
    return st;
}

/* The pack's file, and the shards beside it where it is an index. */
static sh_status copy_files(const copy *c, const sh_pack_tables *tables, FILE *sums)
{
    sh_status st = SH_OK;
    const char *name = sh_path_name(c->source);
    char shard[PATH_BYTES];

    fprintf(sums, "files %lld\n", (long long)tables->n_shards + 1);
    SH_TRY(copy_file(c, c->source, name, sums));
    for (int64_t i = 0; i < tables->n_shards; i++) {
        const char *file = tables->shards[i].file;

        SH_CHECK(snprintf(shard, sizeof(shard), "%.*s%s", (int)(name - c->source), c->source,
                          file) < PATH_BYTES,
                 SH_ERR_USAGE, "path too long: %.200s...", c->source);
        SH_TRY(copy_file(c, shard, file, sums));
    }
out:
    return st;
}

/* With the lock held alone: make the copy beside, rename it, read it back. */
static sh_status make(const copy *c)
{
    sh_status st = SH_OK;
    char path[PATH_BYTES];
    char *text = NULL;
    size_t n_bytes = 0;
    FILE *sums = open_memstream(&text, &n_bytes);
    sh_seal seal;
    sh_pack_tables tables = {0};
    int fd = open(c->source, O_RDONLY | O_CLOEXEC);

    SH_CHECK(sums != NULL, SH_ERR_NO_MEMORY, "checksums");
    SH_CHECK(fd >= 0, SH_ERR_IO, "cannot open %s: %s", c->source, strerror(errno));
    SH_TRY(sh_file_remove_tree(c->beside));
    SH_TRY(sh_file_remove_tree(c->folder));
    SH_TRY(sh_file_make_dirs(c->beside));
    SH_TRY(sh_pack_file_read(fd, c->source, &seal, &tables));
    SH_TRY(check_room(c, &seal, &tables));
    SH_TRY(copy_files(c, &tables, sums));
    SH_CHECK(fflush(sums) == 0, SH_ERR_NO_MEMORY, "checksums");
    SH_TRY(sh_path_join(c->beside, sums_name, path, sizeof(path)));
    SH_TRY(sh_file_put(path, text, n_bytes));
    SH_TRY(sh_file_rename(c->beside, c->folder));
    SH_TRY(verify(c));
out:
    sh_pack_tables_clear(&tables);
    if (fd >= 0) close(fd);
    if (sums != NULL) fclose(sums);
    free(text);
    return st;
}

/* ---- one pack ---- */

/* Is a copy there that this process may read? Then its lock is shared. */
static sh_status join(copy *c, bool check, bool *joined)
{
    sh_status st = SH_OK;

    *joined = false;
    if (!sh_file_exists(c->folder)) goto out;
    SH_TRY(try_lock(c, F_RDLCK, joined));
    if (*joined && !sh_file_exists(c->folder)) *joined = false;
    if (!*joined || !check || verify(c) == SH_OK) goto out;
    *joined = false;
    sh_log_warning("%s; it is made again", sh_error_message());
    sh_error_clear();
    bool alone;

    SH_TRY(try_lock(c, F_WRLCK, &alone));
    SH_CHECK(alone, SH_ERR_IO, "the damaged copy %s is in use", c->folder);
    SH_TRY(discard(c));
out:
    if (!*joined) let_go(c);
    return st;
}

/* Copy the pack unless somebody else has; *made where this process did. */
static sh_status make_if_first(copy *c, bool *made)
{
    sh_status st = SH_OK;
    bool alone;

    *made = false;
    SH_TRY(try_lock(c, F_WRLCK, &alone));
    if (!alone || sh_file_exists(c->folder)) goto out;
    double begin = sh_clock_seconds();

    st = make(c);
    if (st != SH_OK) { /* its message outlives what removing may have to say */
        sh_status cause = st;
        char message[1024];

        snprintf(message, sizeof(message), "%s", sh_error_message());
        if (discard(c) != SH_OK) sh_error_clear();
        SH_FAIL(cause, "%s", message);
    }
    SH_TRY(try_lock(c, F_RDLCK, made));
    sh_log_info("%s copied to %s in %.1f s", c->source, c->folder, sh_clock_seconds() - begin);
out:
    return st;
}

/* Make the copy, or wait until somebody else has; it then is held. */
static sh_status obtain(copy *c)
{
    sh_status st = SH_OK;
    double last = sh_clock_seconds();
    uint64_t progress = 0;
    bool held = false;

    while (!held) {
        SH_TRY(join(c, true, &held));
        if (!held) SH_TRY(make_if_first(c, &held));
        if (held) break;
        uint64_t now = look_at_progress(c);

        if (now != progress) {
            sh_position_move();
            last = sh_clock_seconds();
        }
        progress = now;
        SH_CHECK(sh_clock_seconds() - last < patience_seconds, SH_ERR_IO,
                 "another process copies it, and has not got on for %.0f s", patience_seconds);
        let_go(c);
        sh_clock_sleep(look_seconds);
    }
out:
    if (st != SH_OK) let_go(c);
    return st;
}

static sh_status name_copy(const char *folder, const char *source, copy *c)
{
    sh_status st = SH_OK;
    const char *name = sh_path_name(source);
    char identity[SH_SEAL_BYTES + NAME_MAX + 1] = "", hash[33];
    int fd = open(source, O_RDONLY | O_CLOEXEC);

    *c = (copy){.source = source, .fd = -1};
    SH_CHECK(fd >= 0, SH_ERR_IO, "cannot open %s: %s", source, strerror(errno));
    SH_TRY(sh_file_read_at(fd, source, 0, identity, SH_SEAL_BYTES));
    snprintf(identity + SH_SEAL_BYTES, NAME_MAX + 1, "%s", name);
    sh_hash_format(sh_hash_content(identity, SH_SEAL_BYTES + strlen(name)), hash);
    SH_CHECK(snprintf(c->folder, PATH_BYTES, "%s/%s", folder, hash) < PATH_BYTES &&
                 snprintf(c->beside, PATH_BYTES, "%s/%s.new", folder, hash) < PATH_BYTES &&
                 snprintf(c->lock, PATH_BYTES, "%s/%s.lock", folder, hash) < PATH_BYTES &&
                 snprintf(c->path, PATH_BYTES, "%s/%s/%s", folder, hash, name) < PATH_BYTES,
             SH_ERR_USAGE, "path too long: %.200s...", folder);
out:
    if (fd >= 0) close(fd);
    return st;
}

/* ---- all packs ---- */

/* The user's own folder below `folder`: others may neither read nor have made it. */
static sh_status open_folder(const char *folder, bool create, char own[PATH_BYTES])
{
    sh_status st = SH_OK;
    char variable[256];
    const char *base = folder, *rest = "";
    struct stat info;

    if (folder[0] == '$') {
        rest = folder + strcspn(folder, "/");
        snprintf(variable, sizeof(variable), "%.*s", (int)(rest - folder - 1), folder + 1);
        base = getenv(variable);
        SH_CHECK(base != NULL && base[0] != '\0', SH_ERR_USAGE, "%s is not set", folder);
    }
    SH_CHECK(snprintf(own, PATH_BYTES, "%s%s/shoal-%ld", base, rest, (long)geteuid()) < PATH_BYTES,
             SH_ERR_USAGE, "path too long: %.200s...", folder);
    if (create)
        SH_CHECK(mkdir(own, 0700) == 0 || errno == EEXIST, SH_ERR_IO, "cannot create %s: %s", own,
                 strerror(errno));
    SH_CHECK(lstat(own, &info) == 0 && S_ISDIR(info.st_mode) && info.st_uid == geteuid(), SH_ERR_IO,
             "%s is not this user's folder", own);
out:
    return st;
}

static bool is_wanted(const sh_staging *s, const char *lock)
{
    for (int i = 0; i < s->n; i++)
        if (strcmp(s->copies[i].lock, lock) == 0) return true;
    return false;
}

/* Copies that nobody uses were left by processes that were killed. */
static sh_status sweep(const sh_staging *s)
{
    sh_status st = SH_OK;
    DIR *dir = opendir(s->folder);
    struct dirent *entry;
    copy left = {.fd = -1};

    SH_CHECK(dir != NULL, SH_ERR_IO, "cannot list %s: %s", s->folder, strerror(errno));
    while ((entry = readdir(dir)) != NULL) {
        const char *dot = strrchr(entry->d_name, '.');

        if (dot == NULL || strcmp(dot, ".lock") != 0) continue;
        SH_TRY(sh_path_join(s->folder, entry->d_name, left.lock, PATH_BYTES));
        if (is_wanted(s, left.lock)) continue;
        snprintf(left.folder, PATH_BYTES, "%.*s", (int)(strlen(left.lock) - strlen(dot)),
                 left.lock);
        SH_CHECK(snprintf(left.beside, PATH_BYTES, "%s.new", left.folder) < PATH_BYTES,
                 SH_ERR_USAGE, "path too long: %.200s...", left.folder);
        discard_unused(&left);
    }
out:
    if (dir != NULL) closedir(dir);
    return st;
}

/* A pack's copy, or the reason why there is none. */
static void settle(sh_staging *s, int i, bool may_copy)
{
    copy *c = &s->copies[i];
    bool joined = false;

    sh_position_enter(SH_AT_FILES, "copying %s to %s", c->source, s->folder);
    sh_status st = may_copy ? obtain(c) : join(c, false, &joined);

    sh_position_leave();
    if (st != SH_OK) {
        sh_log_warning("no local copy of %s in %s: %s; it is read where it lies", c->source,
                       s->folder, sh_error_message());
        sh_error_clear();
    }
    if (c->fd >= 0) s->paths[i] = c->path;
}

sh_status sh_staging_open(const char *folder, const char *const *paths, int n_paths, bool may_copy,
                          sh_staging **out)
{
    sh_status st = SH_OK, named = SH_OK;
    sh_staging *s = calloc(1, sizeof(*s));

    SH_CHECK(s != NULL, SH_ERR_NO_MEMORY, "staging");
    s->copies = calloc((size_t)n_paths, sizeof(*s->copies));
    s->paths = calloc((size_t)n_paths, sizeof(*s->paths));
    SH_CHECK(s->copies != NULL && s->paths != NULL, SH_ERR_NO_MEMORY, "staging");
    for (int i = 0; i < n_paths; i++) s->paths[i] = paths[i];
    named = open_folder(folder, may_copy, s->folder);
    for (int i = 0; i < n_paths && named == SH_OK; i++) {
        named = name_copy(s->folder, paths[i], &s->copies[i]);
        s->n += named == SH_OK;
    }
    if (named == SH_OK && may_copy) named = sweep(s);
    if (named != SH_OK) {
        if (may_copy)
            sh_log_warning("no local copies in %s: %s; packs are read where they lie", folder,
                           sh_error_message());
        sh_error_clear();
    }
    for (int i = 0; i < n_paths && named == SH_OK; i++) settle(s, i, may_copy);
    *out = s;
    s = NULL;
out:
    sh_staging_close(&s);
    return st;
}

const char *const *sh_staging_paths(const sh_staging *staging)
{
    return staging->paths;
}

void sh_staging_close(sh_staging **staging)
{
    sh_staging *s = *staging;

    if (s == NULL) return;
    for (int i = 0; i < s->n; i++)
        if (s->copies[i].fd >= 0) discard_unused(&s->copies[i]);
    free(s->copies);
    free(s->paths);
    free(s);
    *staging = NULL;
}
