// SPDX-License-Identifier: Apache-2.0
// timeout: 60
/** Planning, running, guarding and printing programs. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "models/graph.h"
#include "models/small_net.h"

static void run__forward_and_backward_give_finite_numbers(void **state)
{
    net t;
    float image[3 * 3 * 13 * 11], cotangent[15], out[15], dx[3 * 3 * 13 * 11];
    double norm = 0;

    (void)state;
    open_net(&t, "ref", SH_F32, true);
    for (size_t i = 0; i < SH_COUNT(image); i++) image[i] = sinf((float)i);
    for (size_t i = 0; i < SH_COUNT(cotangent); i++) cotangent[i] = cosf((float)i);
    assert_int_equal(sh_program_write(t.program, t.arena, t.x, image), SH_OK);
    const sh_run_args args = {.arena = t.arena, .reduce = t.reduce};
    assert_int_equal(sh_program_run(t.program, SH_PHASE_FORWARD, &args), SH_OK);
    assert_int_equal(sh_program_read(t.program, t.arena, t.y, out), SH_OK);
    for (int i = 0; i < 5; i++) norm += (double)out[i] * out[i];
    assert_true(fabs(norm - 1) < 1e-6);
    assert_int_equal(sh_program_write(t.program, t.arena, t.dy, cotangent), SH_OK);
    assert_int_equal(sh_program_run(t.program, SH_PHASE_BACKWARD, &args), SH_OK);
    assert_int_equal(sh_program_read(t.program, t.arena, t.dx, dx), SH_OK);
    norm = 0;
    for (size_t i = 0; i < SH_COUNT(dx); i++) norm += (double)dx[i] * dx[i];
    assert_true(isfinite(norm) && norm > 0);
    close_net(&t);
}

/* ---- planning ---- */

static bool overlaps(size_t a, size_t n_a, size_t b, size_t n_b)
{
    return a < b + n_b && b < a + n_a;
}

/** Would these bytes, written by `node`, spoil packed weights? */
static bool overlaps_packed(const sh_program *p, const sh_node *node, size_t begin, size_t n)
{
    bool found = false;

    for (int i = 0; i < p->n_nodes; i++) {
        const sh_node *other = &p->nodes[i];
        if (other != node && !p->keeps_constants) continue;
        found |= other->packed_bytes > 0 &&
                 overlaps(begin, n, other->packed_offset, other->packed_bytes);
    }
    return found;
}

/** Follow every byte through the program: a value read must be what its producer wrote, whatever
 *  was written in between. Independent of the planner's own idea of lifetimes. */
static int count_clobbered(const sh_program *p)
{
    int n_clobbered = 0;
    int *written_at = calloc((size_t)p->n_values, sizeof(int));

    for (int v = 0; v < p->n_values; v++) written_at[v] = p->values[v].is_input ? 0 : -1;
    /* Inference goes twice: constants are those of the first time, weights stay packed. */
    for (int i = 0; i < p->n_nodes * (p->keeps_constants ? 2 : 1); i++) {
        const sh_node *node = &p->nodes[i % p->n_nodes];
        if (i >= p->n_nodes && node->phase == SH_PHASE_CONSTANTS) continue;
        for (int k = 0; k < node->n_in; k++) {
            sh_value v = node->in[k];
            if (v == SH_NO_VALUE || p->values[v].home != SH_HOME_ARENA) continue;
            if (i >= p->n_nodes && k == SH_CONV_W && node->packed_bytes > 0) continue;
            n_clobbered += written_at[v] < 0;
        }
        for (int k = 0; k <= node->n_out; k++) {
            bool is_scratch = k == node->n_out;
            sh_value out = is_scratch ? SH_NO_VALUE : node->out[k];
            if (!is_scratch && (out == SH_NO_VALUE || p->values[out].home != SH_HOME_ARENA)) {
                continue;
            }
            size_t begin = is_scratch ? node->scratch_offset : p->values[out].offset;
            size_t n = is_scratch ? node->scratch_bytes : sh_tensor_bytes(&p->values[out].desc);
            n_clobbered += overlaps_packed(p, node, begin, n);
            for (int v = 0; v < p->n_values; v++) {
                const sh_value_info *info = &p->values[v];
                bool is_pending =
                    info->is_input && info->phase == SH_PHASE_BACKWARD && i < p->n_forward;
                if (v == out || info->home != SH_HOME_ARENA || is_pending) continue;
                if (overlaps(begin, n, info->offset, sh_tensor_bytes(&info->desc))) {
                    n_clobbered += info->is_input; /* inputs keep what was written to them */
                    written_at[v] = -1;
                }
            }
            if (!is_scratch) written_at[out] = i;
        }
    }
    for (int v = 0; v < p->n_values; v++)
        n_clobbered += p->values[v].is_pinned && written_at[v] < 0;
    free(written_at);
    return n_clobbered;
}

