// SPDX-License-Identifier: Apache-2.0
#include "trainer/config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IMAGES_PER_SHARD = 32 }; /* default on CPUs; design: the unit of BatchNorm statistics */

static const char *const tasks[] = {"identify", "classify", NULL};
static const char *const fits[] = {"letterbox", "stretch", "cover", NULL};
static const char *const dtypes[] = {"f32", "bf16", NULL};
static const char *const devices[] = {"auto", "cpu", "ref", "cuda", NULL};
static const char *const reductions[] = {"exact", "fast", NULL};
static const char *const transports[] = {"auto", "mpi", "nccl", NULL};
static const char *const passes[] = {"auto", "one", "two", NULL};
static const char *const split_rules[] = {"individual", "recording", "time",
                                          "random",     "column",    NULL};
static const char *const samplings[] = {"pk", "epoch", "pairs", NULL};
/* In the order of sh_loss_kind, then those of classification: config_loss.c. */
static const char *const losses[] = {
    "semi_hard",     "batch_hard", "algorithm1",       "batch_all", "contrastive",
    "pml_semi_hard", "pml_hard",   "multi_similarity", "nt_xent",   "contrastive_all",
    "cross_entropy", "arcface",    "sub_arcface",      NULL};
static const char *const class_weights[] = {"none", "balanced", NULL};
static const char *const pools[] = {"net", "avg", "gem", "flatten", "token", NULL};
static const char *const activations[] = {"none", "relu", "relu6", "sigmoid",
                                          "tanh", "silu", "gelu",  NULL};
static const char *const distances[] = {"euclidean", "squared", "cosine", NULL};
static const char *const side_rules[] = {"merged", "classes", NULL};
static const char *const optimizers[] = {"sgd", "adam", "adamw", NULL};
static const char *const bad_steps[] = {"stop", "skip", "back", NULL};
static const char *const schedules[] = {"constant", "step", "cosine", NULL};

#define AT(field) offsetof(sh_config, field)
#define CHOICE(key, field, fallback, resume, list, help)                                           \
    {                                                                                              \
        key, SH_OPT_CHOICE, AT(field), fallback, resume, 0, 0, list, "", help                      \
    }
#define NUMBER(key, type, field, fallback, resume, min, max, unit, help)                           \
    {                                                                                              \
        key, type, AT(field), fallback, resume, min, max, NULL, unit, help                         \
    }
#define INT(key, field, fallback, resume, min, max, unit, help)                                    \
    NUMBER(key, SH_OPT_INT, field, fallback, resume, min, max, unit, help)
#define REAL(key, field, fallback, resume, min, max, unit, help)                                   \
    NUMBER(key, SH_OPT_REAL, field, fallback, resume, min, max, unit, help)
#define PLAIN(key, type, field, fallback, resume, help)                                            \
    {                                                                                              \
        key, type, AT(field), fallback, resume, 0, 0, NULL, "", help                               \
    }

#define STAGE_ROW(n, type, field, key, fallback, min, max, unit, help)                             \
    {                                                                                              \
        "stages." #n "." key, type, AT(stages[n].field), fallback, SH_FIXED, min, max, NULL, unit, \
            help                                                                                   \
    }
/* clang-format off */
#define STAGE(n)                                                                                   \
    STAGE_ROW(n, SH_OPT_TEXT, name, "name", "", 0, 0, "", "stages of one training, 0 to 3; in YAML a list: stages: [{name: head, steps: 500, freeze: [\"features.*\"]}, {name: all, lr: 0.0001}]"), \
    STAGE_ROW(n, SH_OPT_INT, steps, "steps", "0", 0, 1e12, "steps", "length of this stage; 0, of the last one: to the end of the run"), \
    STAGE_ROW(n, SH_OPT_LIST, freeze, "freeze", "", 0, 0, "", "frozen in this stage besides `freeze`; !PATTERN takes back"), \
    STAGE_ROW(n, SH_OPT_REAL, lr, "lr", "0", 0, 100, "", "peak learning rate; 0: optimizer.lr. The schedule starts anew with each stage"), \
    STAGE_ROW(n, SH_OPT_BOOL, fresh_optimizer, "fresh_optimizer", "true", 0, 0, "", "begin with moments of 0; false: they go on"), \
    STAGE_ROW(n, SH_OPT_BOOL, shallow, "shallow", "false", 0, 0, "", "train on features of the frozen network that are computed once: see shallow.views")

