// SPDX-License-Identifier: Apache-2.0
/**
 * The watchdog's connections: libzmq, encrypted, beside MPI.
 *
 * Every rank listens on a port of its own; the judges connect to all others. Both ends need the
 * run's keys, which rank 0 makes and MPI carries: without them a connection never gets past its
 * handshake. All calls but keys and destroy come from the thread that called open.
 */
#ifndef SH_COMM_WATCH_NET_H
#define SH_COMM_WATCH_NET_H

#include "comm/watch.h"

SH_C_BEGIN

/** CURVE keys, printable (Z85). The server's public key is a secret of the run as well. */
typedef struct sh_watch_keys {
    char server_public[41], server_secret[41], client_public[41], client_secret[41];
} sh_watch_keys;

enum { SH_WATCH_ADDRESSES = 8 };

/** How a rank is reached; sent as it is between processes of one build. */
typedef struct sh_watch_card {
    char host[SH_WATCH_HOST];
    uint32_t addresses[SH_WATCH_ADDRESSES], masks[SH_WATCH_ADDRESSES]; /* IPv4, network order */
    uint16_t n_addresses, port;
} sh_watch_card;

typedef struct sh_watch_net sh_watch_net;

/** New keys for a run. */
SH_MUST_CHECK sh_status sh_watch_make_keys(sh_watch_keys *keys);

/** Listen, for ranks of this host only if there are no others; `card` says where, its host apart.
 *  The caller owns *out. */
SH_MUST_CHECK sh_status sh_watch_net_open(int rank, bool one_host, const sh_watch_keys *keys,
                                          sh_watch_card *card, sh_watch_net **out);

/** Says nothing to anybody; what was sent is given half a second to leave. */
void sh_watch_net_close(sh_watch_net **net);

/** A judge's connections, one to each of the other ranks; cards [n_ranks]. */
SH_MUST_CHECK sh_status sh_watch_net_connect(sh_watch_net *net, int n_ranks,
                                             const sh_watch_card *cards);

/** Wait until a message is there, `wake_fd` is readable, or the time is over. */
void sh_watch_net_wait(sh_watch_net *net, int wake_fd, int timeout_ms);

/** The next message, not waiting; false: there is none. Malformed ones are dropped. */
bool sh_watch_net_receive(sh_watch_net *net, int n_ranks, sh_watch_message *out);

/** Send to a rank: over the own connection to it, or back over its connection to here. Never waits;
 *  what cannot be sent is dropped. */
void sh_watch_net_send(sh_watch_net *net, int to_rank, const sh_watch_message *message);

/** Has the process of `rank` ended: its connection is broken, and its port refuses another? */
bool sh_watch_net_ended(sh_watch_net *net, int rank);

SH_C_END

#endif
