// SPDX-License-Identifier: Apache-2.0
/* An evaluation in words and columns. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "trainer/evaluate_known.h"

enum { N_NAMED = 5, NUMBER = 24 };

static const json_t *at(const json_t *object, const char *a, const char *b)
{
    const json_t *inner = json_object_get(object, a);

    return b != NULL ? json_object_get(inner, b) : inner;
}

/* ".813", "-" where it is null. */
static const char *number(const json_t *value, char text[NUMBER])
{
    if (json_is_number(value))
        snprintf(text, NUMBER, "%.3f", json_number_value(value));
    else
        snprintf(text, NUMBER, "-");
    return text;
}

static void print_interval(const json_t *interval)
{
    char lo[NUMBER], hi[NUMBER];

    if (!json_is_number(json_array_get(interval, 0))) return;
    printf(" [%s, %s]", number(json_array_get(interval, 0), lo),
           number(json_array_get(interval, 1), hi));
}

static long long count(const json_t *value)
{
    return (long long)json_integer_value(value);
}

static void print_row(const char *name, const json_t *scores)
{
    static const char *const keys[] = {"rank1", "rank5", "rank10", "map", "auc"};
    char text[NUMBER];

    printf("  %-28s", name);
    for (size_t i = 0; i < SH_COUNT(keys); i++) {
        const json_t *value = json_object_get(scores, keys[i]);

        printf(" %8s", value != NULL ? number(value, text) : "");
    }
    printf("\n");
}

static void print_data(const json_t *e)
{
    const json_t *data = json_object_get(e, "data");
    const json_t *unmatched = json_object_get(data, "unmatched");
    size_t n = json_array_size(unmatched), i;
    const json_t *name;

    printf("%s, %s: %lld crops of %lld individuals (%lld pairs of individuals), %lld recordings, "
           "%lld tracks\n",
           json_string_value(json_object_get(e, "run")),
           json_string_value(json_object_get(e, "part")), count(json_object_get(data, "crops")),
           count(json_object_get(data, "individuals")),
           count(json_object_get(data, "pairs_of_individuals")),
           count(json_object_get(data, "recordings")), count(json_object_get(data, "tracks")));
    if (n > 0) {
        printf("%zu queries without a match in another recording:", n);
        json_array_foreach(unmatched, i, name)
        {
            if (i < N_NAMED) printf(" %s", json_string_value(name));
        }
        printf("%s\n", n > N_NAMED ? " ... (queries.csv)" : "");
    }
    n = json_array_size(json_object_get(data, "duplicates"));
    if (n > 0) printf("%zu duplicates left out: the same pixels of the same individual\n", n);
    n = json_array_size(json_object_get(e, "refused"));
    if (n > 0) printf("%zu crops refused: the run was trained on the same pixels\n", n);
    json_array_foreach(json_object_get(e, "stamps"), i, name)
    {
        printf("! %s\n", json_string_value(name));
    }
}

static void print_identification(const json_t *e)
{
    const json_t *id = json_object_get(e, "identification");
    const json_t *fish = json_object_get(id, "per_individual");
    const json_t *floors = json_object_get(e, "floors");

    printf("\n  %-28s %8s %8s %8s %8s %8s\n", "", "rank-1", "rank-5", "rank-10", "mAP", "AUC");
    print_row("per individual", fish);
    print_row("per track", json_object_get(id, "per_track"));
    print_row("per image", json_object_get(id, "per_image"));
    print_row("floor: chance", json_object_get(floors, "chance"));
    print_row("floor: colour histogram", json_object_get(floors, "colour_histogram"));
    print_row("floor: network untrained", json_object_get(floors, "untrained"));
    if (json_is_object(json_object_get(e, "sides"))) {
        print_row("same side", at(e, "sides", "same_side"));
        print_row("cross side", at(e, "sides", "cross_side"));
    }
    if (json_object_get(e, "seen_individuals") != NULL)
        print_row("seen in training",
                  at(json_object_get(e, "seen_individuals"), "identification", "per_individual"));
    printf("  95 %% over individuals: rank-1");
    print_interval(json_object_get(fish, "rank1_interval"));
    printf(", mAP");
    print_interval(json_object_get(fish, "map_interval"));
    printf("\n");
}

