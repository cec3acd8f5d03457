// SPDX-License-Identifier: Apache-2.0
/*
 * One epoch of P x K batches.
 *
 * 1. Every class with at least K samples is cut into hands of K. A hand takes samples that this
 *    epoch has not seen yet, from as many recordings as possible, at most half of it from one
 *    recording where there are several: positives of one recording differ by little more than
 * noise. When fresh samples run short, or sit in one recording, earlier ones of the other
 * recordings repeat. That at most doubles a class's hands.
 * 2. The hands are dealt into the epoch's batches so that no class has two in one batch and all
 *    batches hold equally many: each hand goes to a random batch among the least filled ones.
 * 3. Classes with fewer than K samples give all they have; they fill the room that is left, whole
 *    where they fit, split where nothing fits.
 * 4. What is still free is filled with repeats of random classes that the batch does not hold yet;
 * if it holds all, of those with fewer than K samples in it.
 * 5. The slots of a batch are shuffled, so that its shards (units of BatchNorm) are alike.
 *
 * No batch holds more than K samples of a class: the loss sizes its tables by that.
 *
 * How many hands a class gives depends on the sizes of its recordings alone, so every epoch has the
 * same number of steps, and the epoch of a step is a division.
 */
#include "dataio/sampler_pk.h"

#include <stdlib.h>
#include <string.h>

/* A run of samples of one class from one recording, while its class is cut into hands. */
typedef struct group {
    int32_t start, size; /* in planner->shuffled */
    int32_t left;        /* not yet seen in this epoch */
    int32_t cursor;      /* samples taken so far; goes round */
    int32_t in_hand;     /* of the hand being made */
    uint64_t tie;        /* random order among groups of one size */
} group;

/* A class with fewer than K samples, or what a split left of it. */
typedef struct piece {
    int32_t start, size; /* in planner->shuffled */
    int32_t next;        /* class of the next piece of this size, -1 at the end */
} piece;

struct pk_planner {
    const pk_samples *samples;
    int64_t batch, steps;
    int32_t per_class;           /* K */
    int32_t *hand_start;         /* [n_classes + 1] in hands */
    int32_t *hands;              /* [n_hands, K] samples */
    int32_t *shuffled;           /* [n] samples, shuffled within each group or short class */
    group *groups;               /* [largest number of groups of a class] */
    int32_t *fill;               /* [steps] slots of the batch in use */
    int32_t *low, *high, *taken; /* [steps] batches by how full they are */
    piece *pieces;               /* [n_classes] */
    int32_t *piece_head;         /* [K] by size */
    int32_t *piece_count;        /* [K] by size */
    int32_t *class_order;        /* [n_classes] */
    int64_t *class_stamp;        /* [n_classes] the last batch that was seen to hold it */
    int32_t *class_count;        /* [n_classes] its samples in that batch */
};

/* Draws of one epoch are numbered in order; the planner is sequential, so a counter is pure. */
typedef struct draws {
    sh_rng_key key;
    uint64_t n;
} draws;

static int32_t draw_below(draws *d, int32_t n)
{
    return (int32_t)sh_rng_below(d->key, d->n++, (uint64_t)n);
}

static void shuffle(draws *d, int32_t *items, int32_t n)
{
    for (int32_t i = n - 1; i > 0; i--) {
        int32_t j = draw_below(d, i + 1);
        int32_t t = items[i];

        items[i] = items[j];
        items[j] = t;
    }
}

static int32_t class_size(const pk_planner *p, int32_t c)
{
    return p->samples->class_start[c + 1] - p->samples->class_start[c];
}

static int compare_groups(const void *a, const void *b)
{
    const group *x = a, *y = b;

    if (x->size != y->size) return x->size > y->size ? -1 : 1;
    if (x->tie != y->tie) return x->tie > y->tie ? -1 : 1;
    return x->start < y->start ? -1 : 1;
}

/* Lower is better: fresh within the cap, repeats of other recordings, fresh beyond the cap, rest.
 */
static int group_tier(const group *g, int32_t cap)
{
    if (g->in_hand < cap) return g->left > 0 ? 0 : 1;
    return g->left > 0 ? 2 : 3;
}

