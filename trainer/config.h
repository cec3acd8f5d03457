// SPDX-License-Identifier: Apache-2.0
/** The configuration of a training run: one struct, one table row per option (trainer/config.c). */
#ifndef SH_TRAINER_CONFIG_H
#define SH_TRAINER_CONFIG_H

#include "base/options.h"
#include "dataio/loader.h"
#include "dataio/split.h"
#include "models/loss/classes.h"
#include "models/loss/loss.h"
#include "models/optim.h"
#include "models/zoo/zoo.h"

typedef enum sh_task { SH_TASK_IDENTIFY, SH_TASK_CLASSIFY } sh_task;
typedef enum sh_device_choice {
    SH_DEVICE_AUTO,
    SH_DEVICE_CPU,
    SH_DEVICE_REF,
    SH_DEVICE_CUDA
} sh_device_choice;
typedef enum sh_passes { SH_PASSES_AUTO, SH_PASSES_ONE, SH_PASSES_TWO } sh_passes;
typedef enum sh_class_weights { SH_CLASS_WEIGHTS_NONE, SH_CLASS_WEIGHTS_BALANCED } sh_class_weights;
typedef enum sh_sides { SH_SIDES_MERGED, SH_SIDES_CLASSES } sh_sides;
typedef enum sh_schedule_kind {
    SH_SCHEDULE_CONSTANT,
    SH_SCHEDULE_STEP,
    SH_SCHEDULE_COSINE
} sh_schedule_kind;

typedef enum sh_on_bad_step { SH_BAD_STOP, SH_BAD_SKIP, SH_BAD_BACK } sh_on_bad_step;

enum { SH_MAX_STAGES = 4 };

/** A part of the training with settings of its own. */
typedef struct sh_stage {
    char name[SH_OPTION_TEXT];
    int64_t steps;                    /* 0: to the end of the run; the last stage only */
    char freeze[SH_OPTION_LIST_TEXT]; /* besides the run's own `freeze` */
    double lr;                        /* 0: optimizer.lr */
    bool fresh_optimizer;
    bool shallow; /* on features of the frozen network that were computed once */
} sh_stage;

typedef struct sh_config {
    int task;                       /* sh_task */
    char data[SH_OPTION_LIST_TEXT]; /* packs, separated by newlines */
    char net[SH_OPTION_TEXT];
    char init[SH_OPTION_TEXT]; /* weights file, backbone or its name in the library, or "" */
    char size[SH_OPTION_TEXT]; /* "128" or "96x192" (height x width) */
    int fit;                   /* sh_fit */
    int64_t min_side;
    char freeze[SH_OPTION_LIST_TEXT]; /* patterns: trainer/patterns.h */

    int64_t steps;
    double minutes;
    int64_t shards; /* 0: ceil(batch / 32) */
    int64_t threads;
    int64_t ranks; /* 0: whatever the launcher gives */
    int64_t seed;
    int dtype;     /* sh_dtype: SH_F32 or SH_BF16 */
    int device;    /* sh_device_choice */
    int reduce;    /* sh_reduce_mode */
    int transport; /* sh_transport */
    int passes;
    bool same_hardware; /* refuse ranks whose fingerprints differ */
    bool retune;        /* measure a device's kernels again on resume */
    bool deterministic; /* a device's kernels give the same bytes each time */
    bool graphs;        /* on a device: kernels of a program are launched together */

    struct {
        int by; /* sh_split_by */
        double test, val;
        int64_t seed, fold, folds;
    } split;
    struct {
        int kind;                    /* sh_sampling */
        int64_t individuals, images; /* P, K */
        int64_t batch;               /* pairs, epoch: rows */
    } sampling;
    struct {
        int64_t threads, cache_mb;
        char copy_to[SH_OPTION_TEXT]; /* folder on a disk of the node, or "" */
    } loader;
    struct {
        double rotate, shift, scale, brightness, contrast, saturation, hue;
        double flip, flip_vertical, erase;
    } augment;
    struct {
        int64_t views; /* stored of each crop; 0: training is never shallow */
    } shallow;
    char tap[SH_OPTION_TEXT]; /* where the network ends; "": behind its last feature map */
    struct {
        int pool;                         /* sh_pool */
        char hidden[SH_OPTION_LIST_TEXT]; /* units of the layers before the last, one a line */
        int act;                          /* sh_act */
        int64_t dim;
        bool bn_neck, normalize;
        double dropout;
        int64_t views; /* 1, 2 or 4 */
    } embedding;
    struct {
        int kind;     /* sh_loss_kind, then the kinds of classification: config_loss.c */
        int distance; /* sh_distance */
        double margin;
        bool soft;
        int sides; /* sh_sides */
        double alpha, beta, base, epsilon, temperature;
        double scale, smoothing, classification;
        int64_t centres;
        int class_weights; /* sh_class_weights */
    } loss;
    struct {
        int kind; /* sh_optim_kind */
        double lr, momentum, beta1, beta2, eps, weight_decay, clip_norm, ema;
        char lr_scale[SH_OPTION_LIST_TEXT]; /* PATTERN=FACTOR */
    } optimizer;
    struct {
        int kind; /* sh_schedule_kind */
        int64_t warmup_steps, every_steps;
        double factor, min_lr;
    } schedule;
    struct {
        int64_t every_steps, patience;
        double false_match_rate;
    } validate;
    struct {
        int64_t every_steps;
        double every_minutes;
        int64_t keep;
    } checkpoint;
    struct {
        int64_t every_steps;
    } log;
    int on_bad_step; /* sh_on_bad_step */
    double bad_norm; /* 0: no limit */
    struct {
        bool enabled;
        double lost_seconds, compute_seconds, collective_seconds, files_seconds;
    } watchdog;
    sh_stage stages[SH_MAX_STAGES]; /* those with a name or steps count: sh_config_n_stages */
} sh_config;

