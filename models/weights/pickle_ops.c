// SPDX-License-Identifier: Apache-2.0
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "models/weights/pickle_machine.h"

enum { MAX_MEMO = 1 << 22 }; /* torch memoises about 20 values per tensor */

typedef enum function {
    ORDERED_DICT,
    REBUILD_TENSOR,
    REBUILD_TENSOR_V2,
    REBUILD_PARAMETER,
} function;

static const char *const functions[] = {
    [ORDERED_DICT] = "collections.OrderedDict",
    [REBUILD_TENSOR] = "torch._utils._rebuild_tensor",
    [REBUILD_TENSOR_V2] = "torch._utils._rebuild_tensor_v2",
    [REBUILD_PARAMETER] = "torch._utils._rebuild_parameter",
};

/* ---- the program and the stack ---- */

static sh_status take_number(sh_pickle *m, int n_bytes, uint64_t *value)
{
    sh_status st = SH_OK;
    const uint8_t *bytes = NULL;

    *value = 0;
    SH_TRY(sh_pickle_take(m, (size_t)n_bytes, &bytes));
    *value = sh_bytes_le(bytes, n_bytes);
out:
    return st;
}

/* Text up to the next line end. */
static sh_status take_line(sh_pickle *m, const char **text, size_t *n)
{
    sh_status st = SH_OK;
    const uint8_t *start = m->data + m->at;
    const uint8_t *end = memchr(start, '\n', m->n_bytes - m->at);

    SH_CHECK(end != NULL, SH_ERR_FORMAT, "%s: the pickle is truncated", m->label);
    *text = (const char *)start;
    *n = (size_t)(end - start);
    m->at += *n + 1;
out:
    return st;
}

/* How many values lie above the innermost mark, or on the stack when there is none. */
static int64_t n_above_mark(const sh_pickle *m)
{
    return m->stack.n - (m->n_marks > 0 ? m->marks[m->n_marks - 1] : 0);
}

static sh_status pop(sh_pickle *m, sh_pickle_value **value)
{
    sh_status st = SH_OK;

    SH_CHECK(n_above_mark(m) > 0, SH_ERR_FORMAT, "%s: damaged pickle: its stack is empty",
             m->label);
    *value = m->stack.items[--m->stack.n];
out:
    return st;
}

static sh_status pop_mark(sh_pickle *m, int64_t *n_values, sh_pickle_value ***values)
{
    sh_status st = SH_OK;

    SH_CHECK(m->n_marks > 0, SH_ERR_FORMAT, "%s: damaged pickle: it has no mark", m->label);
    *n_values = n_above_mark(m);
    m->stack.n = m->marks[--m->n_marks];
    *values = m->stack.items + m->stack.n;
out:
    return st;
}

static sh_status top(const sh_pickle *m, sh_pickle_kind kind, sh_pickle_value **value)
{
    sh_status st = SH_OK;

    SH_CHECK(n_above_mark(m) > 0 && m->stack.items[m->stack.n - 1]->kind == kind, SH_ERR_FORMAT,
             "%s: damaged pickle: its stack holds something else", m->label);
    *value = m->stack.items[m->stack.n - 1];
out:
    return st;
}

/* ---- opcodes: plain data ---- */

static sh_status op_protocol(sh_pickle *m, int arg)
{
    sh_status st = SH_OK;
    uint64_t protocol = 0;

    SH_TRY(take_number(m, 1, &protocol));
    SH_CHECK(protocol <= (uint64_t)arg, SH_ERR_UNSUPPORTED,
             "%s: pickle protocol %d; torch.save writes 2 unless told otherwise", m->label,
             (int)protocol);
out:
    return st;
}

static sh_status op_empty(sh_pickle *m, int kind)
{
    return sh_pickle_push(m, (sh_pickle_kind)kind, NULL);
}

static sh_status op_bool(sh_pickle *m, int arg)
{
    sh_status st = SH_OK;
    sh_pickle_value *value = NULL;

    SH_TRY(sh_pickle_push(m, SH_PICKLE_BOOL, &value));
    value->as.integer = arg;
out:
    return st;
}

