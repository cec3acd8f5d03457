#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a run to others and back: exports of an identification and of classifications hold what the
# run holds, pass into the library, and start new runs.
# timeout: 300
# label: slow
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)
export SHOAL_HOME=$scratch/home
known="split.by=recording split.test=0.34 split.val=0 embedding.dropout=0 shards=2 steps=2"
classify="task=classify embedding.dim=0 embedding.normalize=false sampling.kind=epoch sampling.batch=16"

# run COMMAND... with its output in out.txt
shoal() { "$SHOAL" "$@" > out.txt 2>&1 || { cat out.txt >&2; fail "shoal $*"; }; }
said() { grep -q -- "$1" out.txt || { cat out.txt >&2; fail "not said: $1"; }; }
tensors() { shoal inspect "$1"; grep '\[.*\]$' out.txt | sort; }

# shellcheck disable=SC2086
{
    train 1 identify $known embedding.bn_neck=true
    train 1 classes $known $classify loss.kind=cross_entropy
    train 1 arcface $known $classify loss.kind=sub_arcface loss.centres=2 embedding.bn_neck=true
}

for run in identify classes arcface; do
    shoal export $run -o $run-shared --onnx $run.onnx --licence CC0-1.0
    if [ $run = identify ]; then said "to embedding$"; else said "to embedding and logits$"; fi
    [ -s $run.onnx ] || fail "no $run.onnx"
    shoal export $run -o $run.safetensors --licence CC0-1.0
    cmp $run.safetensors $run-shared/weights.safetensors || fail "file and folder of $run differ"

    # All that the run has, and of the trunk no more than the public network has.
    tensors $run/model.safetensors > has.txt
    tensors $run.safetensors | cmp - has.txt || fail "$run: tensors were lost"
    [ "$(wc -l < has.txt)" -gt 200 ] || fail "$run: hardly a tensor"
    shoal export $run -o $run-trunk.safetensors --trunk
    tensors $run-trunk.safetensors > trunk.txt
    grep -Ev '^  (head|neck|pool|loss)\.' has.txt | cmp - trunk.txt || fail "$run: not the trunk"

    shoal inspect $run-shared
    said "its checksum is right"
    said "licence: \"CC0-1.0\""
    if [ $run = identify ]; then
        grep -q class_names out.txt && fail "an identification has no classes"
    else
        [ "$(grep -o 'class_names:.*' out.txt | grep -o '"[^"]*"' | wc -l)" = 16 ] || fail "$run: not 16 class names"
    fi

    shoal import $run.safetensors --name $run-library
    said "mobilenet_v2, $(wc -l < trunk.txt) tensors"
    tensors "$SHOAL_HOME/backbones/$run-library/weights.safetensors" | cmp - trunk.txt || fail "$run: the library's tensors are others"
done
grep -q 'loss.weight *\[32, 1280\]' has.txt || fail "no class weights of two centres for 16 classes"

# shellcheck disable=SC2086
{
    # The library has the trunk; a folder has everything, class weights included.
    train 1 again $known embedding.bn_neck=true init=identify-library
    grep -q "init: $(wc -l < trunk.txt) tensors from .*missing: head.weight, head.bias, neck" again.log || fail "the trunk did not come from the library"
    train 1 whole $known embedding.bn_neck=true init=identify-shared
    grep "init:" whole.log | grep -q "missing\|of another shape\|extra" && fail "the whole run did not come from its folder"
    train 1 classes2 $known $classify loss.kind=cross_entropy init=classes-shared
    grep "init:" classes2.log | grep -q "missing\|of another shape\|extra" && fail "the classes did not come from their folder"
    for run in whole classes2; do grep -q "init: [0-9]* tensors from" $run.log || fail "$run began from nothing"; done
    # A network under other names is refused by its name.
    if train 1 wrong $known net=resnet50 init=classes-library 2> /dev/null; then fail "resnet50 took mobilenet_v2"; fi
}
grep -q "net=mobilenet_v2" wrong.log || fail "no remedy for another network's weights"

# What the file says goes before what names and shapes leave open.
# shellcheck disable=SC2086
train 1 keras $known net=mobilenet_v2_keras
shoal export keras -o keras.safetensors --trunk
shoal import keras.safetensors
said "keras.safetensors: mobilenet_v2_keras"

# Of two networks with the same names and shapes, the wrong one takes the weights with a warning.
# shellcheck disable=SC2086
train 1 twin $known net=mobilenet_v2 init=keras.safetensors
grep -q "warning: .*of mobilenet_v2_keras, not of mobilenet_v2,.*give net=mobilenet_v2_keras" twin.log || { cat twin.log >&2; fail "no warning of another network's weights"; }
if grep -q "holds weights of" again.log; then fail "a warning of the network's own weights"; fi

if "$SHOAL" import keras.safetensors > out.txt 2>&1; then fail "a backbone was overwritten"; fi
said "replace"
echo "export: ok"
