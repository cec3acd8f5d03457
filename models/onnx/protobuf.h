// SPDX-License-Identifier: Apache-2.0
/** Protocol buffers, writing only: fields appended to a growing buffer. Where memory runs short the
 *  buffer remembers it, and whoever writes the file asks once. Encoding:
 *  protobuf.dev/programming-guides/encoding. */
#ifndef SH_MODELS_ONNX_PROTOBUF_H
#define SH_MODELS_ONNX_PROTOBUF_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

SH_C_BEGIN

typedef struct sh_pb {
    uint8_t *data;
    size_t n_bytes, capacity;
    bool failed; /* out of memory: what was written is not whole */
} sh_pb;

void sh_pb_clear(sh_pb *pb);

void sh_pb_int(sh_pb *pb, int field, int64_t value);
void sh_pb_float(sh_pb *pb, int field, float value);
void sh_pb_bytes(sh_pb *pb, int field, const void *data, size_t n_bytes);
void sh_pb_text(sh_pb *pb, int field, const char *text);

/** Append a message as a field, and clear it. */
void sh_pb_message(sh_pb *pb, int field, sh_pb *message);

SH_C_END

#endif
