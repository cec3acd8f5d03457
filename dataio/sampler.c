// SPDX-License-Identifier: Apache-2.0
#include "dataio/sampler.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "dataio/sampler_pk.h"

enum { N_PLANS = 2, SLOT_BITS = 24 };

typedef struct sample {
    int64_t crop;
    int32_t individual, side, recording; /* sort keys; side 0 where it is no class of its own */
    int32_t label, fish;
} sample;

/* The order of one epoch, kept because its steps will be asked for one after another. */
typedef struct epoch_plan {
    int64_t epoch; /* -1: empty */
    uint64_t used; /* the larger, the later */
    int32_t *order;
} epoch_plan;

struct sh_sampler {
    sh_sampler_config config;
    sample *samples; /* [pk.n] sorted: individual, side, recording, crop */
    int32_t n_fish;
    int32_t *class_of, *class_start, *class_group, *group_start;
    int32_t *fish_start; /* [n_fish + 1] into samples */
    pk_samples pk;
    pk_planner *planner; /* PK only */
    int64_t epoch_slots, steps;

    pthread_mutex_t lock; /* guards all below, and the planner's scratch */
    epoch_plan plans[N_PLANS];
    uint64_t n_uses;
    int64_t *shuffled; /* EPOCH: [n] scratch */
};

static int compare_samples(const void *a, const void *b)
{
    const sample *x = a, *y = b;

    if (x->individual != y->individual) return x->individual < y->individual ? -1 : 1;
    if (x->side != y->side) return x->side < y->side ? -1 : 1;
    if (x->recording != y->recording) return x->recording < y->recording ? -1 : 1;
    return (x->crop > y->crop) - (x->crop < y->crop);
}

static sh_status collect_samples(sh_sampler *s, const sh_dataset *dataset, const sh_split *split,
                                 sh_part part)
{
    sh_status st = SH_OK;
    int64_t n = 0, n_crops = sh_dataset_n_crops(dataset);

    SH_CHECK(split->n == n_crops, SH_ERR_MISMATCH, "split of %lld crops for a dataset of %lld",
             (long long)split->n, (long long)n_crops);
    SH_CHECK(n_crops < INT32_MAX, SH_ERR_UNSUPPORTED,
             "%lld crops: the sampler takes up to 2^31 - 2", (long long)n_crops);
    s->samples = calloc((size_t)n_crops + 1, sizeof(*s->samples));
    SH_CHECK(s->samples != NULL, SH_ERR_NO_MEMORY, "sampler of %lld crops", (long long)n_crops);
    for (int64_t i = 0; i < n_crops; i++) {
        const sh_crop *crop = sh_dataset_crop(dataset, i);

        if (split->part[i] != part) continue;
        if (crop->individual < 0 && s->config.sampling != SH_SAMPLING_EPOCH) continue;
        s->samples[n++] = (sample){.crop = i,
                                   .individual = crop->individual,
                                   .side = s->config.side_is_class ? (int32_t)crop->side : 0,
                                   .recording = crop->recording};
    }
    qsort(s->samples, (size_t)n, sizeof(*s->samples), compare_samples);
    s->pk.n = (int32_t)n;
out:
    return st;
}

/* Number classes, fish and runs of one recording densely, and note where each starts. */
static sh_status number_samples(sh_sampler *s)
{
    sh_status st = SH_OK;
    int32_t n = s->pk.n, n_classes = 0, n_groups = 0;
    size_t size = (size_t)n + 1;

    s->class_of = calloc(size, sizeof(int32_t));
    s->class_start = calloc(size, sizeof(int32_t));
    s->class_group = calloc(size, sizeof(int32_t));
    s->group_start = calloc(size, sizeof(int32_t));
    s->fish_start = calloc(size, sizeof(int32_t));
    SH_CHECK(s->class_of && s->class_start && s->class_group && s->group_start && s->fish_start,
             SH_ERR_NO_MEMORY, "sampler of %d samples", n);
    for (int32_t i = 0; i < n; i++) {
        sample *x = &s->samples[i];
        const sample *before = i > 0 ? x - 1 : NULL;
        bool new_fish = before == NULL || before->individual != x->individual;
        bool new_class = new_fish || before->side != x->side;

        if (new_fish && x->individual >= 0) s->fish_start[s->n_fish++] = i;
        if (new_class || before->recording != x->recording) s->group_start[n_groups++] = i;
        if (new_class) {
            s->class_group[n_classes] = n_groups - 1;
            s->class_start[n_classes++] = i;
        }
        /* Unlabelled crops (EPOCH only) sort first; they take no class number. */
        x->fish = x->individual >= 0 ? s->n_fish - 1 : SH_NO_LABEL;
        s->class_of[i] = n_classes - 1;
    }
    s->class_start[n_classes] = n;
    s->class_group[n_classes] = n_groups;
    s->group_start[n_groups] = n;
    s->fish_start[s->n_fish] = n;

    int32_t unlabelled = 0;

    while (unlabelled < n_classes && s->samples[s->class_start[unlabelled]].individual < 0)
        unlabelled++;
    for (int32_t i = 0; i < n; i++)
        s->samples[i].label =
            s->class_of[i] < unlabelled ? SH_NO_LABEL : s->class_of[i] - unlabelled;
    s->pk = (pk_samples){.n = n,
                         .n_classes = n_classes,
                         .class_of = s->class_of,
                         .class_start = s->class_start,
                         .class_group = s->class_group,
                         .group_start = s->group_start};
out:
    return st;
}

