// SPDX-License-Identifier: Apache-2.0
/**
 * Backends: who owns device memory and which kernels run the nodes of a program.
 *
 * A value lives in the backend's memory (sh_buffer). Nothing outside a backend dereferences it:
 * host code copies in and out explicitly, or asks for a host view, which a backend may refuse.
 *
 * Each op has a list of kernels, tried in order, fastest first; a kernel that cannot do a node says
 * why (why_not). The reference backend (models/ref) has a kernel for every op, is never fast, and
 * is what the others are tested against.
 */
#ifndef SH_MODELS_BACKEND_H
#define SH_MODELS_BACKEND_H

#include <stdbool.h>

#include "base/device.h"
#include "base/finding.h"
#include "base/tensor.h"
#include "models/ops.h"

SH_C_BEGIN

typedef struct sh_buffer sh_buffer; /* opaque device memory; each backend defines its own */

/** What changes from run to run without changing the program: what random draws are keyed by. */
typedef struct sh_run_scalars {
    uint64_t seed;
    uint64_t step;
    int64_t first_slot; /* index, in the global batch, of this shard's first image */
} sh_run_scalars;

/** Where one run of a kernel finds its operands. Absent optional operands are NULL. */
typedef struct sh_kernel_args {
    const void *const *in; /* node->n_inputs device pointers, in the op's documented order */
    void *const *out;      /* node->n_outputs device pointers */
    void *scratch;         /* scratch_bytes of device memory, 64-byte aligned, contents undefined */
    void *packed;          /* packed_bytes, aligned likewise, as pack left them */
    const sh_run_scalars *scalars; /* in the backend's memory; NULL where no op draws */
} sh_kernel_args;

/** What a kernel is told of a node when the program is planned. Pointers live as long as the
 * program. */
typedef struct sh_node_desc {
    sh_op op;
    const sh_op_attrs *attrs;
    int n_inputs, n_outputs;
    const sh_tensor_desc *const *in;  /* NULL where an optional input is absent */
    const sh_tensor_desc *const *out; /* NULL where an optional output is absent */
} sh_node_desc;

typedef struct sh_kernel {
    const char *name; /* "cpu:onednn_conv" */
    sh_op op;

    /** Required. NULL: can do it. Otherwise the reason, a static string. */
    const char *(*why_not)(const sh_node_desc *desc);

    /** Optional. Build what run needs (JIT code, packed tables). *state is the kernel's own. */
    sh_status (*prepare)(const sh_node_desc *desc, void **state, size_t *scratch_bytes);

    /** Optional, with pack: how many bytes it fills; 0: nothing to pack. */
    size_t (*packed_bytes)(const void *state);

    /** Optional. Bring the weights (operand SH_CONV_W of forward ops) into args->packed; run reads
     *  them only there. Comes before every run of a program that trains; for inference, once until
     *  parameters change. */
    sh_status (*pack)(const sh_node_desc *desc, void *state, const sh_kernel_args *args);

    /** Required. No allocation, no look-ups, no decisions. state is NULL without prepare. */
    sh_status (*run)(const sh_node_desc *desc, void *state, const sh_kernel_args *args);

    /** Optional. Frees state. */
    void (*release)(void *state);

    /** Optional. What really runs ("jit_1x1:avx512_core"), for printing. Default: name. */
    const char *(*describe)(void *state);
} sh_kernel;

typedef struct sh_recording sh_recording; /* opaque; kernels with all that they are launched with */

/** Kernels launched as a whole, for a device that is faster at them than the host at launching. */
typedef struct sh_recorder {
    /** From now on this thread's launches are recorded instead of run. Until `end` or `drop`
     *  nothing may wait for the device, bring anything in, or allocate. What is copied within its
     *  memory, or fetched from there, is recorded too. */
    sh_status (*begin)(void);
    sh_status (*end)(sh_recording **out); /* the caller owns *out (destroy) */
    void (*drop)(void);                   /* instead of end: after a failure */

    /** In the order of the backend's kernels; does not wait. */
    sh_status (*play)(sh_recording *recording);
    void (*destroy)(sh_recording **recording); /* NULL is fine */
} sh_recorder;

