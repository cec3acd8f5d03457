// SPDX-License-Identifier: Apache-2.0
#include "trainer/session.h"

#include <dnnl.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/exit_codes.h"
#include "base/file.h"
#include "base/fingerprint.h"
#include "base/log.h"
#include "base/position.h"
#include "comm/watchdog.h"
#include "models/weights/weights.h"
#include "trainer/classes.h"
#include "trainer/device.h"
#include "trainer/kernels.h"

enum {
    FINGERPRINT_BYTES = 4096,
    DEVICES_CONNECT_SECONDS = 120, /* hundreds of ranks take NCCL tens of seconds */
};

/* ---- configuration ---- */

static void set_threads(sh_session *s)
{
    int cores = sh_comm_cores_per_rank(s->comm);

    if (s->config.threads == 0) s->config.threads = cores;
    if (s->config.loader.threads == 0) s->config.loader.threads = s->config.threads;
    if (s->config.threads > cores)
        sh_log_warning("threads=%lld, but this rank may use %d cores: training will be slow; give "
                       "fewer threads, or more cores (mpirun: --bind-to none, or --map-by "
                       "slot:PE=%lld)",
                       (long long)s->config.threads, cores, (long long)s->config.threads);
    omp_set_num_threads((int)s->config.threads);
}

/* The fixed options as text: what every rank must have in common. */
static sh_status agree_on_config(sh_session *s)
{
    sh_status st = SH_OK;
    char *text = NULL;
    size_t n_bytes = 0;

    SH_TRY(sh_comm_agree_text(s->comm, "version", SHOAL_VERSION, false));
    SH_TRY(sh_options_write(sh_config_options(), &s->config, &text, &n_bytes));
    SH_TRY(sh_comm_agree_text(s->comm, "configuration", text, false));
out:
    free(text);
    return st;
}

/* What may change a bit of the result besides configuration and data. */
static sh_status describe_machine(const sh_session *s, char text[FINGERPRINT_BYTES])
{
    const dnnl_version_t *v = dnnl_version();
    char onednn[64], mpi[256];
    const char *const libraries[] = {onednn, mpi};

    snprintf(onednn, sizeof(onednn), "oneDNN: %d.%d.%d", v->major, v->minor, v->patch);
    snprintf(mpi, sizeof(mpi), "MPI: %s", sh_comm_library());
    return sh_fingerprint_text((int)s->config.threads, libraries, SH_COUNT(libraries), text,
                               FINGERPRINT_BYTES);
}

/* ---- data ---- */

static sh_status check_flips(const sh_session *s)
{
    sh_status st = SH_OK;
    bool flips = s->config.augment.flip > 0 || s->config.augment.flip_vertical > 0;
    bool sided = false;

    for (int64_t i = 0; i < sh_dataset_n_crops(s->dataset) && !sided; i++)
        sided = sh_dataset_crop(s->dataset, i)->side != SH_SIDE_UNKNOWN;
    SH_CHECK(!flips || !sided || s->config.loss.sides == SH_SIDES_MERGED, SH_ERR_USAGE,
             "augment.flip would turn one side of a fish into the other: set it to 0, or merge the "
             "sides with loss.sides=merged");
out:
    return st;
}

/* Copies on this node, where they are asked for: its first rank makes them, the others join. */
static sh_status stage_packs(sh_session *s, const char *const *paths, int n_paths)
{
    sh_status st = SH_OK;
    const char *folder = s->config.loader.copy_to;
    bool first = sh_comm_local_rank(s->comm) == 0;

    if (folder[0] == '\0') goto out;
    if (first) st = sh_staging_open(folder, paths, n_paths, true, &s->staging);
    SH_TRY(sh_comm_agree_ok(s->comm, st));
    if (!first) SH_TRY(sh_staging_open(folder, paths, n_paths, false, &s->staging));
out:
    return st;
}

