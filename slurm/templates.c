// SPDX-License-Identifier: Apache-2.0
#include "slurm/templates.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A file as a string constant of the program. */
#define EMBED(symbol, file)                                                                        \
    __asm__(".pushsection .rodata\n"                                                               \
            ".global " #symbol "\n" #symbol ":\n"                                                  \
            ".incbin \"" SH_TEMPLATE_FOLDER "/" file "\"\n"                                        \
            ".byte 0\n"                                                                            \
            ".popsection\n")

EMBED(sh_template_cpu, "cpu.sbatch");
EMBED(sh_template_gpu, "gpu.sbatch");

static const char *find_value(const sh_template_value *values, int n, const char *name, size_t size)
{
    for (int i = 0; i < n; i++)
        if (strlen(values[i].name) == size && strncmp(values[i].name, name, size) == 0)
            return values[i].text;
    return NULL;
}

typedef struct filling {
    const char *label;
    const sh_template_value *values;
    int n_values, line;
} filling;

/* One line without its end, into `to`. */
static sh_status fill_line(const filling *f, const char *line, size_t size, FILE *to)
{
    sh_status st = SH_OK;
    char *filled = NULL;
    size_t n_filled = 0;
    int n_given = 0, n_empty = 0;
    const char *end = line + size;
    FILE *memory = open_memstream(&filled, &n_filled);

    SH_CHECK(memory != NULL, SH_ERR_NO_MEMORY, "batch script");
    while (line < end) {
        const char *open = memmem(line, (size_t)(end - line), "{{", 2);

        if (open == NULL) open = end;
        fwrite(line, 1, (size_t)(open - line), memory);
        line = open;
        if (open == end) break;
        const char *close = memmem(open, (size_t)(end - open), "}}", 2);

        SH_CHECK(close != NULL, SH_ERR_FORMAT, "%s, line %d: \"{{\" without \"}}\"", f->label,
                 f->line);
        const char *text = find_value(f->values, f->n_values, open + 2, (size_t)(close - open) - 2);

        SH_CHECK(text != NULL, SH_ERR_FORMAT, "%s, line %d: there is nothing for %.*s", f->label,
                 f->line, (int)(close + 2 - open), open);
        fputs(text, memory);
        n_given += text[0] != '\0';
        n_empty += text[0] == '\0';
        line = close + 2;
    }
    fflush(memory);
    if (n_empty == 0 || n_given > 0) fprintf(to, "%s\n", filled);
out:
    if (memory != NULL) fclose(memory);
    free(filled);
    return st;
}

sh_status sh_template_fill(const char *label, const char *text, const sh_template_value *values,
                           int n_values, char **out)
{
    sh_status st = SH_OK;
    char *script = NULL;
    size_t n_bytes = 0;
    filling f = {.label = label, .values = values, .n_values = n_values};
    FILE *to = open_memstream(&script, &n_bytes);

    SH_CHECK(to != NULL, SH_ERR_NO_MEMORY, "batch script");
    while (*text != '\0') {
        size_t size = strcspn(text, "\n");

        f.line++;
        SH_TRY(fill_line(&f, text, size, to));
        text += size + (text[size] == '\n');
    }
    SH_CHECK(fclose(to) == 0, SH_ERR_NO_MEMORY, "batch script");
    to = NULL;
    *out = script;
    script = NULL;
out:
    if (to != NULL) fclose(to);
    free(script);
    return st;
}
