// SPDX-License-Identifier: Apache-2.0
/** `shoal import`: published weights into the library. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cli.h"
#include "base/file.h"
#include "base/hash.h"
#include "models/weights/recognise.h"
#include "trainer/backbone.h"
#include "trainer/commands.h"
#include "trainer/library.h"

static const size_t max_file_bytes = (size_t)16 << 30;

typedef struct import_args {
    const char *file, *net, *name, *licence, *trained_on;
    bool replace;
} import_args;

static sh_status hash_file(const char *path, char hash[33])
{
    sh_status st = SH_OK;
    char *data = NULL;
    size_t n_bytes = 0;

    SH_TRY(sh_file_get(path, max_file_bytes, &data, &n_bytes));
    sh_hash_format(sh_hash_content(data, n_bytes), hash);
out:
    free(data);
    return st;
}

static void set_text(json_t *card, const char *key, const char *text)
{
    if (text != NULL && text[0] != '\0') json_object_set_new(card, key, json_string(text));
}

static sh_status make_card(const import_args *args, const sh_recognised *found, json_t **out)
{
    sh_status st = SH_OK;
    char hash[33];
    json_t *card = NULL;

    SH_TRY(hash_file(args->file, hash));
    SH_TRY(sh_backbone_describe(found->net, found->net->default_size, found->net->default_size,
                                &card));
    set_text(card, "trained_on",
             args->trained_on != NULL ? args->trained_on : "not said; see the source");
    set_text(card, "licence", args->licence != NULL ? args->licence : "not said; see the source");
    set_text(card, "source_file", sh_path_name(args->file));
    set_text(card, "source_xxh128", hash);
    set_text(card, "names_of", found->names_of);
    set_text(card, "note", found->note);
    set_text(card, "left_out", found->extra);
    json_object_set_new(card, "tensors", json_integer(found->n_tensors));
    json_object_set_new(card, "classes", json_integer(found->n_classes));
    *out = card;
out:
    return st;
}

/* Whole or not at all: filled beside and renamed. */
static sh_status store_backbone(const import_args *args, const sh_weights *weights,
                                const sh_recognised *found, const char *folder)
{
    sh_status st = SH_OK;
    char beside[SH_LIBRARY_PATH + 16], path[SH_LIBRARY_PATH + 64];
    const char *metadata[][2] = {{"format", "pt"}, {"net", found->net->name}};
    int n_written = 0;
    sh_store *store = NULL;
    json_t *card = NULL;

    snprintf(beside, sizeof(beside), "%s.new", folder);
    SH_TRY(sh_file_remove_tree(beside));
    SH_TRY(sh_file_make_dirs(beside));
    SH_TRY(sh_weights_slots_of(found->net, found->n_classes > 0 ? found->n_classes : 1, &store));
    snprintf(path, sizeof(path), "%s/weights.safetensors", beside);
    SH_TRY(sh_backbone_write(path, weights, store, false, (const char *const(*)[2])metadata,
                             SH_COUNT(metadata), &n_written));
    SH_TRY(make_card(args, found, &card));
    SH_TRY(sh_library_seal(beside, card));
    SH_TRY(sh_file_remove_tree(folder));
    SH_TRY(sh_file_rename(beside, folder));
out:
    json_decref(card);
    sh_store_destroy(&store);
    return st;
}

/* What an export wrote says which network it is, also where names and shapes do not tell. */
static const char *network_of(const import_args *args, const sh_weights *weights)
{
    const char *said = sh_weights_metadata(weights, "net");

    if (args->net != NULL || said == NULL) return args->net;
    for (const sh_net *const *net = sh_net_list(); *net != NULL; net++)
        if (strcmp((*net)->name, said) == 0) return said;
    return NULL;
}

static sh_status import_file(const import_args *args)
{
    sh_status st = SH_OK;
    sh_weights *weights = NULL;
    sh_recognised found;
    char folder[SH_LIBRARY_PATH];

    SH_TRY(sh_weights_read(args->file, &weights));
    SH_TRY(sh_weights_recognise(weights, network_of(args, weights), &found));

    const char *name = args->name != NULL ? args->name : found.net->name;

    SH_TRY(sh_library_folder(name, folder));
    SH_CHECK(args->replace || !sh_file_exists(folder), SH_ERR_USAGE,
             "%s is there already; give --replace, or another --name", folder);
    SH_TRY(store_backbone(args, weights, &found, folder));
    printf("%s: %s, %d tensors", args->file, found.net->name, found.n_tensors);
    if (found.names_of[0] != '\0') printf(", under the names of %s", found.names_of);
    if (found.n_classes > 0) printf(", classifier of %d classes", found.n_classes);
    printf("\n");
    if (found.extra[0] != '\0') printf("left out: %s\n", found.extra);
    if (found.note[0] != '\0') printf("note: %s\n", found.note);
    if (found.others[0] != '\0')
        printf("the names and shapes are also those of %s: if it is that one, give --net\n",
               found.others);
    printf("stored as %s: shoal train EXPERIMENT.yaml net=%s init=%s\n", folder, found.net->name,
           name);
out:
    sh_weights_destroy(&weights);
    return st;
}

sh_status sh_cmd_import(int argc, char **argv)
{
    sh_status st = SH_OK;
    sh_string_list words = {0};
    bool helped = false;
    import_args args = {0};
    const sh_flag flags[] = {
        {"--net", NULL, SH_FLAG_STRING, &args.net, "NAME",
         "the network, where names and shapes do not tell"},
        {"--name", NULL, SH_FLAG_STRING, &args.name, "NAME",
         "what to call it in the library (default: the network's name)"},
        {"--licence", NULL, SH_FLAG_STRING, &args.licence, "TEXT", "for the card"},
        {"--trained-on", NULL, SH_FLAG_STRING, &args.trained_on, "TEXT", "for the card"},
        {"--replace", NULL, SH_FLAG_BOOL, &args.replace, NULL, "overwrite one of the same name"},
    };
    const sh_cli cli = {
        .usage = "shoal import FILE [--net NAME] [--name NAME] [--licence TEXT]",
        .summary =
            "Put weights into the library, where init=NAME finds them. FILE is safetensors, a "
            "PyTorch .pth or a Keras .h5, under the names of torchvision, timm, Keras or the "
            "network's own package; nothing in it is executed.",
        .flags = flags,
        .n_flags = (int)SH_COUNT(flags),
        .min_args = 1,
        .max_args = 1,
        .epilogue = "The library is $SHOAL_HOME/backbones (default ~/.local/share/shoal).\n"
                    "  shoal import mobilenet_v2-b0353104.pth --licence BSD-3-Clause\n"
                    "  shoal train experiments/fishnet2.yaml data=my.h5 init=mobilenet_v2\n",
    };

    SH_TRY(sh_cli_parse(&cli, argc, argv, &words, &helped));
    if (helped) goto out;
    args.file = words.items[0];
    SH_TRY(import_file(&args));
out:
    free(words.items);
    return st;
}