static group *choose_group(group *groups, int32_t n, int32_t cap)
{
    group *best = NULL;

    for (int32_t i = 0; i < n; i++) {
        group *g = &groups[i];

        if (g->in_hand == g->size) continue;
        if (best != NULL) {
            int tier = group_tier(g, cap), best_tier = group_tier(best, cap);

            if (tier > best_tier) continue;
            if (tier == best_tier && (g->in_hand > best->in_hand ||
                                      (g->in_hand == best->in_hand && g->left <= best->left)))
                continue;
        }
        best = g;
    }
    return best;
}

static int32_t open_groups(pk_planner *p, draws *d, int32_t c)
{
    const pk_samples *s = p->samples;
    int32_t n = s->class_group[c + 1] - s->class_group[c];

    for (int32_t i = 0; i < n; i++) {
        int32_t start = s->group_start[s->class_group[c] + i];
        int32_t size = s->group_start[s->class_group[c] + i + 1] - start;

        for (int32_t j = 0; j < size; j++) p->shuffled[start + j] = start + j;
        shuffle(d, p->shuffled + start, size);
        p->groups[i] =
            (group){.start = start, .size = size, .left = size, .tie = sh_rng_bits(d->key, d->n++)};
    }
    qsort(p->groups, (size_t)n, sizeof(group), compare_groups);
    return n;
}

/* Cut class c (at least K samples) into hands; returns how many. out [hands, K] may be NULL. */
static int32_t cut_class(pk_planner *p, draws *d, int32_t c, int32_t *out)
{
    int32_t n_groups = open_groups(p, d, c);
    int32_t cap = n_groups > 1 ? (p->per_class + 1) / 2 : p->per_class;
    int32_t left = class_size(p, c), n_hands = 0;

    for (; left > 0; n_hands++) {
        for (int32_t i = 0; i < n_groups; i++) p->groups[i].in_hand = 0;
        for (int32_t k = 0; k < p->per_class; k++) {
            group *g = choose_group(p->groups, n_groups, cap);

            if (out != NULL)
                out[n_hands * p->per_class + k] = p->shuffled[g->start + g->cursor % g->size];
            g->cursor++;
            g->in_hand++;
            if (g->left > 0) {
                g->left--;
                left--;
            }
        }
    }
    return n_hands;
}

static void add_samples(pk_planner *p, int32_t *order, int32_t step, const int32_t *samples,
                        int32_t n)
{
    memcpy(order + step * p->batch + p->fill[step], samples, (size_t)n * sizeof(*samples));
    p->fill[step] += n;
}

/* Step 2 of the rules. Batches are `low` or, with one hand more, `high`; those that hold the class
 * already wait in `taken`. A class has at most `steps` hands, so `low` empties at most once for it.
 */
static void deal_hands(pk_planner *p, draws *d, int32_t *order)
{
    int32_t n_low = (int32_t)p->steps, n_high = 0;

    for (int32_t i = 0; i < n_low; i++) p->low[i] = i;
    for (int32_t i = 0; i < p->samples->n_classes; i++) {
        int32_t c = p->class_order[i];
        int32_t n_taken = 0, n_before = 0;

        for (int32_t h = p->hand_start[c]; h < p->hand_start[c + 1]; h++) {
            if (n_low == 0) {
                int32_t *t = p->low;

                p->low = p->high;
                p->high = t;
                n_low = n_high;
                n_high = 0;
                n_before = n_taken;
            }
            int32_t j = draw_below(d, n_low);
            int32_t step = p->low[j];

            p->low[j] = p->low[--n_low];
            p->taken[n_taken++] = step;
            add_samples(p, order, step, p->hands + (int64_t)h * p->per_class, p->per_class);
        }
        for (int32_t j = 0; j < n_taken; j++) {
            if (j < n_before)
                p->low[n_low++] = p->taken[j];
            else
                p->high[n_high++] = p->taken[j];
        }
    }
}

static void push_piece(pk_planner *p, int32_t c, int32_t start, int32_t size)
{
    p->pieces[c] = (piece){.start = start, .size = size, .next = p->piece_head[size]};
    p->piece_head[size] = c;
    p->piece_count[size]++;
}

static int32_t collect_pieces(pk_planner *p, draws *d)
{
    int32_t n = 0;

    for (int32_t size = 0; size < p->per_class; size++) {
        p->piece_head[size] = -1;
        p->piece_count[size] = 0;
    }
    for (int32_t i = 0; i < p->samples->n_classes; i++) {
        int32_t c = p->class_order[i];
        int32_t start = p->samples->class_start[c], size = class_size(p, c);

        if (size >= p->per_class) continue;
        for (int32_t j = 0; j < size; j++) p->shuffled[start + j] = start + j;
        shuffle(d, p->shuffled + start, size);
        push_piece(p, c, start, size);
        n++;
    }
    return n;
}