static sh_status open_data(sh_session *s)
{
    sh_status st = SH_OK;
    char **paths = NULL;
    char path[SH_RUN_PATH], hash[33];
    int n_paths = 0;
    sh_split_config rule = sh_config_split(&s->config);

    SH_TRY(sh_config_data_paths(&s->config, &paths, &n_paths));
    SH_TRY(stage_packs(s, (const char *const *)paths, n_paths));
    const char *const *from =
        s->staging != NULL ? sh_staging_paths(s->staging) : (const char *const *)paths;

    SH_TRY(sh_comm_agree_ok(s->comm, sh_dataset_open(from, n_paths, &s->dataset)));
    sh_hash_format(sh_dataset_hash(s->dataset), hash);
    SH_TRY(sh_comm_agree_text(s->comm, "data", hash, false));
    SH_TRY(check_flips(s));
    if (s->resumed) {
        SH_TRY(sh_run_path(s->run, "split.csv", path));
        SH_TRY(sh_split_read(s->dataset, path, &s->split));
    } else {
        SH_TRY(sh_split_compute(s->dataset, &rule, &s->split));
    }
    SH_TRY(sh_split_verify(&s->split, s->dataset, rule.by));
    if (s->split.leaks)
        sh_log_warning("this split puts near-duplicates into training and test: every score will "
                       "be stamped as leaking; split.by=individual does not leak");
out:
    sh_config_free_paths(&paths, n_paths);
    return st;
}

/* Before make_sampler, which takes crops that are too small out of the training part. */
static sh_status write_split(const sh_session *s)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];

    if (s->resumed) goto out;
    SH_TRY(sh_run_path(s->run, "split.csv", path));
    SH_TRY(sh_split_write(&s->split, s->dataset, path));
out:
    return st;
}

static sh_status make_sampler(sh_session *s)
{
    sh_status st = SH_OK;
    sh_sampler_config config = sh_config_sampler(&s->config);
    sh_loader_config fit;
    sh_fit_counts counts;

    SH_TRY(sh_config_loader(&s->config, true, &fit));
    sh_loader_fit_part(&fit, s->dataset, SH_PART_TRAIN, &s->split, &counts);
    s->supply = (sh_supply){.threads = (int)s->config.loader.threads,
                            .cores = sh_comm_cores_per_rank(s->comm),
                            .decoded_bytes = counts.n_bytes,
                            .cache_bytes = sh_supply_cache_bytes(s->config.loader.cache_mb,
                                                                 sh_comm_local_size(s->comm))};
    if (!sh_config_is_shallow(&s->config, 0)) sh_supply_describe_cache(&s->supply);
    SH_TRY(sh_sampler_create(&config, s->dataset, &s->split, SH_PART_TRAIN, &s->sampler));
    sh_log_info("training: %lld crops of %d classes, %lld steps of %lld an epoch (%lld repeats)",
                (long long)counts.n_crops, sh_sampler_n_classes(s->sampler),
                (long long)sh_sampler_steps_per_epoch(s->sampler),
                (long long)sh_config_batch(&s->config),
                (long long)sh_sampler_repeats_per_epoch(s->sampler));
out:
    return st;
}

/* ---- network ---- */

/* A pattern like *.running_* means the statistics of the weights that were loaded; it freezes those
 * of a new batch norm as well, which have never been measured. */
static void warn_of_frozen_statistics(const sh_session *s, const sh_weights *weights)
{
    const sh_store *store = sh_step_store(s->step);
    const char *first = NULL;
    int n = 0;

    for (int i = 0; i < sh_store_n_slots(store); i++) {
        const sh_slot *slot = sh_store_slot(store, i);

        if (slot->kind != SH_SLOT_STATE || slot->trainable) continue;
        if (weights != NULL && sh_weights_find(weights, slot->name) != NULL) continue;
        if (n++ == 0) first = slot->name;
    }
    if (n > 0 && sh_comm_rank(s->comm) == 0)
        sh_log_warning(
            "%d running statistics from %s on are frozen, but no weights were loaded for "
            "them: they stay at mean 0 and variance 1. Take them back (freeze: a later "
            "pattern with !), or give weights that have them (init)",
            n, first);
}

static sh_status load_init(sh_session *s)
{
    sh_status st = SH_OK;
    sh_weights *weights = NULL;
    sh_load_report *report = calloc(1, sizeof(*report));

    SH_CHECK(report != NULL, SH_ERR_NO_MEMORY, "load report");
    SH_TRY(sh_store_init(sh_step_store(s->step), (uint64_t)s->config.seed));
    if (s->config.init[0] != '\0') {
        SH_TRY(sh_weights_read(s->config.init, &weights));
        SH_TRY(sh_weights_load(weights, sh_step_get_config(s->step)->net, sh_step_store(s->step),
                               false, report));
        sh_log_info("init: %d tensors from %s; %s", report->n_loaded, s->config.init, report->text);
    }
    warn_of_frozen_statistics(s, weights);
    SH_TRY(sh_optim_start_average(sh_step_optim(s->step)));
out:
    sh_weights_destroy(&weights);
    free(report);
    return st;
}

