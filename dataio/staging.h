// SPDX-License-Identifier: Apache-2.0
/**
 * Copies of packs on a disk of this node, where the packs lie on storage that many nodes share.
 *
 *   FOLDER/shoal-<user>/<hash>/      the files of one pack, and `sums`: their lengths and CRC-32C
 *   FOLDER/shoal-<user>/<hash>.lock  held alone by who copies or removes, shared by who reads
 *
 * The hash is that of the pack's name and seal, and so of its tables and every image's checksum:
 * the ranks and jobs of a node that read the same pack share one copy. The kernel gives a lock back
 * however its process ends. So a copy is removed by the last one that closes it; what killed
 * processes left is used again by the next start that needs it, and removed by the next that does
 * not. Every copy is read back and compared before it is used, a new one and one that was found.
 */
#ifndef SH_DATAIO_STAGING_H
#define SH_DATAIO_STAGING_H

#include <stdbool.h>

#include "base/status.h"

SH_C_BEGIN

typedef struct sh_staging sh_staging;

/** Local copies of these packs, below `folder`; "$NAME/rest" begins with a variable of the
 *  environment. `copy`: make those that are missing, as one rank of each node does; false: take
 * what is there. While another process copies a pack, this one waits for it. A pack that cannot be
 *  copied (disk full, no such folder, damage on the way) is read where it lies, which a warning
 *  says; that is SH_OK. Not collective. The caller owns *out, and closes it after the packs. */
SH_MUST_CHECK sh_status sh_staging_open(const char *folder, const char *const *paths, int n_paths,
                                        bool copy, sh_staging **out);

/** Where to read the packs, in the order given: the copy, or the pack itself. */
const char *const *sh_staging_paths(const sh_staging *staging);

/** Gives the copies back and removes those that nobody else uses. NULL is fine. */
void sh_staging_close(sh_staging **staging);

SH_C_END

#endif
