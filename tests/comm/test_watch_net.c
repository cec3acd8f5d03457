// SPDX-License-Identifier: Apache-2.0
/* The watchdog's port: whoever has not the run's keys is not heard, whatever it sends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "comm/watch_net.h"

typedef struct fixture {
    sh_watch_keys keys;
    sh_watch_card cards[2];
    sh_watch_net *judge, *other; /* ranks 0 and 1 */
    int wake_fd;                 /* never woken */
} fixture;

static void set_up(fixture *f)
{
    *f = (fixture){.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    assert_int_equal(sh_watch_make_keys(&f->keys), SH_OK);
    for (int r = 0; r < 2; r++) snprintf(f->cards[r].host, sizeof(f->cards[r].host), "here");
    assert_int_equal(sh_watch_net_open(0, true, &f->keys, &f->cards[0], &f->judge), SH_OK);
    assert_int_equal(sh_watch_net_open(1, true, &f->keys, &f->cards[1], &f->other), SH_OK);
}

static void tear_down(fixture *f)
{
    sh_watch_net_close(&f->judge);
    sh_watch_net_close(&f->other);
    close(f->wake_fd);
}

/* Is anything heard by rank 1 within `seconds`? */
static bool hears(fixture *f, double seconds, sh_watch_message *out)
{
    double end = sh_clock_seconds() + seconds;

    do {
        if (sh_watch_net_receive(f->other, 2, out)) return true;
        sh_watch_net_wait(f->other, f->wake_fd, 50);
    } while (sh_clock_seconds() < end);
    return false;
}

/* A stranger's socket, connected to rank 1's port; server_key NULL: without encryption. */
static void *stranger(void *context, const fixture *f, const char *server_key)
{
    char endpoint[64], public[41], secret[41];
    void *socket = zmq_socket(context, ZMQ_DEALER);

    assert_non_null(socket);
    zmq_setsockopt(socket, ZMQ_LINGER, &(int){0}, sizeof(int));
    if (server_key != NULL) {
        assert_int_equal(zmq_curve_keypair(public, secret), 0);
        assert_int_equal(zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, server_key, 41), 0);
        assert_int_equal(zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, public, 41), 0);
        assert_int_equal(zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, secret, 41), 0);
    }
    snprintf(endpoint, sizeof(endpoint), "tcp://127.0.0.1:%d", f->cards[1].port);
    assert_int_equal(zmq_connect(socket, endpoint), 0);
    return socket;
}

static void receive__hears_only_who_has_the_keys_of_the_run(void **state)
{
    fixture f;
    sh_watch_message end = {.kind = SH_WATCH_END}, beat = {.kind = SH_WATCH_BEAT}, heard;
    sh_watch_keys foreign;
    uint8_t data[SH_WATCH_MAX_BYTES];
    size_t n = sh_watch_encode(&end, data);
    void *context = zmq_ctx_new();

    (void)state;
    set_up(&f);
    assert_int_equal(sh_watch_make_keys(&foreign), SH_OK);
    void *plain = stranger(context, &f, NULL);
    void *wrong = stranger(context, &f, foreign.server_public);

    for (int i = 0; i < 3; i++) {
        zmq_send(plain, data, n, ZMQ_DONTWAIT);
        zmq_send(wrong, data, n, ZMQ_DONTWAIT);
        assert_false(hears(&f, 0.3, &heard));
    }
    assert_int_equal(sh_watch_net_connect(f.judge, 2, f.cards), SH_OK);
    sh_watch_net_send(f.judge, 1, &beat);
    assert_true(hears(&f, 10, &heard));
    assert_int_equal(heard.kind, SH_WATCH_BEAT);
    assert_int_equal(heard.rank, 0);
    zmq_close(plain);
    zmq_close(wrong);
    zmq_ctx_term(context);
    tear_down(&f);
}

static void receive__passes_over_what_is_no_message(void **state)
{
    fixture f;
    sh_watch_message beat = {.kind = SH_WATCH_BEAT}, heard;
    uint8_t data[SH_WATCH_MAX_BYTES];
    char large[4096] = {0};
    size_t n = sh_watch_encode(&beat, data);
    void *context = zmq_ctx_new();

    (void)state;
    set_up(&f);
    void *peer = stranger(context, &f, f.keys.server_public); /* one with the keys */

    zmq_send(peer, "", 0, 0);
    zmq_send(peer, data, n - 1, 0);
    zmq_send(peer, large, 600, 0);
    zmq_send(peer, data, n, 0);
    assert_true(hears(&f, 10, &heard));
    assert_int_equal(heard.kind, SH_WATCH_BEAT);
    assert_false(hears(&f, 0.3, &heard));
    zmq_send(peer, large, sizeof(large), 0); /* longer than any message: the connection ends */
    assert_false(hears(&f, 0.3, &heard));
    zmq_close(peer);
    zmq_ctx_term(context);
    tear_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(receive__hears_only_who_has_the_keys_of_the_run),
        cmocka_unit_test(receive__passes_over_what_is_no_message),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
