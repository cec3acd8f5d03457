// SPDX-License-Identifier: Apache-2.0
/**
 * The library: shared backbones by name, for nodes that reach no network.
 *
 * A backbone is a folder:
 *   weights.safetensors  under public names
 *   card.yaml            what it is: network, source, licence, preprocessing, taps, scores
 *   weights.xxh128       checksum, as `xxh128sum -c` reads it
 * The library is the folder $SHOAL_HOME/backbones, by default ~/.local/share/shoal/backbones.
 */
#ifndef SH_TRAINER_LIBRARY_H
#define SH_TRAINER_LIBRARY_H

#include <jansson.h>
#include <stdbool.h>

#include "base/status.h"

enum { SH_LIBRARY_PATH = 4096 };

/** Folder of a backbone into path[SH_LIBRARY_PATH]; it need not exist. A name is one word of
 *  letters, digits, "-", "_" and "."; another is SH_ERR_USAGE. */
SH_MUST_CHECK sh_status sh_library_folder(const char *name, char *path);

/** Path of the weights that `init` means: a file as it stands, the weights of a backbone folder, or
 *  of the backbone of this name in the library. SH_ERR_NOT_FOUND lists what is there. */
SH_MUST_CHECK sh_status sh_library_find(const char *init, char *path);

/** Give a folder with weights.safetensors its card and checksum. The card is a JSON object of
 *  strings, numbers, lists and objects of these; it is written as YAML in its order. */
SH_MUST_CHECK sh_status sh_library_seal(const char *folder, const json_t *card);

/** Is the folder a backbone, and are its weights what the checksum says? Not one: *is_backbone =
 *  false. Damaged weights are SH_ERR_FORMAT. */
SH_MUST_CHECK sh_status sh_library_check(const char *folder, bool *is_backbone);

#endif