static sh_status check_config(const sh_sampler_config *c, const sh_sampler *s, sh_part part)
{
    sh_status st = SH_OK;

    SH_CHECK(c->batch > 0 && c->batch < 1 << SLOT_BITS, SH_ERR_USAGE, "a batch of %lld",
             (long long)c->batch);
    SH_CHECK(s->pk.n > 0, SH_ERR_USAGE,
             "the %s part has no usable crop: check the split, the labels and min_side",
             sh_part_name(part));
    if (c->sampling == SH_SAMPLING_EPOCH) goto out;
    SH_CHECK(s->n_fish >= 2, SH_ERR_USAGE,
             "the %s part has %d crops of %d individual: telling fish apart takes at least two",
             sh_part_name(part), s->pk.n, s->n_fish);
    if (c->sampling == SH_SAMPLING_PAIRS) {
        SH_CHECK(c->batch % 2 == 0, SH_ERR_USAGE, "a batch of %lld cannot be made of pairs",
                 (long long)c->batch);
        goto out;
    }
    int64_t places = c->images_per_individual >= 1 ? c->batch / c->images_per_individual : 0;

    SH_CHECK(places >= 2 && places * c->images_per_individual == c->batch, SH_ERR_USAGE,
             "a batch of %lld is not P * K with P >= 2 and K = %d images per individual",
             (long long)c->batch, c->images_per_individual);
    SH_CHECK(places <= s->pk.n_classes, SH_ERR_USAGE,
             "batches of %lld individuals, but the %s part has %d: ask for fewer",
             (long long)places, sh_part_name(part), s->pk.n_classes);
out:
    return st;
}

/* Steps of an epoch, and memory for the plans of two, so that planning a step cannot fail. */
static sh_status prepare_epochs(sh_sampler *s)
{
    sh_status st = SH_OK;
    int64_t n = s->pk.n, batch = s->config.batch;

    switch (s->config.sampling) {
    case SH_SAMPLING_PK:
        SH_TRY(pk_planner_create(&s->pk, batch, s->config.images_per_individual, &s->planner));
        s->steps = pk_planner_steps(s->planner);
        s->epoch_slots = s->steps * batch;
        break;
    case SH_SAMPLING_EPOCH:
        s->steps = (n + batch - 1) / batch;
        s->epoch_slots = n;
        s->shuffled = calloc((size_t)n, sizeof(*s->shuffled));
        SH_CHECK(s->shuffled != NULL, SH_ERR_NO_MEMORY, "epoch of %lld", (long long)n);
        break;
    case SH_SAMPLING_PAIRS: s->steps = (n + batch / 2 - 1) / (batch / 2); goto out;
    }
    for (int i = 0; i < N_PLANS; i++) {
        s->plans[i].epoch = -1;
        s->plans[i].order = calloc((size_t)s->epoch_slots, sizeof(int32_t));
        SH_CHECK(s->plans[i].order != NULL, SH_ERR_NO_MEMORY, "plan of an epoch of %lld slots",
                 (long long)s->epoch_slots);
    }
out:
    return st;
}

sh_status sh_sampler_create(const sh_sampler_config *config, const sh_dataset *dataset,
                            const sh_split *split, sh_part part, sh_sampler **out)
{
    sh_status st = SH_OK;
    sh_sampler *s = calloc(1, sizeof(*s));

    SH_CHECK(s != NULL, SH_ERR_NO_MEMORY, "sampler");
    s->config = *config;
    pthread_mutex_init(&s->lock, NULL);
    SH_TRY(collect_samples(s, dataset, split, part));
    SH_TRY(number_samples(s));
    SH_TRY(check_config(config, s, part));
    SH_TRY(prepare_epochs(s));
    *out = s;
    s = NULL;
out:
    sh_sampler_destroy(&s);
    return st;
}

void sh_sampler_destroy(sh_sampler **sampler)
{
    sh_sampler *s = *sampler;

    if (s == NULL) return;
    pk_planner_destroy(&s->planner);
    for (int i = 0; i < N_PLANS; i++) free(s->plans[i].order);
    pthread_mutex_destroy(&s->lock);
    free(s->shuffled);
    free(s->samples);
    free(s->class_of);
    free(s->class_start);
    free(s->class_group);
    free(s->group_start);
    free(s->fish_start);
    free(s);
    *sampler = NULL;
}

int64_t sh_sampler_steps_per_epoch(const sh_sampler *sampler)
{
    return sampler->steps;
}

