// SPDX-License-Identifier: Apache-2.0
#include "models/onnx/protobuf.h"

#include <stdlib.h>
#include <string.h>

enum { WIRE_VARINT = 0, WIRE_LENGTH = 2, WIRE_FIXED32 = 5 };

void sh_pb_clear(sh_pb *pb)
{
    free(pb->data);
    *pb = (sh_pb){0};
}

static void append(sh_pb *pb, const void *data, size_t n)
{
    if (pb->n_bytes + n > pb->capacity) {
        size_t capacity = 2 * pb->capacity > pb->n_bytes + n ? 2 * pb->capacity : pb->n_bytes + n;
        uint8_t *grown = realloc(pb->data, capacity);

        pb->failed |= grown == NULL;
        if (grown == NULL) return;
        pb->data = grown;
        pb->capacity = capacity;
    }
    if (n > 0) memcpy(pb->data + pb->n_bytes, data, n);
    pb->n_bytes += n;
}

static void append_varint(sh_pb *pb, uint64_t value)
{
    uint8_t bytes[10];
    size_t n = 0;

    do {
        bytes[n] = (uint8_t)(value & 0x7F);
        value >>= 7;
        bytes[n++] |= value != 0 ? 0x80 : 0;
    } while (value != 0);
    append(pb, bytes, n);
}

static void append_tag(sh_pb *pb, int field, int wire)
{
    append_varint(pb, (uint64_t)field << 3 | (uint64_t)wire);
}

void sh_pb_int(sh_pb *pb, int field, int64_t value)
{
    append_tag(pb, field, WIRE_VARINT);
    append_varint(pb, (uint64_t)value);
}

void sh_pb_float(sh_pb *pb, int field, float value)
{
    append_tag(pb, field, WIRE_FIXED32);
    append(pb, &value, sizeof(value));
}

void sh_pb_bytes(sh_pb *pb, int field, const void *data, size_t n_bytes)
{
    append_tag(pb, field, WIRE_LENGTH);
    append_varint(pb, n_bytes);
    append(pb, data, n_bytes);
}

void sh_pb_text(sh_pb *pb, int field, const char *text)
{
    sh_pb_bytes(pb, field, text, strlen(text));
}

void sh_pb_message(sh_pb *pb, int field, sh_pb *message)
{
    pb->failed |= message->failed;
    sh_pb_bytes(pb, field, message->data, message->n_bytes);
    sh_pb_clear(message);
}
