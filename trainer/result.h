// SPDX-License-Identifier: Apache-2.0
/** What a run ends with: which of its steps is best, by validation, and the model of that one. */
#ifndef SH_TRAINER_RESULT_H
#define SH_TRAINER_RESULT_H

#include "trainer/session.h"

/** A validation that the schedule asks for: score the weights that count as the result - the moving
 *  average where there is one - on the validation part, log the score, and keep them in
 *  session->best where they are the best so far. Training state is left as it was. Without a
 *  validation part, nothing. Collective. */
SH_MUST_CHECK sh_status sh_result_validate(sh_session *session);

/** Write RUN/model.safetensors: the best step that the schedule validated, or the last one, which
 * is validated here where it was not, where that is better or nothing was validated. session->best
 *  and progress are left as they were. Collective. */
SH_MUST_CHECK sh_status sh_result_write(sh_session *session);

#endif