int64_t sh_sampler_repeats_per_epoch(const sh_sampler *sampler)
{
    return sampler->config.sampling == SH_SAMPLING_PK ? sampler->epoch_slots - sampler->pk.n : 0;
}

int64_t sh_sampler_n_samples(const sh_sampler *sampler)
{
    return sampler->pk.n;
}

int sh_sampler_n_classes(const sh_sampler *sampler)
{
    int32_t last = sampler->samples[sampler->pk.n - 1].label; /* labels ascend */

    return last < 0 ? 0 : last + 1;
}

/* Runs of unlabelled crops come first. */
static const int32_t *start_of_class(const sh_sampler *sampler, int label)
{
    int32_t n_unlabelled = sampler->pk.n_classes - sh_sampler_n_classes(sampler);

    return sampler->class_start + n_unlabelled + label;
}

int64_t sh_sampler_class_size(const sh_sampler *sampler, int label)
{
    const int32_t *start = start_of_class(sampler, label);

    return start[1] - start[0];
}

int32_t sh_sampler_class_fish(const sh_sampler *sampler, int label)
{
    return sampler->samples[*start_of_class(sampler, label)].fish;
}

int64_t sh_sampler_class_crop(const sh_sampler *sampler, int label)
{
    return sampler->samples[*start_of_class(sampler, label)].crop;
}

bool sh_sampler_sides_are_classes(const sh_sampler *sampler)
{
    return sampler->config.side_is_class;
}

/* With the lock held. */
static const int32_t *epoch_order(sh_sampler *s, int64_t epoch)
{
    epoch_plan *plan = &s->plans[0];

    for (int i = 0; i < N_PLANS; i++) {
        if (s->plans[i].epoch == epoch) {
            plan = &s->plans[i];
            break;
        }
        if (s->plans[i].used < plan->used) plan = &s->plans[i];
    }
    plan->used = ++s->n_uses;
    if (plan->epoch == epoch) return plan->order;
    plan->epoch = epoch;
    if (s->planner != NULL) {
        pk_plan_epoch(s->planner, s->config.seed, (uint64_t)epoch, plan->order);
    } else {
        for (int32_t i = 0; i < s->pk.n; i++) s->shuffled[i] = i;
        sh_rng_shuffle(sh_rng_make(s->config.seed, SH_RNG_SAMPLE, (uint64_t)epoch, 0), s->shuffled,
                       s->pk.n);
        for (int32_t i = 0; i < s->pk.n; i++) plan->order[i] = (int32_t)s->shuffled[i];
    }
    return plan->order;
}

static void fill_slot(const sh_sampler *s, int32_t sample_index, int64_t step, int64_t slot,
                      sh_slot_plan *out)
{
    const sample *x = &s->samples[sample_index];

    *out = (sh_slot_plan){.crop = x->crop,
                          .label = x->label,
                          .fish = x->fish,
                          .draw = ((uint64_t)step << SLOT_BITS) + (uint64_t)slot};
}

/* Facts: harveyslash's siamese network; drawing until the class fits is drawing among those that
 * fit. Opposite sides of one fish are never "different", so that draw leaves out the whole fish. */
static void plan_pairs(const sh_sampler *s, int64_t step, sh_slot_plan *slots)
{
    for (int64_t i = 0; i < s->config.batch / 2; i++) {
        sh_rng_key key = sh_rng_make(s->config.seed, SH_RNG_PAIR, (uint64_t)step, (uint64_t)i);
        int32_t first = (int32_t)sh_rng_below(key, 0, (uint64_t)s->pk.n), second;

        if (sh_rng_below(key, 1, 2) == 0) {
            const int32_t *range = s->class_start + s->class_of[first];

            second = range[0] + (int32_t)sh_rng_below(key, 2, (uint64_t)(range[1] - range[0]));
        } else {
            const int32_t *range = s->fish_start + s->samples[first].fish;
            int32_t size = range[1] - range[0];

            second = (int32_t)sh_rng_below(key, 2, (uint64_t)(s->pk.n - size));
            if (second >= range[0]) second += size;
        }
        fill_slot(s, first, step, 2 * i, &slots[2 * i]);
        fill_slot(s, second, step, 2 * i + 1, &slots[2 * i + 1]);
    }
}

void sh_sampler_plan(const sh_sampler *sampler, int64_t step, sh_slot_plan *slots)
{
    sh_sampler *s = (sh_sampler *)sampler; /* the cached plans are no part of what it means */
    int64_t batch = s->config.batch;

    if (s->config.sampling == SH_SAMPLING_PAIRS) {
        plan_pairs(s, step, slots);
        return;
    }
    pthread_mutex_lock(&s->lock);
    for (int64_t slot = 0; slot < batch;) {
        int64_t at = step * batch + slot;
        int64_t within = at % s->epoch_slots;
        const int32_t *order = epoch_order(s, at / s->epoch_slots);

        for (; slot < batch && within < s->epoch_slots; slot++, within++)
            fill_slot(s, order[within], step, slot, &slots[slot]);
    }
    pthread_mutex_unlock(&s->lock);
}
