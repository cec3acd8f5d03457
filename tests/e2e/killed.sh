#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs killed with SIGKILL at random instants and resumed, some on other numbers of ranks, end with
# the bytes of an undisturbed one, and each slot of the ledger was used once.
#   SHOAL_KILLS  how many runs are killed (default 6; 50 for the full promise)
# timeout: 600
# label: slow
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)
kills=${SHOAL_KILLS:-6}
steps=24
options="shards=4 steps=$steps checkpoint.every_steps=2 validate.every_steps=8"

# shellcheck disable=SC2086
train 1 whole $options
RANDOM=20
n_interrupted=0
for ((i = 0; i < kills; i++)); do
    run=killed-$i
    ranks=$((i % 3 == 2 ? 2 : 1))
    for attempt in 1 2 3; do
        # shellcheck disable=SC2086
        setsid timeout -k 5 120 mpirun -n $ranks --bind-to none "$SHOAL" train --run $run data="$PACK" $small_config $options > $run.log 2>&1 &
        job=$!
        sleep "$((RANDOM % 2)).$((RANDOM % 10))$((RANDOM % 10))"
        if kill -9 -- -$job 2> /dev/null; then n_interrupted=$((n_interrupted + 1)); fi
        pkill -9 -f -- "--run $run " 2> /dev/null || true
        wait $job 2> /dev/null || true
        ranks=$((ranks % 4 + 1))
    done
    # shellcheck disable=SC2086
    train $ranks $run $options
    same_model whole $run
    cmp whole/ledger.csv $run/ledger.csv || fail "$run: the ledger differs"
    cmp whole/metrics.jsonl $run/metrics.jsonl || fail "$run: the metrics differ"
done
[ "$(cut -d, -f1 whole/ledger.csv)" = "$(seq 0 $((steps - 1)))" ] || fail "a step is missing or doubled in the ledger"
[ $n_interrupted -gt 0 ] || fail "no run was really interrupted"
echo "killed: $n_interrupted interruptions of $kills runs, all ended with the same bytes"
