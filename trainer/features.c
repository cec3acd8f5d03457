// SPDX-License-Identifier: Apache-2.0
#include "trainer/features.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/position.h"

enum { KEY_BYTES = 32 };

/* A file begins with this; rows follow it, aligned to its 64 bytes. */
typedef struct header {
    char magic[8];
    char key[KEY_BYTES];
    uint32_t view, row_bytes, n_rows, crc32c;
    uint64_t unused;
} header;

static const char magic[8] = {'s', 'h', 'o', 'a', 'l', 'f', 't', '1'};

typedef struct piece {
    int view;
    int64_t first, n; /* positions within the crops */
    void *map;        /* header and rows, or NULL */
} piece;

struct sh_features {
    size_t row_bytes;
    int64_t *position; /* [crops of the dataset] within the crops; -1: not one of them */
    int64_t pieces_per_view;
    piece *pieces;
    int64_t n_pieces;
};

static size_t piece_bytes(const sh_features *f, const piece *p)
{
    return sizeof(header) + (size_t)p->n * f->row_bytes;
}

static sh_status piece_path(const sh_features_config *c, const sh_features *f, const piece *p,
                            char path[SH_RUN_PATH])
{
    char name[96];

    snprintf(name, sizeof(name), "%s-%04d-%06lld.features", c->name, p->view,
             (long long)((p - f->pieces) % f->pieces_per_view));
    return sh_path_join(c->folder, name, path, SH_RUN_PATH);
}

static header header_of(const sh_features_config *c, const sh_features *f, const piece *p,
                        uint32_t crc32c)
{
    header h = {.view = (uint32_t)p->view,
                .row_bytes = (uint32_t)f->row_bytes,
                .n_rows = (uint32_t)p->n,
                .crc32c = crc32c};
    char key[KEY_BYTES + 1];

    sh_hash_format(c->key, key);
    memcpy(h.magic, magic, sizeof(magic));
    memcpy(h.key, key, KEY_BYTES);
    return h;
}

/* ---- reading ---- */

/* Map a piece that is there and whole. SH_ERR_NOT_FOUND: no file. SH_ERR_MISMATCH: of other
 * weights, data or settings, or damaged. */
static sh_status map_piece(const sh_features_config *c, const sh_features *f, piece *p)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    struct stat info;
    void *map = MAP_FAILED;
    size_t n_bytes = piece_bytes(f, p);
    int fd = -1;

    SH_TRY(piece_path(c, f, p, path));
    fd = open(path, O_RDONLY | O_CLOEXEC);
    SH_CHECK(fd >= 0, errno == ENOENT ? SH_ERR_NOT_FOUND : SH_ERR_IO, "%s: %s", path,
             strerror(errno));
    SH_CHECK(fstat(fd, &info) == 0, SH_ERR_IO, "%s: %s", path, strerror(errno));
    SH_CHECK((size_t)info.st_size == n_bytes, SH_ERR_MISMATCH, "%s: %lld bytes instead of %zu",
             path, (long long)info.st_size, n_bytes);
    map = mmap(NULL, n_bytes, PROT_READ, MAP_SHARED, fd, 0);
    SH_CHECK(map != MAP_FAILED, SH_ERR_IO, "%s: %s", path, strerror(errno));
    const header expected =
        header_of(c, f, p, sh_crc32c(0, (char *)map + sizeof(header), n_bytes - sizeof(header)));

    SH_CHECK(memcmp(map, &expected, sizeof(expected)) == 0, SH_ERR_MISMATCH,
             "%s: damaged, or made with other weights, crops or settings", path);
    p->map = map;
    map = MAP_FAILED;
out:
    if (map != MAP_FAILED) munmap(map, n_bytes);
    if (fd >= 0) close(fd);
    return st;
}

/* Which pieces are there, as rank 0 sees it: found[n_pieces]. Collective. */
static sh_status find_pieces(const sh_features_config *c, sh_comm *comm, sh_features *f,
                             uint8_t *found)
{
    sh_status st = SH_OK;

    if (sh_comm_rank(comm) == 0) {
        st = sh_file_make_dirs(c->folder);
        for (int64_t i = 0; i < f->n_pieces && st == SH_OK; i++) {
            st = map_piece(c, f, &f->pieces[i]);
            found[i] = st == SH_OK;
            if (st == SH_ERR_NOT_FOUND || st == SH_ERR_MISMATCH) {
                sh_error_clear();
                st = SH_OK;
            }
        }
    }
    SH_TRY(sh_comm_agree_ok(comm, st));
    SH_TRY(sh_comm_bcast(comm, found, (size_t)f->n_pieces, 0));
out:
    return st;
}