static const sh_option rows[] = {
    CHOICE("task", task, "identify", SH_FIXED, tasks, "identify: embeddings that tell any fish apart; classify: the fish of the training part (a loss over classes; their weights stay in the model, and eval scores known individuals)"),
    PLAIN("data", SH_OPT_LIST, data, "", SH_FREE, "pack or packs to train on; on resume the content must be the same, the place may change"),
    PLAIN("net", SH_OPT_TEXT, net, "mobilenet_v2", SH_FIXED, "network by its public name (resnet50, inception_v3, ...); an unknown one is refused with the list, which models/zoo/README.md describes"),
    PLAIN("init", SH_OPT_TEXT, init, "", SH_FIXED, "weights to start from: a file (safetensors, .pth, Keras .h5), a shared backbone's folder, or the name that `shoal import` stored one under; none: random"),
    PLAIN("size", SH_OPT_TEXT, size, "128", SH_FIXED, "input size in pixels: one number, or HEIGHTxWIDTH"),
    CHOICE("fit", fit, "letterbox", SH_FIXED, fits, "how a crop is brought to size"),
    INT("min_side", min_side, "0", SH_FIXED, 0, 16384, "pixels", "crops with a shorter side are left out of training; 0 keeps all"),
    PLAIN("freeze", SH_OPT_LIST, freeze, "", SH_FIXED, "patterns of parameter names that are not trained: * is any characters; !PATTERN takes back, later ones win; frozen batch norms use their running statistics"),
    INT("steps", steps, "0", SH_FREE, 0, 1e12, "steps", "stop after this many steps; 0: no limit"),
    REAL("minutes", minutes, "0", SH_FREE, 0, 1e7, "minutes", "stop after this much training time, counted across restarts; 0: no limit"),
    INT("shards", shards, "0", SH_FIXED, 0, 65536, "shards", "parts of a batch: unit of BatchNorm statistics and of the gradient sum; at least the number of ranks; 0: batch / 32, rounded up"),
    INT("threads", threads, "0", SH_FREE, 0, 4096, "threads per rank", "compute threads; 0: granted cores / ranks on the host; another number ends byte identity"),
    INT("ranks", ranks, "0", SH_FREE, 0, 1e6, "ranks", "refuse to start with another number of ranks; 1 allows single processes under a launcher; 0: any"),
    INT("seed", seed, "1", SH_FIXED, 0, 9e15, "", "seed of every random draw"),
    CHOICE("dtype", dtype, "f32", SH_FIXED, dtypes, "storage of activations; weights, statistics and losses are always f32"),
    CHOICE("device", device, "auto", SH_FREE, devices, "where the network runs; auto: on a GPU that can be used, else on the CPU; a device that was named and cannot be had is an error"),
    CHOICE("reduce", reduce, "exact", SH_FIXED, reductions, "exact: the same bits on any number of ranks; fast: plain all-reduce"),
    CHOICE("transport", transport, "auto", SH_FREE, transports, "how the gradients of several GPUs travel: nccl, from one to the other; mpi, through the memory of the hosts; auto: nccl where it is in the build and each rank has a GPU of its own"),
    CHOICE("passes", passes, "auto", SH_FREE, passes, "mined batch in one pass (activations of all shards kept) or two (recomputed); the bytes are equal"),
    PLAIN("same_hardware", SH_OPT_BOOL, same_hardware, "true", SH_FREE, "refuse ranks whose processor or libraries differ; false: only warn"),
    PLAIN("retune", SH_OPT_BOOL, retune, "false", SH_FREE, "a resume on a device measures its kernels again instead of taking those of the run (kernels.txt); byte identity ends where others are chosen"),
    PLAIN("deterministic", SH_OPT_BOOL, deterministic, "true", SH_FIXED, "on a GPU: kernels that give the same bytes each time; off: any, the fastest, so that a run cannot be repeated byte for byte. CPUs always repeat"),
    PLAIN("graphs", SH_OPT_BOOL, graphs, "true", SH_FREE, "on a GPU, from its second step on, launch the kernels of a step, and of a block of crops to embed, as CUDA graphs; false: one by one. The bytes are the same"),
    CHOICE("split.by", split.by, "individual", SH_FIXED, split_rules, "rule of the split; random leaks near-duplicates and is stamped so"),
    REAL("split.test", split.test, "0.2", SH_FIXED, 0, 0.95, "share", "held out for the final score"),
    REAL("split.val", split.val, "0.15", SH_FIXED, 0, 0.95, "share", "held out for checkpoint choice and thresholds"),
    INT("split.seed", split.seed, "1", SH_FIXED, 0, 9e15, "", "seed of the split alone"),
    INT("split.fold", split.fold, "0", SH_FIXED, 0, 1e6, "", "which fold tests, from 0, where split.folds > 0"),
    INT("split.folds", split.folds, "0", SH_FIXED, 0, 1e6, "folds", "deal the units to folds so that each tests once; 0: use split.test"),
    CHOICE("sampling.kind", sampling.kind, "pk", SH_FIXED, samplings, "pk: individuals x images; epoch: every image once an epoch; pairs: for the contrastive loss"),
    INT("sampling.individuals", sampling.individuals, "8", SH_FIXED, 1, 1e6, "individuals", "P: individuals per batch"),
    INT("sampling.images", sampling.images, "8", SH_FIXED, 1, 1e6, "images", "K: images per individual"),
    INT("sampling.batch", sampling.batch, "64", SH_FIXED, 2, 1e7, "images", "rows per batch where sampling.kind is pairs or epoch"),
    INT("loader.threads", loader.threads, "0", SH_FREE, 0, 4096, "threads per rank", "decoding threads; 0: as many as compute threads"),
    INT("loader.cache_mb", loader.cache_mb, "-1", SH_FREE, -1, 1e7, "MB per rank", "memory for decoded crops, which are kept until it is full; 0: none are kept; -1: a quarter of the host's memory, shared by its ranks"),
    PLAIN("loader.copy_to", SH_OPT_TEXT, loader.copy_to, "", SH_FREE, "folder on a disk of each node (/scratch, or $TMPDIR: a variable that the job has): packs are copied there, checked, and read from there while ranks of the node need them; none: read where they lie"),
    REAL("augment.rotate", augment.rotate, "10", SH_FIXED, 0, 180, "degrees", "random rotation, +-"),
    REAL("augment.shift", augment.shift, "0.05", SH_FIXED, 0, 1, "of the side", "random shift, +-"),
    REAL("augment.scale", augment.scale, "0.1", SH_FIXED, 0, 0.9, "factor", "random zoom, 1 +- this"),
    REAL("augment.brightness", augment.brightness, "0.2", SH_FIXED, 0, 1, "factor", "random brightness, 1 +- this"),
    REAL("augment.contrast", augment.contrast, "0.2", SH_FIXED, 0, 1, "factor", "random contrast, 1 +- this"),
    REAL("augment.saturation", augment.saturation, "0.1", SH_FIXED, 0, 1, "factor", "random saturation, 1 +- this"),
    REAL("augment.hue", augment.hue, "0", SH_FIXED, 0, 180, "degrees", "random hue, +-"),
    REAL("augment.flip", augment.flip, "0", SH_FIXED, 0, 1, "probability", "horizontal flip; refused where it would turn one side into the other"),
    REAL("augment.flip_vertical", augment.flip_vertical, "0", SH_FIXED, 0, 1, "probability", "vertical flip; refused where it would turn one side into the other"),
    REAL("augment.erase", augment.erase, "0", SH_FIXED, 0, 1, "probability", "one erased rectangle of 2 to 20 % of the area"),
    INT("shallow.views", shallow.views, "0", SH_FIXED, 0, 1000, "views", "shallow training: compute the features of a frozen network once, for so many views of each crop, and train the head on them; 1: the crop as it is, with no augment.*; more: the others are drawn from augment.*, once; 0: not shallow. In a run with stages, those with shallow=true"),
    PLAIN("tap", SH_OPT_TEXT, tap, "", SH_FIXED, "stage at which the network is cut, by its public name (features.7, layer3, Mixed_6b); an unknown one is refused with the list; none: the whole network"),
    CHOICE("embedding.pool", embedding.pool, "net", SH_FIXED, pools, "how a feature map becomes features; net: as the network does, at a tap the average; flatten ties the weights to the size"),
    PLAIN("embedding.hidden", SH_OPT_LIST, embedding.hidden, "", SH_FIXED, "units of dense layers before the embedding layer"),
    CHOICE("embedding.act", embedding.act, "relu", SH_FIXED, activations, "activation of those layers"),
    INT("embedding.dim", embedding.dim, "128", SH_FIXED, 0, 65536, "numbers", "size of the embedding; 0: the features as they are"),
    PLAIN("embedding.bn_neck", SH_OPT_BOOL, embedding.bn_neck, "false", SH_FIXED, "batch norm behind the embedding layer (freeze neck.bias for the one without shift)"),
    PLAIN("embedding.normalize", SH_OPT_BOOL, embedding.normalize, "true", SH_FIXED, "scale embeddings to length 1"),
    REAL("embedding.dropout", embedding.dropout, "0", SH_FIXED, 0, 0.99, "rate", "dropout before the first dense layer"),
    INT("embedding.views", embedding.views, "1", SH_FIXED, 1, 4, "views", "in use, not in training, the mean embedding of 1: the crop; 2: and its mirror image; 4: and both upside down. Left and right sides then look alike"),
    CHOICE("loss.kind", loss.kind, "semi_hard", SH_FIXED, losses, "loss and mining, over the whole global batch"),
    CHOICE("loss.distance", loss.distance, "euclidean", SH_FIXED, distances, "distance of the loss; multi_similarity and nt_xent always take cosines"),
    REAL("loss.margin", loss.margin, "0.2", SH_FIXED, 0, 100, "distance", "margin of the loss; arcface and sub_arcface: an angle in radians (0.5 is common)"),
    PLAIN("loss.soft", SH_OPT_BOOL, loss.soft, "false", SH_FIXED, "log(1 + exp(.)) instead of a hard margin"),
    REAL("loss.alpha", loss.alpha, "2", SH_FIXED, 1e-3, 300, "", "multi_similarity: exponent of positives"),
    REAL("loss.beta", loss.beta, "50", SH_FIXED, 1e-3, 300, "", "multi_similarity: exponent of negatives"),
    REAL("loss.base", loss.base, "0.5", SH_FIXED, -1, 1, "cosine", "multi_similarity: similarity around which pairs count"),
    REAL("loss.epsilon", loss.epsilon, "0.1", SH_FIXED, 0, 2, "cosine", "multi_similarity: slack of its miner; 2 takes all pairs"),
    REAL("loss.temperature", loss.temperature, "0.07", SH_FIXED, 1e-3, 100, "cosine", "nt_xent: similarities are divided by it"),
    REAL("loss.scale", loss.scale, "30", SH_FIXED, 0.01, 1000, "", "arcface, sub_arcface: cosines are multiplied by it"),
    INT("loss.centres", loss.centres, "3", SH_FIXED, 1, 100, "centres", "sub_arcface: centres of a class"),
    REAL("loss.smoothing", loss.smoothing, "0", SH_FIXED, 0, 0.99, "share", "classification: label smoothing"),
    CHOICE("loss.class_weights", loss.class_weights, "none", SH_FIXED, class_weights, "classification; balanced: each class counts as much, however many images it has"),
    REAL("loss.classification", loss.classification, "0", SH_FIXED, 0, 1000, "weight", "cross-entropy added to a loss over embeddings, which then stands before embedding.bn_neck, the cross-entropy behind it; 0: none"),
    CHOICE("loss.sides", loss.sides, "merged", SH_FIXED, side_rules, "merged: an individual is one class; classes: left and right are classes of their own, never negatives of each other"),
    CHOICE("optimizer.kind", optimizer.kind, "adam", SH_FIXED, optimizers, "optimizer"),
    REAL("optimizer.lr", optimizer.lr, "0.0003", SH_FIXED, 0, 100, "", "peak learning rate"),
    REAL("optimizer.momentum", optimizer.momentum, "0.9", SH_FIXED, 0, 0.9999, "", "momentum of sgd"),
    REAL("optimizer.beta1", optimizer.beta1, "0.9", SH_FIXED, 0, 0.99999, "", "first moment's decay of adam and adamw"),
    REAL("optimizer.beta2", optimizer.beta2, "0.999", SH_FIXED, 0, 0.999999, "", "second moment's decay of adam and adamw"),
    REAL("optimizer.eps", optimizer.eps, "1e-08", SH_FIXED, 0, 1, "", "epsilon of adam and adamw"),
    REAL("optimizer.weight_decay", optimizer.weight_decay, "0", SH_FIXED, 0, 10, "", "weight decay; never on BN and biases"),
    REAL("optimizer.clip_norm", optimizer.clip_norm, "0", SH_FIXED, 0, 1e9, "norm", "clip the gradient to this global norm; 0: off"),
    REAL("optimizer.ema", optimizer.ema, "0", SH_FIXED, 0, 0.999999, "decay", "exponential moving average of the weights, used for scores and the result; 0: off"),
    PLAIN("optimizer.lr_scale", SH_OPT_LIST, optimizer.lr_scale, "", SH_FIXED, "PATTERN=FACTOR: learning rate of the parameters whose names match, as a share of optimizer.lr; later ones win"),
    CHOICE("schedule.kind", schedule.kind, "constant", SH_FIXED, schedules, "learning rate over steps; cosine falls to schedule.min_lr at `steps`"),
    INT("schedule.warmup_steps", schedule.warmup_steps, "0", SH_FIXED, 0, 1e12, "steps", "linear rise from 0"),
    INT("schedule.every_steps", schedule.every_steps, "1000", SH_FIXED, 1, 1e12, "steps", "step: multiply by schedule.factor every so many steps"),
    REAL("schedule.factor", schedule.factor, "0.1", SH_FIXED, 0, 1, "factor", "see schedule.every_steps"),
    REAL("schedule.min_lr", schedule.min_lr, "0", SH_FIXED, 0, 100, "", "where cosine ends"),
    INT("validate.every_steps", validate.every_steps, "0", SH_FIXED, 0, 1e12, "steps", "score the validation part; the best step becomes the result; 0: only at the end"),
    INT("validate.patience", validate.patience, "0", SH_FIXED, 0, 1e6, "validations", "stop after so many without a better score; 0: never"),
    REAL("validate.false_match_rate", validate.false_match_rate, "0.01", SH_FREE, 1e-6, 0.5, "rate", "operating threshold: chosen on validation individuals at this rate"),
    INT("checkpoint.every_steps", checkpoint.every_steps, "0", SH_FREE, 0, 1e12, "steps", "write a checkpoint every so many steps; 0: by time"),
    REAL("checkpoint.every_minutes", checkpoint.every_minutes, "2", SH_FREE, 0.01, 1e5, "minutes", "write a checkpoint this often where checkpoint.every_steps is 0"),
    INT("checkpoint.keep", checkpoint.keep, "2", SH_FREE, 1, 1000, "checkpoints", "newest ones kept"),
    INT("log.every_steps", log.every_steps, "1", SH_FREE, 1, 1e9, "steps", "a line in metrics.jsonl every so many steps"),
    CHOICE("on_bad_step", on_bad_step, "stop", SH_FREE, bad_steps, "where loss, embedding or gradient is not finite, or the norm too large: stop with the place; skip: leave the step out, also in replays; back: leave it out and begin again at the newest checkpoint"),
    REAL("bad_norm", bad_norm, "0", SH_FREE, 0, 1e30, "norm", "a step whose gradient has a larger norm, before clipping, is bad; 0: any norm that is finite is good"),
    PLAIN("watchdog.enabled", SH_OPT_BOOL, watchdog.enabled, "true", SH_FREE, "end all ranks with exit code 76, naming the one to blame, when a rank is gone, lost or stuck (docs/faults.md)"),
    REAL("watchdog.lost_seconds", watchdog.lost_seconds, "7.5", SH_FREE, 2, 1e5, "seconds", "a rank without a sign of life for this long is lost"),
    REAL("watchdog.compute_seconds", watchdog.compute_seconds, "60", SH_FREE, 0, 1e6, "seconds", "a rank that computes is stuck when no node of its program ends for this long; 0: never"),
    REAL("watchdog.collective_seconds", watchdog.collective_seconds, "60", SH_FREE, 0, 1e6, "seconds", "all ranks wait for each other, and none gets on; 0: never"),
    REAL("watchdog.files_seconds", watchdog.files_seconds, "300", SH_FREE, 0, 1e6, "seconds", "a rank that waits for storage is stuck when nothing arrives for this long; 0: never"),
    STAGE(0),
    STAGE(1),
    STAGE(2),
    STAGE(3),
};
/* clang-format on */

