// SPDX-License-Identifier: Apache-2.0
/**
 * The loss side of a step (trainer/step.h): what a program puts out for the loss, and from the
 * outputs of all shards the loss of the whole batch and the gradient of the own rows. Private to
 * the step, which knows nothing of embeddings and logits; here nothing is known of backward,
 * reduction and update.
 *
 *   build, differentiate   once per program: its outputs, and where their gradients go in
 *   begin                  once per step: which rows there are
 *   read                   per own shard after its forward: outputs into rows of the batch
 *   gather                 once per step: embeddings of all ranks. Collective
 *   choose                 once per step: mine the own anchors
 *   exchange               once per step: choices of all ranks. Collective
 *   apply                  once per step: loss, gradient
 *   write                  per own shard before its backward: gradient rows into the program
 *   judge                  once per step: what the loss was
 *
 * The loss over embeddings is defined on the whole batch, so embeddings are gathered from all
 * ranks; logits stay where they are, and only what each row costs is gathered.
 *
 * Where the backend has kernels for the losses of a step (sh_loss_memory, sh_class_loss_memory),
 * outputs, choices and gradients stay in its memory (sh_step_loss_stays); several ranks exchange
 * embeddings and choices through the host's. Nothing else waits for the backend there: what the
 * loss was is known once somebody has, at the end of the step. Read, choose, apply and write then
 * do nothing but queue kernels and copies, the same in every step, and can be recorded.
 */
#ifndef SH_TRAINER_STEP_LOSS_H
#define SH_TRAINER_STEP_LOSS_H

#include "trainer/step.h"

enum { SH_STEP_EMBEDDING, SH_STEP_LOGITS, SH_STEP_N_OUTPUTS };

/** Of one program, by the enum above; SH_NO_VALUE: not of this loss. */
typedef struct sh_step_outputs {
    sh_value of[SH_STEP_N_OUTPUTS]; /* [images, columns] f32 */
    sh_value cotangents[SH_STEP_N_OUTPUTS];
} sh_step_outputs;

/** Head and outputs on the network's features. A failure is the program's, as with all builders. */
void sh_step_loss_build(const sh_step_config *config, sh_program *program, sh_value features,
                        sh_step_outputs *out);

/** Add the program's backward nodes; which parameters are trained is marked already. Fills in
 *  outputs->cotangents. */
SH_MUST_CHECK sh_status sh_step_loss_differentiate(sh_program *program, sh_step_outputs *outputs);

typedef struct sh_step_loss sh_step_loss;

/** Reserve everything for batches of config->batch images. `program` and `outputs` tell how many
 *  columns there are and are not kept; config and comm are and must outlive *out, though
 *  config->class_weights and class_fish are copied. The caller owns *out. Not collective. */
SH_MUST_CHECK sh_status sh_step_loss_create(const sh_step_config *config, sh_comm *comm,
                                            const sh_program *program,
                                            const sh_step_outputs *outputs, sh_step_loss **out);
void sh_step_loss_destroy(sh_step_loss **loss);

/** Step `number` begins.
 *
 *  slots  [batch] the whole plan: labels and fish of all images */
SH_MUST_CHECK sh_status sh_step_loss_begin(sh_step_loss *loss, int64_t number,
                                           const sh_slot_plan *slots);

/** Take the outputs of an own shard, whose first image is slot `first_slot` of the batch, out of
 *  `arena`. */
SH_MUST_CHECK sh_status sh_step_loss_read(sh_step_loss *loss, sh_program *program,
                                          const sh_step_outputs *outputs, sh_buffer *arena,
                                          int64_t first_slot);

/** Bring the embeddings of all ranks together, once all own shards are read. Collective. */
SH_MUST_CHECK sh_status sh_step_loss_gather(sh_step_loss *loss);

/** Mine the own anchors; what the own rows cost their classes. */
SH_MUST_CHECK sh_status sh_step_loss_choose(sh_step_loss *loss);

/** Bring what was chosen, of all ranks, together. Collective. */
SH_MUST_CHECK sh_status sh_step_loss_exchange(sh_step_loss *loss);

/** Loss and gradient of the step. */
SH_MUST_CHECK sh_status sh_step_loss_apply(sh_step_loss *loss);

/** Do losses work in the backend's memory? */
bool sh_step_loss_stays(const sh_step_loss *loss);

/** What an update is to judge the step by: the loss where it works in the backend's memory. */
sh_optim_loss sh_step_loss_value(const sh_step_loss *loss);

/** What the loss was, after apply; where it stays in the backend's memory, once the backend has
 *  been waited for since.
 *
 *  stats  its loss and classes are written, the rest stays. The same on every rank
 *  Embeddings or a loss that are not finite are SH_ERR_MISMATCH with stats->bad, on every rank. */
SH_MUST_CHECK sh_status sh_step_loss_judge(const sh_step_loss *loss, sh_step_stats *stats);

/** Put the gradient rows of an own shard, as of the last apply, into `arena` as the cotangents of
 * its outputs. */
SH_MUST_CHECK sh_status sh_step_loss_write(const sh_step_loss *loss, sh_program *program,
                                           const sh_step_outputs *outputs, int64_t first_slot,
                                           sh_buffer *arena);

#endif
