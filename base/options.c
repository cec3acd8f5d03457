// SPDX-License-Identifier: Apache-2.0
#include "base/options.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

#include "base/cli.h"
#include "base/file.h"

enum { MAX_DEPTH = 8, KEY_BYTES = 256, MAX_YAML_BYTES = 1 << 20, MAX_OPTIONS = 512 };

static void *field_of(const sh_option *option, void *config)
{
    return (char *)config + option->offset;
}

static const void *const_field_of(const sh_option *option, const void *config)
{
    return (const char *)config + option->offset;
}

static const sh_option *find_option(const sh_option_table *table, const char *key)
{
    for (int i = 0; i < table->n; i++)
        if (strcmp(table->rows[i].key, key) == 0) return &table->rows[i];
    return NULL;
}

static sh_status unknown_key(const sh_option_table *table, const char *label, const char *key)
{
    const char *keys[MAX_OPTIONS];

    for (int i = 0; i < table->n; i++) keys[i] = table->rows[i].key;
    const char *closest = sh_cli_closest(key, keys, table->n);

    return sh_error_set(SH_ERR_USAGE, "%s: unknown option \"%s\"%s%s%s%s%s%s", label, key,
                        closest ? " (did you mean " : "", closest ? closest : "",
                        closest ? "?)" : "", table->help_command ? "; `" : "",
                        table->help_command ? table->help_command : "",
                        table->help_command ? "` lists all" : "");
}

static sh_status check_range(const sh_option *o, const char *label, double value, const char *text)
{
    sh_status st = SH_OK;
    bool bounded = o->min != 0 || o->max != 0;

    SH_CHECK(!bounded || (value >= o->min && value <= o->max), SH_ERR_USAGE,
             "%s: %s must be from %g to %g%s%s, not %s", label, o->key, o->min, o->max,
             o->unit[0] ? " " : "", o->unit, text);
out:
    return st;
}

static sh_status set_bool(const sh_option *o, const char *label, const char *text, bool *field)
{
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on"};
    sh_status st = SH_OK;

    for (size_t i = 0; i < SH_COUNT(words); i++) {
        if (strcasecmp(text, words[i]) == 0) {
            *field = i % 2 == 1;
            goto out;
        }
    }
    SH_FAIL(SH_ERR_USAGE, "%s: %s must be true or false, not \"%s\"", label, o->key, text);
out:
    return st;
}

static sh_status set_choice(const sh_option *o, const char *label, const char *text, int *field)
{
    sh_status st = SH_OK;
    char all[512] = "";

    for (int i = 0; o->choices[i] != NULL; i++) {
        if (strcmp(o->choices[i], text) == 0) {
            *field = i;
            goto out;
        }
        snprintf(all + strlen(all), sizeof(all) - strlen(all), "%s%s", i ? ", " : "",
                 o->choices[i]);
    }
    SH_FAIL(SH_ERR_USAGE, "%s: %s must be one of %s, not \"%s\"", label, o->key, all, text);
out:
    return st;
}

static sh_status set_number(const sh_option *o, const char *label, const char *text, void *field)
{
    sh_status st = SH_OK;
    char *end = NULL;

    errno = 0;
    if (o->type == SH_OPT_INT) {
        long long value = strtoll(text, &end, 10);

        SH_CHECK(end != text && *end == '\0' && errno == 0, SH_ERR_USAGE,
                 "%s: %s must be a whole number, not \"%s\"", label, o->key, text);
        SH_TRY(check_range(o, label, (double)value, text));
        *(int64_t *)field = value;
    } else {
        double value = strtod(text, &end);

        SH_CHECK(end != text && *end == '\0' && isfinite(value), SH_ERR_USAGE,
                 "%s: %s must be a number, not \"%s\"", label, o->key, text);
        SH_TRY(check_range(o, label, value, text));
        *(double *)field = value;
    }
out:
    return st;
}

