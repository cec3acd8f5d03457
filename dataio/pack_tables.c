// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dataio/pack_file.h"

#define COLUMN(column, type, width, field)                                                         \
    {                                                                                              \
        column, type, width, offsetof(sh_pack_record, field)                                       \
    }

const sh_column sh_pack_columns[] = {
    COLUMN("offset", SH_COL_U64, 1, offset),
    COLUMN("length", SH_COL_U64, 1, length),
    COLUMN("crc32c", SH_COL_U32, 1, crc32c),
    COLUMN("format", SH_COL_U8, 1, format),
    COLUMN("size", SH_COL_I32, 2, size),
    COLUMN("source_size", SH_COL_I32, 2, source_size),
    COLUMN("box", SH_COL_I32, 4, box),
    COLUMN("pixels", SH_COL_U64, 2, pixels),
    COLUMN("individual", SH_COL_I32, 1, labels[SH_TABLE_INDIVIDUAL]),
    COLUMN("recording", SH_COL_I32, 1, labels[SH_TABLE_RECORDING]),
    COLUMN("camera", SH_COL_I32, 1, labels[SH_TABLE_CAMERA]),
    COLUMN("species", SH_COL_I32, 1, labels[SH_TABLE_SPECIES]),
    COLUMN("side", SH_COL_U8, 1, side),
    COLUMN("time", SH_COL_I64, 1, time),
    COLUMN("frame", SH_COL_I32, 1, frame),
    COLUMN("split", SH_COL_I8, 1, split),
};
const int sh_pack_n_columns = (int)SH_COUNT(sh_pack_columns);

const sh_column sh_mask_columns[] = {
    COLUMN("offset", SH_COL_U64, SH_N_MASKS, mask_offset),
    COLUMN("length", SH_COL_U64, SH_N_MASKS, mask_length),
    COLUMN("crc32c", SH_COL_U32, SH_N_MASKS, mask_crc32c),
};
const int sh_mask_n_columns = (int)SH_COUNT(sh_mask_columns);

const char *const sh_pack_table_names[SH_N_TABLES] = {
    [SH_TABLE_INDIVIDUAL] = "individual",
    [SH_TABLE_RECORDING] = "recording",
    [SH_TABLE_CAMERA] = "camera",
    [SH_TABLE_SPECIES] = "species",
};

size_t sh_column_size(sh_column_type type)
{
    static const size_t sizes[] = {[SH_COL_U8] = 1,  [SH_COL_I8] = 1,  [SH_COL_U32] = 4,
                                   [SH_COL_I32] = 4, [SH_COL_I64] = 8, [SH_COL_U64] = 8};

    return sizes[type];
}

/* A copy that any reader can show: where it is no UTF-8, bytes from 0x80 become "\xE6". */
static char *printable_copy(const char *text)
{
    char *copy = malloc(4 * strlen(text) + 1), *end = copy;
    bool escape = !sh_is_utf8(text);

    for (; copy != NULL && *text != '\0'; text++) {
        if (escape && (uint8_t)*text >= 0x80)
            end += sprintf(end, "\\x%02X", (uint8_t)*text);
        else
            *end++ = *text;
    }
    if (copy != NULL) *end = '\0';
    return copy;
}

sh_status sh_drop_list_add(sh_drop_list *list, const char *name, const char *reason)
{
    sh_status st = SH_OK;

    if (list->n == list->capacity) {
        int64_t capacity = list->capacity > 0 ? 2 * list->capacity : 64;
        char **names = realloc(list->names, (size_t)capacity * sizeof(*names));

        SH_CHECK(names != NULL, SH_ERR_NO_MEMORY, "%lld names", (long long)capacity);
        list->names = names;
        char **reasons = realloc(list->reasons, (size_t)capacity * sizeof(*reasons));

        SH_CHECK(reasons != NULL, SH_ERR_NO_MEMORY, "%lld reasons", (long long)capacity);
        list->reasons = reasons;
        list->capacity = capacity;
    }
    list->names[list->n] = printable_copy(name);
    list->reasons[list->n] = printable_copy(reason);
    list->n++;
    SH_CHECK(list->names[list->n - 1] != NULL && list->reasons[list->n - 1] != NULL,
             SH_ERR_NO_MEMORY, "the name %s", name);
out:
    return st;
}

typedef struct drop_row {
    char *name, *reason;
} drop_row;

static int compare_drops(const void *a, const void *b)
{
    const drop_row *x = a, *y = b;
    int by_name = strcmp(x->name, y->name);

    return by_name != 0 ? by_name : strcmp(x->reason, y->reason);
}

sh_status sh_drop_list_sort(sh_drop_list *list)
{
    sh_status st = SH_OK;
    drop_row *rows = malloc(((size_t)list->n + 1) * sizeof(*rows));

    SH_CHECK(rows != NULL, SH_ERR_NO_MEMORY, "%lld names", (long long)list->n);
    for (int64_t i = 0; i < list->n; i++) rows[i] = (drop_row){list->names[i], list->reasons[i]};
    qsort(rows, (size_t)list->n, sizeof(*rows), compare_drops);
    for (int64_t i = 0; i < list->n; i++) {
        list->names[i] = rows[i].name;
        list->reasons[i] = rows[i].reason;
    }
out:
    free(rows);
    return st;
}

void sh_drop_list_clear(sh_drop_list *list)
{
    for (int64_t i = 0; i < list->n; i++) {
        free(list->names[i]);
        free(list->reasons[i]);
    }
    free(list->names);
    free(list->reasons);
    *list = (sh_drop_list){0};
}

void sh_pack_tables_clear(sh_pack_tables *tables)
{
    free(tables->records);
    sh_strings_destroy(&tables->names);
    for (int t = 0; t < SH_N_TABLES; t++) sh_strings_destroy(&tables->labels[t]);
    sh_drop_list_clear(&tables->dropped);
    for (int64_t i = 0; i < tables->n_shards; i++) free(tables->shards[i].file);
    free(tables->shards);
    *tables = (sh_pack_tables){0};
}

bool sh_is_utf8(const char *text)
{
    const uint8_t *p = (const uint8_t *)text;

    while (*p != '\0') {
        int n = *p < 0x80 ? 0 : *p >> 5 == 6 ? 1 : *p >> 4 == 14 ? 2 : *p >> 3 == 30 ? 3 : -1;

        if (n < 0) return false;
        uint32_t code = n == 0 ? *p : *p & (0x3Fu >> n);

        p++;
        for (int i = 0; i < n; i++, p++) {
            if (*p >> 6 != 2) return false;
            code = code << 6 | (*p & 0x3Fu);
        }
        static const uint32_t smallest[] = {0, 0x80, 0x800, 0x10000};

        if (code < smallest[n] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
            return false;
    }
    return true;
}
