#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every file of experiments/ trains: two steps on a small synthetic pack, at the smallest images and
# batches that its network and sampling take.
# timeout: 1500
# label: slow
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)
n=0
for file in "$SHOAL_SOURCE"/experiments/*.yaml; do
    name=$(basename "$file" .yaml)
    size=48
    extra="sampling.individuals=4 sampling.images=2"
    case $name in
    orl-siamese | uia-*) size=24 extra="sampling.batch=8" ;;
    fishnet1 | wrasse-*) size=96 extra="sampling.individuals=4 sampling.images=2" ;;
    miewid | zebrafish-*) extra="sampling.batch=8" ;;
    esac
    # Stages shorter than the test, so that their borders are crossed.
    grep -q '^stages:' "$file" && extra="$extra stages.0.steps=1 stages.1.steps=1"
    # shellcheck disable=SC2086
    "$SHOAL" train "$file" --run "$name" data="$PACK" init= size=$size steps=2 minutes=0 threads=1 \
        split.by=recording split.test=0.3 split.val=0.3 shards=0 validate.every_steps=0 $extra > "$name.log" 2>&1 ||
        { tail -5 "$name.log" >&2; fail "$name"; }
    [ -s "$name/model.safetensors" ] || fail "$name left no model"
    grep -q "done: 2 steps" "$name.log" || fail "$name did not train"
    rm -r "$name"
    n=$((n + 1))
done
[ $n -ge 15 ] || fail "only $n experiments"
echo "experiments: $n ok"
