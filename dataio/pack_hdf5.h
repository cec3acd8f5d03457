// SPDX-License-Identifier: Apache-2.0
/** Private to dataio/pack_write.c and pack_read.c: the HDF5 types of the columns. */
#ifndef SH_DATAIO_PACK_HDF5_H
#define SH_DATAIO_PACK_HDF5_H

#include <hdf5.h>

#include "dataio/pack_file.h"

enum { SH_STRING_ROWS = 4096 }; /* strings converted at a time */

static inline hid_t sh_column_memory_type(sh_column_type type)
{
    const hid_t types[] = {[SH_COL_U8] = H5T_NATIVE_UINT8,   [SH_COL_I8] = H5T_NATIVE_INT8,
                           [SH_COL_U32] = H5T_NATIVE_UINT32, [SH_COL_I32] = H5T_NATIVE_INT32,
                           [SH_COL_I64] = H5T_NATIVE_INT64,  [SH_COL_U64] = H5T_NATIVE_UINT64};

    return types[type];
}

static inline hid_t sh_column_file_type(sh_column_type type)
{
    const hid_t types[] = {
        [SH_COL_U8] = H5T_STD_U8LE,   [SH_COL_I8] = H5T_STD_I8LE,   [SH_COL_U32] = H5T_STD_U32LE,
        [SH_COL_I32] = H5T_STD_I32LE, [SH_COL_I64] = H5T_STD_I64LE, [SH_COL_U64] = H5T_STD_U64LE};

    return types[type];
}

/** Fixed-length UTF-8, padded with NUL; H5Tclose it. */
static inline hid_t sh_string_type(size_t n_bytes)
{
    hid_t type = H5Tcopy(H5T_C_S1);

    if (type < 0 || H5Tset_size(type, n_bytes) < 0 || H5Tset_strpad(type, H5T_STR_NULLPAD) < 0 ||
        H5Tset_cset(type, H5T_CSET_UTF8) < 0)
        return H5I_INVALID_HID;
    return type;
}

#endif