const sh_option_table *sh_config_options(void)
{
    static const sh_option_table table = {rows, SH_COUNT(rows), "shoal train --help"};

    return &table;
}

/* Steps of all stages; 0 where the last one has no end of its own. */
static int64_t steps_of_stages(const sh_config *c)
{
    int64_t sum = 0;
    int n = sh_config_n_stages(c);

    for (int i = 0; i < n; i++) sum += c->stages[i].steps;
    return n > 0 && c->stages[n - 1].steps > 0 ? sum : 0;
}

sh_status sh_config_load(const char *yaml_path, const char *const *assignments, int n_assignments,
                         sh_config *out)
{
    sh_status st = SH_OK;
    const sh_option_table *table = sh_config_options();

    memset(out, 0, sizeof(*out));
    SH_TRY(sh_options_defaults(table, out));
    if (yaml_path != NULL) SH_TRY(sh_options_read(table, yaml_path, out));
    for (int i = 0; i < n_assignments; i++) SH_TRY(sh_options_assign(table, assignments[i], out));
    if (out->steps == 0 && out->minutes == 0) out->steps = steps_of_stages(out);
    SH_TRY(sh_config_check(out));
out:
    return st;
}

static sh_status check_stages(const sh_config *c)
{
    sh_status st = SH_OK;
    int n = sh_config_n_stages(c);

    for (int i = 0; i < SH_MAX_STAGES; i++) {
        const sh_stage *s = &c->stages[i];
        bool given = s->name[0] != '\0' || s->steps > 0;
        const char *set = s->freeze[0] != '\0'  ? "freeze"
                          : s->lr != 0          ? "lr"
                          : s->shallow          ? "shallow"
                          : !s->fresh_optimizer ? "fresh_optimizer"
                                                : NULL;

        SH_CHECK(given || set == NULL, SH_ERR_USAGE,
                 "stages.%d.%s is set, but the stage has neither a name nor steps", i, set);
        SH_CHECK(!given || i < n, SH_ERR_USAGE, "stages.%d is given, but stages.%d is not", i, n);
        SH_CHECK(i >= n - 1 || s->steps > 0, SH_ERR_USAGE,
                 "stages.%d needs steps: only the last stage may go on to the end of the run", i);
    }
out:
    return st;
}

