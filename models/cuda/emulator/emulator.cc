// SPDX-License-Identifier: Apache-2.0
/* Fibres come from a pool. One runs thread after thread to its end; only a thread that waits keeps
 * its fibre, and the next one begins on another. So a kernel without barriers costs a function call
 * per thread. A fibre begins by a ucontext, which gives it its stack; from then on it is left and
 * entered by jumps, since ucontexts ask the system for the mask of signals at each switch, which
 * took half of the tests' time. */
#include "models/cuda/emulator/emulator.h"

#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "base/rng.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define BEFORE_SWITCH(save, stack, size) __sanitizer_start_switch_fiber(save, stack, size)
#define AFTER_SWITCH(save, stack, size) __sanitizer_finish_switch_fiber(save, stack, size)
#else
#define BEFORE_SWITCH(save, stack, size) (void)(save)
#define AFTER_SWITCH(save, stack, size) (void)(save)
#endif

enum {
    MAX_THREADS = 1024,
    WARP = 32,
    STACK_BYTES = 256 << 10,
    SHARED_BYTES = 48 << 10, /* what a launch gets without asking for more */
    GUARD_BYTES = 64,
    PARAMETER_BYTES = 4096, /* of a launch's arguments */
    MAX_FILES = 64,
};

typedef enum wait_kind { RUNNABLE, AT_BLOCK_BARRIER, AT_WARP_BARRIER, DONE } wait_kind;

struct fiber {
    ucontext_t first; /* where it begins */
    bool has_begun;
    jmp_buf at; /* where it goes on */
    char *stack;
    void *fake_stack; /* AddressSanitizer's */
};

struct emulator {
    /* the launch */
    void (*body)(void *closure);
    void *closure;
    int n_threads;
    /* the block: threads in the order of their turns, and the first that has not begun */
    int turn[MAX_THREADS], n_begun;
    wait_kind state[MAX_THREADS];
    fiber *owner[MAX_THREADS]; /* of a thread that waits */
    float exchange[MAX_THREADS];
    int current;
    /* fibres */
    fiber fibers[MAX_THREADS];
    fiber *idle[MAX_THREADS];
    int n_fibers, n_idle;
    fiber *running;
    jmp_buf scheduler;
    void *scheduler_fake;
    const void *scheduler_stack;
    size_t scheduler_size;
    /* across launches */
    sh_emulator_order order;
    uint64_t n_launches;
    bool is_faulty;
    char fault[256], told[256];
    struct {
        const char *name;
        long n;
    } files[MAX_FILES];
};

static emulator E;
dim3 threadIdx, blockIdx, blockDim, gridDim;
static unsigned char shared_memory[SHARED_BYTES + GUARD_BYTES];
unsigned char *sh_emulator_shared = shared_memory;

template <class... T> static void fail(const char *format, T... values)
{
    if (!E.is_faulty) snprintf(E.fault, sizeof(E.fault), format, values...);
    E.is_faulty = true;
}

/* ---- fibres ---- */

static void to_scheduler()
{
    fiber *self = E.running;

    BEFORE_SWITCH(&self->fake_stack, E.scheduler_stack, E.scheduler_size);
    if (_setjmp(self->at) == 0) _longjmp(E.scheduler, 1);
    AFTER_SWITCH(self->fake_stack, &E.scheduler_stack, &E.scheduler_size);
}

static void become(int thread)
{
    E.current = thread;
    threadIdx.x = (unsigned)thread % blockDim.x;
    threadIdx.y = (unsigned)thread / blockDim.x % blockDim.y;
    threadIdx.z = (unsigned)thread / blockDim.x / blockDim.y;
}

static void fiber_main()
{
    AFTER_SWITCH(nullptr, &E.scheduler_stack, &E.scheduler_size);
    for (;;) {
        while (E.n_begun < E.n_threads) {
            int thread = E.turn[E.n_begun++];
            become(thread);
            E.body(E.closure);
            E.state[E.current] = DONE;
            if (E.owner[E.current] != nullptr) break; /* it had waited: the scheduler goes on */
        }
        E.idle[E.n_idle++] = E.running;
        to_scheduler();
    }
}