/** The option table of `shoal train`. */
const sh_option_table *sh_config_options(void);

/** Defaults, then the YAML file (NULL: none), then key=value assignments, then cross-checks. */
SH_MUST_CHECK sh_status sh_config_load(const char *yaml_path, const char *const *assignments,
                                       int n_assignments, sh_config *out);

/** Checks between options: batch and loss fit, ... */
SH_MUST_CHECK sh_status sh_config_check(const sh_config *config);

/** Make the paths of `data` and `init` absolute where they exist, so that a run is found complete
 *  from any folder. */
SH_MUST_CHECK sh_status sh_config_resolve_paths(sh_config *config);

/* ---- derived ---- */

/** Height and width from `size`. */
SH_MUST_CHECK sh_status sh_config_size(const sh_config *config, int *height, int *width);

/** Images per step over all ranks. */
int64_t sh_config_batch(const sh_config *config);

/** S: shards per batch, from the configuration alone. */
int sh_config_shards(const sh_config *config);

/** Shards of so many images where `shards` says nothing. */
int sh_default_shards(int64_t batch);

/** Paths of the packs: `*paths` points to malloc'd strings; free with sh_config_free_paths. */
SH_MUST_CHECK sh_status sh_config_data_paths(const sh_config *config, char ***paths, int *n_paths);
void sh_config_free_paths(char ***paths, int n_paths);

/** What is put on the network; points into config. SH_ERR_USAGE for a tap that it does not have. */
SH_MUST_CHECK sh_status sh_config_head(const sh_config *config, sh_head *out);

/* trainer/config_loss.c */

/** Is there a loss over embeddings? Its settings. */
bool sh_config_has_metric(const sh_config *config);
sh_loss_config sh_config_loss(const sh_config *config);

/** The loss of classification, of kind SH_CLASS_NONE where there is none; the number of classes is
 *  left to the caller. */
sh_class_config sh_config_classes(const sh_config *config);

/** Its share of the whole loss: 1 where it is alone. */
float sh_config_classification(const sh_config *config);

/** Do the settings of the loss fit each other? */
SH_MUST_CHECK sh_status sh_config_check_loss(const sh_config *config);

/* trainer/config_shallow.c */

/** Does a stage (0 where the run has none) train on features that were computed once? */
bool sh_config_is_shallow(const sh_config *config, int stage);

/** Do stages, shallow.views and augmentation fit each other? */
SH_MUST_CHECK sh_status sh_config_check_shallow(const sh_config *config);

/** The split and sampler as their modules want them. */
sh_split_config sh_config_split(const sh_config *config);
sh_sampler_config sh_config_sampler(const sh_config *config);

/** How images are prepared; augment only where `training`. Layout, dtype, threads (1 here) and
 * cache (none) are left to the caller. */
SH_MUST_CHECK sh_status sh_config_loader(const sh_config *config, bool training,
                                         sh_loader_config *out);

int sh_config_n_stages(const sh_config *config);

/** The stage that a step (from 0) belongs to, and the step that it begins with; 0 and 0 where the
 *  run has no stages. */
int sh_config_stage(const sh_config *config, int64_t step, int64_t *begin);

/** The step that the optimizer of a step began with: the first one of the newest stage that asked
 *  for a fresh optimizer. */
int64_t sh_config_optimizer_begin(const sh_config *config, int64_t step);

enum { SH_FREEZE_TEXT = 2 * SH_OPTION_LIST_TEXT };

/** Patterns of what a stage freezes, the run's own first, into text[SH_FREEZE_TEXT]. */
void sh_config_freeze(const sh_config *config, int stage, char *text);

/** Learning rate of a step (from 0): pure in (config, step). Each stage runs through the schedule
 *  from its own first step to its own end. */
double sh_config_learning_rate(const sh_config *config, int64_t step);

#endif
