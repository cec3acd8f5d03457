// SPDX-License-Identifier: Apache-2.0
/* The watchdog's messages. Whoever can send one has the run's secret; it is checked all the same.
 */
#include <string.h>

#include "comm/watch.h"

static const uint8_t magic[4] = {'s', 'h', 'W', '1'};
static const uint64_t longest_ms = UINT64_C(1) << 52; /* seconds in f64 and back are the same */

static uint8_t *put(uint8_t *at, uint64_t value, int n_bytes)
{
    for (int i = 0; i < n_bytes; i++) *at++ = (uint8_t)(value >> 8 * i);
    return at;
}

static uint64_t get(const uint8_t **at, int n_bytes)
{
    uint64_t value = 0;

    for (int i = 0; i < n_bytes; i++) value |= (uint64_t) * (*at)++ << 8 * i;
    return value;
}

size_t sh_watch_encode(const sh_watch_message *m, uint8_t *out)
{
    uint8_t *at = out;
    size_t n_text = strnlen(m->position.what, SH_POSITION_TEXT - 1);

    memcpy(at, magic, sizeof(magic));
    at = put(at + sizeof(magic), m->kind, 1);
    at = put(at, m->position.activity, 1);
    at = put(at, n_text, 2);
    at = put(at, (uint64_t)m->rank, 4);
    at = put(at, (uint64_t)(m->still_s * 1000), 8);
    at = put(at, m->position.n_moves, 8);
    memcpy(at, m->position.what, n_text);
    return (size_t)(at - out) + n_text;
}

bool sh_watch_decode(const uint8_t *data, size_t n_bytes, int n_ranks, sh_watch_message *out)
{
    const uint8_t *at = data + sizeof(magic);

    if (n_bytes < SH_WATCH_HEAD_BYTES || memcmp(data, magic, sizeof(magic)) != 0) return false;
    uint64_t kind = get(&at, 1), activity = get(&at, 1), n_text = get(&at, 2), rank = get(&at, 4);
    uint64_t still_ms = get(&at, 8);
    sh_watch_message m = {.kind = (sh_watch_kind)kind,
                          .rank = (int)rank,
                          .still_s = (double)still_ms / 1000,
                          .position = {.activity = (sh_activity)activity, .n_moves = get(&at, 8)}};

    if (kind < SH_WATCH_BEAT || kind >= SH_WATCH_KIND_END || activity >= SH_AT_COUNT ||
        rank >= (uint64_t)n_ranks || still_ms > longest_ms || n_text >= SH_POSITION_TEXT ||
        n_bytes != SH_WATCH_HEAD_BYTES + n_text)
        return false;
    for (uint64_t i = 0; i < n_text; i++)
        m.position.what[i] = at[i] >= ' ' && at[i] < 127 ? (char)at[i] : '?';
    *out = m;
    return true;
}
