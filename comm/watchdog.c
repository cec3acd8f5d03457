// SPDX-License-Identifier: Apache-2.0
/* The watchdog's thread: beats out, beats in, time, judgement. What it concludes from is in
 * watch_judge.c, how it talks in watch_net.c. */
#include "comm/watchdog.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "comm/group.h"
#include "comm/watch_net.h"

enum {
    LOOK_MS = 250,
    VERDICT_BYTES = 8192,
    POSITIONS_BYTES = 65536,
};

static const double beat_seconds = 0.5;
static const double connect_seconds = 15; /* for all ranks to be heard at the start */
/* Longer than this between two looks, and it was this process that stood still: the time is not
 * held against the others. */
static const double longest_look_s = 1;
static const double farewell_s = 0.3; /* between the verdict's last message and the end */

struct sh_watchdog {
    sh_comm *comm;
    sh_watchdog_config config;
    sh_watch watch;
    sh_watch_keys keys;
    sh_watch_card *cards; /* [n_ranks] */
    sh_watch_net *net;    /* NULL in a group of one */
    char positions[POSITIONS_BYTES];

    pthread_t thread;
    bool running;
    int wake_fd;
    sem_t opened, may_connect;
    sh_status result;           /* of opening and connecting, for the main thread */
    char message[512];          /* its message */
    atomic_bool armed;          /* all ranks have been heard; judging may begin */
    atomic_bool stopping;       /* the main thread wants it to end */
    _Atomic int n_heard;        /* other ranks that have been heard */
    _Atomic int connect_status; /* a judge's, once it has tried; -1 before */
};

/* ---- the thread ---- */

/* A beat that comes late because the processor is busy with something else is a false alarm. Where
 * the system does not allow it, the thread stays as it is. */
static void ask_for_priority(void)
{
    if (setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), -15) != 0) errno = 0;
}

static void fail(sh_watchdog *w, sh_status st)
{
    w->result = st;
    snprintf(w->message, sizeof(w->message), "%s", sh_error_message());
}

static sh_watch_message own_message(const sh_watchdog *w, sh_watch_kind kind)
{
    const sh_watch_rank *own = &w->watch.ranks[w->watch.self];

    return (sh_watch_message){
        .kind = kind, .rank = w->watch.self, .still_s = own->still_s, .position = own->position};
}

/* To everyone that this rank talks to: a judge to all, others to the judges. */
static void tell(sh_watchdog *w, sh_watch_kind kind)
{
    sh_watch_message m = own_message(w, kind);

    for (int r = 0; w->net != NULL && r < w->watch.n_ranks; r++) {
        if (r == w->watch.self || w->watch.ranks[r].ended) continue;
        if (sh_watch_is_judge(&w->watch, w->watch.self) || sh_watch_is_judge(&w->watch, r))
            sh_watch_net_send(w->net, r, &m);
    }
}

static void log_lines(char *text)
{
    char *rest = NULL;

    for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest))
        sh_log_error("watchdog: %s", line);
}

/* Does not return: the whole job ends here, whatever the other threads are in. */
static void end_job(sh_watchdog *w, char *verdict)
{
    sh_log_progress_end();
    log_lines(verdict);
    sh_watch_describe(&w->watch, w->positions, sizeof(w->positions));
    log_lines(w->positions);
    sh_log_error(
        "watchdog: ending all ranks with exit code %d; the same command continues from the "
        "newest checkpoint",
        w->config.exit_code);
    tell(w, SH_WATCH_END);
    sh_clock_sleep(farewell_s);
    _exit(w->config.exit_code);
}

static void look_at_self(sh_watchdog *w, double passed_s)
{
    sh_watch_rank *own = &w->watch.ranks[w->watch.self];
    sh_position now;

    sh_position_read(&now);
    own->still_s = now.n_moves == own->position.n_moves ? own->still_s + passed_s : 0;
    own->position = now;
}

static void hear(sh_watchdog *w, const sh_watch_message *m)
{
    sh_watch_rank *r = &w->watch.ranks[m->rank];

    if (m->rank == w->watch.self) return;
    if (m->kind == SH_WATCH_END) _exit(w->config.exit_code);
    if (!r->heard) w->n_heard++;
    r->heard = true;
    r->silent_s = 0;
    r->ended = false;
    r->left = r->left || m->kind == SH_WATCH_BYE;
    r->still_s = m->still_s;
    r->position = m->position;
}

static void hear_all(sh_watchdog *w)
{
    sh_watch_message m;

    while (sh_watch_net_receive(w->net, w->watch.n_ranks, &m)) hear(w, &m);
}

