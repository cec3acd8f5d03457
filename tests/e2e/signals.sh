#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# SIGTERM and SIGUSR1 make a checkpoint and exit code 75 on one and on two ranks; the same command
# then ends with the bytes of an undisturbed run. Two processes may not write one run.
# timeout: 300
# label: slow
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)
options="shards=2 steps=120 checkpoint.every_steps=1000"

# shellcheck disable=SC2086
train 1 whole $options
for signal in TERM USR1; do
    # shellcheck disable=SC2086
    "$SHOAL" train --run $signal data="$PACK" $small_config $options > $signal.log 2>&1 &
    job=$!
    until grep -q 'step 1/' $signal.log; do sleep 0.05; kill -0 $job; done
    "$SHOAL" train --run $signal data="$PACK" $small_config $options > second.log 2>&1 && fail "two processes wrote one run"
    grep -q "being written by another process" second.log || { cat second.log >&2; fail "the lock's message"; }
    kill -$signal $job
    code=0
    wait $job || code=$?
    [ $code = 75 ] || { cat $signal.log >&2; fail "SIG$signal: exit code $code instead of 75"; }
    grep -q "stopped on request" $signal.log || fail "SIG$signal: no message"
    # shellcheck disable=SC2086
    train 2 $signal $options
    same_model whole $signal
done
echo "signals: ok"
