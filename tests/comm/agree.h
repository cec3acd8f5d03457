// SPDX-License-Identifier: Apache-2.0
/** Tests over several ranks: verdicts are shared before they are asserted, because an assert that
 *  jumps out on one rank alone would leave the others waiting. Raw MPI, never the code under test.
 */
#ifndef SH_TESTS_COMM_AGREE_H
#define SH_TESTS_COMM_AGREE_H

#include <mpi.h>
#include <stdbool.h>

static inline bool all_ranks_agree(bool mine)
{
    int started = 0, ok = mine;

    MPI_Initialized(&started);
    if (started) MPI_Allreduce(MPI_IN_PLACE, &ok, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    return ok != 0;
}

#endif
