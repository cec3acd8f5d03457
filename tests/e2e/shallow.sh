#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Shallow training: the head that is trained on stored features has the bytes of one whose frozen
# network runs in every step, on any number of ranks and through kills, and a later epoch sends no
# image through the network.
# timeout: 900
# label: slow
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)
still="augment.rotate=0 augment.shift=0 augment.scale=0 augment.brightness=0 augment.contrast=0 augment.saturation=0"
identify="shards=2 steps=12 validate.every_steps=4 freeze=features.*"
classify="task=classify loss.kind=cross_entropy embedding.dim=0 embedding.normalize=false sampling.kind=epoch
  sampling.batch=16 shards=2 steps=20 split.by=recording split.test=0.34 split.val=0 freeze=*,!loss.*"

# equal NAME: runs NAME-plain and NAME-shallow have the same result and the same records.
equal() {
    same_model "$1-plain" "$1-$2"
    for file in metrics.jsonl ledger.csv; do cmp "$1-plain/$file" "$1-$2/$file" || fail "$1-$2: $file differs"; done
}

# both NAME OPTIONS...: without and with stored features, and these on two ranks.
both() {
    local name=$1
    shift
    # shellcheck disable=SC2086
    train 1 "$name-plain" $still "$@"
    # shellcheck disable=SC2086
    for ranks in 1 2; do train $ranks "$name-shallow$ranks" $still "$@" shallow.views=1; equal "$name" shallow$ranks; done
}

# shellcheck disable=SC2086
both identify $identify
# shellcheck disable=SC2086
both bf16 $identify dtype=bf16 passes=two embedding.views=2
# shellcheck disable=SC2086
both classify $classify
# Squeeze-and-excitation, stochastic depth, a flattened map at a tap.
# shellcheck disable=SC2086
both blocks $identify net=efficientnet_b0 "freeze=*,!head.*" tap=features.3.1 embedding.pool=flatten steps=4

# Work, not time: of a whole epoch behind the first no image passed the network.
grep -q "shallow: epoch 2 since the start here .*, 0 images through the network" classify-shallow1.log ||
    { cat classify-shallow1.log >&2; fail "the second epoch ran the network"; }
computed() { sed -n "s/.*features of [0-9]* $2 crops.*: \([0-9]*\) images went.*/\1/p" "$1.log"; }
first=$(sed -n 's/.*shallow: epoch 1 .*, \([0-9]*\) images through the network/\1/p' classify-shallow1.log)
[ "$first" = "$(computed classify-shallow1 train)" ] && [ "$first" -gt 0 ] || fail "the first epoch sent $first images through the network"
[ "$(computed identify-shallow1 val)" -gt 0 ] || fail "validation kept no features"

# Several views, drawn once: the same on two ranks. Killed while features are computed: whole pieces
# are found again, and one that was damaged meanwhile is made again.
views="shards=2 steps=16 validate.every_steps=8 freeze=features.* shallow.views=12"
# shellcheck disable=SC2086
train 1 views $views
# shellcheck disable=SC2086
train 2 views2 $views
same_model views views2
cmp -s views/model.safetensors identify-shallow1/model.safetensors && fail "views changed nothing"
# shellcheck disable=SC2086
setsid timeout -k 5 120 "$SHOAL" train --run killed data="$PACK" $small_config $views > killed.log 2>&1 &
job=$!
for ((i = 0; i < 1000; i++)); do
    [ -f killed/features/train-0002-000000.features ] && break
    sleep 0.02
done
kill -9 -- -$job
wait $job 2> /dev/null || true
[ -f killed/features/train-0002-000000.features ] || { cat killed.log >&2; fail "no piece was written"; }
grep -q "images went through" killed.log && fail "the run was not killed while it computed features"
printf '\xff' | dd of=killed/features/train-0001-000000.features bs=1 seek=1000 conv=notrunc status=none
# shellcheck disable=SC2086
train 2 killed $views
same_model views killed
all=$(computed views train)
again=$(computed killed train)
[ "$again" -lt "$all" ] && [ "$again" -gt 0 ] || fail "$again of $all features were computed again"
cmp views/features/train-0001-000000.features killed/features/train-0001-000000.features || fail "the damaged piece is still there"

# Nothing is computed by a run that continues.
# shellcheck disable=SC2086
train 1 killed $views steps=20
[ "$(computed killed train)" = 0 ] && [ "$(computed killed val)" = 0 ] || fail "a run that continued computed features"

# Asked to stop while features are computed: exit 75, and the same command continues.
# shellcheck disable=SC2086
timeout -k 5 120 "$SHOAL" train --run stopped data="$PACK" $small_config $views > stopped.log 2>&1 &
job=$!
for ((i = 0; i < 1000; i++)); do
    [ -f stopped/features/train-0002-000000.features ] && break
    sleep 0.02
done
kill -TERM $job
code=0
wait $job || code=$?
[ $code = 75 ] || { cat stopped.log >&2; fail "stopped with $code"; }
# shellcheck disable=SC2086
train 1 stopped $views
same_model views stopped

# A shallow stage, then the whole network, then shallow again over other weights; cut at borders.
cat > staged.yaml <<'YAML'
optimizer: {lr: 0.001}
shallow: {views: 3}
stages:
  - {name: head, steps: 3, freeze: ["features.*"], shallow: true}
  - {name: all, steps: 2}
  - {name: again, freeze: ["features.*"], shallow: true}
YAML
staged() {
    local ranks=$1 run=$2
    shift 2
    # shellcheck disable=SC2086
    timeout -k 5 120 mpirun -n "$ranks" --bind-to none "$SHOAL" train staged.yaml --run "$run" data="$PACK" $small_config schedule.warmup_steps=0 shards=2 validate.every_steps=2 "$@" > "$run.log" 2>&1 || {
        tail -5 "$run.log" >&2
        return 1
    }
}
staged 1 staged steps=8
staged 2 staged2 steps=8
same_model staged staged2
for stop in 2 3 5; do
    staged 1 cut$stop steps=$stop
    staged 2 cut$stop steps=8
    same_model staged cut$stop
    cmp staged/metrics.jsonl cut$stop/metrics.jsonl || fail "cut$stop: the metrics differ"
done

# What does not fit together is refused with the remedy.
refused() {
    local message=$1
    shift
    if train 1 refused steps=1 "$@" 2> /dev/null; then fail "accepted: $*"; fi
    grep -q -- "$message" refused.log || { cat refused.log >&2; fail "no remedy for $*"; }
}
refused "would do nothing: augment.rotate=10 augment.shift=0.05 .*shallow.views=8" freeze=features.* shallow.views=1
# shellcheck disable=SC2086
refused "no augment.. is set to draw views from" $still freeze=features.* shallow.views=2
refused "features.18.0.weight is trained: freeze all but the head" "freeze=features.*,!features.18.*" shallow.views=2
refused "stages.0.shallow needs to know" stages.0.steps=1 stages.0.shallow=true
refused "no stage is shallow" stages.0.steps=1 shallow.views=2
echo "shallow: ok"
