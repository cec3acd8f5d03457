#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A run that is slow but healthy hears nothing from the watchdog: checkpoints on slow storage, steps of
# two passes, a rank that is stopped and goes on. Budgets and times are scaled down alike: a checkpoint
# and a step take several times what the watchdog allows without any progress.
#   SHOAL_MINUTES  at the end, so long a run with the usual budgets (default 0; 60 for the full promise):
#                  checkpoints that take half a minute, and every 20 s a rank that is stopped for 5 s
# timeout: 300
# label: slow
[ ! -w /dev/shm ] || export TMPDIR=/dev/shm # the only slow storage here is the one that is asked for
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)
options="shards=2 checkpoint.every_steps=2 watchdog.files_seconds=2 watchdog.compute_seconds=3 watchdog.collective_seconds=3"

healthy() { # RUN
    ! grep -q watchdog "$1.log" || { cat "$1.log" >&2; fail "the watchdog spoke about a healthy run"; }
}
# shellcheck disable=SC2086
train 2 whole $options steps=5

begin=$(date +%s%N)
# shellcheck disable=SC2086
SHOAL_SLOW_FILES=0.12 train 2 slow $options steps=5
took=$((($(date +%s%N) - begin) / 1000000))
healthy slow
same_model whole slow
# 3 checkpoints of some 25 operations, and the start's and the result's files.
[ $took -ge 9000 ] || fail "the storage was not slow: $took ms"
echo "slow storage: $took ms in all, no verdict"

# The step computes for several seconds, over programs whose nodes take milliseconds.
"$SHOAL" synth -o many.h5 --individuals 32 --images 10 --recordings 2 --size 64x32 --seed 3 > synth.log 2>&1
PACK=many.h5
train 2 passes shards=16 size=224 sampling.individuals=18 sampling.images=10 passes=two steps=1 \
    watchdog.compute_seconds=2 watchdog.collective_seconds=2
healthy passes
took=$(grep -o '"seconds": *[0-9]*' passes/checkpoints/step-*/state.json | grep -o '[0-9]*$')
[ "$took" -ge 3 ] || fail "the step took $took s only"
echo "a step of two passes: $took s, no verdict"

[ "${SHOAL_MINUTES:-0}" -gt 0 ] || exit 0
PACK=$(small_pack)
TRAIN_SECONDS=$((SHOAL_MINUTES * 60 + 600)) SHOAL_SLOW_FILES=1.2 train 4 long shards=4 passes=two minutes="$SHOAL_MINUTES" steps=100000000 checkpoint.every_minutes=3 &
job=$!
n_stops=0
while kill -0 $job 2> /dev/null; do
    sleep 15
    # shellcheck disable=SC2207
    ranks=($(pgrep -f "^[^ ]*/shoal train --run long" || true))
    [ ${#ranks[@]} -gt 0 ] || continue
    rank=${ranks[RANDOM % ${#ranks[@]}]}
    kill -STOP "$rank" 2> /dev/null && sleep 5 && kill -CONT "$rank" 2> /dev/null && n_stops=$((n_stops + 1))
done
wait $job || { cat long.log >&2; fail "the long run ended with an error"; }
healthy long
checkpoints=$(ls long/checkpoints | wc -l)
[ $n_stops -gt 0 ] || fail "no rank was stopped"
echo "$SHOAL_MINUTES minutes, $n_stops ranks stopped for 5 s, the last of $checkpoints checkpoints kept at $(ls long/checkpoints | tail -n 1): no verdict"
