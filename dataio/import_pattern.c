// SPDX-License-Identifier: Apache-2.0
/**
 * Name patterns: literal text and fields in braces, `{individual}_{side:l=left,r=right}_{*}.jpg`.
 *
 * A field takes at least one character (`{*}` may take none) and never a '/'; as few characters as
 * let the rest match, so that the first "_" after {individual} ends it. What a field cannot be -
 * a frame that is no number, a side that is not in its list, a date that is none - is no match.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cli.h"
#include "base/file.h"
#include "dataio/import.h"
#include "dataio/split.h"

enum { MAX_TOKENS = 64, MAX_TEXT = 4096, MAX_DIGITS = 9 };

typedef enum field {
    FIELD_INDIVIDUAL,
    FIELD_SIDE,
    FIELD_SPECIES,
    FIELD_RECORDING,
    FIELD_CAMERA,
    FIELD_DATE,
    FIELD_FRAME,
    FIELD_SPLIT,
    FIELD_ANY,
    N_FIELDS
} field;

static const char *const field_names[N_FIELDS] = {
    [FIELD_INDIVIDUAL] = "individual", [FIELD_SIDE] = "side",     [FIELD_SPECIES] = "species",
    [FIELD_RECORDING] = "recording",   [FIELD_CAMERA] = "camera", [FIELD_DATE] = "date",
    [FIELD_FRAME] = "frame",           [FIELD_SPLIT] = "split",   [FIELD_ANY] = "*",
};

typedef struct token {
    const char *literal; /* NULL for a field */
    size_t n_literal;
    field field;
    const char *argument; /* after ':'; NULL without */
} token;

struct sh_pattern {
    char *text;   /* the pattern as given */
    char *pieces; /* a copy that the tokens point into */
    token tokens[MAX_TOKENS];
    int n_tokens;
    bool whole_path; /* has a '/' */
};

/* Where each field's text begins and ends in the name, once it matches. */
typedef struct capture {
    const char *text;
    size_t begin[N_FIELDS], end[N_FIELDS];
    uint8_t *failed; /* bit (token, position): the rest from here is known not to match */
} capture;

static const char *const side_names[] = {
    [SH_SIDE_UNKNOWN] = "unknown", [SH_SIDE_LEFT] = "left", [SH_SIDE_RIGHT] = "right"};
static const char *const part_names[] = {[SH_PART_NONE] = "none",
                                         [SH_PART_TRAIN] = "train",
                                         [SH_PART_VAL] = "val",
                                         [SH_PART_TEST] = "test"};

/* Fields whose text is one of a list: the words that they end up as. */
static const struct {
    const char *const *words;
    int n;
    const char *itself; /* the list where a pattern has none */
    const char *example;
} choices[N_FIELDS] = {
    [FIELD_SIDE] = {side_names, (int)SH_COUNT(side_names), "left=left,right=right,unknown=unknown",
                    "{side:l=left,r=right}"},
    [FIELD_SPLIT] = {part_names, (int)SH_COUNT(part_names),
                     "train=train,val=val,test=test,none=none",
                     "{split:training=train,testing=test}"},
};

/* Which word `text` stands for by the list "l=left,r=right" (NULL: the words themselves). */
static bool parse_choice(field f, const char *list, const char *text, size_t n, int *out)
{
    const char *entry = list != NULL ? list : choices[f].itself;

    while (entry != NULL && *entry != '\0') {
        const char *equals = strchr(entry, '='), *comma = strchr(entry, ',');
        size_t n_entry = comma != NULL ? (size_t)(comma - entry) : strlen(entry);

        if (equals == NULL || (size_t)(equals - entry) >= n_entry) return false;
        size_t n_word = n_entry - (size_t)(equals + 1 - entry);

        for (int w = 0; w < choices[f].n && (size_t)(equals - entry) == n; w++) {
            if (strncmp(entry, text, n) != 0 || strlen(choices[f].words[w]) != n_word ||
                strncmp(equals + 1, choices[f].words[w], n_word) != 0)
                continue;
            *out = w;
            return true;
        }
        entry = comma != NULL ? comma + 1 : NULL;
    }
    return false;
}

/* `format` may end in @YEAR, the year of dates that name none. */
static bool parse_date(const char *format, const char *text, size_t n, int64_t *out)
{
    char copy[128], plain[128];
    struct tm tm = {.tm_mday = 1};

    if (n >= sizeof(copy)) return false;
    memcpy(copy, text, n);
    copy[n] = '\0';
    if (format == NULL) return sh_parse_time(copy, out);
    const char *year = strchr(format, '@');

    snprintf(plain, sizeof(plain), "%.*s", (int)strcspn(format, "@"), format);
    if (year != NULL) tm.tm_year = atoi(year + 1) - 1900;
    const char *end = strptime(copy, plain, &tm);

    if (end == NULL || *end != '\0') return false;
    int day = tm.tm_mday;

    *out = timegm(&tm); /* makes the 30th of February a day of March */
    return tm.tm_mday == day;
}

