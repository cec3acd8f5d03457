// SPDX-License-Identifier: Apache-2.0
/** Command lines of the subcommands: a table of flags gives parsing, errors and --help. */
#ifndef SH_BASE_CLI_H
#define SH_BASE_CLI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

SH_C_BEGIN

typedef enum sh_flag_type {
    SH_FLAG_BOOL,   /* bool *: present or not */
    SH_FLAG_INT,    /* int64_t * */
    SH_FLAG_REAL,   /* double * */
    SH_FLAG_STRING, /* const char **: points into argv */
    SH_FLAG_LIST,   /* sh_string_list *: may be given several times */
} sh_flag_type;

/** Strings that point into argv (or into the file that they were read from). */
typedef struct sh_string_list {
    const char **items;
    int n;
} sh_string_list;

typedef struct sh_flag {
    const char *name;  /* "--pattern", or "-o" */
    const char *alias; /* other spelling, or NULL */
    sh_flag_type type;
    void *target;      /* holds the default beforehand */
    const char *value; /* what to call the value in --help: "FILE"; NULL for BOOL */
    const char *help;  /* with unit and default */
} sh_flag;

typedef struct sh_cli {
    const char *usage;   /* "shoal pack SOURCE -o crops.h5 [--pattern P]..." */
    const char *summary; /* a sentence or a few: what it does */
    const sh_flag *flags;
    int n_flags;
    int min_args, max_args; /* positional arguments; max_args < 0: any number */
    const char *epilogue;   /* examples; may be NULL */
} sh_cli;

/** Parse argv[1..argc-1]; flags and positionals may be mixed, "--" ends flags, "--flag=value"
 * works. Positional arguments go to args (caller frees args->items, and those of SH_FLAG_LIST
 * targets).
 *  --help prints to stdout and sets *helped; the caller then returns SH_OK at once.
 *  Unknown flags are SH_ERR_USAGE and name the closest known one. */
SH_MUST_CHECK sh_status sh_cli_parse(const sh_cli *cli, int argc, char **argv, sh_string_list *args,
                                     bool *helped);

/** The closest of n candidates to `word` by edit distance, or NULL if none is close. */
const char *sh_cli_closest(const char *word, const char *const *candidates, int n);

SH_C_END

#endif
