// SPDX-License-Identifier: Apache-2.0
/**
 * Files that are either whole or absent.
 *
 * Everything that Shoal writes for keeps goes through sh_file_writer: written beside under a
 * temporary name, synced, renamed, and the folder synced. Each of these steps passes a fault point,
 * so that tests can make every single one fail or die in turn (sh_file_set_fault).
 */
#ifndef SH_BASE_FILE_H
#define SH_BASE_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

SH_C_BEGIN

typedef struct sh_file_writer sh_file_writer;

/** Start writing `path` beside itself (path + ".tmp.<pid>"). The caller owns *out. */
SH_MUST_CHECK sh_status sh_file_writer_create(const char *path, sh_file_writer **out);

/** Append n_bytes. Buffered. */
SH_MUST_CHECK sh_status sh_file_write(sh_file_writer *writer, const void *data, size_t n_bytes);

/** CRC-32C and length of what was written so far. */
uint32_t sh_file_writer_crc32c(const sh_file_writer *writer);
uint64_t sh_file_writer_bytes(const sh_file_writer *writer);

/** Flush, sync, rename into place, sync the folder. Afterwards only destroy is allowed. */
SH_MUST_CHECK sh_status sh_file_writer_commit(sh_file_writer *writer);

/** Free *writer and set it to NULL; removes the temporary file unless committed. NULL is fine. */
void sh_file_writer_destroy(sh_file_writer **writer);

/** Write a whole small file in one go, with all the guarantees above. */
SH_MUST_CHECK sh_status sh_file_put(const char *path, const void *data, size_t n_bytes);

/** Read a whole file; *data is malloc'd with a NUL after it, the caller frees. Refuses > max_bytes.
 */
SH_MUST_CHECK sh_status sh_file_get(const char *path, size_t max_bytes, char **data,
                                    size_t *n_bytes);

/** pread exactly n_bytes at offset; a short file is SH_ERR_FORMAT naming `path`. Thread-safe. */
SH_MUST_CHECK sh_status sh_file_read_at(int fd, const char *path, uint64_t offset, void *data,
                                        size_t n_bytes);

/** Create a folder and its parents; existing is fine. */
SH_MUST_CHECK sh_status sh_file_make_dirs(const char *path);

/** The same, and if the folder itself is made now, only its owner may look into it (its parents are
 *  as the user's umask says). One that exists keeps its rights: opening it to others is the owner's
 *  to do. */
SH_MUST_CHECK sh_status sh_file_make_private_dir(const char *path);

/** Rename with both folders synced; passes fault points. */
SH_MUST_CHECK sh_status sh_file_rename(const char *from, const char *to);

/** Sync a folder so that names created or removed in it are durable. */
SH_MUST_CHECK sh_status sh_file_sync_dir(const char *path);

/** Remove a file, or a folder with all it holds; absent is fine. */
SH_MUST_CHECK sh_status sh_file_remove_tree(const char *path);

bool sh_file_exists(const char *path);
bool sh_file_is_dir(const char *path);

/** a + "/" + b into out[size]; truncation is SH_ERR_USAGE. */
SH_MUST_CHECK sh_status sh_path_join(const char *a, const char *b, char *out, size_t size);

/** The last component of a path, within it: what follows the last '/'. */
const char *sh_path_name(const char *path);

/** Where a user's own files are kept: $SHOAL_HOME/name, by default ~/.local/share/shoal/name, into
 *  out[size]. */
SH_MUST_CHECK sh_status sh_path_home(const char *name, char *out, size_t size);

/** Path of the program that runs, into out[size]: what to start it by again. In a bundle
 *  (scripts/bundle) that is its bin/shoal. */
SH_MUST_CHECK sh_status sh_path_program(char *out, size_t size);

/** Writes, syncs and renames that this process has begun. Whoever waits for another thread's files
 *  sees by it whether they get on. Thread-safe. */
int64_t sh_file_operations(void);

/** Tests only: the n-th fault point passed from now on (0 = the next) fails with EIO, or kills the
 *  process without cleanup if `die`. n < 0 disarms. Also armed by SHOAL_FAULT=<n>[,die]. With
 *  SHOAL_SLOW_FILES=<seconds> every fault point takes so long first. */
void sh_file_set_fault(int64_t n, bool die);

SH_C_END

#endif