/* The step program of the stage that step progress.step belongs to. */
static sh_status build_stage(sh_session *s)
{
    sh_status st = SH_OK;
    int64_t step = s->progress.step;
    int stage = sh_config_stage(&s->config, step, &s->stage_begin);
    const sh_stage *settings = &s->config.stages[stage];

    if (stage == s->stage) goto out;
    s->stage = stage;
    sh_config_freeze(&s->config, stage, s->freeze);
    SH_TRY(sh_step_freeze(s->step, s->freeze, sh_config_is_shallow(&s->config, stage),
                          sh_config_optimizer_begin(&s->config, step)));
    /* A run that continues inside a stage finds the stage's moments in its checkpoint. */
    if (step == s->stage_begin && settings->fresh_optimizer)
        SH_TRY(sh_optim_reset(sh_step_optim(s->step)));
    sh_log_progress_end();
    sh_log_info("step %lld: stage %d%s%s", (long long)step, stage, settings->name[0] ? ", " : "",
                settings->name);
out:
    return st;
}

static sh_status open_batches(sh_session *s, bool (*stop)(void))
{
    sh_status st = SH_OK;
    sh_batches_config config = {.step = s->step,
                                .sampler = s->sampler,
                                .dataset = s->dataset,
                                .n_views = (int)s->config.shallow.views};

    if (sh_config_is_shallow(&s->config, s->stage)) SH_TRY(sh_shallow_open(s, stop, &s->shallow));
    config.features = s->shallow.train;
    SH_TRY(sh_config_loader(&s->config, true, &config.loader));
    config.loader.threads = (int)s->config.loader.threads;
    config.loader.cache_bytes = s->supply.cache_bytes;
    SH_TRY(sh_batches_create(&config, s->progress.step, &s->batches));
out:
    return st;
}

sh_status sh_session_enter_stage(sh_session *s, bool (*stop)(void))
{
    sh_status st = SH_OK;
    int before = s->stage;

    SH_TRY(build_stage(s));
    /* Between stages that read images the loader goes on. */
    if (s->batches != NULL && (before == s->stage || !(sh_config_is_shallow(&s->config, before) ||
                                                       sh_config_is_shallow(&s->config, s->stage))))
        goto out;
    sh_batches_destroy(&s->batches);
    sh_shallow_clear(&s->shallow);
    SH_TRY(open_batches(s, stop));
out:
    return st;
}

static sh_status make_step(sh_session *s)
{
    sh_status st = SH_OK;
    sh_step_config step;
    sh_infer_config infer;
    float *class_weights = NULL;
    int32_t *class_fish = NULL;

    SH_TRY(sh_step_configure(&s->config, &step));
    step.classes.n_classes = sh_sampler_n_classes(s->sampler);
    if (s->config.loss.class_weights == SH_CLASS_WEIGHTS_BALANCED)
        SH_TRY(sh_classes_balance(s->sampler, &class_weights));
    SH_TRY(sh_classes_fish(s->sampler, &class_fish));
    step.class_weights = class_weights;
    step.class_fish = class_fish;
    s->stage = sh_config_stage(&s->config, 0, &s->stage_begin);
    sh_config_freeze(&s->config, s->stage, s->freeze);
    step.freeze = s->freeze;
    step.shallow = sh_config_is_shallow(&s->config, s->stage);
    SH_TRY(sh_kernels_agree(s->comm, s->run, s->config.retune, &step, &s->kernels));
    SH_TRY(sh_step_create(&step, s->comm, &s->step));
    SH_TRY(sh_infer_configure(&s->config, (int)s->config.loader.threads, &infer));
    SH_TRY(sh_infer_create(&infer, sh_step_store(s->step), &s->infer));
    SH_TRY(sh_snapshot_create(sh_step_store(s->step), &s->best));
out:
    free(class_weights);
    free(class_fish);
    return st;
}