/* Unsigned of 1 or 2 bytes; signed of 4. */
static sh_status op_int(sh_pickle *m, int n_bytes)
{
    sh_status st = SH_OK;
    uint64_t bits = 0;
    sh_pickle_value *value = NULL;

    SH_TRY(take_number(m, n_bytes, &bits));
    SH_TRY(sh_pickle_push(m, SH_PICKLE_INT, &value));
    value->as.integer = n_bytes == 4 ? (int32_t)(uint32_t)bits : (int64_t)bits;
out:
    return st;
}

/* One byte of length, then two's complement of that length. */
static sh_status op_long1(sh_pickle *m, int max_bytes)
{
    sh_status st = SH_OK;
    uint64_t n = 0, bits = 0;
    sh_pickle_value *value = NULL;

    SH_TRY(take_number(m, 1, &n));
    SH_CHECK(n <= (uint64_t)max_bytes, SH_ERR_UNSUPPORTED, "%s: pickled integer of %d bytes",
             m->label, (int)n);
    SH_TRY(take_number(m, (int)n, &bits));
    if (n > 0 && n < 8 && bits >> (8 * n - 1) != 0) bits |= ~(uint64_t)0 << 8 * n;
    SH_TRY(sh_pickle_push(m, SH_PICKLE_INT, &value));
    memcpy(&value->as.integer, &bits, sizeof(bits));
out:
    return st;
}

/* Big-endian, unlike everything else. */
static sh_status op_float(sh_pickle *m, int n_bytes)
{
    sh_status st = SH_OK;
    uint64_t bits = 0;
    sh_pickle_value *value = NULL;

    SH_TRY(take_number(m, n_bytes, &bits));
    bits = __builtin_bswap64(bits);
    SH_TRY(sh_pickle_push(m, SH_PICKLE_REAL, &value));
    memcpy(&value->as.real, &bits, sizeof(bits));
out:
    return st;
}

static sh_status op_string(sh_pickle *m, int n_length_bytes)
{
    sh_status st = SH_OK;
    uint64_t n = 0;
    const uint8_t *text = NULL;
    sh_pickle_value *value = NULL;

    SH_TRY(take_number(m, n_length_bytes, &n));
    SH_TRY(sh_pickle_take(m, (size_t)n, &text));
    SH_TRY(sh_pickle_push(m, SH_PICKLE_STRING, &value));
    value->as.string.text = (const char *)text;
    value->as.string.n = (size_t)n;
out:
    return st;
}

/* ---- opcodes: containers ---- */

static sh_status op_mark(sh_pickle *m, int arg)
{
    sh_status st = SH_OK;

    (void)arg;
    if (m->n_marks == m->marks_capacity) {
        int64_t capacity = m->marks_capacity == 0 ? 64 : 2 * m->marks_capacity;
        int64_t *marks = realloc(m->marks, (size_t)capacity * sizeof(*marks));

        SH_CHECK(marks != NULL, SH_ERR_NO_MEMORY, "%s: pickle marks", m->label);
        m->marks = marks;
        m->marks_capacity = capacity;
    }
    m->marks[m->n_marks++] = m->stack.n;
out:
    return st;
}

static sh_status make_tuple(sh_pickle *m, int64_t n, sh_pickle_value *const *values)
{
    sh_status st = SH_OK;
    sh_pickle_value *tuple = NULL;
    sh_pickle_value **items = NULL;

    if (n > 0) {
        items = malloc((size_t)n * sizeof(*items));
        SH_CHECK(items != NULL, SH_ERR_NO_MEMORY, "%s: tuple of %lld", m->label, (long long)n);
        memcpy(items, values, (size_t)n * sizeof(*items));
    }
    SH_TRY(sh_pickle_push(m, SH_PICKLE_TUPLE, &tuple));
    tuple->as.list.items = items;
    tuple->as.list.n = tuple->as.list.capacity = n;
    items = NULL;
out:
    free(items);
    return st;
}

static sh_status op_tuple(sh_pickle *m, int arg)
{
    sh_status st = SH_OK;
    int64_t n = 0;
    sh_pickle_value **values = NULL;

    (void)arg;
    SH_TRY(pop_mark(m, &n, &values));
    SH_TRY(make_tuple(m, n, values));
out:
    return st;
}

