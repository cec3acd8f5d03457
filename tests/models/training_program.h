// SPDX-License-Identifier: Apache-2.0
/** The program of a network's training step, as shoal train builds it; planned, not run. */
#ifndef TESTS_MODELS_TRAINING_PROGRAM_H
#define TESTS_MODELS_TRAINING_PROGRAM_H

#include "models/zoo/zoo.h"

/** For square images of `size` pixels a side, on the store's backend, with an embedding of 128. */
static inline sh_program *make_training_program(const sh_net *net, sh_store *store, sh_dtype dtype,
                                                int64_t n_images, int64_t size)
{
    sh_program *p = NULL;
    sh_value cotangent;

    assert_int_equal(sh_program_create(&(sh_program_config){.backend = sh_store_backend(store),
                                                            .store = store,
                                                            .dtype = dtype,
                                                            .training = true,
                                                            .share = 1,
                                                            .prefix = ""},
                                       &p),
                     SH_OK);
    sh_value image =
        sh_program_input(p, "image", (int64_t[4]){n_images, net->in_channels, size, size});
    sh_value y = sh_program_output(
        p, "embedding", sh_net_embedding(p, net, image, &(sh_head){.dim = 128, .normalize = true}));

    assert_int_equal(sh_program_differentiate(p, y, SH_NO_VALUE, &cotangent, NULL), SH_OK);
    assert_int_equal(sh_program_plan(p), SH_OK);
    return p;
}

#endif
