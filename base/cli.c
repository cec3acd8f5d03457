// SPDX-License-Identifier: Apache-2.0
#include "base/cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HELP_COLUMN = 30, MAX_WORD = 64 };

static int min3(int a, int b, int c)
{
    int m = a < b ? a : b;

    return m < c ? m : c;
}

/* Levenshtein distance of two words, each cut to MAX_WORD characters. */
static int edit_distance(const char *a, const char *b)
{
    int row[MAX_WORD + 1];
    int n_a = (int)strnlen(a, MAX_WORD), n_b = (int)strnlen(b, MAX_WORD);

    for (int j = 0; j <= n_b; j++) row[j] = j;
    for (int i = 1; i <= n_a; i++) {
        int diagonal = row[0];

        row[0] = i;
        for (int j = 1; j <= n_b; j++) {
            int above = row[j];

            row[j] = min3(row[j - 1] + 1, above + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[n_b];
}

const char *sh_cli_closest(const char *word, const char *const *candidates, int n)
{
    const char *best = NULL;
    int best_distance = (int)strlen(word) / 3 + 1;

    for (int i = 0; i < n; i++) {
        int distance = edit_distance(word, candidates[i]);

        if (distance <= best_distance) {
            best_distance = distance;
            best = candidates[i];
            if (distance == 0) break;
        }
    }
    return best;
}

static void print_help(const sh_cli *cli)
{
    printf("usage: %s\n\n%s\n", cli->usage, cli->summary);
    if (cli->n_flags > 0) printf("\noptions:\n");
    for (int i = 0; i < cli->n_flags; i++) {
        const sh_flag *f = &cli->flags[i];
        char left[128];
        int n = snprintf(left, sizeof(left), "  %s%s%s%s%s", f->name, f->alias ? ", " : "",
                         f->alias ? f->alias : "", f->value ? " " : "", f->value ? f->value : "");

        printf("%s%*s%s\n", left, n < HELP_COLUMN ? HELP_COLUMN - n : 2, "", f->help);
    }
    if (cli->epilogue != NULL) printf("\n%s\n", cli->epilogue);
}

static sh_status list_append(sh_string_list *list, const char *item)
{
    sh_status st = SH_OK;
    const char **items = realloc(list->items, sizeof(*items) * (size_t)(list->n + 1));

    SH_CHECK(items != NULL, SH_ERR_NO_MEMORY, "argument list");
    list->items = items;
    list->items[list->n++] = item;
out:
    return st;
}

static sh_status set_flag(const sh_flag *flag, const char *text)
{
    sh_status st = SH_OK;
    char *end = NULL;

    errno = 0;
    switch (flag->type) {
    case SH_FLAG_BOOL: *(bool *)flag->target = true; break;
    case SH_FLAG_INT:
        *(int64_t *)flag->target = strtoll(text, &end, 10);
        SH_CHECK(end != text && *end == '\0' && errno == 0, SH_ERR_USAGE,
                 "%s needs a whole number, not \"%s\"", flag->name, text);
        break;
    case SH_FLAG_REAL:
        *(double *)flag->target = strtod(text, &end);
        SH_CHECK(end != text && *end == '\0', SH_ERR_USAGE, "%s needs a number, not \"%s\"",
                 flag->name, text);
        break;
    case SH_FLAG_STRING: *(const char **)flag->target = text; break;
    case SH_FLAG_LIST: SH_TRY(list_append(flag->target, text)); break;
    }
out:
    return st;
}

static sh_status unknown_flag(const sh_cli *cli, const char *word)
{
    const char *names[64];
    int n = 0;

    for (int i = 0; i < cli->n_flags && n < (int)SH_COUNT(names); i++)
        names[n++] = cli->flags[i].name;
    const char *closest = sh_cli_closest(word, names, n);

    return sh_error_set(SH_ERR_USAGE, "unknown option %s%s%s%s\nusage: %s", word,
                        closest ? " (did you mean " : "", closest ? closest : "",
                        closest ? "?)" : "", cli->usage);
}

/* Find the flag that `word` names; *value points behind "=", or is NULL. */
static const sh_flag *find_flag(const sh_cli *cli, const char *word, const char **value)
{
    const char *equals = strncmp(word, "--", 2) == 0 ? strchr(word, '=') : NULL;
    size_t n = equals ? (size_t)(equals - word) : strlen(word);

    *value = equals ? equals + 1 : NULL;
    for (int i = 0; i < cli->n_flags; i++) {
        const sh_flag *f = &cli->flags[i];

        if (strlen(f->name) == n && strncmp(f->name, word, n) == 0) return f;
        if (f->alias && strlen(f->alias) == n && strncmp(f->alias, word, n) == 0) return f;
    }
    return NULL;
}

static bool is_flag(const char *word)
{
    return word[0] == '-' && word[1] != '\0';
}

sh_status sh_cli_parse(const sh_cli *cli, int argc, char **argv, sh_string_list *args, bool *helped)
{
    sh_status st = SH_OK;
    bool flags_over = false;

    *args = (sh_string_list){0};
    *helped = false;
    for (int i = 1; i < argc; i++) {
        const char *value = NULL;

        if (flags_over || !is_flag(argv[i])) {
            SH_TRY(list_append(args, argv[i]));
            continue;
        }
        if (strcmp(argv[i], "--") == 0) {
            flags_over = true;
            continue;
        }
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help(cli);
            *helped = true;
            goto out;
        }
        const sh_flag *flag = find_flag(cli, argv[i], &value);

        if (flag == NULL) {
            st = unknown_flag(cli, argv[i]);
            goto out;
        }
        if (flag->type != SH_FLAG_BOOL && value == NULL) {
            SH_CHECK(i + 1 < argc, SH_ERR_USAGE, "%s needs a value (%s)\nusage: %s", flag->name,
                     flag->value, cli->usage);
            value = argv[++i];
        }
        SH_TRY(set_flag(flag, value));
    }
    SH_CHECK(args->n >= cli->min_args, SH_ERR_USAGE, "missing argument\nusage: %s", cli->usage);
    SH_CHECK(cli->max_args < 0 || args->n <= cli->max_args, SH_ERR_USAGE,
             "unexpected argument \"%s\"\nusage: %s", args->items[cli->max_args], cli->usage);
out:
    return st;
}