static sh_status op_tuple_of(sh_pickle *m, int n)
{
    sh_status st = SH_OK;

    SH_CHECK(n_above_mark(m) >= n, SH_ERR_FORMAT, "%s: damaged pickle: its stack is empty",
             m->label);
    m->stack.n -= n;
    SH_TRY(make_tuple(m, n, m->stack.items + m->stack.n));
out:
    return st;
}

static sh_status extend(const sh_pickle *m, sh_pickle_value *to, int64_t n,
                        sh_pickle_value *const *values)
{
    sh_status st = SH_OK;
    sh_pickle_pointers list = {to->as.list.items, to->as.list.n, to->as.list.capacity};

    for (int64_t i = 0; i < n && st == SH_OK; i++) st = sh_pickle_append(m, &list, values[i]);
    to->as.list.items = list.items;
    to->as.list.n = list.n;
    to->as.list.capacity = list.capacity;
    return st;
}

/* APPEND, SETITEM: n values from the stack into the list or dictionary below them. */
static sh_status add_some(sh_pickle *m, int64_t n, sh_pickle_kind kind)
{
    sh_status st = SH_OK;
    sh_pickle_value *to = NULL;

    SH_CHECK(n_above_mark(m) >= n, SH_ERR_FORMAT, "%s: damaged pickle: its stack is empty",
             m->label);
    m->stack.n -= n;
    SH_TRY(top(m, kind, &to));
    SH_TRY(extend(m, to, n, m->stack.items + m->stack.n));
out:
    return st;
}

static sh_status op_append(sh_pickle *m, int n)
{
    return add_some(m, n, SH_PICKLE_LIST);
}

static sh_status op_set_item(sh_pickle *m, int n)
{
    return add_some(m, n, SH_PICKLE_DICT);
}

/* APPENDS, SETITEMS: all values above the mark. */
static sh_status op_add_marked(sh_pickle *m, int kind)
{
    sh_status st = SH_OK;
    int64_t n = 0;
    sh_pickle_value **values = NULL;
    sh_pickle_value *to = NULL;

    SH_TRY(pop_mark(m, &n, &values));
    SH_TRY(top(m, (sh_pickle_kind)kind, &to));
    SH_CHECK(kind != SH_PICKLE_DICT || n % 2 == 0, SH_ERR_FORMAT,
             "%s: damaged pickle: a key without a value", m->label);
    SH_TRY(extend(m, to, n, values));
out:
    return st;
}

/* ---- opcodes: memo ---- */

static sh_status op_put(sh_pickle *m, int n_bytes)
{
    sh_status st = SH_OK;
    uint64_t index = 0;

    SH_TRY(take_number(m, n_bytes, &index));
    SH_CHECK(index < MAX_MEMO && index < m->n_bytes && n_above_mark(m) > 0, SH_ERR_FORMAT,
             "%s: damaged pickle: memo %llu", m->label, (unsigned long long)index);
    while (m->memo.n <= (int64_t)index) SH_TRY(sh_pickle_append(m, &m->memo, NULL));
    m->memo.items[index] = m->stack.items[m->stack.n - 1];
out:
    return st;
}

static sh_status op_get(sh_pickle *m, int n_bytes)
{
    sh_status st = SH_OK;
    uint64_t index = 0;

    SH_TRY(take_number(m, n_bytes, &index));
    SH_CHECK((int64_t)index < m->memo.n && m->memo.items[index] != NULL, SH_ERR_FORMAT,
             "%s: damaged pickle: memo %llu was never set", m->label, (unsigned long long)index);
    SH_TRY(sh_pickle_append(m, &m->stack, m->memo.items[index]));
out:
    return st;
}

/* ---- opcodes: globals, calls, storages ---- */

