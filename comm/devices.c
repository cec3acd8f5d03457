// SPDX-License-Identifier: Apache-2.0
/* Which rank has which device, and whether they can be connected. */
#include "comm/devices.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#if SHOAL_WITH_NCCL
static const sh_device_transport *const transport = &sh_nccl_transport;
#else
static const sh_device_transport *const transport = NULL;
#endif

typedef struct card {
    char host[256], id[SH_DEVICE_ID], text[SH_DEVICE_TEXT];
    char library[64]; /* "": it has none, or was not asked to look */
    char missing[512];
} card;

/* What this rank has to connect its device with. */
static void look_for_library(card *mine)
{
    if (transport == NULL || transport->open(mine->library, sizeof(mine->library)) == SH_OK) return;
    snprintf(mine->missing, sizeof(mine->missing), "%s", sh_error_message());
    sh_error_clear();
}

static sh_status gather_cards(sh_comm *comm, const sh_device *device, bool connects, card **out)
{
    sh_status st = SH_OK, mine = SH_OK;
    card *cards = calloc((size_t)comm->size, sizeof(*cards));
    int64_t items = comm->size;

    if (cards == NULL)
        mine = sh_error_set(SH_ERR_NO_MEMORY, "a list of %d devices", comm->size);
    else
        mine = device->identify(cards[comm->rank].id, cards[comm->rank].text);
    SH_TRY(sh_comm_agree_ok(comm, mine));
    if (connects) look_for_library(&cards[comm->rank]);
    memcpy(cards[comm->rank].host, comm->host, sizeof(comm->host));
    SH_TRY(sh_comm_gather_items(comm, items, sizeof(*cards), cards));
    *out = cards;
    cards = NULL;
out:
    free(cards);
    return st;
}

/* Two ranks that have one device between them: *first < *second; or false. */
static bool share_a_device(const card *cards, int n, int *first, int *second)
{
    for (*second = 1; *second < n; ++*second) {
        for (*first = 0; *first < *second; ++*first) {
            if (strcmp(cards[*first].host, cards[*second].host) == 0 &&
                strcmp(cards[*first].id, cards[*second].id) == 0)
                return true;
        }
    }
    return false;
}

/* The first rank that has no library or another one than rank 0; n: none. */
static int find_odd(const card *cards, int n)
{
    int r = 0;

    while (r < n && cards[r].library[0] != '\0' && strcmp(cards[r].library, cards[0].library) == 0)
        r++;
    return r;
}

/* Why the devices cannot be connected, into `reason`; false where they can. */
static bool find_reason(const card *cards, int n, char *reason, size_t size)
{
    int first, second, odd = find_odd(cards, n);

    if (transport == NULL) {
        snprintf(reason, size, "NCCL is not in this build (-DSHOAL_WITH_NCCL=ON)");
        return true;
    }
    if (share_a_device(cards, n, &first, &second)) {
        snprintf(reason, size,
                 "ranks %d and %d share a device (%s on %s): start one rank per GPU (Slurm: "
                 "--gpus-per-task=1)",
                 first, second, cards[first].text, cards[first].host);
        return true;
    }
    if (odd == n) return false;
    if (cards[odd].library[0] == '\0')
        snprintf(reason, size, "rank %d on %s: %s", odd, cards[odd].host, cards[odd].missing);
    else
        snprintf(reason, size, "rank 0 has %s, and rank %d on %s has %s: name one in NCCL_ROOT",
                 cards[0].library, odd, cards[odd].host, cards[odd].library);
    return true;
}

sh_status sh_comm_connect_devices(sh_comm *comm, const sh_device *device,
                                  const sh_device_group_config *config)
{
    sh_status st = SH_OK;
    card *cards = NULL;
    char reason[1024];

    bool connects = config->transport == SH_TRANSPORT_NCCL ||
                    (config->transport == SH_TRANSPORT_AUTO && comm->size > 1);

    if (comm->device != NULL) goto out;
    SH_TRY(gather_cards(comm, device, connects, &cards));
    for (int r = 0; r < comm->size; r++)
        sh_log_info("rank %d on %s: %s", r, cards[r].host, cards[r].text);
    bool cannot = connects && find_reason(cards, comm->size, reason, sizeof(reason));

    SH_CHECK(!cannot || config->transport != SH_TRANSPORT_NCCL, SH_ERR_UNSUPPORTED,
             "transport=nccl: %s", reason);
    if (cannot) sh_log_info("gradients travel through the hosts: %s", reason);
    if (cannot || !connects || comm->size == 1) goto out;
    SH_TRY(transport->join(comm, device, config, &comm->device_group));
    comm->device = device;
out:
    free(cards);
    return st;
}

void sh_comm_examine(sh_finding *out)
{
    *out = (sh_finding){.what = "nccl",
                        .found = "not in this build",
                        .remedy =
                            "several GPUs sum through the hosts: build with -DSHOAL_WITH_NCCL=ON"};
    if (transport != NULL) transport->examine(out);
}

bool sh_comm_sums_in(const sh_comm *comm, const sh_device *device)
{
    return device != NULL && (comm->size == 1 || comm->device == device);
}

const sh_exchange *sh_devices_exchange(sh_reduce_mode mode)
{
    return transport != NULL ? transport->exchanges[mode] : NULL;
}

void sh_devices_leave(sh_comm *comm)
{
    if (comm->device_group != NULL) transport->leave(&comm->device_group);
    comm->device = NULL;
}
