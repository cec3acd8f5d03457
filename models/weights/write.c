// SPDX-License-Identifier: Apache-2.0
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "models/weights/internal.h"

enum { ALIGN_BYTES = 8 }; /* of the first element within the file, as the Python writer has it */

static const char *const dtype_names[] = {[SH_F32] = "F32", [SH_BF16] = "BF16", [SH_I32] = "I32"};

static sh_status bytes_of(const sh_weight_out *tensor, int64_t *n_bytes)
{
    sh_status st = SH_OK;
    bool bad = tensor->n_dims < 0 || tensor->n_dims > SH_WEIGHT_MAX_DIMS;

    SH_CHECK(!bad && (size_t)tensor->dtype < SH_COUNT(dtype_names) &&
                 dtype_names[tensor->dtype] != NULL,
             SH_ERR_INTERNAL, "tensor '%s': type %d with %d dimensions cannot be written",
             tensor->name, (int)tensor->dtype, tensor->n_dims);
    *n_bytes = (int64_t)sh_dtype_size(tensor->dtype);
    for (int i = 0; i < tensor->n_dims; i++)
        bad |= tensor->dims[i] < 0 || __builtin_mul_overflow(*n_bytes, tensor->dims[i], n_bytes);
    SH_CHECK(!bad, SH_ERR_INTERNAL, "tensor '%s': impossible size", tensor->name);
out:
    return st;
}

/* Add one tensor to the header, beginning at *end; *end moves behind it. */
static sh_status describe(const sh_weight_out *tensor, json_t *header, int64_t *end)
{
    sh_status st = SH_OK;
    int64_t n_bytes = 0;
    json_t *shape = json_array();

    SH_CHECK(shape != NULL, SH_ERR_NO_MEMORY, "tensor '%s'", tensor->name);
    SH_TRY(bytes_of(tensor, &n_bytes));
    SH_CHECK(json_object_get(header, tensor->name) == NULL, SH_ERR_INTERNAL,
             "tensor '%s' written twice", tensor->name);
    for (int i = 0; i < tensor->n_dims; i++)
        SH_CHECK(json_array_append_new(shape, json_integer(tensor->dims[i])) == 0, SH_ERR_NO_MEMORY,
                 "tensor '%s'", tensor->name);

    json_t *item = json_pack("{s:s, s:O, s:[I, I]}", "dtype", dtype_names[tensor->dtype], "shape",
                             shape, "data_offsets", (json_int_t)*end, (json_int_t)(*end + n_bytes));

    SH_CHECK(item != NULL && json_object_set_new(header, tensor->name, item) == 0, SH_ERR_USAGE,
             "tensor '%s': its name is not UTF-8", tensor->name);
    *end += n_bytes;
out:
    json_decref(shape);
    return st;
}

/* jansson keeps the order in which members were added, so the text is a function of the arguments.
 */
static sh_status make_header(const char *path, const sh_weight_out *tensors, int64_t n_tensors,
                             const char *const (*metadata)[2], int n_metadata, char **text)
{
    sh_status st = SH_OK;
    json_t *header = json_object();
    json_t *strings = json_object();
    int64_t end = 0;

    SH_CHECK(header != NULL && strings != NULL, SH_ERR_NO_MEMORY, "header of %s", path);
    for (int i = 0; i < n_metadata; i++)
        SH_CHECK(json_object_set_new(strings, metadata[i][0], json_string(metadata[i][1])) == 0,
                 SH_ERR_USAGE, "%s: metadata '%s' is not UTF-8", path, metadata[i][0]);
    SH_CHECK(json_object_set(header, "__metadata__", strings) == 0, SH_ERR_NO_MEMORY,
             "header of %s", path);
    for (int64_t i = 0; i < n_tensors; i++) SH_TRY(describe(&tensors[i], header, &end));
    *text = json_dumps(header, JSON_COMPACT);
    SH_CHECK(*text != NULL, SH_ERR_NO_MEMORY, "header of %s", path);
out:
    json_decref(header);
    json_decref(strings);
    return st;
}

sh_status sh_weights_write(const char *path, const sh_weight_out *tensors, int64_t n_tensors,
                           const char *const (*metadata)[2], int n_metadata, uint32_t *crc32c,
                           uint64_t *n_bytes)
{
    static const char spaces[ALIGN_BYTES] = "        ";
    sh_status st = SH_OK;
    char *text = NULL;
    sh_file_writer *writer = NULL;

    SH_TRY(make_header(path, tensors, n_tensors, metadata, n_metadata, &text));

    size_t n_text = strlen(text);
    size_t n_padding = (ALIGN_BYTES - n_text % ALIGN_BYTES) % ALIGN_BYTES;
    uint64_t n_header = n_text + n_padding;

    SH_TRY(sh_file_writer_create(path, &writer));
    SH_TRY(sh_file_write(writer, &n_header, sizeof(n_header)));
    SH_TRY(sh_file_write(writer, text, n_text));
    SH_TRY(sh_file_write(writer, spaces, n_padding));
    for (int64_t i = 0; i < n_tensors; i++) {
        int64_t n_data = 0;

        SH_TRY(bytes_of(&tensors[i], &n_data));
        SH_TRY(sh_file_write(writer, tensors[i].data, (size_t)n_data));
    }
    if (crc32c != NULL) *crc32c = sh_file_writer_crc32c(writer);
    if (n_bytes != NULL) *n_bytes = sh_file_writer_bytes(writer);
    SH_TRY(sh_file_writer_commit(writer));
out:
    sh_file_writer_destroy(&writer);
    free(text);
    return st;
}