static bool parse_frame(const char *text, size_t n, int32_t *out)
{
    int32_t value = 0;

    while (n > 1 && *text == '0') {
        text++;
        n--;
    }
    if (n == 0 || n > MAX_DIGITS) return false;
    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
        value = 10 * value + (text[i] - '0');
    }
    *out = value;
    return true;
}

static bool fits(const token *t, const char *text, size_t n)
{
    int choice;
    int64_t time;
    int32_t frame;

    switch (t->field) {
    case FIELD_ANY: return true;
    case FIELD_SIDE:
    case FIELD_SPLIT: return parse_choice(t->field, t->argument, text, n, &choice);
    case FIELD_DATE: return parse_date(t->argument, text, n, &time);
    case FIELD_FRAME: return parse_frame(text, n, &frame);
    default: return n > 0;
    }
}

static bool match_from(const sh_pattern *p, int k, size_t at, capture *c)
{
    const token *t = &p->tokens[k];
    size_t state = (size_t)k * (MAX_TEXT + 1) + at;

    if (k == p->n_tokens) return c->text[at] == '\0';
    if (t->literal != NULL)
        return strncmp(c->text + at, t->literal, t->n_literal) == 0 &&
               match_from(p, k + 1, at + t->n_literal, c);
    if (c->failed[state / 8] & (1u << state % 8)) return false;
    for (size_t n = t->field == FIELD_ANY ? 0 : 1;
         n == 0 || (c->text[at + n - 1] != '\0' && c->text[at + n - 1] != '/'); n++) {
        if (!fits(t, c->text + at, n) || !match_from(p, k + 1, at + n, c)) continue;
        c->begin[t->field] = at;
        c->end[t->field] = at + n;
        return true;
    }
    c->failed[state / 8] |= (uint8_t)(1u << state % 8);
    return false;
}

static sh_status find_field(const char *pattern, const char *name, token *out)
{
    sh_status st = SH_OK;

    for (int f = 0; f < N_FIELDS; f++) {
        if (strcmp(name, field_names[f]) != 0) continue;
        out->field = (field)f;
        goto out;
    }
    const char *closest = sh_cli_closest(name, field_names, N_FIELDS);

    SH_FAIL(SH_ERR_USAGE,
            "--pattern '%s': no field '%s'%s%s%s; fields are individual, side, species, recording, "
            "camera, date, frame, split and *",
            pattern, name, closest != NULL ? " (did you mean '" : "",
            closest != NULL ? closest : "", closest != NULL ? "'?)" : "");
out:
    return st;
}

static sh_status check_argument(const char *pattern, const token *t)
{
    sh_status st = SH_OK;
    const char *entry = t->argument;
    bool is_choice = choices[t->field].words != NULL;

    if (entry == NULL) goto out;
    SH_CHECK(is_choice || t->field == FIELD_DATE, SH_ERR_USAGE,
             "--pattern '%s': {%s} takes no argument", pattern, field_names[t->field]);
    while (is_choice && entry != NULL) {
        const char *equals = strchr(entry, '=');
        int choice;

        SH_CHECK(equals != NULL &&
                     parse_choice(t->field, entry, entry, (size_t)(equals - entry), &choice),
                 SH_ERR_USAGE, "--pattern '%s': {%s:%s} must read like %s", pattern,
                 field_names[t->field], t->argument, choices[t->field].example);
        entry = strchr(entry, ',');
        if (entry != NULL) entry++;
    }
    SH_CHECK(t->field != FIELD_DATE || strchr(t->argument, '%') != NULL, SH_ERR_USAGE,
             "--pattern '%s': {date:%s} must read like {date:%%Y%%m%%d}", pattern, t->argument);
    const char *year = t->field == FIELD_DATE ? strchr(t->argument, '@') : NULL;

    SH_CHECK(year == NULL || (strspn(year + 1, "0123456789") == 4 && year[5] == '\0'), SH_ERR_USAGE,
             "--pattern '%s': {date:%s} must end in @ and a year, as %%m%%d@2025 does", pattern,
             t->argument);
out:
    return st;
}

/* One "{...}" whose inside is `inside` (modified). */
static sh_status add_field(sh_pattern *p, char *inside)
{
    sh_status st = SH_OK;
    token *t = &p->tokens[p->n_tokens++];
    char *colon = strchr(inside, ':');

    *t = (token){.argument = colon != NULL ? colon + 1 : NULL};
    if (colon != NULL) *colon = '\0';
    SH_TRY(find_field(p->text, inside, t));
    SH_TRY(check_argument(p->text, t));
    for (int i = 0; i < p->n_tokens - 1; i++)
        SH_CHECK(p->tokens[i].literal != NULL || p->tokens[i].field != t->field ||
                     t->field == FIELD_ANY,
                 SH_ERR_USAGE, "--pattern '%s': {%s} stands twice", p->text, inside);
out:
    return st;
}