/* Weights, moments and progress: the newest checkpoint's, or the first. Collective. */
static sh_status load_state(sh_session *s)
{
    sh_status st = SH_OK;
    bool found = false;

    s->progress = (sh_progress){.best_score = -1};
    if (s->resumed)
        SH_TRY(sh_checkpoint_load(s->comm, s->run, sh_step_store(s->step), sh_step_optim(s->step),
                                  &s->best, &s->progress, &found));
    if (!found) SH_TRY(load_init(s));
    s->first_step = s->progress.step;
    SH_TRY(build_stage(s));
out:
    return st;
}

/* ---- the folder ---- */

/* What the bytes of a run depend on besides configuration and data. */
static sh_status write_manifest(sh_session *s, const char *fingerprint)
{
    sh_status st = SH_OK;
    char hash[33], host[256] = "unknown";
    json_t *manifest = NULL, *starts = NULL;

    if (s->resumed && sh_run_get_json(s->run, "manifest.json", &manifest) != SH_OK)
        sh_error_clear();
    if (manifest == NULL) {
        sh_hash_format(sh_dataset_hash(s->dataset), hash);
        manifest =
            json_pack("{s:s, s:s, s:I, s:s, s:[]}", "format", "shoal-run", "data_hash", hash,
                      "seed", (json_int_t)s->config.seed, "fingerprint", fingerprint, "starts");
    }
    SH_CHECK(manifest != NULL, SH_ERR_NO_MEMORY, "manifest.json");
    const char *first = json_string_value(json_object_get(manifest, "fingerprint"));
    bool same = first != NULL && strcmp(first, fingerprint) == 0;

    if (!same)
        sh_log_warning("this machine or build differs from the one that the run began on: byte "
                       "identity ends at step %lld (manifest.json says how they differ)",
                       (long long)s->progress.step);
    gethostname(host, sizeof(host) - 1);
    starts = json_object_get(manifest, "starts");
    json_array_append_new(
        starts, json_pack("{s:I, s:I, s:s, s:s, s:i, s:I, s:b, s:s}", "incarnation",
                          (json_int_t)sh_run_lock_incarnation(s->lock), "step",
                          (json_int_t)s->progress.step, "version", SHOAL_VERSION, "host", host,
                          "ranks", sh_comm_size(s->comm), "threads", (json_int_t)s->config.threads,
                          "same_fingerprint", same, "fingerprint", fingerprint));
    SH_TRY(sh_run_put_json(s->run, "manifest.json", manifest));
out:
    json_decref(manifest);
    return st;
}

/* Rank 0: what the folder needs before the first step. config.yaml comes last, since its presence
 * is what makes a folder a run. */
static sh_status prepare_folder(sh_session *s, const char *fingerprint)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH], whole[2 * FINGERPRINT_BYTES];
    bool frozen = false;

    SH_TRY(sh_run_lock_freeze(s->lock));
    frozen = true;
    snprintf(whole, sizeof(whole), "%s", fingerprint);
    if (s->kernels != NULL)
        sh_kernels_describe(s->kernels, s->config.deterministic, whole + strlen(whole),
                            sizeof(whole) - strlen(whole));
    SH_TRY(write_manifest(s, whole));
    if (sh_config_classes(&s->config).kind != SH_CLASS_NONE) {
        SH_TRY(sh_run_path(s->run, "classes.csv", path));
        SH_TRY(sh_classes_write(s->sampler, s->dataset, path));
    }
    if (s->kernels != NULL) SH_TRY(sh_kernels_store(s->run, s->kernels));
    SH_TRY(sh_run_put_config(s->run, "config.yaml", &s->config));
    SH_TRY(sh_run_log_open(s->run, "metrics.jsonl", s->progress.metrics_bytes, &s->metrics));
    SH_TRY(sh_run_log_open(s->run, "ledger.csv", s->progress.ledger_bytes, &s->ledger));
    SH_TRY(sh_checkpointer_create(s->run, s->lock, (int)s->config.checkpoint.keep,
                                  sh_step_store(s->step), sh_step_optim(s->step),
                                  &s->checkpointer));
out:
    if (frozen) sh_run_lock_thaw(s->lock);
    return st;
}

