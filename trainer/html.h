// SPDX-License-Identifier: Apache-2.0
/**
 * Pages that stand alone: text, tables, pictures and line charts written to a FILE, with nothing
 * fetched from anywhere and no script. Text from files and users always goes through
 * sh_html_text. Write errors are seen once, when the FILE is closed by its owner.
 */
#ifndef SH_TRAINER_HTML_H
#define SH_TRAINER_HTML_H

#include <stdbool.h>
#include <stdio.h>

#include "dataio/image.h"

SH_C_BEGIN

/** A page in memory. */
typedef struct sh_page {
    FILE *file;
    char *text;
    size_t n_bytes;
} sh_page;

/** Start a page: doctype, style, heading. Free with sh_page_clear. */
SH_MUST_CHECK sh_status sh_page_begin(const char *title, sh_page *out);

/** Finish and write it to `path`, whole or not at all. */
SH_MUST_CHECK sh_status sh_page_put(sh_page *page, const char *path);
void sh_page_clear(sh_page *page);

/** Text, escaped for element content and attribute values. NULL writes nothing. */
void sh_html_text(FILE *file, const char *text);

/** A number with `digits` decimals, or a dash where it is not finite. */
void sh_html_number(FILE *file, double value, int digits);

/** A picture, embedded as JPEG, at most `side` pixels on its longer side. */
SH_MUST_CHECK sh_status sh_html_image(FILE *file, const sh_image *image, int side,
                                      const char *label);

typedef struct sh_series {
    const char *name;
    const double *x, *y; /* [n]; points that are not finite break the line */
    int n;
} sh_series;

typedef struct sh_chart {
    const char *title, *x_label, *y_label;
    bool log_x;
    double y_min, y_max; /* both 0: from the data */
    const sh_series *series;
    int n_series; /* up to 4 */
} sh_chart;

/** A line chart as inline SVG. A chart without points says so. */
void sh_html_chart(FILE *file, const sh_chart *chart);

SH_C_END

#endif