static sh_status op_global(sh_pickle *m, int arg)
{
    sh_status st = SH_OK;
    const char *module = NULL, *name = NULL;
    size_t n_module = 0, n_name = 0;
    char full[128] = "";
    sh_pickle_value *value = NULL;

    (void)arg;
    SH_TRY(take_line(m, &module, &n_module));
    SH_TRY(take_line(m, &name, &n_name));
    if (n_module + n_name + 2 <= sizeof(full)) {
        memcpy(full, module, n_module);
        full[n_module] = '.';
        memcpy(full + n_module + 1, name, n_name);
    }
    for (size_t i = 0; i < SH_COUNT(functions); i++) {
        if (strcmp(full, functions[i]) != 0) continue;
        SH_TRY(sh_pickle_push(m, SH_PICKLE_FUNCTION, &value));
        value->as.function = (int)i;
        goto out;
    }

    const sh_elem_type *type =
        n_module == 5 && memcmp(module, "torch", 5) == 0 ? sh_elem_by_storage(name, n_name) : NULL;

    SH_CHECK(
        type != NULL, SH_ERR_UNSUPPORTED,
        "%s: the pickle asks for the Python object '%.*s.%.*s', which is refused: only tensors, "
        "dictionaries and numbers are read. In Python, save model.state_dict() alone",
        m->label, (int)(n_module < 100 ? n_module : 100), module,
        (int)(n_name < 100 ? n_name : 100), name);
    SH_TRY(sh_pickle_push(m, SH_PICKLE_CLASS, &value));
    value->as.storage.type = type;
out:
    return st;
}

static bool are_integers(const sh_pickle_value *tuple)
{
    if (tuple->kind != SH_PICKLE_TUPLE) return false;
    for (int64_t i = 0; i < tuple->as.list.n; i++)
        if (tuple->as.list.items[i]->kind != SH_PICKLE_INT) return false;
    return true;
}

/* (storage, offset, dims, strides, ...): what follows says nothing about the numbers. */
static sh_status rebuild_tensor(sh_pickle *m, sh_pickle_value *const *args, int64_t n_args)
{
    sh_status st = SH_OK;
    sh_pickle_value *value = NULL;

    SH_CHECK(n_args >= 4 && args[0]->kind == SH_PICKLE_STORAGE && args[1]->kind == SH_PICKLE_INT &&
                 are_integers(args[2]) && are_integers(args[3]) &&
                 args[2]->as.list.n == args[3]->as.list.n &&
                 args[2]->as.list.n <= SH_WEIGHT_MAX_DIMS,
             SH_ERR_FORMAT,
             "%s: damaged pickle: a tensor is not described by a storage, an offset "
             "and at most %d sizes and strides",
             m->label, SH_WEIGHT_MAX_DIMS);
    SH_TRY(sh_pickle_push(m, SH_PICKLE_TENSOR, &value));
    value->as.tensor.storage = args[0];
    value->as.tensor.offset = args[1]->as.integer;
    value->as.tensor.dims = args[2];
    value->as.tensor.strides = args[3];
out:
    return st;
}

static sh_status op_reduce(sh_pickle *m, int arg)
{
    sh_status st = SH_OK;
    sh_pickle_value *callee = NULL, *tuple = NULL;

    (void)arg;
    SH_TRY(pop(m, &tuple));
    SH_TRY(pop(m, &callee));
    SH_CHECK(callee->kind == SH_PICKLE_FUNCTION && tuple->kind == SH_PICKLE_TUPLE, SH_ERR_FORMAT,
             "%s: damaged pickle: a call of something else than a function", m->label);

    sh_pickle_value *const *args = tuple->as.list.items;
    int64_t n_args = tuple->as.list.n;

    switch ((function)callee->as.function) {
    case ORDERED_DICT:
        SH_CHECK(n_args == 0, SH_ERR_UNSUPPORTED, "%s: an OrderedDict made from arguments",
                 m->label);
        SH_TRY(sh_pickle_push(m, SH_PICKLE_DICT, NULL));
        break;
    case REBUILD_TENSOR:
    case REBUILD_TENSOR_V2: SH_TRY(rebuild_tensor(m, args, n_args)); break;
    case REBUILD_PARAMETER: /* (tensor, requires_grad, hooks) */
        SH_CHECK(n_args >= 1 && args[0]->kind == SH_PICKLE_TENSOR, SH_ERR_FORMAT,
                 "%s: damaged pickle: a parameter without a tensor", m->label);
        SH_TRY(sh_pickle_append(m, &m->stack, args[0]));
        break;
    }
out:
    return st;
}

/* Sets attributes of an object. On a dictionary these are torch's _metadata, which nobody needs. */
static sh_status op_build(sh_pickle *m, int kind)
{
    sh_status st = SH_OK;
    sh_pickle_value *state = NULL, *object = NULL;

    SH_TRY(pop(m, &state));
    SH_TRY(top(m, (sh_pickle_kind)kind, &object));
out:
    return st;
}