static void resume(fiber *f)
{
    E.running = f;
    BEFORE_SWITCH(&E.scheduler_fake, f->stack, STACK_BYTES);
    if (_setjmp(E.scheduler) == 0) {
        if (f->has_begun) _longjmp(f->at, 1);
        f->has_begun = true;
        setcontext(&f->first);
    }
    AFTER_SWITCH(E.scheduler_fake, nullptr, nullptr);
}

static void rewind_fiber(fiber *f)
{
    f->has_begun = false;
    f->fake_stack = nullptr;
    getcontext(&f->first);
    f->first.uc_stack.ss_sp = f->stack;
    f->first.uc_stack.ss_size = STACK_BYTES;
    f->first.uc_link = nullptr;
    makecontext(&f->first, fiber_main, 0);
}

static fiber *new_fiber()
{
    if (E.n_idle > 0) return E.idle[--E.n_idle];
    fiber *f = &E.fibers[E.n_fibers++];
    if (f->stack == nullptr) {
        void *stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        f->stack = static_cast<char *>(stack);
    }
    rewind_fiber(f);
    return f;
}

static void wait_at(wait_kind kind)
{
    int thread = E.current;

    E.state[thread] = kind;
    E.owner[thread] = E.running;
    to_scheduler();
}

void __syncthreads()
{
    wait_at(AT_BLOCK_BARRIER);
}

void __syncwarp()
{
    wait_at(AT_WARP_BARRIER);
}

float __shfl_xor_sync(unsigned mask, float value, int lane_mask)
{
    int thread = E.current, lane = thread % WARP, from = thread - lane + (lane ^ lane_mask);

    if (mask != ~0u) fail("shuffle with a mask of %x: only whole warps are allowed", mask);
    E.exchange[thread] = value;
    wait_at(AT_WARP_BARRIER);
    float got = from < E.n_threads ? E.exchange[from] : NAN;
    wait_at(AT_WARP_BARRIER);
    return got;
}

/* ---- one block ---- */

static bool all_in(int begin, int end, wait_kind kind)
{
    for (int i = begin; i < end; i++) {
        if (E.state[i] != kind) return false;
    }
    return true;
}

static void release(int begin, int end)
{
    for (int i = begin; i < end; i++) E.state[i] = RUNNABLE;
}

/** Open the barriers at which everybody has arrived. False: nobody can go on. */
static bool open_barriers()
{
    bool any = false;

    if (all_in(0, E.n_threads, AT_BLOCK_BARRIER)) {
        release(0, E.n_threads);
        return true;
    }
    for (int w = 0; w < E.n_threads; w += WARP) {
        int end = w + WARP < E.n_threads ? w + WARP : E.n_threads;
        if (!all_in(w, end, AT_WARP_BARRIER)) continue;
        release(w, end);
        any = true;
    }
    return any;
}

static void run_block()
{
    E.n_begun = 0;
    for (int i = 0; i < E.n_threads; i++) {
        E.state[i] = RUNNABLE;
        E.owner[i] = nullptr;
    }
    while (E.n_begun < E.n_threads) resume(new_fiber());
    while (!all_in(0, E.n_threads, DONE)) {
        if (!open_barriers()) {
            fail("divergent barrier in block %u,%u,%u: some threads never reach it", blockIdx.x,
                 blockIdx.y, blockIdx.z);
            E.n_fibers = E.n_idle = 0; /* those that wait are begun anew */
            return;
        }
        for (int i = 0; i < E.n_threads; i++) {
            int thread = E.turn[i];
            if (E.state[thread] != RUNNABLE) continue;
            become(thread);
            resume(E.owner[thread]);
        }
    }
}

/* ---- a launch ---- */

/** 0 .. n - 1 in the order that is set. */
static void make_order(int *order, int n, uint64_t slot)
{
    static int64_t shuffled[MAX_THREADS];

    for (int i = 0; i < n; i++) shuffled[i] = i;
    if (E.order == SH_EMULATOR_SHUFFLED) {
        sh_rng_shuffle(sh_rng_make(1, SH_RNG_TEST, E.n_launches, slot), shuffled, n);
    }
    for (int i = 0; i < n; i++) {
        order[i] = (int)shuffled[E.order == SH_EMULATOR_REVERSED ? n - 1 - i : i];
    }
}