/* ---- computing ---- */

/* The work under way. */
typedef struct worker {
    const sh_features_config *c;
    sh_comm *comm;
    sh_infer *infer;
    int64_t dim;
    uint8_t *rows;  /* [SH_FEATURES_PIECE] of all ranks */
    uint8_t *own;   /* of them, this rank's in the piece under way */
    int64_t n_left; /* rows to compute, over all pieces and ranks */
    int64_t n_done; /* of finished pieces */
    double start;
} worker;

static void show_progress(const worker *w, int64_t own_done)
{
    int64_t done = w->n_done + own_done * sh_comm_size(w->comm);
    double rate = (double)done / (sh_clock_seconds() - w->start);

    if (done > w->n_left) done = w->n_left;
    sh_log_progress("features of %s: %lld of %lld images, %.1f images/s, %.0f s left", w->c->name,
                    (long long)done, (long long)w->n_left, rate, (double)(w->n_left - done) / rate);
}

/* What the network gives, in its dtype. */
static sh_status store_rows(void *context, int64_t first, int64_t m, const float *rows)
{
    const worker *w = context;
    uint8_t *out = w->own + (size_t)first * w->c->row_bytes;

    if (w->c->infer.dtype == SH_F32)
        memcpy(out, rows, (size_t)m * w->c->row_bytes);
    else
        for (int64_t i = 0; i < m * w->dim; i++) ((uint16_t *)out)[i] = sh_bf16_from_f32(rows[i]);
    show_progress(w, first + m);
    return SH_OK;
}

static sh_status write_piece(const worker *w, const sh_features *f, const piece *p)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    sh_file_writer *file = NULL;
    size_t n_bytes = (size_t)p->n * f->row_bytes;
    const header h = header_of(w->c, f, p, sh_crc32c(0, w->rows, n_bytes));

    SH_TRY(sh_run_lock_check(w->c->lock));
    SH_TRY(piece_path(w->c, f, p, path));
    SH_TRY(sh_file_writer_create(path, &file));
    SH_TRY(sh_file_write(file, &h, sizeof(h)));
    SH_TRY(sh_file_write(file, w->rows, n_bytes));
    SH_TRY(sh_file_writer_commit(file));
out:
    sh_file_writer_destroy(&file);
    return st;
}

/* Each rank a share of the piece's rows; rank 0 writes them all. Collective. */
static sh_status compute_piece(worker *w, const sh_features *f, const piece *p)
{
    sh_status st = SH_OK;
    int64_t begin, end;

    sh_comm_own_items(w->comm, p->n, &begin, &end);
    w->own = w->rows + (size_t)begin * f->row_bytes;
    sh_position_enter(SH_AT_FILES, "features of %s crops, view %d", w->c->name, p->view);
    st = sh_infer_run_view(w->infer, w->c->dataset, &w->c->augment[p->view], p->view,
                           w->c->crops + p->first + begin, end - begin, store_rows, w);
    sh_position_leave();
    SH_TRY(sh_comm_agree_ok(w->comm, st));
    SH_TRY(sh_comm_gather_items(w->comm, p->n, f->row_bytes, w->rows));
    sh_position_enter(SH_AT_FILES, "features in %s", w->c->folder);
    if (sh_comm_rank(w->comm) == 0) st = write_piece(w, f, p);
    sh_position_leave();
    SH_TRY(sh_comm_agree_ok(w->comm, st));
    w->n_done += p->n;
out:
    return st;
}

static sh_status open_worker(worker *w, sh_features_stats *stats)
{
    sh_status st = SH_OK;

    SH_TRY(sh_infer_create(&w->c->infer, w->c->store, &w->infer));
    w->dim = sh_infer_dim(w->infer);
    SH_CHECK((size_t)w->dim * sh_dtype_size(w->c->infer.dtype) == w->c->row_bytes, SH_ERR_INTERNAL,
             "features of %lld numbers do not fill rows of %zu bytes", (long long)w->dim,
             w->c->row_bytes);
    w->rows = malloc(SH_FEATURES_PIECE * w->c->row_bytes);
    SH_CHECK(w->rows != NULL, SH_ERR_NO_MEMORY, "rows of features");
    w->n_left = stats->n_computed;
    w->start = sh_clock_seconds();
out:
    return st;
}

static void close_worker(worker *w)
{
    sh_infer_destroy(&w->infer);
    free(w->rows);
}

static sh_status agree_to_go_on(const worker *w)
{
    sh_status st = SH_OK;
    int64_t stop = w->c->stop();

    SH_TRY(sh_comm_max(w->comm, &stop, 1));
    SH_CHECK(!stop, SH_ERR_STOPPED,
             "stopped on request with %lld of %lld features computed; the same command continues",
             (long long)w->n_done, (long long)w->n_left);
out:
    return st;
}

