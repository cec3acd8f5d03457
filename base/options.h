// SPDX-License-Identifier: Apache-2.0
/**
 * Options: one table row per option gives parsing, range checks, --help, the resolved copy that is
 * kept with a run, and whether a resumed run may change it.
 *
 * A configuration is a C struct. A YAML file (nested mappings; "a: {b: 1}" is the key a.b; in a
 * list of mappings "a: [{b: 1}, {b: 2}]" these are a.0.b and a.1.b) and key=value arguments set its
 * fields; unknown keys are errors that name the closest known one.
 */
#ifndef SH_BASE_OPTIONS_H
#define SH_BASE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

SH_C_BEGIN

enum { SH_OPTION_TEXT = 1024, SH_OPTION_LIST_TEXT = 8192 };

typedef enum sh_option_type {
    SH_OPT_BOOL,   /* bool: true/false, yes/no, on/off */
    SH_OPT_INT,    /* int64_t */
    SH_OPT_REAL,   /* double */
    SH_OPT_TEXT,   /* char[SH_OPTION_TEXT] */
    SH_OPT_LIST,   /* char[SH_OPTION_LIST_TEXT]: items separated by newlines */
    SH_OPT_CHOICE, /* int: index into choices */
} sh_option_type;

/** May a resumed run change the option? */
typedef enum sh_on_resume { SH_FIXED, SH_FREE } sh_on_resume;

typedef struct sh_option {
    const char *key; /* "split.by"; one of a numbered series ("a.0.b", "a.1.b") is written only
                        where it is not the default, and --help shows number 0 for all */
    sh_option_type type;
    size_t offset;        /* of the field in the configuration struct */
    const char *fallback; /* default, as text */
    sh_on_resume on_resume;
    double min, max;            /* INT and REAL: allowed range, inclusive; both 0: any */
    const char *const *choices; /* CHOICE: NULL-terminated, in the order of the enum */
    const char *unit;           /* "steps", "seconds", ... or "" */
    const char *help;
} sh_option;

typedef struct sh_option_table {
    const sh_option *rows;
    int n;
    const char *help_command; /* what lists the options, for messages; NULL: nothing does */
} sh_option_table;

/** Set every field to its default. */
SH_MUST_CHECK sh_status sh_options_defaults(const sh_option_table *table, void *config);

/** Set fields from a YAML file, or from memory (`label` names it in messages). */
SH_MUST_CHECK sh_status sh_options_read(const sh_option_table *table, const char *path,
                                        void *config);
SH_MUST_CHECK sh_status sh_options_parse(const sh_option_table *table, const char *text,
                                         size_t n_bytes, const char *label, void *config);

/** Set one field from "key=value". A list is given as "a,b,c". */
SH_MUST_CHECK sh_status sh_options_assign(const sh_option_table *table, const char *assignment,
                                          void *config);

/** Write the options as YAML, with defaults resolved: reading it back over the defaults gives the
 *  same struct. */
SH_MUST_CHECK sh_status sh_options_write(const sh_option_table *table, const void *config,
                                         char **text, size_t *n_bytes);

/** Text of one option's value (as in the YAML, without quotes) into text[size]. */
void sh_options_format(const sh_option *option, const void *config, char *text, size_t size);

/** Fixed options that differ between a stored and a wanted configuration: SH_ERR_MISMATCH listing
 *  key, stored and wanted value of each; SH_OK if there are none. */
SH_MUST_CHECK sh_status sh_options_check_resume(const sh_option_table *table, const void *stored,
                                                const void *wanted);

/** The --help text: key, default, unit, range or choices, whether a resume may change it. */
void sh_options_help(const sh_option_table *table, FILE *out);

SH_C_END

#endif