/* `text` is the value as written; of a list, items separated by newlines. */
static sh_status set_option(const sh_option *o, const char *label, const char *text, void *config)
{
    sh_status st = SH_OK;
    void *field = field_of(o, config);
    size_t size = o->type == SH_OPT_LIST ? SH_OPTION_LIST_TEXT : SH_OPTION_TEXT;

    switch (o->type) {
    case SH_OPT_BOOL: SH_TRY(set_bool(o, label, text, field)); break;
    case SH_OPT_CHOICE: SH_TRY(set_choice(o, label, text, field)); break;
    case SH_OPT_INT:
    case SH_OPT_REAL: SH_TRY(set_number(o, label, text, field)); break;
    case SH_OPT_TEXT:
    case SH_OPT_LIST:
        SH_CHECK(strlen(text) < size, SH_ERR_USAGE, "%s: %s is too long", label, o->key);
        memset(field, 0, size);
        strcpy(field, text);
        break;
    }
out:
    return st;
}

sh_status sh_options_defaults(const sh_option_table *table, void *config)
{
    sh_status st = SH_OK;

    for (int i = 0; i < table->n; i++)
        SH_TRY(set_option(&table->rows[i], "default", table->rows[i].fallback, config));
out:
    return st;
}

sh_status sh_options_assign(const sh_option_table *table, const char *assignment, void *config)
{
    sh_status st = SH_OK;
    const char *equals = strchr(assignment, '=');
    char key[KEY_BYTES];
    char *text = NULL;

    SH_CHECK(equals != NULL && equals - assignment < KEY_BYTES, SH_ERR_USAGE,
             "\"%s\" is neither an option nor key=value", assignment);
    snprintf(key, sizeof(key), "%.*s", (int)(equals - assignment), assignment);
    const sh_option *o = find_option(table, key);

    if (o == NULL) {
        st = unknown_key(table, "command line", key);
        goto out;
    }
    text = strdup(equals + 1);
    SH_CHECK(text != NULL, SH_ERR_NO_MEMORY, "option %s", key);
    if (o->type == SH_OPT_LIST)
        for (char *p = text; *p; p++)
            if (*p == ',') *p = '\n';
    SH_TRY(set_option(o, "command line", text, config));
out:
    free(text);
    return st;
}

/* ---- YAML ---- */

typedef struct yaml_walk {
    const sh_option_table *table;
    const char *label;
    void *config;
    yaml_parser_t parser;
    bool seen[MAX_OPTIONS];
} yaml_walk;

static sh_status next_event(yaml_walk *w, yaml_event_t *event)
{
    sh_status st = SH_OK;

    SH_CHECK(yaml_parser_parse(&w->parser, event), SH_ERR_USAGE, "%s:%zu: %s", w->label,
             w->parser.problem_mark.line + 1,
             w->parser.problem ? w->parser.problem : "not valid YAML");
    if (event->type == YAML_ALIAS_EVENT) {
        size_t line = event->start_mark.line + 1;

        yaml_event_delete(event); /* the caller takes an event over only on success */
        SH_FAIL(SH_ERR_USAGE, "%s:%zu: aliases are not supported", w->label, line);
    }
out:
    return st;
}

static sh_status read_mapping(yaml_walk *w, const char *prefix, int depth);

/* Read the mapping that is item `n` of the list `key`, its start already consumed. */
static sh_status read_numbered(yaml_walk *w, const char *key, int n, int depth)
{
    sh_status st = SH_OK;
    char numbered[KEY_BYTES];

    SH_CHECK(snprintf(numbered, sizeof(numbered), "%s.%d", key, n) < KEY_BYTES, SH_ERR_USAGE,
             "%s: key too long", w->label);
    SH_TRY(read_mapping(w, numbered, depth + 1));
out:
    return st;
}

/* Read the items of a sequence, its start already consumed: plain ones into text separated by
 * newlines, mappings as numbered sections. */
