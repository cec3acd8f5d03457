// SPDX-License-Identifier: Apache-2.0
#include "slurm/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"

enum { PATH_BYTES = 4096, MAX_BYTES = 64 << 20 };

sh_status sh_journal_append(const char *run, json_t *event)
{
    sh_status st = SH_OK;
    char path[PATH_BYTES];
    char *line = NULL;
    int fd = -1;

    SH_CHECK(event != NULL, SH_ERR_NO_MEMORY, "journal of %s", run);
    SH_TRY(sh_file_make_private_dir(run));
    SH_TRY(sh_path_join(run, "jobs.jsonl", path, sizeof(path)));
    json_object_set_new(event, "time", json_integer((json_int_t)time(NULL)));
    line = json_dumps(event, JSON_COMPACT | JSON_PRESERVE_ORDER);
    SH_CHECK(line != NULL, SH_ERR_NO_MEMORY, "journal of %s", run);
    size_t size = strlen(line);

    line[size++] = '\n'; /* in place of the NUL: one write, so that lines never mix */
    fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    SH_CHECK(fd >= 0, SH_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    SH_CHECK(write(fd, line, size) == (ssize_t)size && fsync(fd) == 0, SH_ERR_IO,
             "cannot write %s: %s", path, strerror(errno));
out:
    if (fd >= 0) close(fd);
    free(line);
    json_decref(event);
    return st;
}

sh_status sh_journal_read(const char *run, json_t **out)
{
    sh_status st = SH_OK;
    char path[PATH_BYTES];
    char *text = NULL;
    size_t n_bytes = 0;
    json_t *events = json_array();

    SH_CHECK(events != NULL, SH_ERR_NO_MEMORY, "journal of %s", run);
    SH_TRY(sh_path_join(run, "jobs.jsonl", path, sizeof(path)));
    if (sh_file_exists(path)) SH_TRY(sh_file_get(path, MAX_BYTES, &text, &n_bytes));
    for (char *save = NULL, *line = text != NULL ? strtok_r(text, "\n", &save) : NULL; line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        json_t *event = json_loads(line, JSON_REJECT_DUPLICATES, NULL);

        if (json_is_string(json_object_get(event, "event")))
            SH_CHECK(json_array_append(events, event) == 0, SH_ERR_NO_MEMORY, "%s", path);
        json_decref(event);
    }
    *out = events;
    events = NULL;
out:
    json_decref(events);
    free(text);
    return st;
}

static bool is_kind(const json_t *event, const char *kind)
{
    return strcmp(json_string_value(json_object_get(event, "event")), kind) == 0;
}

const json_t *sh_journal_last(const json_t *events, const char *kind)
{
    for (size_t i = json_array_size(events); i-- > 0;)
        if (is_kind(json_array_get(events, i), kind)) return json_array_get(events, i);
    return NULL;
}

int sh_journal_starts_at(const json_t *events, int64_t step)
{
    int n = 0;

    for (size_t i = json_array_size(events); i-- > 0;) {
        const json_t *event = json_array_get(events, i);

        if (is_kind(event, "submit")) break;
        if (!is_kind(event, "start")) continue;
        if (json_integer_value(json_object_get(event, "step")) != step) break;
        n++;
    }
    return n;
}