static void count(const char *file)
{
    const char *slash = strrchr(file, '/');
    const char *name = slash != nullptr ? slash + 1 : file;

    for (int i = 0; i < MAX_FILES; i++) {
        if (E.files[i].name == nullptr) E.files[i].name = name;
        if (strcmp(E.files[i].name, name) != 0) continue;
        E.files[i].n++;
        return;
    }
}

static bool is_possible(dim3 grid, dim3 block, size_t shared_bytes)
{
    uint64_t n_threads = (uint64_t)block.x * block.y * block.z;

    if (n_threads == 0 || n_threads > MAX_THREADS || block.z > 64) {
        fail("a block of %u x %u x %u threads", block.x, block.y, block.z);
    } else if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7FFFFFFFu ||
               grid.y > 65535 || grid.z > 65535) {
        fail("a grid of %u x %u x %u blocks", grid.x, grid.y, grid.z);
    } else if (shared_bytes > SHARED_BYTES) {
        fail("%zu bytes of shared memory", shared_bytes);
    }
    return !E.is_faulty;
}

/** A launch as it is queued; its closure stands behind it. */
struct alignas(max_align_t) queued {
    const char *file;
    dim3 grid, block;
    size_t shared_bytes;
    void (*body)(void *closure);
};

static const float launch_ms = 0.001f; /* by the device's clock */

static void run_launch(void *from)
{
    const queued *l = static_cast<const queued *>(from);

    if (E.is_faulty) return;
    count(l->file);
    sh_emulator_pass(launch_ms);
    E.body = l->body;
    E.closure = static_cast<char *>(from) + sizeof(*l);
    E.n_threads = (int)(l->block.x * l->block.y * l->block.z);
    E.n_launches++;
    blockDim = l->block;
    gridDim = l->grid;
    uint64_t n_blocks = (uint64_t)gridDim.x * gridDim.y * gridDim.z;
    /* Blocks are shuffled by a stride that has no divisor in common with their number. */
    uint64_t stride = 1;
    if (E.order == SH_EMULATOR_SHUFFLED) stride = n_blocks > 7919 ? 7919 : n_blocks / 2 | 1;
    while (n_blocks % stride == 0 && stride > 1) stride -= 2;
    make_order(E.turn, E.n_threads, 0);
    for (uint64_t i = 0; i < n_blocks && !E.is_faulty; i++) {
        uint64_t at = E.order == SH_EMULATOR_REVERSED ? n_blocks - 1 - i : i * stride % n_blocks;
        blockIdx.x = (unsigned)(at % gridDim.x);
        blockIdx.y = (unsigned)(at / gridDim.x % gridDim.y);
        blockIdx.z = (unsigned)(at / gridDim.x / gridDim.y);
        memset(shared_memory, 0xFF, l->shared_bytes + GUARD_BYTES);
        run_block();
        for (int k = 0; k < GUARD_BYTES; k++) {
            if (shared_memory[l->shared_bytes + (size_t)k] != 0xFF)
                fail("written behind %zu bytes of shared memory", l->shared_bytes);
        }
    }
}

void sh_emulator_launch(const char *file, dim3 grid, dim3 block, size_t shared_bytes,
                        void (*body)(void *closure), void *closure, size_t closure_bytes)
{
    static char memory[sizeof(queued) + PARAMETER_BYTES] alignas(max_align_t);
    const queued l = {file, grid, block, shared_bytes, body};

    if (E.is_faulty || !is_possible(grid, block, shared_bytes)) return;
    if (closure_bytes > PARAMETER_BYTES) {
        fail("%zu bytes of arguments", closure_bytes);
        return;
    }
    memcpy(memory, &l, sizeof(l));
    memcpy(memory + sizeof(l), closure, closure_bytes);
    sh_emulator_queue(run_launch, memory, sizeof(l) + closure_bytes);
}

/* ---- for tests ---- */

void sh_emulator_set_order(sh_emulator_order order)
{
    E.order = order;
}

const char *sh_emulator_fault(void)
{
    if (!E.is_faulty) return nullptr;
    E.is_faulty = false;
    memcpy(E.told, E.fault, sizeof(E.told));
    return E.told;
}

long sh_emulator_launches(const char *base_name)
{
    for (int i = 0; i < MAX_FILES && E.files[i].name != nullptr; i++) {
        if (strcmp(E.files[i].name, base_name) == 0) return E.files[i].n;
    }
    return 0;
}