sh_status sh_config_check(const sh_config *c)
{
    sh_status st = SH_OK;
    const sh_net *net = NULL;
    sh_head head;
    int height, width;
    bool pairs = c->sampling.kind == SH_SAMPLING_PAIRS;

    SH_TRY(sh_net_find(c->net, &net));
    SH_TRY(sh_config_size(c, &height, &width));
    SH_TRY(sh_config_head(c, &head));
    SH_CHECK(
        pairs == (c->loss.kind == SH_LOSS_CONTRASTIVE), SH_ERR_USAGE,
        "loss.kind=contrastive needs sampling.kind=pairs, and pairs need the contrastive loss");
    SH_TRY(sh_config_check_loss(c));
    SH_CHECK(!pairs || c->sampling.batch % 2 == 0, SH_ERR_USAGE,
             "sampling.batch must be even for pairs, not %lld", (long long)c->sampling.batch);
    SH_CHECK(c->sampling.kind != SH_SAMPLING_PK || c->sampling.individuals >= 2, SH_ERR_USAGE,
             "sampling.individuals must be at least 2: a triplet needs another fish");
    SH_CHECK(c->sampling.kind != SH_SAMPLING_PK || c->sampling.images >= 2, SH_ERR_USAGE,
             "sampling.images must be at least 2: a triplet needs a positive");
    SH_CHECK(sh_config_shards(c) <= sh_config_batch(c), SH_ERR_USAGE,
             "shards=%d is more than the batch of %lld images", sh_config_shards(c),
             (long long)sh_config_batch(c));
    SH_CHECK(
        c->schedule.kind != SH_SCHEDULE_COSINE || c->steps > 0, SH_ERR_USAGE,
        "schedule.kind=cosine needs `steps`: schedules depend on the step, never on the clock");
    SH_CHECK(c->task != SH_TASK_CLASSIFY || !sh_config_has_metric(c), SH_ERR_USAGE,
             "task=classify needs a loss over classes: loss.kind=cross_entropy, arcface or "
             "sub_arcface");
    SH_TRY(check_stages(c));
    SH_TRY(sh_config_check_shallow(c));
    SH_CHECK(c->embedding.views != 3, SH_ERR_USAGE, "embedding.views: 1, 2 or 4");
    SH_CHECK(c->split.folds == 0 || c->split.fold < c->split.folds, SH_ERR_USAGE,
             "split.fold=%lld must be below split.folds=%lld (folds count from 0)",
             (long long)c->split.fold, (long long)c->split.folds);
out:
    return st;
}