/* ("storage", class, key, device, elements), and None in files of the old container. */
static sh_status op_persistent_id(sh_pickle *m, int arg)
{
    sh_status st = SH_OK;
    sh_pickle_value *id = NULL, *storage = NULL;

    (void)arg;
    SH_TRY(pop(m, &id));
    SH_CHECK(id->kind == SH_PICKLE_TUPLE && (id->as.list.n == 5 || id->as.list.n == 6),
             SH_ERR_FORMAT, "%s: damaged pickle: a storage is not described by 5 or 6 values",
             m->label);

    sh_pickle_value *const *items = id->as.list.items;

    SH_CHECK(sh_pickle_is(items[0], "storage") && items[1]->kind == SH_PICKLE_CLASS &&
                 items[2]->kind == SH_PICKLE_STRING && items[4]->kind == SH_PICKLE_INT &&
                 items[4]->as.integer >= 0,
             SH_ERR_FORMAT, "%s: damaged pickle: a storage without class, key or size", m->label);
    SH_CHECK(
        id->as.list.n == 5 || items[5]->kind == SH_PICKLE_NONE, SH_ERR_UNSUPPORTED,
        "%s: storages that are parts of others, as PyTorch before 0.4 wrote them; load and save "
        "the file with a newer PyTorch",
        m->label);
    SH_TRY(sh_pickle_push(m, SH_PICKLE_STORAGE, &storage));
    storage->as.storage.type = items[1]->as.storage.type;
    storage->as.storage.key = items[2]->as.string.text;
    storage->as.storage.n_key = items[2]->as.string.n;
    storage->as.storage.n_elems = items[4]->as.integer;
    SH_TRY(sh_pickle_append(m, &m->storages, storage));
out:
    return st;
}

static sh_status op_stop(sh_pickle *m, int arg)
{
    (void)arg;
    return pop(m, &m->root);
}

/* ---- the table ---- */

typedef struct opcode {
    sh_status (*run)(sh_pickle *m, int arg);
    int arg;
} opcode;

static const opcode opcodes[256] = {
    [0x80] = {op_protocol, 2},
    ['.'] = {op_stop, 0},
    ['N'] = {op_empty, SH_PICKLE_NONE},
    [')'] = {op_empty, SH_PICKLE_TUPLE},
    [']'] = {op_empty, SH_PICKLE_LIST},
    ['}'] = {op_empty, SH_PICKLE_DICT},
    [0x88] = {op_bool, 1},
    [0x89] = {op_bool, 0},
    ['K'] = {op_int, 1},
    ['M'] = {op_int, 2},
    ['J'] = {op_int, 4},
    [0x8A] = {op_long1, 8},
    ['G'] = {op_float, 8},
    ['X'] = {op_string, 4}, /* UTF-8 */
    ['U'] = {op_string, 1}, /* bytes, from Python 2 */
    ['T'] = {op_string, 4},
    ['('] = {op_mark, 0},
    ['t'] = {op_tuple, 0},
    [0x85] = {op_tuple_of, 1},
    [0x86] = {op_tuple_of, 2},
    [0x87] = {op_tuple_of, 3},
    ['a'] = {op_append, 1},
    ['e'] = {op_add_marked, SH_PICKLE_LIST},
    ['s'] = {op_set_item, 2},
    ['u'] = {op_add_marked, SH_PICKLE_DICT},
    ['q'] = {op_put, 1},
    ['r'] = {op_put, 4},
    ['h'] = {op_get, 1},
    ['j'] = {op_get, 4},
    ['c'] = {op_global, 0},
    ['R'] = {op_reduce, 0},
    ['b'] = {op_build, SH_PICKLE_DICT},
    ['Q'] = {op_persistent_id, 0},
};

sh_status sh_pickle_step(sh_pickle *m, uint8_t code)
{
    sh_status st = SH_OK;

    SH_CHECK(opcodes[code].run != NULL, SH_ERR_UNSUPPORTED,
             "%s: the pickle uses opcode 0x%02X at byte %zu, which is refused: only tensors, "
             "dictionaries and numbers are read. In Python, save model.state_dict() alone",
             m->label, code, m->at - 1);
    SH_TRY(opcodes[code].run(m, opcodes[code].arg));
out:
    return st;
}