static sh_status read_list(yaml_walk *w, const char *key, int depth, char text[SH_OPTION_LIST_TEXT],
                           int *n_mappings)
{
    sh_status st = SH_OK;
    yaml_event_t event;
    bool open = false;

    text[0] = '\0';
    *n_mappings = 0;
    for (;;) {
        SH_TRY(next_event(w, &event));
        open = true;
        if (event.type == YAML_SEQUENCE_END_EVENT) break;
        if (event.type == YAML_MAPPING_START_EVENT && text[0] == '\0') {
            SH_TRY(read_numbered(w, key, (*n_mappings)++, depth));
            yaml_event_delete(&event);
            open = false;
            continue;
        }
        SH_CHECK(event.type == YAML_SCALAR_EVENT && *n_mappings == 0, SH_ERR_USAGE,
                 "%s:%zu: %s must be a list of plain values, or of mappings", w->label,
                 event.start_mark.line + 1, key);
        const char *item = (const char *)event.data.scalar.value;

        SH_CHECK(strchr(item, '\n') == NULL && strlen(item) == event.data.scalar.length &&
                     strlen(text) + strlen(item) + 2 < SH_OPTION_LIST_TEXT,
                 SH_ERR_USAGE, "%s:%zu: %s: an item is too long or has a line break", w->label,
                 event.start_mark.line + 1, key);
        if (text[0] != '\0') strcat(text, "\n");
        strcat(text, item);
        yaml_event_delete(&event);
        open = false;
    }
out:
    if (open) yaml_event_delete(&event);
    return st;
}

static sh_status set_key(yaml_walk *w, const char *key, bool is_list, const char *text, size_t line)
{
    sh_status st = SH_OK;
    char where[SH_OPTION_TEXT];
    const sh_option *o = find_option(w->table, key);

    snprintf(where, sizeof(where), "%.900s:%zu", w->label, line);
    if (o == NULL) {
        st = unknown_key(w->table, where, key);
        goto out;
    }
    SH_CHECK(!is_list || o->type == SH_OPT_LIST, SH_ERR_USAGE, "%s: %s is one value, not a list",
             where, key);
    SH_CHECK(!w->seen[o - w->table->rows], SH_ERR_USAGE, "%s: %s is given twice", where, key);
    w->seen[o - w->table->rows] = true;
    SH_TRY(set_option(o, where, text, w->config));
out:
    return st;
}

/* Read the value of `key` and store it. */
static sh_status read_value(yaml_walk *w, const char *key, int depth)
{
    sh_status st = SH_OK;
    yaml_event_t event;
    bool open = false;
    char *list = NULL;
    int n_mappings = 0;

    SH_TRY(next_event(w, &event));
    open = true;
    size_t line = event.start_mark.line + 1;

    if (event.type == YAML_MAPPING_START_EVENT) {
        SH_TRY(read_mapping(w, key, depth + 1));
    } else if (event.type == YAML_SEQUENCE_START_EVENT) {
        list = malloc(SH_OPTION_LIST_TEXT);
        SH_CHECK(list != NULL, SH_ERR_NO_MEMORY, "list of %s", key);
        SH_TRY(read_list(w, key, depth, list, &n_mappings));
        if (n_mappings == 0) SH_TRY(set_key(w, key, true, list, line));
    } else {
        const char *text = (const char *)event.data.scalar.value;

        SH_CHECK(event.type == YAML_SCALAR_EVENT && strlen(text) == event.data.scalar.length,
                 SH_ERR_USAGE, "%s:%zu: %s has no plain value", w->label, line, key);
        SH_TRY(set_key(w, key, false, text, line));
    }
out:
    free(list);
    if (open) yaml_event_delete(&event);
    return st;
}

/* Read the entries of a mapping, its start already consumed. */
static sh_status read_mapping(yaml_walk *w, const char *prefix, int depth)
{
    sh_status st = SH_OK;
    yaml_event_t event;
    bool open = false;
    char key[KEY_BYTES];

    SH_CHECK(depth < MAX_DEPTH, SH_ERR_USAGE, "%s: nested too deeply at %s", w->label, prefix);
    for (;;) {
        SH_TRY(next_event(w, &event));
        open = true;
        if (event.type == YAML_MAPPING_END_EVENT) break;
        SH_CHECK(event.type == YAML_SCALAR_EVENT, SH_ERR_USAGE, "%s:%zu: a key must be a word",
                 w->label, event.start_mark.line + 1);
        SH_CHECK(snprintf(key, sizeof(key), "%s%s%s", prefix, prefix[0] ? "." : "",
                          (const char *)event.data.scalar.value) < KEY_BYTES,
                 SH_ERR_USAGE, "%s:%zu: key too long", w->label, event.start_mark.line + 1);
        yaml_event_delete(&event);
        open = false;
        SH_TRY(read_value(w, key, depth));
    }
out:
    if (open) yaml_event_delete(&event);
    return st;
}