/* A random one of n pieces if it fits, else the largest that does, else the random one, to be
 * split. Random, because taking the large ones first would leave batches of nothing but single
 * samples. */
static int32_t pop_piece(pk_planner *p, draws *d, int32_t n, int32_t room)
{
    int32_t drawn = 1, i = draw_below(d, n);

    while (i >= p->piece_count[drawn]) i -= p->piece_count[drawn++];
    int32_t size = drawn < room ? drawn : room;

    while (size > 0 && p->piece_head[size] < 0) size--;
    if (size == 0) size = drawn;
    int32_t c = p->piece_head[size];

    p->piece_head[size] = p->pieces[c].next;
    p->piece_count[size]--;
    return c;
}

/* Step 3: short classes into the room that the hands left, batch after batch in random order. A
 * piece that is split goes on in a later batch, since this one is then full. */
static void deal_pieces(pk_planner *p, draws *d, int32_t *order)
{
    int32_t n = collect_pieces(p, d);

    for (int32_t i = 0; i < p->steps; i++) p->taken[i] = i;
    shuffle(d, p->taken, (int32_t)p->steps);
    for (int32_t i = 0; n > 0 && i < p->steps; i++) {
        int32_t step = p->taken[i];

        while (n > 0 && p->fill[step] < p->batch) {
            int32_t room = (int32_t)p->batch - p->fill[step];
            int32_t c = pop_piece(p, d, n, room);
            piece part = p->pieces[c];
            int32_t used = part.size < room ? part.size : room;

            add_samples(p, order, step, p->shuffled + part.start, used);
            if (used < part.size)
                push_piece(p, c, part.start + used, part.size - used);
            else
                n--;
        }
    }
}

/* The next class in turn that `step` does not hold yet; where it holds all, the next with fewer
 * than K samples in it. There is one: the sampler refuses fewer classes than places. */
static int32_t next_class(pk_planner *p, int32_t step, int32_t *turn)
{
    int32_t n_classes = p->samples->n_classes;

    for (int32_t tries = 0; tries < 2 * n_classes; tries++) {
        int32_t c = p->class_order[(*turn)++ % n_classes];

        if (p->class_stamp[c] != step) {
            p->class_stamp[c] = step;
            p->class_count[c] = 0;
            return c;
        }
        if (tries >= n_classes && p->class_count[c] < p->per_class) return c;
    }
    return -1;
}

static void count_class(pk_planner *p, int32_t step, int32_t c)
{
    if (p->class_stamp[c] != step) p->class_count[c] = 0;
    p->class_stamp[c] = step;
    p->class_count[c]++;
}

/* Step 4: repeats. Classes take turns in the epoch's random order. */
static void fill_rest(pk_planner *p, draws *d, int32_t *order)
{
    int32_t turn = 0;

    for (int32_t c = 0; c < p->samples->n_classes; c++) p->class_stamp[c] = -1;
    for (int32_t step = 0; step < p->steps; step++) {
        for (int32_t i = 0; i < p->fill[step]; i++)
            count_class(p, step, p->samples->class_of[order[step * p->batch + i]]);
        while (p->fill[step] < p->batch) {
            int32_t c = next_class(p, step, &turn);
            int32_t room = (int32_t)p->batch - p->fill[step];
            int32_t n = class_size(p, c), allowed = p->per_class - p->class_count[c];
            int32_t n_hands = p->hand_start[c + 1] - p->hand_start[c];
            const int32_t *from = p->shuffled + p->samples->class_start[c];

            if (n_hands > 0)
                from =
                    p->hands + (int64_t)(p->hand_start[c] + draw_below(d, n_hands)) * p->per_class;
            n = n < allowed ? n : allowed;
            n = n < room ? n : room;
            add_samples(p, order, step, from, n);
            p->class_count[c] += n;
        }
    }
}

int64_t pk_planner_steps(const pk_planner *planner)
{
    return planner->steps;
}