sh_status sh_config_size(const sh_config *config, int *height, int *width)
{
    sh_status st = SH_OK;
    char *end = NULL;
    long h = strtol(config->size, &end, 10), w = h;

    if (*end == 'x') w = strtol(end + 1, &end, 10);
    SH_CHECK(*end == '\0' && h >= 8 && h <= 4096 && w >= 8 && w <= 4096, SH_ERR_USAGE,
             "size must be a number of pixels from 8 to 4096, or HEIGHTxWIDTH, not \"%s\"",
             config->size);
    *height = (int)h;
    *width = (int)w;
out:
    return st;
}

int64_t sh_config_batch(const sh_config *c)
{
    return c->sampling.kind == SH_SAMPLING_PK ? c->sampling.individuals * c->sampling.images
                                              : c->sampling.batch;
}

int sh_default_shards(int64_t batch)
{
    return (int)((batch + IMAGES_PER_SHARD - 1) / IMAGES_PER_SHARD);
}

int sh_config_shards(const sh_config *c)
{
    return c->shards > 0 ? (int)c->shards : sh_default_shards(sh_config_batch(c));
}

sh_status sh_config_data_paths(const sh_config *config, char ***paths, int *n_paths)
{
    sh_status st = SH_OK;
    char **list = NULL;
    int n = 0;

    for (const char *p = config->data; *p != '\0';) {
        size_t length = strcspn(p, "\n");
        char **grown = realloc(list, sizeof(*list) * (size_t)(n + 1));

        SH_CHECK(grown != NULL, SH_ERR_NO_MEMORY, "list of packs");
        list = grown;
        list[n] = strndup(p, length);
        SH_CHECK(list[n] != NULL, SH_ERR_NO_MEMORY, "list of packs");
        n++;
        p += length + (p[length] == '\n');
    }
    SH_CHECK(n > 0, SH_ERR_USAGE,
             "no data: give data=crops.h5 (make one with `shoal pack` or `shoal synth`)");
    *paths = list;
    *n_paths = n;
    list = NULL;
out:
    sh_config_free_paths(&list, n);
    return st;
}

