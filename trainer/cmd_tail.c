// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cli.h"
#include "base/clock.h"
#include "slurm/journal.h"
#include "trainer/commands.h"
#include "trainer/run.h"

enum { BLOCK_BYTES = 1 << 18 };
#define POLL_SECONDS 0.5

/* The log of the newest job ("": none has begun), and whether no further job is expected to write.
 */
static sh_status find_log(const char *run, char path[SH_RUN_PATH], bool *over)
{
    sh_status st = SH_OK;
    json_t *events = NULL;

    SH_TRY(sh_journal_read(run, &events));
    const json_t *newest = json_array_get(events, json_array_size(events) - 1);
    const json_t *start = sh_journal_last(events, "start");

    SH_CHECK(newest != NULL, SH_ERR_NOT_FOUND, "%s has no jobs: `shoal submit` starts them", run);
    snprintf(path, SH_RUN_PATH, "%s",
             start != NULL ? json_string_value(json_object_get(start, "log")) : "");
    *over =
        newest == sh_journal_last(events, "end") && !json_is_true(json_object_get(newest, "again"));
out:
    json_decref(events);
    return st;
}

/* Where the last n lines of a file begin, as far as one block reaches. */
static off_t last_lines(const char *block, size_t size, off_t begin, int64_t n)
{
    size_t at = size;

    while (at > 0) {
        if (block[at - 1] == '\n' && at < size && --n == 0) break;
        at--;
    }
    return begin + (off_t)at;
}

/* Print from *offset to the end of the file; below 0: its last n lines. */
static sh_status print_from(const char *path, int64_t n_lines, off_t *offset)
{
    sh_status st = SH_OK;
    struct stat info;
    char *block = malloc(BLOCK_BYTES);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    SH_CHECK(block != NULL, SH_ERR_NO_MEMORY, "log");
    SH_CHECK(fd >= 0 && fstat(fd, &info) == 0, SH_ERR_IO, "cannot read %s: %s", path,
             strerror(errno));
    if (*offset < 0) {
        off_t begin = info.st_size > BLOCK_BYTES ? info.st_size - BLOCK_BYTES : 0;

        n = pread(fd, block, BLOCK_BYTES, begin);
        *offset = last_lines(block, n > 0 ? (size_t)n : 0, begin, n_lines);
    }
    while ((n = pread(fd, block, BLOCK_BYTES, *offset)) > 0) {
        fwrite(block, 1, (size_t)n, stdout);
        *offset += n;
    }
    fflush(stdout);
out:
    if (fd >= 0) close(fd);
    free(block);
    return st;
}

/* Go on with what is written, in this job's log and those of the jobs after it. */
static sh_status follow(const char *run, char path[SH_RUN_PATH], off_t offset)
{
    sh_status st = SH_OK;
    char newest[SH_RUN_PATH];
    bool over = false;

    while (!over) {
        SH_TRY(find_log(run, newest, &over));
        if (path[0] != '\0') SH_TRY(print_from(path, 0, &offset));
        if (strcmp(newest, path) != 0) {
            snprintf(path, SH_RUN_PATH, "%s", newest);
            offset = 0;
            over = false;
        }
        if (!over) sh_clock_sleep(POLL_SECONDS);
    }
out:
    return st;
}

sh_status sh_cmd_tail(int argc, char **argv)
{
    sh_status st = SH_OK;
    sh_string_list args = {0};
    int64_t n_lines = 20;
    bool helped = false, follows = false, over = false;
    char path[SH_RUN_PATH];
    off_t offset = -1;
    const sh_flag flags[] = {
        {"--lines", "-n", SH_FLAG_INT, &n_lines, "N", "how many lines; default 20"},
        {"--follow", "-f", SH_FLAG_BOOL, &follows, NULL,
         "go on until the run is over, or its job was taken away"},
    };
    const sh_cli cli = {.usage = "shoal tail RUN [-n LINES] [-f]",
                        .summary = "The last lines that the newest job of a run wrote.",
                        .flags = flags,
                        .n_flags = SH_COUNT(flags),
                        .min_args = 1,
                        .max_args = 1};

    SH_TRY(sh_cli_parse(&cli, argc, argv, &args, &helped));
    if (helped) goto out;
    SH_CHECK(n_lines > 0, SH_ERR_USAGE, "--lines needs at least 1");
    SH_TRY(find_log(args.items[0], path, &over));
    SH_CHECK(path[0] != '\0' || follows, SH_ERR_NOT_FOUND,
             "no job of %s has begun yet; see shoal status %s", args.items[0], args.items[0]);
    if (path[0] != '\0') SH_TRY(print_from(path, n_lines, &offset));
    if (follows) SH_TRY(follow(args.items[0], path, offset));
out:
    free(args.items);
    return st;
}
