// SPDX-License-Identifier: Apache-2.0
/** CSV as RFC 4180 has it: quoted fields, doubled quotes, line ends in quotes, LF or CRLF, a BOM.
 */
#ifndef SH_DATAIO_CSV_H
#define SH_DATAIO_CSV_H

#include "base/file.h"

SH_C_BEGIN

typedef struct sh_csv sh_csv;

/** Read a whole file. The caller owns *out. */
SH_MUST_CHECK sh_status sh_csv_open(const char *path, char separator, sh_csv **out);
void sh_csv_close(sh_csv **csv);

/** The next row that is not empty: *fields[*n_fields], valid until close except the array itself,
 *  which is reused. *n_fields = 0 at the end. A quote that never closes is SH_ERR_FORMAT. */
SH_MUST_CHECK sh_status sh_csv_next(sh_csv *csv, char ***fields, int *n_fields);

/** Line on which the last row began, from 1. */
int64_t sh_csv_line(const sh_csv *csv);

/** Write one row, quoting fields where they need it. */
SH_MUST_CHECK sh_status sh_csv_write_row(sh_file_writer *writer, const char *const *fields,
                                         int n_fields);

SH_C_END

#endif