void sh_config_free_paths(char ***paths, int n_paths)
{
    if (*paths == NULL) return;
    for (int i = 0; i < n_paths; i++) free((*paths)[i]);
    free(*paths);
    *paths = NULL;
}

/* Append the absolute form of `path` to text[size], which holds n items. */
static sh_status append_resolved(const char *path, int n, char *text, size_t size)
{
    sh_status st = SH_OK;
    char *resolved = realpath(path, NULL);
    size_t used = strlen(text);

    SH_CHECK((size_t)snprintf(text + used, size - used, "%s%s", n > 0 ? "\n" : "",
                              resolved != NULL ? resolved : path) < size - used,
             SH_ERR_USAGE, "paths too long: %.200s...", path);
out:
    free(resolved);
    return st;
}

sh_status sh_config_resolve_paths(sh_config *config)
{
    sh_status st = SH_OK;
    char **paths = NULL;
    char *text = NULL;
    int n = 0;

    text = calloc(1, SH_OPTION_LIST_TEXT);
    SH_CHECK(text != NULL, SH_ERR_NO_MEMORY, "paths");
    if (config->init[0] != '\0') {
        SH_TRY(append_resolved(config->init, 0, text, SH_OPTION_TEXT));
        memcpy(config->init, text, SH_OPTION_TEXT);
    }
    if (config->data[0] == '\0') goto out;
    SH_TRY(sh_config_data_paths(config, &paths, &n));
    memset(text, 0, SH_OPTION_LIST_TEXT);
    for (int i = 0; i < n; i++) SH_TRY(append_resolved(paths[i], i, text, SH_OPTION_LIST_TEXT));
    memcpy(config->data, text, SH_OPTION_LIST_TEXT);
out:
    sh_config_free_paths(&paths, n);
    free(text);
    return st;
}

