// SPDX-License-Identifier: Apache-2.0
#include "dataio/csv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CSV_BYTES ((size_t)1 << 32)

struct sh_csv {
    char *path, *text, *at, *end;
    char separator;
    char **fields;
    int capacity;
    int64_t line, next_line;
};

sh_status sh_csv_open(const char *path, char separator, sh_csv **out)
{
    sh_status st = SH_OK;
    size_t n_bytes = 0;
    sh_csv *csv = calloc(1, sizeof(*csv));

    SH_CHECK(csv != NULL, SH_ERR_NO_MEMORY, "a CSV reader");
    csv->separator = separator;
    csv->next_line = 1;
    csv->path = strdup(path);
    SH_CHECK(csv->path != NULL, SH_ERR_NO_MEMORY, "a CSV reader");
    SH_TRY(sh_file_get(path, MAX_CSV_BYTES, &csv->text, &n_bytes));
    csv->at = csv->text;
    csv->end = csv->text + n_bytes;
    SH_CHECK(memchr(csv->text, '\0', n_bytes) == NULL, SH_ERR_FORMAT,
             "%s has NUL bytes: save it as CSV in UTF-8", path);
    if (strncmp(csv->at, "\357\273\277", 3) == 0) csv->at += 3;
    *out = csv;
    csv = NULL;
out:
    sh_csv_close(&csv);
    return st;
}

void sh_csv_close(sh_csv **csv)
{
    if (*csv == NULL) return;
    free((*csv)->path);
    free((*csv)->text);
    free((*csv)->fields);
    free(*csv);
    *csv = NULL;
}

/* Unquote one field in place; csv->at ends on its separator, line end or the file's end. */
static sh_status take_field(sh_csv *csv, char **out, char **out_end)
{
    sh_status st = SH_OK;
    char *write = csv->at;

    *out = csv->at;
    if (csv->at < csv->end && *csv->at == '"') {
        for (csv->at++;; csv->at++) {
            SH_CHECK(csv->at < csv->end, SH_ERR_FORMAT, "%s, line %lld: a quote never closes",
                     csv->path, (long long)csv->line);
            if (*csv->at == '"' && *++csv->at != '"') break; /* the text ends with a NUL */
            if (*csv->at == '\n') csv->next_line++;
            *write++ = *csv->at;
        }
    }
    while (csv->at < csv->end && *csv->at != csv->separator && *csv->at != '\n') {
        if (*csv->at != '\r' || csv->at[1] != '\n') *write++ = *csv->at;
        csv->at++;
    }
    *out_end = write;
out:
    return st;
}

sh_status sh_csv_next(sh_csv *csv, char ***fields, int *n_fields)
{
    sh_status st = SH_OK;
    bool more = true;
    char *field = NULL, *field_end = NULL;

    *n_fields = 0;
    while (csv->at < csv->end && (*csv->at == '\n' || *csv->at == '\r')) {
        if (*csv->at++ == '\n') csv->next_line++;
    }
    csv->line = csv->next_line;
    while (more && csv->at < csv->end) {
        if (*n_fields == csv->capacity) {
            int capacity = 2 * csv->capacity + 16;
            char **grown = realloc(csv->fields, (size_t)capacity * sizeof(*grown));

            SH_CHECK(grown != NULL, SH_ERR_NO_MEMORY, "%d fields", capacity);
            csv->fields = grown;
            csv->capacity = capacity;
        }
        SH_TRY(take_field(csv, &field, &field_end));
        more = csv->at < csv->end && *csv->at == csv->separator;
        if (!more) csv->next_line++;
        if (csv->at < csv->end) csv->at++;
        *field_end = '\0';
        csv->fields[(*n_fields)++] = field;
        if (more && csv->at == csv->end) { /* "a," at the file's end: a last empty field */
            more = false;
            if (*n_fields < csv->capacity) csv->fields[(*n_fields)++] = csv->end;
        }
    }
    *fields = csv->fields;
out:
    return st;
}

int64_t sh_csv_line(const sh_csv *csv)
{
    return csv->line;
}

static sh_status write_field(sh_file_writer *writer, const char *text)
{
    sh_status st = SH_OK;
    bool quote = strpbrk(text, ",\"\r\n") != NULL;

    if (quote) SH_TRY(sh_file_write(writer, "\"", 1));
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '"') SH_TRY(sh_file_write(writer, "\"", 1));
        SH_TRY(sh_file_write(writer, p, 1));
    }
    if (quote) SH_TRY(sh_file_write(writer, "\"", 1));
out:
    return st;
}

sh_status sh_csv_write_row(sh_file_writer *writer, const char *const *fields, int n_fields)
{
    sh_status st = SH_OK;

    for (int i = 0; i < n_fields; i++) {
        if (i > 0) SH_TRY(sh_file_write(writer, ",", 1));
        SH_TRY(write_field(writer, fields[i]));
    }
    SH_TRY(sh_file_write(writer, "\n", 1));
out:
    return st;
}