static void plan__never_overwrites_what_is_still_read(void **state)
{
    static const char *const backends[] = {"ref", "cpu"};
    static const sh_dtype dtypes[] = {SH_F32, SH_BF16};

    (void)state;
    for (int i = 0; i < 8; i++) {
        net t;
        open_net(&t, backends[i & 1], dtypes[i >> 1 & 1], i & 4);
        assert_int_equal(count_clobbered(t.program), 0);
        for (int v = 0; v < t.program->n_values; v++) {
            const sh_value_info *info = &t.program->values[v];
            if (info->home != SH_HOME_ARENA) continue;
            assert_true(info->offset + sh_tensor_bytes(&info->desc) <=
                        sh_program_arena_bytes(t.program));
            assert_int_equal(info->offset % 64, 0);
        }
        close_net(&t);
    }
}

static void plan__reuses_memory(void **state)
{
    net t;
    size_t sum = 0;

    (void)state;
    open_net(&t, "ref", SH_F32, false);
    for (int v = 0; v < t.program->n_values; v++) {
        if (t.program->values[v].producer >= 0) sum += sh_tensor_bytes(&t.program->values[v].desc);
    }
    assert_true(2 * sh_program_arena_bytes(t.program) < sum);
    close_net(&t);
}

/* ---- running ---- */

static void run__repeats_to_the_last_bit(void **state)
{
    net t;

    (void)state;
    open_net(&t, "ref", SH_F32, true);
    step(&t, true);
    float *first = read_reduce(&t);
    step(&t, true);
    float *second = read_reduce(&t);
    int64_t n = sh_store_n_params(t.store) + sh_store_n_states(t.store);
    assert_memory_equal(first, second, (size_t)n * sizeof(float));
    free(first);
    free(second);
    close_net(&t);
}

static void run__forward_alone_exports_no_statistics(void **state)
{
    net t;
    double power = 0;

    (void)state;
    open_net(&t, "ref", SH_F32, true);
    step(&t, false);
    float *values = read_reduce(&t);
    int64_t n_params = sh_store_n_params(t.store), n_states = sh_store_n_states(t.store);
    for (int64_t i = 0; i < n_params + n_states; i++) power += fabs(values[i]);
    assert_true(power == 0);
    free(values);
    step(&t, true);
    values = read_reduce(&t);
    for (int64_t i = n_params; i < n_params + n_states; i++) power += fabs(values[i]);
    assert_true(power > 0);
    free(values);
    close_net(&t);
}

static void run__refuses_backward_without_memory_for_gradients(void **state)
{
    net t;

    (void)state;
    open_net(&t, "ref", SH_F32, true);
    const sh_run_args args = {.arena = t.arena};
    assert_int_equal(sh_program_run(t.program, SH_PHASE_BACKWARD, &args), SH_ERR_USAGE);
    close_net(&t);
}

static sh_status count_node(void *context, int node)
{
    int *last = context;

    assert_int_equal(node, *last + 1);
    *last = node;
    return SH_OK;
}