sh_status sh_config_head(const sh_config *c, sh_head *out)
{
    sh_status st = SH_OK;
    const sh_net *net = NULL;
    sh_head head = {.tap = c->tap,
                    .pool = (sh_pool)c->embedding.pool,
                    .dropout = (float)c->embedding.dropout,
                    .act = (sh_act)c->embedding.act,
                    .dim = (int)c->embedding.dim,
                    .bn_neck = c->embedding.bn_neck,
                    .normalize = c->embedding.normalize};

    SH_TRY(sh_net_find(c->net, &net));
    SH_TRY(sh_net_check_tap(net, c->tap));
    for (const char *p = c->embedding.hidden; *p != '\0';) {
        char *end = NULL;
        long units = strtol(p, &end, 10);

        SH_CHECK(units >= 1 && units <= 65536 && (*end == '\0' || *end == '\n'), SH_ERR_USAGE,
                 "embedding.hidden: \"%.*s\" is not a number of units from 1 to 65536",
                 (int)strcspn(p, "\n"), p);
        SH_CHECK(head.n_hidden < SH_HEAD_HIDDEN_MAX, SH_ERR_USAGE,
                 "embedding.hidden: at most %d layers", SH_HEAD_HIDDEN_MAX);
        head.hidden[head.n_hidden++] = (int)units;
        p = end + (*end == '\n');
    }
    *out = head;
out:
    return st;
}

sh_split_config sh_config_split(const sh_config *c)
{
    return (sh_split_config){.by = (sh_split_by)c->split.by,
                             .test = (float)c->split.test,
                             .val = (float)c->split.val,
                             .seed = (uint64_t)c->split.seed,
                             .fold = (int)c->split.fold,
                             .n_folds = (int)c->split.folds};
}

