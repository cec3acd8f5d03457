// SPDX-License-Identifier: Apache-2.0
#include "trainer/html.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

static const char style[] =
    "body{font:15px/1.5 system-ui,sans-serif;color:#1c2733;max-width:1120px;margin:2em auto;"
    "padding:0 1em}h1{font-size:1.6em;margin-bottom:.2em}h2{font-size:1.2em;margin-top:2em;"
    "border-bottom:1px solid #d5dde5;padding-bottom:.2em}p.note,td.note{color:#5b6b7a;"
    "font-size:.92em}p.stamp{background:#fff1d6;border-left:4px solid #d98a00;padding:.5em .8em}"
    "table{border-collapse:collapse;margin:.8em 0}th,td{padding:.25em .8em;text-align:right;"
    "border-bottom:1px solid #e6ebf0}th{color:#5b6b7a;font-weight:600}th:first-child,"
    "td:first-child{text-align:left}td.left,th.left{text-align:left}td.look{background:#fff1d6}"
    "td.unknown{background:#f8dcdc}td.known{background:#dcf1e1}"
    ".cards{display:flex;flex-wrap:wrap;gap:.8em}.card{background:#f3f6f9;border-radius:6px;"
    "padding:.6em 1em;min-width:8em}.card b{display:block;font-size:1.5em}.charts{display:flex;"
    "flex-wrap:wrap;gap:1em}.pictures{display:flex;flex-wrap:wrap;gap:.8em;align-items:flex-end}"
    "figure{margin:0;font-size:.85em;max-width:150px;overflow-wrap:anywhere}figure img{display:"
    "block;margin-bottom:.2em;border-radius:3px;border:3px solid transparent}figure.right img{"
    "border-color:#2e9e5b}figure.wrong "
    "img{border-color:#c9372c}.matches{display:grid;grid-template-columns:1fr "
    "1fr;column-gap:1.5em}.match{display:flex;gap:.6em;"
    "border-bottom:1px solid #e6ebf0;padding:.5em 0;align-items:flex-start}"
    ".row{display:flex;gap:.5em}.row "
    "figure{width:114px}pre{background:#f3f6f9;padding:.8em;overflow-x:auto;font-size:.85em}svg "
    "text{font:11px "
    "system-ui,sans-serif;fill:#5b6b7a}details summary{cursor:pointer;color:#1f6fb2}";

sh_status sh_page_begin(const char *title, sh_page *out)
{
    sh_status st = SH_OK;

    *out = (sh_page){0};
    out->file = open_memstream(&out->text, &out->n_bytes);
    SH_CHECK(out->file != NULL, SH_ERR_NO_MEMORY, "page \"%s\"", title);
    fputs("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name="
          "\"viewport\" content=\"width=device-width\"><title>",
          out->file);
    sh_html_text(out->file, title);
    fprintf(out->file, "</title>\n<style>%s</style></head>\n<body><h1>", style);
    sh_html_text(out->file, title);
    fputs("</h1>\n", out->file);
out:
    return st;
}

sh_status sh_page_put(sh_page *page, const char *path)
{
    sh_status st = SH_OK;

    fputs("</body></html>\n", page->file);
    bool whole = !ferror(page->file);

    if (fclose(page->file) != 0) whole = false;
    page->file = NULL;
    SH_CHECK(whole, SH_ERR_NO_MEMORY, "page %s", path);
    SH_TRY(sh_file_put(path, page->text, page->n_bytes));
out:
    return st;
}

void sh_page_clear(sh_page *page)
{
    if (page->file != NULL) fclose(page->file);
    free(page->text);
    *page = (sh_page){0};
}

void sh_html_text(FILE *file, const char *text)
{
    static const char *const escapes[128] = {
        ['&'] = "&amp;", ['<'] = "&lt;", ['>'] = "&gt;", ['"'] = "&quot;", ['\''] = "&#39;"};

    for (const char *p = text; p != NULL && *p != '\0'; p++) {
        unsigned char c = (unsigned char)*p;

        if (c < 128 && escapes[c] != NULL)
            fputs(escapes[c], file);
        else if (c >= ' ' || c == '\n' || c == '\t')
            fputc(c, file);
    }
}

void sh_html_number(FILE *file, double value, int digits)
{
    if (isfinite(value))
        fprintf(file, "%.*f", digits, value);
    else
        fputs("&ndash;", file);
}

