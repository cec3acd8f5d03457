// SPDX-License-Identifier: Apache-2.0
/* Recordings as lists of what was launched, with copies of its arguments. As strict as a device
 * that captures a graph: what waits or allocates meanwhile, or brings in, fails and spoils the
 * recording. (Copies from page-locked memory would be captured; nobody records them.) */
#include "models/cuda/record.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#include "models/cuda/emulator/order.h"
#include "models/cuda/memory.h"

typedef struct command {
    struct command *next;
    void (*body)(void *closure);
    alignas(max_align_t) char closure[];
} command;

struct sh_recording {
    command *first, **end;
};

static sh_recording *recording; /* the one that is being made */
static bool is_spoilt;
static long n_plays, n_singles;

void sh_emulator_queue(void (*body)(void *closure), void *closure, size_t n_bytes)
{
    command *c = NULL;

    if (recording == NULL) {
        n_singles++;
        body(closure);
        return;
    }
    c = malloc(sizeof(*c) + n_bytes);
    if (c == NULL) {
        is_spoilt = true;
        return;
    }
    c->next = NULL;
    c->body = body;
    memcpy(c->closure, closure, n_bytes);
    *recording->end = c;
    recording->end = &c->next;
}

sh_status sh_emulator_refuse(const char *what)
{
    sh_status st = SH_OK;

    is_spoilt = is_spoilt || recording != NULL;
    SH_CHECK(recording == NULL, SH_ERR_INTERNAL, "%s while kernels are recorded", what);
out:
    return st;
}

bool sh_emulator_is_recording(void)
{
    return recording != NULL;
}

long sh_emulator_plays(void)
{
    return n_plays;
}

long sh_emulator_singles(void)
{
    return n_singles;
}

static void destroy(sh_recording **r)
{
    if (*r == NULL) return;
    for (command *c = (*r)->first, *next; c != NULL; c = next) {
        next = c->next;
        free(c);
    }
    free(*r);
    *r = NULL;
}

static sh_status begin(void)
{
    sh_status st = SH_OK;

    SH_TRY(sh_emulator_refuse("a second recording"));
    recording = calloc(1, sizeof(*recording));
    SH_CHECK(recording != NULL, SH_ERR_NO_MEMORY, "a recording");
    recording->end = &recording->first;
    is_spoilt = false;
out:
    return st;
}

static void drop(void)
{
    destroy(&recording);
}

static sh_status end(sh_recording **out)
{
    sh_status st = SH_OK;

    SH_CHECK(!is_spoilt, SH_ERR_INTERNAL, "the recording is spoilt");
    *out = recording;
    recording = NULL;
out:
    destroy(&recording);
    return st;
}

static sh_status play(sh_recording *r)
{
    sh_status st = SH_OK;

    SH_TRY(sh_emulator_refuse("a recording played"));
    for (command *c = r->first; c != NULL; c = c->next) c->body(c->closure);
    n_plays++;
    SH_TRY(sh_cuda_launched("a recording"));
out:
    return st;
}

const sh_recorder sh_cuda_recorder = {
    .begin = begin, .end = end, .drop = drop, .play = play, .destroy = destroy};