sh_sampler_config sh_config_sampler(const sh_config *c)
{
    return (sh_sampler_config){.sampling = (sh_sampling)c->sampling.kind,
                               .batch = sh_config_batch(c),
                               .images_per_individual = (int)c->sampling.images,
                               .side_is_class = c->loss.sides == SH_SIDES_CLASSES,
                               .seed = (uint64_t)c->seed};
}

sh_status sh_config_loader(const sh_config *c, bool training, sh_loader_config *out)
{
    sh_status st = SH_OK;
    const sh_net *net = NULL;
    sh_loader_config loader = {.threads = 1,
                               .fit = (sh_fit)c->fit,
                               .min_side = (int)c->min_side,
                               .seed = (uint64_t)c->seed};

    SH_TRY(sh_net_find(c->net, &net));
    SH_TRY(sh_config_size(c, &loader.height, &loader.width));
    loader.channels = net->in_channels;
    memcpy(loader.mean, net->mean, sizeof(loader.mean));
    memcpy(loader.std, net->std, sizeof(loader.std));
    if (training)
        loader.augment = (sh_augment){.rotate = (float)c->augment.rotate,
                                      .shift = (float)c->augment.shift,
                                      .scale = (float)c->augment.scale,
                                      .brightness = (float)c->augment.brightness,
                                      .contrast = (float)c->augment.contrast,
                                      .saturation = (float)c->augment.saturation,
                                      .hue = (float)c->augment.hue,
                                      .flip = (float)c->augment.flip,
                                      .flip_vertical = (float)c->augment.flip_vertical,
                                      .erase = (float)c->augment.erase};
    *out = loader;
out:
    return st;
}

int sh_config_n_stages(const sh_config *c)
{
    int n = 0;

    while (n < SH_MAX_STAGES && (c->stages[n].name[0] != '\0' || c->stages[n].steps > 0)) n++;
    return n;
}

int sh_config_stage(const sh_config *c, int64_t step, int64_t *begin)
{
    int n = sh_config_n_stages(c), stage = 0;

    *begin = 0;
    while (stage + 1 < n && step >= *begin + c->stages[stage].steps)
        *begin += c->stages[stage++].steps;
    return stage;
}

int64_t sh_config_optimizer_begin(const sh_config *c, int64_t step)
{
    int64_t begin, first = 0, newest = 0;
    int stage = sh_config_stage(c, step, &begin);

    for (int i = 1; i <= stage; i++) {
        first += c->stages[i - 1].steps;
        if (c->stages[i].fresh_optimizer) newest = first;
    }
    return newest;
}

void sh_config_freeze(const sh_config *c, int stage, char *text)
{
    const char *own = c->stages[stage].freeze;

    snprintf(text, SH_FREEZE_TEXT, "%s%s%s", c->freeze, c->freeze[0] && own[0] ? "\n" : "", own);
}

/* The schedule that a step stands in, its steps counted from the beginning of its stage. */
typedef struct span {
    double lr;
    int64_t step, steps;
} span;

static span span_of(const sh_config *c, int64_t step)
{
    int64_t begin;
    int n = sh_config_n_stages(c);
    const sh_stage *s = &c->stages[sh_config_stage(c, step, &begin)];
    span own = {c->optimizer.lr, step, c->steps};

    if (n == 0) return own;
    if (s->lr > 0) own.lr = s->lr;
    own.step = step - begin;
    own.steps = s->steps > 0 ? s->steps : c->steps - begin;
    return own;
}

double sh_config_learning_rate(const sh_config *c, int64_t number)
{
    span own = span_of(c, number);
    int64_t step = own.step, warmup = c->schedule.warmup_steps;
    double lr = own.lr;

    if (step < warmup) return lr * (double)(step + 1) / (double)warmup;
    switch ((sh_schedule_kind)c->schedule.kind) {
    case SH_SCHEDULE_CONSTANT: break;
    case SH_SCHEDULE_STEP:
        lr *= pow(c->schedule.factor, (double)(step / c->schedule.every_steps));
        break;
    case SH_SCHEDULE_COSINE: {
        double length = (double)(own.steps - warmup);
        double t = length > 0 ? (double)(step - warmup) / length : 1;

        lr = c->schedule.min_lr +
             (lr - c->schedule.min_lr) * 0.5 * (1 + cos(3.14159265358979323846 * fmin(t, 1)));
        break;
    }
    }
    return lr;
}