static void write_base64(FILE *file, const uint8_t *data, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (size_t i = 0; i < n; i += 3) {
        uint32_t word = (uint32_t)data[i] << 16;

        if (i + 1 < n) word |= (uint32_t)data[i + 1] << 8;
        if (i + 2 < n) word |= data[i + 2];
        fputc(digits[word >> 18], file);
        fputc(digits[word >> 12 & 63], file);
        fputc(i + 1 < n ? digits[word >> 6 & 63] : '=', file);
        fputc(i + 2 < n ? digits[word & 63] : '=', file);
    }
}

sh_status sh_html_image(FILE *file, const sh_image *image, int side, const char *label)
{
    sh_status st = SH_OK;
    sh_image small = {0};
    const sh_image *shown = image;
    uint8_t *data = NULL;
    size_t n_bytes = 0;
    int longer = image->width > image->height ? image->width : image->height;

    if (longer > side) {
        int width = (int)lround((double)image->width * side / longer);
        int height = (int)lround((double)image->height * side / longer);

        SH_TRY(sh_image_resize(image, width > 0 ? width : 1, height > 0 ? height : 1, &small));
        shown = &small;
    }
    SH_TRY(sh_image_encode(shown, SH_IMAGE_JPEG, 82, &data, &n_bytes));
    fputs("<img src=\"data:image/jpeg;base64,", file);
    write_base64(file, data, n_bytes);
    fprintf(file, "\" width=\"%d\" height=\"%d\" alt=\"", shown->width, shown->height);
    sh_html_text(file, label);
    fputs("\">", file);
out:
    free(data);
    sh_image_clear(&small);
    return st;
}

/* ---- charts ---- */

enum {
    WIDTH = 500,
    HEIGHT = 280,
    LEFT = 56,
    RIGHT = 14,
    TOP = 30,
    BOTTOM = 44,
    MAX_TICKS = 12,
    MARKED_POINTS = 40
};
static const char *const colours[] = {"#1f6fb2", "#d98a00", "#2e9e5b", "#8b4fb5"};

typedef struct axis {
    double lo, hi;
    bool log;
} axis;

static double scaled(axis a, double v)
{
    if (a.log) return (log10(v) - log10(a.lo)) / (log10(a.hi) - log10(a.lo));
    return (v - a.lo) / (a.hi - a.lo);
}

static bool shows(const sh_chart *chart, double x, double y)
{
    return isfinite(x) && isfinite(y) && (!chart->log_x || x > 0);
}

static bool find_range(const sh_chart *chart, axis *x, axis *y)
{
    bool any = false;

    *x = (axis){INFINITY, -INFINITY, chart->log_x};
    *y = (axis){INFINITY, -INFINITY, false};
    for (int s = 0; s < chart->n_series; s++) {
        for (int i = 0; i < chart->series[s].n; i++) {
            double px = chart->series[s].x[i], py = chart->series[s].y[i];

            if (!shows(chart, px, py)) continue;
            any = true;
            x->lo = fmin(x->lo, px);
            x->hi = fmax(x->hi, px);
            y->lo = fmin(y->lo, py);
            y->hi = fmax(y->hi, py);
        }
    }
    if (chart->y_min != chart->y_max) {
        y->lo = chart->y_min;
        y->hi = chart->y_max;
    } else {
        y->lo = fmin(y->lo, 0);
    }
    if (x->hi <= x->lo && x->log) x->lo /= 10;
    if (x->hi <= x->lo) x->lo = x->hi > 0 ? 0 : x->hi - 1;
    if (y->hi <= y->lo) y->hi = y->lo + 1;
    return any;
}

/* 1, 2 or 5 times a power of ten, so that about six ticks fit. */
static double tick_step(axis a)
{
    double raw = (a.hi - a.lo) / 6, power = pow(10, floor(log10(raw))), m = raw / power;

    return power * (m < 1.5 ? 1 : m < 3.5 ? 2 : m < 7.5 ? 5 : 10);
}

static int find_ticks(axis a, double ticks[MAX_TICKS])
{
    int n = 0;

    if (a.log) {
        for (double t = pow(10, ceil(log10(a.lo) - 1e-9)); t <= a.hi * 1.0001 && n < MAX_TICKS;
             t *= 10)
            ticks[n++] = t;
        return n;
    }
    double step = tick_step(a);

    for (double t = ceil(a.lo / step - 1e-9) * step; t <= a.hi + step * 1e-6 && n < MAX_TICKS;
         t += step)
        ticks[n++] = fabs(t) < step * 1e-6 ? 0 : t;
    return n;
}

