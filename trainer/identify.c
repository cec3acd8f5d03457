// SPDX-License-Identifier: Apache-2.0
#include "trainer/identify.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *sh_verdict_name(sh_verdict verdict)
{
    static const char *const names[] = {[SH_VERDICT_KNOWN] = "known",
                                        [SH_VERDICT_LOOK] = "look at it",
                                        [SH_VERDICT_UNKNOWN] = "unknown"};

    return names[verdict];
}

sh_verdict sh_verdict_of(double distance, const sh_thresholds *thresholds)
{
    if (thresholds == NULL) return SH_VERDICT_LOOK;
    if (distance <= thresholds->accept) return SH_VERDICT_KNOWN;
    return distance > thresholds->reject ? SH_VERDICT_UNKNOWN : SH_VERDICT_LOOK;
}

/* ---- grouping ---- */

/* Rows by track, tracks ascending, rows ascending within (counting sort). */
static sh_status group_tracks(const sh_identify_input *in, sh_identity *out)
{
    sh_status st = SH_OK;
    int64_t n_tracks = 0, *next = NULL;

    for (int64_t i = 0; i < in->n_queries; i++)
        if (in->track[i] >= n_tracks) n_tracks = (int64_t)in->track[i] + 1;
    next = calloc((size_t)n_tracks + 2, sizeof(*next));
    out->answers = calloc((size_t)n_tracks + 1, sizeof(*out->answers));
    out->matches = calloc((size_t)(n_tracks * in->top) + 1, sizeof(*out->matches));
    out->order = malloc((size_t)in->n_queries * sizeof(*out->order) + 1);
    SH_CHECK(next != NULL && out->answers != NULL && out->matches != NULL && out->order != NULL,
             SH_ERR_NO_MEMORY, "answers for %lld images", (long long)in->n_queries);
    out->n = n_tracks;
    out->top = in->top;
    for (int64_t i = 0; i < in->n_queries; i++) next[in->track[i] + 1]++;
    for (int64_t t = 0; t < n_tracks; t++) {
        out->answers[t] = (sh_answer){.first = next[t], .n_images = next[t + 1]};
        next[t + 1] += next[t];
    }
    for (int64_t i = 0; i < in->n_queries; i++) out->order[next[in->track[i]]++] = i;
out:
    free(next);
    return st;
}

/* ---- comparing ---- */

/* Per individual: sum of the images' distances so far, and the nearest of all. */
typedef struct tally {
    double sum;
    float image; /* of the image at hand */
    float nearest;
    int64_t image_row, gallery_row, query_row;
} tally;

/* Is the image in the gallery itself? */
static bool add_image(const sh_identify_input *in, int64_t row, tally *tallies)
{
    bool repeated = false;
    const sh_eval_data *g = in->gallery;
    const float *query = in->queries + row * g->dim;

    for (int i = 0; i < g->n_individuals; i++) tallies[i].image = INFINITY;
    for (int64_t k = 0; k < g->n; k++) {
        tally *t = &tallies[g->individual[k]];
        float d = sqrtf(sh_squared_distance(query, g->embeddings + k * g->dim, g->dim));

        if (d < t->image) {
            t->image = d;
            t->image_row = k;
        }
    }
    for (int i = 0; i < g->n_individuals; i++) {
        tally *t = &tallies[i];

        repeated |= t->image == 0;
        t->sum += t->image;
        if (t->image < t->nearest) {
            t->nearest = t->image;
            t->gallery_row = t->image_row;
            t->query_row = row;
        }
    }
    return repeated;
}

static void list_matches(const tally *tallies, int n_individuals, int64_t n_images, int top,
                         sh_match *matches, int *n_matches)
{
    int n = 0;

    for (int i = 0; i < n_individuals; i++) {
        sh_match m = {.individual = i,
                      .distance = tallies[i].sum / (double)n_images,
                      .gallery_row = tallies[i].gallery_row,
                      .query_row = tallies[i].query_row};
        int at = n < top ? n : top;

        while (at > 0 && m.distance < matches[at - 1].distance) at--;
        if (at == top) continue;
        if (n < top) n++;
        memmove(matches + at + 1, matches + at, (size_t)(n - 1 - at) * sizeof(*matches));
        matches[at] = m;
    }
    *n_matches = n;
}

static void answer(const sh_identify_input *in, sh_identity *out, int64_t t, tally *tallies)
{
    sh_answer *a = &out->answers[t];
    sh_match *matches = out->matches + t * in->top;

    for (int i = 0; i < in->gallery->n_individuals; i++) tallies[i] = (tally){.nearest = INFINITY};
    for (int64_t k = 0; k < a->n_images; k++)
        a->n_repeats += add_image(in, out->order[a->first + k], tallies);
    list_matches(tallies, in->gallery->n_individuals, a->n_images, in->top, matches, &a->n_matches);
    a->verdict =
        a->n_matches > 0 ? sh_verdict_of(matches[0].distance, in->thresholds) : SH_VERDICT_UNKNOWN;
}

static sh_status check_finite(const float *rows, int64_t n, const char *what)
{
    sh_status st = SH_OK;

    for (int64_t i = 0; i < n; i++)
        SH_CHECK(isfinite(rows[i]), SH_ERR_FORMAT,
                 "an embedding of the %s holds a NaN or an infinity: the training diverged", what);
out:
    return st;
}

sh_status sh_identify(const sh_identify_input *input, sh_identity *out)
{
    sh_status st = SH_OK;
    sh_identity identity = {0};
    bool short_of_memory = false;
    const sh_eval_data *g = input->gallery;

    SH_TRY(check_finite(g->embeddings, g->n * g->dim, "gallery"));
    SH_TRY(check_finite(input->queries, input->n_queries * g->dim, "queries"));
    SH_TRY(group_tracks(input, &identity));
#pragma omp parallel reduction(|| : short_of_memory)
    {
        tally *tallies = malloc((size_t)g->n_individuals * sizeof(*tallies) + 1);

        short_of_memory = tallies == NULL;
#pragma omp for schedule(dynamic, 4)
        for (int64_t t = 0; t < identity.n; t++)
            if (tallies != NULL) answer(input, &identity, t, tallies);
        free(tallies);
    }
    SH_CHECK(!short_of_memory, SH_ERR_NO_MEMORY, "comparison with %d fish", g->n_individuals);
    *out = identity;
    identity = (sh_identity){0};
out:
    sh_identity_clear(&identity);
    return st;
}

sh_identity_totals sh_identity_count(const sh_identity *identity)
{
    sh_identity_totals totals = {0};

    for (int64_t t = 0; t < identity->n; t++) {
        totals.verdicts[identity->answers[t].verdict]++;
        totals.n_repeats += identity->answers[t].n_repeats;
    }
    return totals;
}

void sh_identity_clear(sh_identity *identity)
{
    free(identity->answers);
    free(identity->matches);
    free(identity->order);
    *identity = (sh_identity){0};
}
