#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A process that its batch system believes dead is replaced by a newer start of the same job. When it
# comes back it writes nothing more, and says so; the newer one ends with the bytes of an undisturbed
# run. A stranger is refused as long as the first process lives.
# timeout: 600
# label: slow
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)
options="shards=2 steps=60 checkpoint.every_steps=3"

start() { # RUN LOG: in the background, $job
    # shellcheck disable=SC2086
    "$SHOAL" train --run "$1" data="$PACK" $small_config $options > "$2" 2>&1 &
    job=$!
}

# shellcheck disable=SC2086
train 1 whole $options
export SLURM_JOB_ID=41
for attempt in 1 2 3; do
    run=fenced-$attempt
    # Logs per attempt: one of the attempt before would be read until the shell has emptied it.
    old_log=$run-old.log new_log=$run-new.log stranger_log=$run-stranger.log
    start $run $old_log
    old=$job
    until compgen -G "$run/checkpoints/step-*" > /dev/null; do sleep 0.05; kill -0 $old || fail "the first process"; done
    sleep "0.0$((RANDOM % 10))"
    kill -STOP $old # perhaps in the middle of a checkpoint
    (SLURM_JOB_ID=42 start $run $stranger_log; wait $job) && fail "another job wrote the run"
    grep -q "being written by another process" $stranger_log || { cat $stranger_log >&2; fail "the lock's message"; }
    start $run $new_log
    new=$job
    until grep -qs 'step [0-9]*/' $new_log; do sleep 0.05; kill -0 $new || { cat $new_log >&2; fail "the second process"; }; done
    grep -q "is taken over" $new_log || fail "the newer process does not say that it takes over"
    [ $attempt = 3 ] && wait $new # and once only after the end of the newer one
    kill -CONT $old
    code=0
    wait $old || code=$?
    [ $code = 1 ] || { cat $old_log >&2; fail "the replaced process ended with $code"; }
    grep -q "a newer process has taken over this run" $old_log || { cat $old_log >&2; fail "its message"; }
    [ $attempt = 3 ] || wait $new || { cat $new_log >&2; fail "the newer process"; }
    same_model whole $run
    cmp whole/ledger.csv $run/ledger.csv || fail "$run: the ledger differs"
    cmp whole/metrics.jsonl $run/metrics.jsonl || fail "$run: the metrics differ"
done

# Two starts of one job at the same instant: one of them trains the run, the other one is replaced.
start twins first.log
twins=$job
start twins second.log
twins="$twins $job"
codes=
for process in $twins; do
    code=0
    wait "$process" || code=$?
    codes="$codes $code"
done
case $codes in
    " 0 1") replaced=second.log ;;
    " 1 0") replaced=first.log ;;
    *) cat first.log second.log >&2; fail "two starts at once ended with$codes" ;;
esac
grep -q "a newer process has taken over this run" $replaced || { cat $replaced >&2; fail "the message of the replaced one"; }
same_model whole twins
cmp whole/ledger.csv twins/ledger.csv || fail "twins: the ledger differs"
cmp whole/metrics.jsonl twins/metrics.jsonl || fail "twins: the metrics differ"
echo "fence: 3 processes came back, none wrote"