static void write_axes(FILE *file, axis x, axis y)
{
    double ticks[MAX_TICKS];
    int n = find_ticks(x, ticks);

    for (int i = 0; i < n; i++) {
        double px = LEFT + scaled(x, ticks[i]) * (WIDTH - LEFT - RIGHT);

        fprintf(file,
                "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\" stroke=\"#e6ebf0\"/><text "
                "x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%g</text>",
                px, px, TOP, HEIGHT - BOTTOM, px, HEIGHT - BOTTOM + 15, ticks[i]);
    }
    n = find_ticks(y, ticks);
    for (int i = 0; i < n; i++) {
        double py = HEIGHT - BOTTOM - scaled(y, ticks[i]) * (HEIGHT - TOP - BOTTOM);

        fprintf(file,
                "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#e6ebf0\"/><text "
                "x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%g</text>",
                LEFT, WIDTH - RIGHT, py, py, LEFT - 6, py + 4, ticks[i]);
    }
}

static void write_series(FILE *file, const sh_chart *chart, const sh_series *s, const char *colour,
                         axis x, axis y)
{
    bool pen_down = false;

    fputs("<path fill=\"none\" stroke-width=\"1.8\" stroke-linejoin=\"round\" stroke=\"", file);
    fprintf(file, "%s\" d=\"", colour);
    for (int i = 0; i < s->n; i++) {
        if (!shows(chart, s->x[i], s->y[i])) {
            pen_down = false;
            continue;
        }
        double py = fmin(fmax(scaled(y, s->y[i]), 0), 1);

        fprintf(file, "%c%.1f %.1f", pen_down ? 'L' : 'M',
                LEFT + scaled(x, s->x[i]) * (WIDTH - LEFT - RIGHT),
                HEIGHT - BOTTOM - py * (HEIGHT - TOP - BOTTOM));
        pen_down = true;
    }
    fputs("\"/>", file);
    for (int i = 0; s->n <= MARKED_POINTS && i < s->n; i++) {
        if (!shows(chart, s->x[i], s->y[i])) continue;
        fprintf(file, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\" fill=\"%s\"/>",
                LEFT + scaled(x, s->x[i]) * (WIDTH - LEFT - RIGHT),
                HEIGHT - BOTTOM - fmin(fmax(scaled(y, s->y[i]), 0), 1) * (HEIGHT - TOP - BOTTOM),
                colour);
    }
}

void sh_html_chart(FILE *file, const sh_chart *chart)
{
    axis x, y;

    fprintf(file,
            "<svg width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" role=\"img\"><text x=\"%d\" "
            "y=\"16\" style=\"font-weight:600;font-size:13px;fill:#1c2733\">",
            WIDTH, HEIGHT, WIDTH, HEIGHT, LEFT);
    sh_html_text(file, chart->title);
    fputs("</text>", file);
    if (!find_range(chart, &x, &y)) {
        fprintf(file, "<text x=\"%d\" y=\"%d\">no points</text></svg>\n", LEFT, HEIGHT / 2);
        return;
    }
    write_axes(file, x, y);
    fprintf(file, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">", (LEFT + WIDTH - RIGHT) / 2,
            HEIGHT - 10);
    sh_html_text(file, chart->x_label);
    fprintf(
        file,
        "</text><text x=\"14\" y=\"%d\" text-anchor=\"middle\" transform=\"rotate(-90 14 %d)\">",
        (TOP + HEIGHT - BOTTOM) / 2, (TOP + HEIGHT - BOTTOM) / 2);
    sh_html_text(file, chart->y_label);
    fputs("</text>", file);

    int legend_x = WIDTH - RIGHT;

    for (int s = chart->n_series - 1; s >= 0; s--) {
        const char *colour = colours[(size_t)s % SH_COUNT(colours)];

        write_series(file, chart, &chart->series[s], colour, x, y);
        if (chart->n_series < 2) continue;
        fprintf(file, "<text x=\"%d\" y=\"16\" text-anchor=\"end\" style=\"fill:%s\">", legend_x,
                colour);
        sh_html_text(file, chart->series[s].name);
        fputs("</text>", file);
        legend_x -= 14 + 7 * (int)strlen(chart->series[s].name);
    }
    fputs("</svg>\n", file);
}