sh_status sh_options_parse(const sh_option_table *table, const char *text, size_t n_bytes,
                           const char *label, void *config)
{
    sh_status st = SH_OK;
    yaml_walk w = {.table = table, .label = label, .config = config};
    yaml_event_t event;
    bool open = false, at_end = false;

    SH_CHECK(yaml_parser_initialize(&w.parser), SH_ERR_NO_MEMORY, "YAML parser");
    yaml_parser_set_input_string(&w.parser, (const unsigned char *)text, n_bytes);
    while (!at_end) {
        SH_TRY(next_event(&w, &event));
        open = true;
        SH_CHECK(event.type != YAML_SCALAR_EVENT || event.data.scalar.length == 0, SH_ERR_USAGE,
                 "%s:%zu: expected `key: value` lines", label, event.start_mark.line + 1);
        SH_CHECK(event.type != YAML_SEQUENCE_START_EVENT, SH_ERR_USAGE,
                 "%s:%zu: expected `key: value` lines, not a list", label,
                 event.start_mark.line + 1);
        if (event.type == YAML_MAPPING_START_EVENT) SH_TRY(read_mapping(&w, "", 0));
        at_end = event.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
        open = false;
    }
out:
    if (open) yaml_event_delete(&event);
    yaml_parser_delete(&w.parser);
    return st;
}

sh_status sh_options_read(const sh_option_table *table, const char *path, void *config)
{
    sh_status st = SH_OK;
    char *text = NULL;
    size_t n_bytes = 0;

    SH_TRY(sh_file_get(path, MAX_YAML_BYTES, &text, &n_bytes));
    SH_TRY(sh_options_parse(table, text, n_bytes, path, config));
out:
    free(text);
    return st;
}

/* ---- writing ---- */

void sh_options_format(const sh_option *o, const void *config, char *text, size_t size)
{
    const void *field = const_field_of(o, config);
    char number[32];

    switch (o->type) {
    case SH_OPT_BOOL: snprintf(text, size, "%s", *(const bool *)field ? "true" : "false"); break;
    case SH_OPT_INT: snprintf(text, size, "%lld", (long long)*(const int64_t *)field); break;
    case SH_OPT_REAL: /* few digits that read back as the same double; 10, not 1e+01 */
        for (int digits = 6; digits <= 17; digits++) {
            snprintf(number, sizeof(number), "%.*g", digits, *(const double *)field);
            if (strtod(number, NULL) == *(const double *)field) break;
        }
        snprintf(text, size, "%s", number);
        break;
    case SH_OPT_CHOICE: snprintf(text, size, "%s", o->choices[*(const int *)field]); break;
    case SH_OPT_TEXT: snprintf(text, size, "%s", (const char *)field); break;
    case SH_OPT_LIST:
        snprintf(text, size, "%s", (const char *)field);
        for (char *p = text; *p; p++)
            if (*p == '\n') *p = ',';
        break;
    }
}

/* Has the key a part that is a number, as in "stages.0.name"? */
static bool is_numbered(const sh_option *o)
{
    const char *dot = strchr(o->key, '.');

    while (dot != NULL && !(dot[1] >= '0' && dot[1] <= '9')) dot = strchr(dot + 1, '.');
    return dot != NULL;
}

static bool has_default(const sh_option *o, const void *config)
{
    char text[SH_OPTION_LIST_TEXT];

    sh_options_format(o, config, text, sizeof(text));
    return strcmp(text, o->fallback) == 0;
}

/* A scalar as double-quoted YAML: every text survives. */
static void write_quoted(FILE *out, const char *text, size_t n)
{
    fputc('"', out);
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '"' || text[i] == '\\') fputc('\\', out);
        if ((unsigned char)text[i] < 0x20)
            fprintf(out, "\\x%02x", (unsigned char)text[i]);
        else
            fputc(text[i], out);
    }
    fputc('"', out);
}

