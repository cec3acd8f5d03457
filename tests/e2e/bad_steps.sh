#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Steps whose numbers go bad. on_bad_step=skip leaves them out, with the same bytes on 1 and 2 ranks,
# after an interruption, and where it goes back to a checkpoint each time; a run that diverges says
# where it began, and ends.
# timeout: 600
# label: slow
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)
small_config="net=siamese_orl size=16 threads=1 loader.threads=1 sampling.individuals=4 sampling.images=3 embedding.dim=0
    optimizer.clip_norm=1 optimizer.ema=0.9 schedule.warmup_steps=3 split.val=0.2 split.test=0.2"
options="shards=2 steps=24 checkpoint.every_steps=4"

# shellcheck disable=SC2086
train 1 whole $options
# The steps with the two largest norms are to be bad: a limit just below the second.
limit=$(sed -n 's/.*"grad_norm":\([^}]*\)}/\1/p' whole/metrics.jsonl | sort -g | tail -2 | head -1)
limit=$(python3 -c "print($limit * 0.999)")
options="$options bad_norm=$limit"

code=0
# shellcheck disable=SC2086
train 1 stop $options 2> /dev/null || code=$?
[ $code = 1 ] && grep -q "went bad: the norm of its gradient is .* above bad_norm" stop.log || { cat stop.log >&2; fail "on_bad_step=stop: code $code"; }

# shellcheck disable=SC2086
train 1 skip $options on_bad_step=skip
n=$(wc -l < skip/skipped.csv)
[ "$n" -ge 1 ] || fail "no step was left out"
[ "$(grep -cE '^[0-9]+,0,' skip/ledger.csv)" = "$n" ] || fail "the ledger does not show $n steps left out"
[ "$(wc -l < skip/ledger.csv)" = 24 ] || fail "a step is missing in the ledger"
! cmp -s whole/model.safetensors skip/model.safetensors || fail "leaving steps out changed nothing"
# shellcheck disable=SC2086
train 2 two $options on_bad_step=skip
# shellcheck disable=SC2086
train 2 back $options on_bad_step=back
[ "$(grep -c 'goes back to the newest checkpoint' back.log)" = "$n" ] || { cat back.log >&2; fail "it did not go back $n times"; }
# shellcheck disable=SC2086
train 1 later $options on_bad_step=skip steps=13
rm -rf later/checkpoints # the replay knows the steps from the list alone
# shellcheck disable=SC2086
train 1 later $options on_bad_step=skip bad_norm=0 && cp -r later replay
for run in two back; do
    same_model skip $run
    cmp skip/ledger.csv $run/ledger.csv || fail "$run: the ledger differs"
    cmp skip/metrics.jsonl $run/metrics.jsonl || fail "$run: the metrics differ"
done
grep -q . replay/skipped.csv || fail "the list of skipped steps is lost"
while IFS=, read -r step _; do
    grep -q "^$step,0," replay/ledger.csv || fail "step $step was not left out of the replay"
done < replay/skipped.csv

diverging="shards=2 steps=24 loss.kind=batch_all loss.distance=squared embedding.normalize=false optimizer.kind=sgd
    optimizer.lr=100 optimizer.clip_norm=0 schedule.warmup_steps=0"
code=0
# shellcheck disable=SC2086
train 2 diverged $diverging 2> /dev/null || code=$?
[ $code = 1 ] || fail "a run that diverges ended with $code"
grep -qE "step [0-9]+ went bad: the (embedding of slot [0-9]+|gradient) is not finite.*rank [0-9]" diverged.log || { cat diverged.log >&2; fail "it does not say where it went bad"; }
code=0
# shellcheck disable=SC2086
train 2 hopeless $diverging on_bad_step=skip 2> /dev/null || code=$?
[ $code = 1 ] && grep -q "so did 10 steps before it" hopeless.log || { cat hopeless.log >&2; fail "it went on for ever"; }
echo "bad steps: $n left out, the same bytes by every way"