static void print_verification(const json_t *e)
{
    const json_t *section = json_object_get(e, "verification");
    const json_t *v = json_object_get(section, "per_individual"), *rate;
    char text[NUMBER];
    size_t i;

    printf("\nverification over %lld pairs of one fish across recordings, %lld of two\n",
           count(json_object_get(section, "same_pairs")),
           count(json_object_get(section, "different_pairs")));
    printf("  AUC %s", number(json_object_get(v, "auc"), text));
    print_interval(json_object_get(v, "auc_interval"));
    printf(", equal error %s\n", number(json_object_get(v, "equal_error"), text));
    json_array_foreach(json_object_get(v, "tpr_at_fpr"), i, rate)
    {
        bool estimable = json_is_true(json_object_get(rate, "estimable"));

        printf("  TPR at FPR %-8g %s", json_number_value(json_object_get(rate, "fpr")),
               number(json_object_get(rate, "tpr"), text));
        print_interval(json_object_get(rate, "interval"));
        printf("%s\n", estimable ? "" : "  not estimable: too few pairs of individuals");
    }
}

static void print_threshold(const json_t *e)
{
    const json_t *t = json_object_get(e, "threshold"), *u = json_object_get(e, "unknown");
    char a[NUMBER], b[NUMBER], c[NUMBER], d[NUMBER];

    if (json_is_object(t)) {
        printf("\nthreshold of validation individuals (%lld) for a false-match rate of %g%s\n",
               count(json_object_get(t, "validation_individuals")),
               json_number_value(json_object_get(t, "chosen_at")),
               json_is_true(json_object_get(t, "rate_estimable"))
                   ? ""
                   : ", which so few cannot estimate");
        printf("  pairs: distance %s; here %s false matches, %s misses\n",
               number(json_object_get(t, "pair"), a),
               number(json_object_get(t, "false_matches"), b),
               number(json_object_get(t, "misses"), c));
        printf("  searches: known up to %s, unknown above %s; here %s right, ",
               number(json_object_get(t, "accept"), a), number(json_object_get(t, "reject"), b),
               number(json_object_get(t, "search_right"), c));
        printf("%s wrong, %s to look at, %s refused\n",
               number(json_object_get(t, "search_wrong"), b),
               number(json_object_get(t, "search_look"), c),
               number(json_object_get(t, "search_refused"), d));
    }
    if (json_is_object(u)) {
        printf("\nunknown fish (each third of the individuals held out of the gallery in turn)\n");
        printf("  detection AUC %s", number(json_object_get(u, "detection_auc"), a));
        if (json_object_get(u, "false_matches") != NULL)
            printf("; at the threshold: false matches %s, misses %s, wrong fish %s",
                   number(at(u, "false_matches", "value"), b), number(at(u, "misses", "value"), c),
                   number(at(u, "wrong_fish", "value"), d));
        printf("\n");
    }
}

void sh_eval_print(const json_t *evaluation)
{
    const json_t *time = json_object_get(evaluation, "time"), *gap;
    char text[NUMBER];
    size_t i;

    print_data(evaluation);
    print_identification(evaluation);
    print_verification(evaluation);
    print_threshold(evaluation);
    sh_known_print(json_object_get(evaluation, "known"));
    json_array_foreach(time, i, gap)
    {
        if (i == 0) printf("\nrank-1 by days between sightings\n");
        printf("  %-18s %s  (%lld queries)\n", json_string_value(json_object_get(gap, "gap")),
               number(json_object_get(gap, "rank1"), text), count(json_object_get(gap, "queries")));
    }
}