static sh_status compute_missing(const sh_features_config *c, sh_comm *comm, const sh_features *f,
                                 const uint8_t *found, sh_features_stats *stats)
{
    sh_status st = SH_OK;
    worker w = {.c = c, .comm = comm};

    SH_TRY(sh_comm_agree_ok(comm, open_worker(&w, stats)));
    for (int64_t i = 0; i < f->n_pieces; i++) {
        if (found[i]) continue;
        SH_TRY(agree_to_go_on(&w));
        SH_TRY(compute_piece(&w, f, &f->pieces[i]));
    }
    stats->n_images = sh_infer_n_images(w.infer);
out:
    sh_log_progress_end();
    close_worker(&w);
    return st;
}

/* ---- opening ---- */

static sh_status lay_out(const sh_features_config *c, sh_features *f)
{
    sh_status st = SH_OK;
    int64_t n_dataset = sh_dataset_n_crops(c->dataset);

    f->row_bytes = c->row_bytes;
    f->pieces_per_view = (c->n_crops + SH_FEATURES_PIECE - 1) / SH_FEATURES_PIECE;
    f->n_pieces = f->pieces_per_view * c->n_views;
    f->pieces = calloc((size_t)f->n_pieces + 1, sizeof(*f->pieces));
    f->position = malloc((size_t)n_dataset * sizeof(*f->position));
    SH_CHECK(f->pieces && f->position, SH_ERR_NO_MEMORY, "features of %lld crops",
             (long long)c->n_crops);
    for (int64_t i = 0; i < n_dataset; i++) f->position[i] = -1;
    for (int64_t i = 0; i < c->n_crops; i++) f->position[c->crops[i]] = i;
    for (int64_t i = 0; i < f->n_pieces; i++) {
        piece *p = &f->pieces[i];

        p->view = (int)(i / f->pieces_per_view);
        p->first = i % f->pieces_per_view * SH_FEATURES_PIECE;
        p->n =
            c->n_crops - p->first < SH_FEATURES_PIECE ? c->n_crops - p->first : SH_FEATURES_PIECE;
    }
out:
    return st;
}

static sh_status map_missing(const sh_features_config *c, sh_features *f)
{
    sh_status st = SH_OK;

    for (int64_t i = 0; i < f->n_pieces; i++)
        if (f->pieces[i].map == NULL) SH_TRY(map_piece(c, f, &f->pieces[i]));
out:
    return st;
}

sh_status sh_features_open(const sh_features_config *config, sh_comm *comm, sh_features **out,
                           sh_features_stats *stats)
{
    sh_status st = SH_OK;
    uint8_t *found = NULL;
    double start = sh_clock_seconds();
    sh_features *f = calloc(1, sizeof(*f));

    SH_CHECK(f != NULL, SH_ERR_NO_MEMORY, "features");
    SH_TRY(lay_out(config, f));
    found = calloc((size_t)f->n_pieces + 1, 1);
    SH_CHECK(found != NULL, SH_ERR_NO_MEMORY, "list of pieces");
    SH_TRY(find_pieces(config, comm, f, found));
    *stats = (sh_features_stats){.n_rows = config->n_crops * config->n_views};
    for (int64_t i = 0; i < f->n_pieces; i++) stats->n_computed += found[i] ? 0 : f->pieces[i].n;
    if (stats->n_computed > 0) SH_TRY(compute_missing(config, comm, f, found, stats));
    SH_TRY(sh_comm_agree_ok(comm, map_missing(config, f)));
    stats->seconds = sh_clock_seconds() - start;
    *out = f;
    f = NULL;
out:
    free(found);
    sh_features_close(&f);
    return st;
}

void sh_features_close(sh_features **features)
{
    sh_features *f = *features;

    if (f == NULL) return;
    for (int64_t i = 0; i < f->n_pieces && f->pieces != NULL; i++)
        if (f->pieces[i].map != NULL) munmap(f->pieces[i].map, piece_bytes(f, &f->pieces[i]));
    free(f->pieces);
    free(f->position);
    free(f);
    *features = NULL;
}

const void *sh_features_row(const sh_features *f, int64_t crop, int view)
{
    int64_t at = f->position[crop];
    const piece *p = &f->pieces[view * f->pieces_per_view + at / SH_FEATURES_PIECE];

    return (const char *)p->map + sizeof(header) + (size_t)(at % SH_FEATURES_PIECE) * f->row_bytes;
}