static void look_at_others(sh_watchdog *w, double passed_s)
{
    for (int r = 0; r < w->watch.n_ranks; r++)
        if (r != w->watch.self && w->armed) w->watch.ranks[r].silent_s += passed_s;
    hear_all(w);
    for (int r = 0; r < w->watch.n_ranks; r++)
        w->watch.ranks[r].ended = !w->watch.ranks[r].left && sh_watch_net_ended(w->net, r);
    hear_all(w); /* a goodbye may have come in before its sender ended */
}

static void wait_a_while(sh_watchdog *w)
{
    struct pollfd wake = {.fd = w->wake_fd, .events = POLLIN};

    if (w->net != NULL)
        sh_watch_net_wait(w->net, w->wake_fd, LOOK_MS);
    else
        poll(&wake, 1, LOOK_MS);
}

static void watch_over(sh_watchdog *w)
{
    char verdict[VERDICT_BYTES];
    double last = sh_clock_seconds(), since_beat = beat_seconds;

    while (!w->stopping) {
        wait_a_while(w);
        double now = sh_clock_seconds(), passed = now - last;

        last = now;
        if (passed > longest_look_s) passed = longest_look_s;
        look_at_self(w, passed);
        if (w->net != NULL) look_at_others(w, passed);
        since_beat += passed;
        if (since_beat >= beat_seconds) {
            since_beat = 0;
            tell(w, SH_WATCH_BEAT);
        }
        if (w->armed && !w->stopping && sh_watch_judge(&w->watch, verdict, sizeof(verdict)))
            end_job(w, verdict);
    }
    tell(w, SH_WATCH_BYE);
}

static void *run_thread(void *context)
{
    sh_watchdog *w = context;
    sh_status st = SH_OK;

    ask_for_priority();
    if (w->watch.n_ranks > 1)
        st = sh_watch_net_open(w->watch.self, w->comm->local_size == w->comm->size, &w->keys,
                               &w->cards[w->watch.self], &w->net);
    if (st != SH_OK) fail(w, st);
    sem_post(&w->opened);
    while (sem_wait(&w->may_connect) != 0) continue;
    if (st == SH_OK && !w->stopping && sh_watch_is_judge(&w->watch, w->watch.self) &&
        w->net != NULL) {
        st = sh_watch_net_connect(w->net, w->watch.n_ranks, w->cards);
        if (st != SH_OK) fail(w, st);
    }
    w->connect_status = (int)st;
    if (st == SH_OK) watch_over(w);
    sh_watch_net_close(&w->net);
    return NULL;
}

/* ---- start and stop ---- */

void sh_watchdog_stop(sh_watchdog **watchdog)
{
    sh_watchdog *w = *watchdog;
    uint64_t one = 1;

    if (w == NULL) return;
    if (w->running) {
        w->stopping = true;
        sem_post(&w->may_connect);
        if (write(w->wake_fd, &one, sizeof(one)) < 0) errno = 0; /* it looks up soon anyway */
        pthread_join(w->thread, NULL);
        sem_destroy(&w->opened);
        sem_destroy(&w->may_connect);
    }
    if (w->wake_fd >= 0) close(w->wake_fd);
    free(w->watch.ranks);
    free(w->cards);
    free(w);
    *watchdog = NULL;
}

/* Memory, thread and, with several ranks, the own port. Not collective. */
static sh_status open_here(sh_watchdog *w)
{
    sh_status st = SH_OK;

    w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    SH_CHECK(w->wake_fd >= 0, SH_ERR_IO, "watchdog: %s", strerror(errno));
    sem_init(&w->opened, 0, 0);
    sem_init(&w->may_connect, 0, 0);
    SH_CHECK(pthread_create(&w->thread, NULL, run_thread, w) == 0, SH_ERR_NO_MEMORY,
             "watchdog thread");
    pthread_setname_np(w->thread, "watchdog"); /* for who measures what it takes */
    w->running = true;
    while (sem_wait(&w->opened) != 0) continue;
    SH_CHECK(w->result == SH_OK, w->result, "%s", w->message);
out:
    return st;
}

/* Is every rank heard by both judges? Not collective. */
static sh_status await_all(sh_watchdog *w)
{
    sh_status st = SH_OK;
    double begin = sh_clock_seconds();
    bool judge = sh_watch_is_judge(&w->watch, w->watch.self);
    int n_expected = !judge ? 0 : w->watch.n_ranks - 1;

    while (w->connect_status < 0 || w->n_heard < n_expected) {
        SH_CHECK(w->connect_status <= 0, w->result, "%s", w->message);
        SH_CHECK(sh_clock_seconds() - begin < connect_seconds, SH_ERR_COMM,
                 "%d of %d other ranks answer on the addresses of their hosts", w->n_heard,
                 n_expected);
        sh_clock_sleep(2e-3);
    }
out:
    return st;
}

