// SPDX-License-Identifier: Apache-2.0
#include "comm/watch_net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zmq.h>

enum {
    LINGER_MS = 500,
    PROBE_MS = 200, /* an address that does not answer in this time is not the one */
    QUEUE = 64,     /* messages kept for a peer that does not read; older beats are worthless */
    ADDRESS_TEXT = 64,
    MAX_FRAME = 1024, /* on the wire: a handshake is longer than our messages */
};

/* The connection of a judge to another rank. */
typedef struct peer {
    void *socket, *monitor; /* DEALER; PAIR that tells of disconnections */
    struct sockaddr_in address;
    bool broken;
} peer;

struct sh_watch_net {
    int rank, n_ranks;
    sh_watch_keys keys;
    sh_watch_card card;
    void *context, *listener; /* ROUTER */
    peer *peers;              /* [n_ranks]; NULL: not a judge */
    zmq_pollitem_t *polled;
};

#define ZMQ(call)                                                                                  \
    SH_CHECK((call) >= 0, SH_ERR_COMM, "watchdog: %s (in %s)", zmq_strerror(zmq_errno()), #call)

sh_status sh_watch_make_keys(sh_watch_keys *keys)
{
    sh_status st = SH_OK;

    SH_CHECK(zmq_has("curve"), SH_ERR_UNSUPPORTED, "watchdog: this libzmq has no encryption");
    ZMQ(zmq_curve_keypair(keys->server_public, keys->server_secret));
    ZMQ(zmq_curve_keypair(keys->client_public, keys->client_secret));
out:
    return st;
}

static sh_status set_int(void *socket, int option, int value)
{
    sh_status st = SH_OK;

    ZMQ(zmq_setsockopt(socket, option, &value, sizeof(value)));
out:
    return st;
}

/* The addresses of this host that others may reach. */
static sh_status list_addresses(sh_watch_card *card)
{
    sh_status st = SH_OK;
    struct ifaddrs *all = NULL;

    SH_CHECK(getifaddrs(&all) == 0, SH_ERR_COMM, "watchdog: cannot list network interfaces: %s",
             strerror(errno));
    for (const struct ifaddrs *a = all; a != NULL; a = a->ifa_next) {
        if (a->ifa_addr == NULL || a->ifa_addr->sa_family != AF_INET || a->ifa_netmask == NULL ||
            (a->ifa_flags & IFF_LOOPBACK) != 0 || (a->ifa_flags & IFF_UP) == 0 ||
            card->n_addresses == SH_WATCH_ADDRESSES)
            continue;
        int i = card->n_addresses++;

        card->addresses[i] =
            ((const struct sockaddr_in *)(const void *)a->ifa_addr)->sin_addr.s_addr;
        card->masks[i] =
            ((const struct sockaddr_in *)(const void *)a->ifa_netmask)->sin_addr.s_addr;
    }
out:
    if (all != NULL) freeifaddrs(all);
    return st;
}

static sh_status start_listening(sh_watch_net *net, bool one_host)
{
    sh_status st = SH_OK;
    char endpoint[ADDRESS_TEXT];
    size_t n_endpoint = sizeof(endpoint);

    net->listener = zmq_socket(net->context, ZMQ_ROUTER);
    SH_CHECK(net->listener != NULL, SH_ERR_COMM, "watchdog: %s", zmq_strerror(zmq_errno()));
    SH_TRY(set_int(net->listener, ZMQ_LINGER, LINGER_MS));
    SH_TRY(set_int(net->listener, ZMQ_SNDHWM, QUEUE));
    SH_TRY(set_int(net->listener, ZMQ_CURVE_SERVER, 1));
    /* A judge that lost its connection comes back under its name. */
    SH_TRY(set_int(net->listener, ZMQ_ROUTER_HANDOVER, 1));
    ZMQ(zmq_setsockopt(net->listener, ZMQ_MAXMSGSIZE, &(int64_t){MAX_FRAME}, sizeof(int64_t)));
    ZMQ(zmq_setsockopt(net->listener, ZMQ_CURVE_SECRETKEY, net->keys.server_secret, 41));
    ZMQ(zmq_bind(net->listener, one_host ? "tcp://127.0.0.1:*" : "tcp://*:*"));
    ZMQ(zmq_getsockopt(net->listener, ZMQ_LAST_ENDPOINT, endpoint, &n_endpoint));
    net->card.port = (uint16_t)atoi(strrchr(endpoint, ':') + 1);
out:
    return st;
}

sh_status sh_watch_net_open(int rank, bool one_host, const sh_watch_keys *keys, sh_watch_card *card,
                            sh_watch_net **out)
{
    sh_status st = SH_OK;
    sh_watch_net *net = calloc(1, sizeof(*net));

    SH_CHECK(net != NULL, SH_ERR_NO_MEMORY, "watchdog");
    net->rank = rank;
    net->keys = *keys;
    memcpy(net->card.host, card->host, sizeof(card->host));
    net->context = zmq_ctx_new();
    SH_CHECK(net->context != NULL, SH_ERR_COMM, "watchdog: %s", zmq_strerror(zmq_errno()));
    /* A judge needs two sockets for each rank. */
    SH_CHECK(zmq_ctx_set(net->context, ZMQ_MAX_SOCKETS,
                         zmq_ctx_get(net->context, ZMQ_SOCKET_LIMIT)) == 0,
             SH_ERR_COMM, "watchdog: %s", zmq_strerror(zmq_errno()));
    SH_TRY(list_addresses(&net->card));
    SH_TRY(start_listening(net, one_host));
    *card = net->card;
    *out = net;
    net = NULL;
out:
    sh_watch_net_close(&net);
    return st;
}

void sh_watch_net_close(sh_watch_net **net)
{
    sh_watch_net *n = *net;

    if (n == NULL) return;
    for (int r = 0; n->peers != NULL && r < n->n_ranks; r++) {
        if (n->peers[r].monitor != NULL) zmq_close(n->peers[r].monitor);
        if (n->peers[r].socket != NULL) zmq_close(n->peers[r].socket);
    }
    if (n->listener != NULL) zmq_close(n->listener);
    if (n->context != NULL) zmq_ctx_term(n->context);
    free(n->peers);
    free(n->polled);
    free(n);
    *net = NULL;
}

/* ---- a judge's connections ---- */

/* A plain TCP connection, given up again at once: 0, or why not (ETIMEDOUT: no answer in time). */
static int probe(const struct sockaddr_in *address)
{
    int error = 0, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    socklen_t size = sizeof(error);

    if (fd < 0) return errno;
    struct pollfd pfd = {.fd = fd, .events = POLLOUT};

    if (connect(fd, (const struct sockaddr *)(const void *)address, sizeof(*address)) != 0) {
        error = errno;
        if (error == EINPROGRESS) error = poll(&pfd, 1, PROBE_MS) == 1 ? 0 : ETIMEDOUT;
        if (error == 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
    }
    close(fd);
    return error;
}

static bool shares_network(const sh_watch_card *mine, const sh_watch_card *theirs, int address)
{
    for (int i = 0; i < mine->n_addresses; i++)
        if ((mine->addresses[i] & mine->masks[i]) == (theirs->addresses[address] & mine->masks[i]))
            return true;
    return false;
}

/* The address of `card` that answers: this host's own, one of a network that both are in, any. */
static sh_status find_address(const sh_watch_net *net, const sh_watch_card *card,
                              struct sockaddr_in *out)
{
    sh_status st = SH_OK;
    int error = EADDRNOTAVAIL;

    *out = (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons(card->port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (strcmp(card->host, net->card.host) == 0 && (error = probe(out)) == 0) goto out;
    for (int near = 1; near >= 0; near--) {
        for (int i = 0; i < card->n_addresses && i < SH_WATCH_ADDRESSES; i++) {
            if (shares_network(&net->card, card, i) != (near == 1)) continue;
            out->sin_addr.s_addr = card->addresses[i];
            if ((error = probe(out)) == 0) goto out;
        }
    }
    SH_FAIL(SH_ERR_COMM, "none of the %d addresses of %s answers on port %d: %s", card->n_addresses,
            card->host, card->port, strerror(error));
out:
    return st;
}

static sh_status connect_to(sh_watch_net *net, int rank, const sh_watch_card *card)
{
    sh_status st = SH_OK;
    peer *p = &net->peers[rank];
    char endpoint[ADDRESS_TEXT], address[INET_ADDRSTRLEN], monitor[ADDRESS_TEXT];

    SH_TRY(find_address(net, card, &p->address));
    inet_ntop(AF_INET, &p->address.sin_addr, address, sizeof(address));
    snprintf(endpoint, sizeof(endpoint), "tcp://%s:%d", address, card->port);
    snprintf(monitor, sizeof(monitor), "inproc://rank-%d", rank);
    p->socket = zmq_socket(net->context, ZMQ_DEALER);
    p->monitor = zmq_socket(net->context, ZMQ_PAIR);
    SH_CHECK(p->socket != NULL && p->monitor != NULL, SH_ERR_COMM, "watchdog: %s",
             zmq_strerror(zmq_errno()));
    SH_TRY(set_int(p->socket, ZMQ_LINGER, LINGER_MS));
    SH_TRY(set_int(p->socket, ZMQ_SNDHWM, QUEUE));
    ZMQ(zmq_setsockopt(p->socket, ZMQ_MAXMSGSIZE, &(int64_t){MAX_FRAME}, sizeof(int64_t)));
    ZMQ(zmq_setsockopt(p->socket, ZMQ_CURVE_SERVERKEY, net->keys.server_public, 41));
    ZMQ(zmq_setsockopt(p->socket, ZMQ_CURVE_PUBLICKEY, net->keys.client_public, 41));
    ZMQ(zmq_setsockopt(p->socket, ZMQ_CURVE_SECRETKEY, net->keys.client_secret, 41));
    /* The name under which the other rank answers; it may not begin with a zero byte. */
    ZMQ(zmq_setsockopt(p->socket, ZMQ_ROUTING_ID,
                       &(int32_t){(int32_t)htonl((1u << 24) + (uint32_t)net->rank)},
                       sizeof(int32_t)));
    ZMQ(zmq_socket_monitor(p->socket, monitor, ZMQ_EVENT_DISCONNECTED));
    ZMQ(zmq_connect(p->monitor, monitor));
    ZMQ(zmq_connect(p->socket, endpoint));
out:
    return st;
}

sh_status sh_watch_net_connect(sh_watch_net *net, int n_ranks, const sh_watch_card *cards)
{
    sh_status st = SH_OK;

    net->n_ranks = n_ranks;
    net->peers = calloc((size_t)n_ranks, sizeof(*net->peers));
    SH_CHECK(net->peers != NULL, SH_ERR_NO_MEMORY, "watchdog over %d ranks", n_ranks);
    for (int r = 0; r < n_ranks; r++)
        if (r != net->rank) SH_TRY(connect_to(net, r, &cards[r]));
out:
    return st;
}

/* ---- messages ---- */

void sh_watch_net_wait(sh_watch_net *net, int wake_fd, int timeout_ms)
{
    int n = 0;

    if (net->polled == NULL)
        net->polled = calloc((size_t)(2 + 2 * net->n_ranks), sizeof(*net->polled));
    if (net->polled == NULL) return;
    net->polled[n++] = (zmq_pollitem_t){.fd = wake_fd, .events = ZMQ_POLLIN};
    net->polled[n++] = (zmq_pollitem_t){.socket = net->listener, .events = ZMQ_POLLIN};
    for (int r = 0; net->peers != NULL && r < net->n_ranks; r++) {
        if (net->peers[r].socket == NULL) continue;
        net->polled[n++] = (zmq_pollitem_t){.socket = net->peers[r].socket, .events = ZMQ_POLLIN};
        net->polled[n++] = (zmq_pollitem_t){.socket = net->peers[r].monitor, .events = ZMQ_POLLIN};
    }
    zmq_poll(net->polled, n, timeout_ms);
}

/* One message of several frames, the last of them in data; its length, or -1 if there is none. */
static int receive_last_frame(void *socket, uint8_t data[SH_WATCH_MAX_BYTES])
{
    int n = zmq_recv(socket, data, SH_WATCH_MAX_BYTES, ZMQ_DONTWAIT);

    for (;;) {
        int more = 0;
        size_t size = sizeof(more);

        if (n < 0 || zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &size) != 0 || !more) return n;
        n = zmq_recv(socket, data, SH_WATCH_MAX_BYTES, ZMQ_DONTWAIT);
    }
}

/* From one socket, malformed messages passed over. */
static bool receive_from(void *socket, int n_ranks, sh_watch_message *out)
{
    uint8_t data[SH_WATCH_MAX_BYTES];

    for (;;) {
        int n = receive_last_frame(socket, data);

        if (n < 0) return false;
        if (n <= (int)sizeof(data) && sh_watch_decode(data, (size_t)n, n_ranks, out)) return true;
    }
}

bool sh_watch_net_receive(sh_watch_net *net, int n_ranks, sh_watch_message *out)
{
    if (receive_from(net->listener, n_ranks, out)) return true;
    for (int r = 0; net->peers != NULL && r < net->n_ranks; r++) {
        if (net->peers[r].socket == NULL || !receive_from(net->peers[r].socket, n_ranks, out))
            continue;
        if (out->rank != r) continue; /* a rank speaks for itself only */
        net->peers[r].broken = false;
        return true;
    }
    return false;
}

void sh_watch_net_send(sh_watch_net *net, int to_rank, const sh_watch_message *message)
{
    uint8_t data[SH_WATCH_MAX_BYTES];
    size_t n = sh_watch_encode(message, data);

    if (net->peers != NULL && net->peers[to_rank].socket != NULL) {
        zmq_send(net->peers[to_rank].socket, data, n, ZMQ_DONTWAIT);
        return;
    }
    uint32_t name = htonl((1u << 24) + (uint32_t)to_rank);

    if (zmq_send(net->listener, &name, sizeof(name), ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0)
        zmq_send(net->listener, data, n, ZMQ_DONTWAIT);
}

bool sh_watch_net_ended(sh_watch_net *net, int rank)
{
    uint8_t event[256];

    if (net->peers == NULL || net->peers[rank].socket == NULL) return false;
    peer *p = &net->peers[rank];

    /* Each event is two frames; only one kind was asked for. */
    while (zmq_recv(p->monitor, event, sizeof(event), ZMQ_DONTWAIT) >= 0) p->broken = true;
    if (!p->broken) return false;
    int error = probe(&p->address);

    if (error == ETIMEDOUT) p->broken = false; /* its host is out of reach: silence will tell */
    return error == ECONNREFUSED;
}