static void ready_node__is_the_last_to_touch_a_gradient(void **state)
{
    net t;

    (void)state;
    open_net(&t, "ref", SH_F32, true);
    for (int slot = 0; slot < sh_store_n_slots(t.store); slot++) {
        const sh_slot *s = sh_store_slot(t.store, slot);
        sh_home home = s->kind == SH_SLOT_PARAM ? SH_HOME_GRADS : SH_HOME_DELTAS;
        int last = -1;
        for (int i = 0; i < t.program->n_nodes; i++) {
            const sh_node *node = &t.program->nodes[i];
            for (int k = 0; k < node->n_in + node->n_out; k++) {
                sh_value v = k < node->n_in ? node->in[k] : node->out[k - node->n_in];
                if (v == SH_NO_VALUE || t.program->values[v].home != home) continue;
                if (t.program->values[v].offset == (size_t)s->offset * 4) last = i;
            }
        }
        assert_true(last >= 0);
        assert_int_equal(sh_program_ready_node(t.program, slot), last);
    }
    int last = -1;
    const sh_run_args args = {
        .arena = t.arena, .reduce = t.reduce, .after_node = count_node, .context = &last};
    assert_int_equal(sh_program_run(t.program, SH_PHASE_FORWARD, &args), SH_OK);
    assert_int_equal(sh_program_run(t.program, SH_PHASE_BACKWARD, &args), SH_OK);
    assert_int_equal(last, sh_program_n_nodes(t.program) - 1);
    close_net(&t);
}

/* ---- the guard ---- */

/** Does touching this address kill the process? */
static bool is_fatal(volatile char *address, bool is_write)
{
    int status = 0;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        if (is_write)
            *address = 1;
        else
            (void)*address;
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}

static void guard__dies_on_host_access_and_computes_the_same(void **state)
{
    net plain, guarded;

    (void)state;
    open_net(&plain, "ref", SH_F32, true);
    open_net(&guarded, "guard:ref", SH_F32, true);
    step(&plain, true);
    step(&guarded, true);
    float *a = read_reduce(&plain), *b = read_reduce(&guarded);
    int64_t n = sh_store_n_params(plain.store) + sh_store_n_states(plain.store);
    assert_memory_equal(a, b, (size_t)n * sizeof(float));
    free(a);
    free(b);
    assert_false(is_fatal(plain.backend->device_ptr(plain.arena, 128), true));
    sh_buffer *const buffers[3] = {guarded.arena, guarded.reduce, sh_store_params(guarded.store)};
    for (int i = 0; i < 3; i++) {
        assert_true(is_fatal(guarded.backend->device_ptr(buffers[i], 0), false));
        assert_true(is_fatal(guarded.backend->device_ptr(buffers[i], 64), true));
    }
    close_net(&plain);
    close_net(&guarded);
}

/* ---- looking ---- */

static void print__has_a_line_per_node(void **state)
{
    net t;
    char *text = NULL;
    size_t n_bytes = 0;
    int n_lines = 0;

    (void)state;
    open_net(&t, "ref", SH_F32, true);
    FILE *out = open_memstream(&text, &n_bytes);
    sh_program_print(t.program, out);
    assert_int_equal(fclose(out), 0);
    for (const char *c = text; *c != '\0'; c++) n_lines += *c == '\n';
    assert_int_equal(n_lines, sh_program_n_nodes(t.program) + 3); /* two phases and the sum */
    assert_non_null(strstr(text, "ref:conv"));
    free(text);

    sh_node_info info;
    sh_program_node_info(t.program, 0, &info);
    assert_string_equal(info.op, "conv");
    /* 3 images, 8 channels, 7 x 6 outputs, 27 products each */
    assert_true(info.flops == 2.0 * 3 * 8 * 7 * 6 * 27);
    assert_true(info.bytes == 4.0 * (3 * 3 * 13 * 11 + 8 * 27 + 3 * 8 * 7 * 6));
    close_net(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run__forward_and_backward_give_finite_numbers),
        cmocka_unit_test(plan__never_overwrites_what_is_still_read),
        cmocka_unit_test(plan__reuses_memory),
        cmocka_unit_test(run__repeats_to_the_last_bit),
        cmocka_unit_test(run__forward_alone_exports_no_statistics),
        cmocka_unit_test(run__refuses_backward_without_memory_for_gradients),
        cmocka_unit_test(ready_node__is_the_last_to_touch_a_gradient),
        cmocka_unit_test(guard__dies_on_host_access_and_computes_the_same),
        cmocka_unit_test(print__has_a_line_per_node),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