typedef struct sh_backend {
    const char *name; /* "ref", "cpu" */

    /** The layout in which this backend keeps an activation of this shape. Only image inputs may be
     *  SH_NHWC8: convolutions read them so, for other ops the builder casts them.
     *  Parameters, their gradients, vectors and matrices are always SH_NCHW f32 or as declared. */
    sh_layout (*layout_of)(sh_dtype dtype, const int64_t dims[4], bool is_image_input);

    /** Kernels of an op, fastest first, NULL-terminated. */
    const sh_kernel *const *(*kernels_of)(sh_op op);

    /** May neighbouring nodes be merged into this one? (See models/planner.c.) NULL: no fusion. */
    bool (*can_fuse)(const sh_node_desc *fused);

    sh_status (*alloc)(size_t n_bytes, sh_buffer **out); /* zeroed, 64-byte aligned */
    void (*free)(sh_buffer **buffer);                    /* NULL is fine */
    size_t (*bytes)(const sh_buffer *buffer);
    void *(*device_ptr)(sh_buffer *buffer, size_t offset); /* for kernel arguments only */
    sh_status (*copy_in)(sh_buffer *to, size_t offset, const void *host, size_t n_bytes);
    sh_status (*copy_out)(const sh_buffer *from, size_t offset, void *host, size_t n_bytes);

    /** The optimizer's arithmetic (models/optim_kernels.h). NULL: the host's loops do it, between
     *  enter and leave. */
    const struct sh_optim_kernels *optim;

    /** This backend's memory, where ranks sum and exchange in it (base/device.h). NULL: they do so
     *  in the host's. */
    const sh_device *device;

    /** Losses and mining (models/loss/kernels.h); `device` is then there too. NULL: in host memory.
     */
    const struct sh_loss_kernels *loss;

    /** Losses of classification (models/loss/class_kernels.h), likewise. */
    const struct sh_class_kernels *classes;

    /** Launches that repeat themselves (models/replay.h). NULL: they are launched one by one. */
    const sh_recorder *recorder;

    /** Measuring (models/meter.h). NULL: the host's. */
    const struct sh_meter *meter;

    /** Optional. The device and the libraries that this backend uses, into out[max]; their number,
     *  at most max. It can be used where none that is needed has a remedy. */
    int (*examine)(sh_finding *out, int max);

    /** Kernels that are chosen by measuring them; optional, both or neither. What is planned from
     * now on takes the choices of `text` ("": there are none), as get_choices wrote it. What it
     * lacks is measured, which writes device memory and takes seconds, or else guessed;
     * `repeatable`: among kernels that give the same bytes each time. SH_ERR_MISMATCH, here or from
     * sh_program_plan, where a choice cannot be used on this device.
     */
    sh_status (*set_choices)(const char *text, bool measure, bool repeatable);
    /** Those of `text` and of all that was planned since. The caller frees. */
    sh_status (*get_choices)(char **text);

    /** Device memory as host memory until the next kernel runs, or NULL: copy instead. Optional. */
    void *(*host_view)(sh_buffer *buffer);

    /** Brackets around every kernel; the guard backend opens and closes its pages here. Optional.
     */
    void (*enter)(void);
    void (*leave)(void);
} sh_backend;

/** "cuda" (a build with SHOAL_WITH_CUDA), "cpu", "ref"; "guard:cpu", "guard:ref" (tests: memory
 * that the host cannot touch). */
SH_MUST_CHECK sh_status sh_backend_find(const char *name, const sh_backend **out);

/** SH_ERR_UNSUPPORTED, with what is missing and the remedy, where a backend cannot be used here. */
SH_MUST_CHECK sh_status sh_backend_check(const sh_backend *backend);

/** Memory of the host that is sent to the backend's, or fetched from it: page-locked where it has a
 * device, and not zeroed. Free it with sh_backend_free_host (NULL is fine; waits for the device).
 */
SH_MUST_CHECK sh_status sh_backend_alloc_host(const sh_backend *backend, size_t n_bytes,
                                              void **out);
void sh_backend_free_host(const sh_backend *backend, void *memory);

/** Copy such memory into a buffer, before what computes from now on; on a device without waiting,
 *  so that the memory stays as it is until the device has come that far. */
SH_MUST_CHECK sh_status sh_backend_send(const sh_backend *backend, sh_buffer *to, size_t offset,
                                        const void *host, size_t n_bytes);

/** Copy out of a buffer into such memory, once what computes has come that far; on a device without
 *  waiting, so that it is there after the next sh_backend.copy_out. */
SH_MUST_CHECK sh_status sh_backend_fetch(const sh_backend *backend, sh_buffer *from, size_t offset,
                                         void *host, size_t n_bytes);

SH_C_END

#endif