sh_status sh_pattern_parse(const char *text, sh_pattern **out)
{
    sh_status st = SH_OK;
    sh_pattern *p = calloc(1, sizeof(*p));

    SH_CHECK(p != NULL, SH_ERR_NO_MEMORY, "a pattern");
    p->text = strdup(text);
    p->pieces = strdup(text);
    SH_CHECK(p->text != NULL && p->pieces != NULL, SH_ERR_NO_MEMORY, "a pattern");
    p->whole_path = strchr(text, '/') != NULL;
    for (char *at = p->pieces; *at != '\0';) {
        SH_CHECK(p->n_tokens < MAX_TOKENS, SH_ERR_USAGE, "--pattern '%s' has more than %d parts",
                 text, MAX_TOKENS);
        if (*at == '{') {
            char *close = strchr(at, '}');

            SH_CHECK(close != NULL, SH_ERR_USAGE, "--pattern '%s': a '{' without its '}'", text);
            *close = '\0';
            SH_TRY(add_field(p, at + 1));
            at = close + 1;
        } else {
            size_t n = strcspn(at, "{");

            p->tokens[p->n_tokens++] = (token){.literal = at, .n_literal = n};
            at += n;
        }
    }
    SH_CHECK(p->n_tokens > 0, SH_ERR_USAGE, "--pattern is empty");
    *out = p;
    p = NULL;
out:
    sh_pattern_free(&p);
    return st;
}

void sh_pattern_free(sh_pattern **pattern)
{
    if (*pattern == NULL) return;
    free((*pattern)->text);
    free((*pattern)->pieces);
    free(*pattern);
    *pattern = NULL;
}

static sh_status keep_text(sh_strings *texts, const char *text, size_t n, const char **out)
{
    sh_status st = SH_OK;
    char copy[MAX_TEXT + 1];
    int32_t index = 0;

    memcpy(copy, text, n);
    copy[n] = '\0';
    SH_TRY(sh_strings_add(texts, copy, &index, NULL));
    *out = sh_strings_get(texts, index);
out:
    return st;
}

static sh_status fill_labels(const sh_pattern *p, const capture *c, sh_strings *texts,
                             sh_labels *out)
{
    sh_status st = SH_OK;
    sh_labels labels = SH_LABELS_NONE;
    int choice = 0;

    for (int k = 0; k < p->n_tokens; k++) {
        const token *t = &p->tokens[k];
        const char *text = c->text + c->begin[t->field];
        size_t n = c->end[t->field] - c->begin[t->field];

        if (t->literal != NULL) continue;
        switch (t->field) {
        case FIELD_INDIVIDUAL: SH_TRY(keep_text(texts, text, n, &labels.individual)); break;
        case FIELD_SPECIES: SH_TRY(keep_text(texts, text, n, &labels.species)); break;
        case FIELD_RECORDING: SH_TRY(keep_text(texts, text, n, &labels.recording)); break;
        case FIELD_CAMERA: SH_TRY(keep_text(texts, text, n, &labels.camera)); break;
        case FIELD_SIDE:
            if (parse_choice(t->field, t->argument, text, n, &choice))
                labels.side = (sh_side)choice;
            break;
        case FIELD_SPLIT:
            if (parse_choice(t->field, t->argument, text, n, &choice)) labels.split = choice;
            break;
        case FIELD_DATE: parse_date(t->argument, text, n, &labels.time); break;
        case FIELD_FRAME: parse_frame(text, n, &labels.frame); break;
        default: break;
        }
    }
    *out = labels;
out:
    return st;
}

sh_status sh_pattern_match(const sh_pattern *pattern, const char *path, sh_strings *texts,
                           bool *matched, sh_labels *labels)
{
    sh_status st = SH_OK;
    capture c = {.text = pattern->whole_path ? path : sh_path_name(path)};

    *matched = false;
    if (strlen(c.text) > MAX_TEXT) goto out;
    c.failed = calloc((size_t)(pattern->n_tokens + 1) * (MAX_TEXT + 1) / 8 + 1, 1);
    SH_CHECK(c.failed != NULL, SH_ERR_NO_MEMORY, "matching %s", path);
    if (!match_from(pattern, 0, 0, &c)) goto out;
    SH_TRY(fill_labels(pattern, &c, texts, labels));
    *matched = true;
out:
    free(c.failed);
    return st;
}