static void write_value(FILE *out, const sh_option *o, const void *config)
{
    char text[64];

    if (o->type == SH_OPT_TEXT) {
        const char *value = const_field_of(o, config);

        write_quoted(out, value, strlen(value));
    } else if (o->type == SH_OPT_LIST) {
        const char *p = const_field_of(o, config);
        bool first = true;

        fputc('[', out);
        while (*p != '\0') {
            size_t n = strcspn(p, "\n");

            if (!first) fputs(", ", out);
            write_quoted(out, p, n);
            first = false;
            p += n + (p[n] == '\n');
        }
        fputc(']', out);
    } else {
        sh_options_format(o, config, text, sizeof(text));
        fputs(text, out);
    }
}

sh_status sh_options_write(const sh_option_table *table, const void *config, char **text,
                           size_t *n_bytes)
{
    sh_status st = SH_OK;
    char section[KEY_BYTES] = "";
    char *buffer = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&buffer, &size);

    SH_CHECK(out != NULL, SH_ERR_NO_MEMORY, "configuration text");
    /* Rows of one section stand together in the table, so one level of nesting is enough. */
    for (int i = 0; i < table->n; i++) {
        const sh_option *o = &table->rows[i];
        const char *dot = strrchr(o->key, '.');
        size_t n = dot ? (size_t)(dot - o->key) : 0;

        if (is_numbered(o) && has_default(o, config)) continue;
        if (strlen(section) != n || strncmp(section, o->key, n) != 0) {
            snprintf(section, sizeof(section), "%.*s", (int)n, o->key);
            if (n > 0) fprintf(out, "%s:\n", section);
        }
        fprintf(out, "%s%s: ", n > 0 ? "  " : "", dot ? dot + 1 : o->key);
        write_value(out, o, config);
        fputc('\n', out);
    }
    SH_CHECK(fclose(out) == 0, SH_ERR_NO_MEMORY, "configuration text");
    *text = buffer;
    *n_bytes = size;
    buffer = NULL;
out:
    free(buffer);
    return st;
}

sh_status sh_options_check_resume(const sh_option_table *table, const void *stored,
                                  const void *wanted)
{
    sh_status st = SH_OK;
    char list[1536] = "";
    char a[SH_OPTION_LIST_TEXT], b[SH_OPTION_LIST_TEXT];

    for (int i = 0; i < table->n; i++) {
        const sh_option *o = &table->rows[i];

        if (o->on_resume == SH_FREE) continue;
        sh_options_format(o, stored, a, sizeof(a));
        sh_options_format(o, wanted, b, sizeof(b));
        if (strcmp(a, b) == 0) continue;
        snprintf(list + strlen(list), sizeof(list) - strlen(list),
                 "\n  %s: the run has \"%.100s\", asked for is \"%.100s\"", o->key, a, b);
    }
    SH_CHECK(list[0] == '\0', SH_ERR_MISMATCH,
             "these options may not change when a run continues:%s\n"
             "continue with the run's values, or start a new run folder",
             list);
out:
    return st;
}

void sh_options_help(const sh_option_table *table, FILE *out)
{
    static const char *const type_names[] = {
        [SH_OPT_BOOL] = "true|false", [SH_OPT_INT] = "whole number", [SH_OPT_REAL] = "number",
        [SH_OPT_TEXT] = "text",       [SH_OPT_LIST] = "list",        [SH_OPT_CHOICE] = ""};

    for (int i = 0; i < table->n; i++) {
        const sh_option *o = &table->rows[i];

        if (is_numbered(o) && strstr(o->key, ".0.") == NULL) continue;
        fprintf(out, "  %s (%s", o->key, type_names[o->type]);
        if (o->type == SH_OPT_CHOICE)
            for (int k = 0; o->choices[k] != NULL; k++)
                fprintf(out, "%s%s", k ? "|" : "", o->choices[k]);
        if (o->unit[0] != '\0') fprintf(out, ", %s", o->unit);
        if (o->min != 0 || o->max != 0) fprintf(out, ", %g..%g", o->min, o->max);
        fprintf(out, "; default %s; %s on resume)\n      %s\n",
                o->fallback[0] ? o->fallback : "none",
                o->on_resume == SH_FREE ? "may change" : "fixed", o->help);
    }
}