void pk_plan_epoch(pk_planner *p, uint64_t seed, uint64_t epoch, int32_t *order)
{
    draws d = {.key = sh_rng_make(seed, SH_RNG_SAMPLE, epoch, 0)};
    int32_t n_classes = p->samples->n_classes;

    memset(p->fill, 0, (size_t)p->steps * sizeof(*p->fill));
    for (int32_t c = 0; c < n_classes; c++) {
        p->class_order[c] = c;
        if (class_size(p, c) >= p->per_class)
            cut_class(p, &d, c, p->hands + (int64_t)p->hand_start[c] * p->per_class);
    }
    shuffle(&d, p->class_order, n_classes);
    deal_hands(p, &d, order);
    deal_pieces(p, &d, order);
    fill_rest(p, &d, order);
    for (int64_t step = 0; step < p->steps; step++)
        shuffle(&d, order + step * p->batch, (int32_t)p->batch);
}

/* Hands per class, and from them the number of steps of an epoch. */
static void count_steps(pk_planner *p)
{
    draws d = {.key = sh_rng_make(0, SH_RNG_SAMPLE, 0, 0)};
    int64_t short_samples = 0, most = 1;

    for (int32_t c = 0; c < p->samples->n_classes; c++) {
        int32_t hands = 0;

        if (class_size(p, c) >= p->per_class)
            hands = cut_class(p, &d, c, NULL);
        else
            short_samples += class_size(p, c);
        p->hand_start[c + 1] = p->hand_start[c] + hands;
        if (hands > most) most = hands;
    }
    int64_t slots = (int64_t)p->hand_start[p->samples->n_classes] * p->per_class + short_samples;
    int64_t steps = (slots + p->batch - 1) / p->batch;

    p->steps = steps > most ? steps : most;
}

static int32_t most_groups(const pk_samples *s)
{
    int32_t most = 1;

    for (int32_t c = 0; c < s->n_classes; c++)
        if (s->class_group[c + 1] - s->class_group[c] > most)
            most = s->class_group[c + 1] - s->class_group[c];
    return most;
}

sh_status pk_planner_create(const pk_samples *samples, int64_t batch, int per_class,
                            pk_planner **out)
{
    sh_status st = SH_OK;
    pk_planner *p = calloc(1, sizeof(*p));
    size_t n_classes = (size_t)samples->n_classes;

    SH_CHECK(p != NULL, SH_ERR_NO_MEMORY, "sampler");
    p->samples = samples;
    p->batch = batch;
    p->per_class = per_class;
    p->hand_start = calloc(n_classes + 1, sizeof(*p->hand_start));
    p->shuffled = calloc((size_t)samples->n, sizeof(*p->shuffled));
    p->groups = calloc((size_t)most_groups(samples), sizeof(*p->groups));
    p->pieces = calloc(n_classes, sizeof(*p->pieces));
    p->piece_head = calloc((size_t)per_class + 1, sizeof(*p->piece_head));
    p->piece_count = calloc((size_t)per_class + 1, sizeof(*p->piece_count));
    p->class_order = calloc(n_classes, sizeof(*p->class_order));
    p->class_stamp = calloc(n_classes, sizeof(*p->class_stamp));
    p->class_count = calloc(n_classes, sizeof(*p->class_count));
    SH_CHECK(p->hand_start && p->shuffled && p->groups && p->pieces && p->piece_head &&
                 p->piece_count && p->class_order && p->class_stamp,
             SH_ERR_NO_MEMORY, "sampler of %d samples", samples->n);
    count_steps(p);
    p->hands = calloc((size_t)p->hand_start[n_classes] * (size_t)per_class + 1, sizeof(*p->hands));
    p->fill = calloc((size_t)p->steps, sizeof(*p->fill));
    p->low = calloc((size_t)p->steps, sizeof(*p->low));
    p->high = calloc((size_t)p->steps, sizeof(*p->high));
    p->taken = calloc((size_t)p->steps, sizeof(*p->taken));
    SH_CHECK(p->hands && p->fill && p->low && p->high && p->taken, SH_ERR_NO_MEMORY,
             "plan of %lld steps", (long long)p->steps);
    *out = p;
    p = NULL;
out:
    pk_planner_destroy(&p);
    return st;
}

void pk_planner_destroy(pk_planner **planner)
{
    pk_planner *p = *planner;

    if (p == NULL) return;
    free(p->hand_start);
    free(p->hands);
    free(p->shuffled);
    free(p->groups);
    free(p->fill);
    free(p->low);
    free(p->high);
    free(p->taken);
    free(p->pieces);
    free(p->piece_head);
    free(p->piece_count);
    free(p->class_order);
    free(p->class_stamp);
    free(p->class_count);
    free(p);
    *planner = NULL;
}