/* Collective: true if a rank failed; the failing ranks say why. */
static sh_status somebody_failed(sh_comm *comm, sh_status mine, bool *failed)
{
    int64_t any = mine != SH_OK;
    sh_status st = sh_comm_max(comm, &any, 1);

    *failed = any != 0;
    if (mine != SH_OK)
        sh_log_warning("no watchdog for this job: rank %d on %s: %s. Allow connections between the "
                       "hosts beside MPI's, or say watchdog.enabled=false",
                       comm->rank, comm->host, sh_error_message());
    if (mine != SH_OK) sh_error_clear();
    return st;
}

static sh_status exchange_keys(sh_watchdog *w, sh_status *local)
{
    *local = w->comm->rank == 0 && w->comm->size > 1 ? sh_watch_make_keys(&w->keys) : SH_OK;
    return sh_comm_bcast(w->comm, &w->keys, sizeof(w->keys), 0);
}

static sh_status exchange_cards(sh_watchdog *w)
{
    sh_status st = SH_OK;
    int n = w->comm->size;
    size_t *bytes = calloc((size_t)n, sizeof(*bytes));

    SH_CHECK(bytes != NULL, SH_ERR_NO_MEMORY, "watchdog over %d ranks", n);
    for (int r = 0; r < n; r++) bytes[r] = sizeof(*w->cards);
    SH_TRY(sh_comm_gather_all(w->comm, &w->cards[w->comm->rank], w->cards, bytes));
    for (int r = 0; r < n; r++) {
        w->cards[r].host[SH_WATCH_HOST - 1] = '\0';
        memcpy(w->watch.ranks[r].host, w->cards[r].host, SH_WATCH_HOST);
    }
    sh_watch_choose_judges(&w->watch);
out:
    free(bytes);
    return st;
}

static sh_status create(sh_comm *comm, const sh_watchdog_config *config, sh_watchdog **out)
{
    sh_status st = SH_OK;
    int n = comm->size;
    sh_watchdog *w = calloc(1, sizeof(*w));

    SH_CHECK(w != NULL, SH_ERR_NO_MEMORY, "watchdog");
    w->comm = comm;
    w->config = *config;
    w->wake_fd = -1;
    w->connect_status = -1;
    w->watch = (sh_watch){.config = &w->config, .self = comm->rank, .n_ranks = n};
    w->watch.ranks = calloc((size_t)n, sizeof(*w->watch.ranks));
    w->cards = calloc((size_t)n, sizeof(*w->cards));
    SH_CHECK(w->watch.ranks != NULL && w->cards != NULL, SH_ERR_NO_MEMORY, "watchdog over %d ranks",
             n);
    snprintf(w->cards[comm->rank].host, SH_WATCH_HOST, "%.*s", SH_WATCH_HOST - 1, comm->host);
    memcpy(w->watch.ranks[comm->rank].host, w->cards[comm->rank].host, SH_WATCH_HOST);
    w->watch.ranks[comm->rank].heard = true;
    *out = w;
    w = NULL;
out:
    sh_watchdog_stop(&w);
    return st;
}

sh_status sh_watchdog_start(sh_comm *comm, const sh_watchdog_config *config)
{
    sh_status st = SH_OK, local = SH_OK;
    sh_watchdog *w = NULL;
    bool failed = false;

    if (comm->watchdog != NULL) goto out;
    SH_TRY(sh_comm_agree_ok(comm, create(comm, config, &w)));
    SH_TRY(exchange_keys(w, &local));
    if (local == SH_OK) local = open_here(w);
    SH_TRY(somebody_failed(comm, local, &failed));
    if (failed) goto out;
    SH_TRY(exchange_cards(w));
    sem_post(&w->may_connect);
    SH_TRY(somebody_failed(comm, await_all(w), &failed));
    if (failed) goto out;
    w->armed = true;
    comm->watchdog = w;
    w = NULL;
out:
    sh_watchdog_stop(&w);
    return st;
}

void sh_watchdog_await_verdict(const sh_comm *comm)
{
    if (comm->watchdog == NULL || comm->size == 1) return;
    sh_clock_sleep(comm->watchdog->config.lost_seconds + 2);
}