static sh_status start_watchdog(const sh_session *s)
{
    const sh_config *c = &s->config;
    const sh_watchdog_config config = {.lost_seconds = c->watchdog.lost_seconds,
                                       .compute_seconds = c->watchdog.compute_seconds,
                                       .collective_seconds = c->watchdog.collective_seconds,
                                       .files_seconds = c->watchdog.files_seconds,
                                       .exit_code = SH_EXIT_WATCHDOG};

    return c->watchdog.enabled ? sh_watchdog_start(s->comm, &config) : SH_OK;
}

/* Where the network runs on devices: which rank has which, and how they exchange gradients. */
static sh_status connect_devices(const sh_session *s)
{
    sh_status st = SH_OK;
    const sh_config *c = &s->config;
    const sh_device_group_config config = {.transport = (sh_transport)c->transport,
                                           .connect_seconds = DEVICES_CONNECT_SECONDS,
                                           .patience_seconds = c->watchdog.collective_seconds};
    const sh_backend *backend = NULL;

    SH_TRY(sh_device_choose_all(c, s->comm, &backend));
    if (backend->device != NULL) SH_TRY(sh_comm_connect_devices(s->comm, backend->device, &config));
out:
    return st;
}

static sh_status take_lock(sh_session *s)
{
    sh_status st = SH_OK;

    if (sh_comm_rank(s->comm) == 0) {
        SH_TRY(sh_file_make_private_dir(s->run));
        SH_TRY(sh_run_lock_take(s->run, &s->lock));
        SH_TRY(sh_checkpoint_clear_unfinished(s->run));
    }
out:
    return sh_comm_agree_ok(s->comm, st);
}

sh_status sh_session_open(sh_comm *comm, const char *run, const sh_config *wanted, sh_session *out)
{
    sh_status st = SH_OK;
    char fingerprint[FINGERPRINT_BYTES];
    sh_session *s = out;

    memset(s, 0, sizeof(*s));
    s->comm = comm;
    snprintf(s->run, sizeof(s->run), "%s", run);
    SH_TRY(take_lock(s));
    s->config = *wanted;
    SH_TRY(sh_comm_agree_ok(comm, sh_run_check_config(s->run, wanted, &s->resumed)));
    /* As rank 0 sees it: the others' view of shared storage may lag behind. */
    SH_TRY(sh_comm_bcast(comm, &s->resumed, sizeof(s->resumed), 0));
    set_threads(s);
    SH_TRY(agree_on_config(s));
    SH_TRY(start_watchdog(s));
    SH_TRY(connect_devices(s));
    SH_TRY(sh_comm_agree_ok(comm, describe_machine(s, fingerprint)));
    SH_TRY(
        sh_comm_agree_text(comm, "hardware and libraries", fingerprint, !s->config.same_hardware));
    sh_position_enter(SH_AT_FILES, "opening the packs of %s", s->run);
    st = open_data(s);
    sh_position_leave();
    SH_TRY(sh_comm_agree_ok(comm, st));
    if (sh_comm_rank(comm) == 0) st = write_split(s);
    if (st == SH_OK) st = make_sampler(s);
    SH_TRY(sh_comm_agree_ok(comm, st));
    SH_TRY(sh_comm_agree_ok(comm, make_step(s)));
    SH_TRY(sh_comm_agree_ok(comm, load_state(s)));
    sh_position_enter(SH_AT_FILES, "files of %s", s->run);
    if (sh_comm_rank(comm) == 0) st = prepare_folder(s, fingerprint);
    sh_position_leave();
    SH_TRY(sh_comm_agree_ok(comm, st));
    SH_TRY(sh_skips_load(comm, s->run, &s->skips));
out:
    if (st != SH_OK) sh_session_close(s);
    return st;
}

void sh_session_close(sh_session *s)
{
    sh_batches_destroy(&s->batches);
    sh_shallow_clear(&s->shallow);
    sh_checkpointer_destroy(&s->checkpointer);
    sh_run_log_close(&s->metrics);
    sh_run_log_close(&s->ledger);
    sh_infer_destroy(&s->infer);
    sh_snapshot_clear(&s->best);
    free(s->kernels);
    sh_skips_clear(&s->skips);
    sh_step_destroy(&s->step);
    sh_sampler_destroy(&s->sampler);
    sh_split_clear(&s->split);
    sh_dataset_close(&s->dataset);
    sh_staging_close(&s->staging);
    sh_run_lock_release(&s->lock);
    memset(s, 0, sizeof(*s));
}
