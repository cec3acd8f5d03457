#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Losses with class weights, and losses over all pairs: the same bytes on any number of ranks, in two
# passes, and when the number changes half-way, where the class weights come from a checkpoint.
# timeout: 420
# label: slow
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)

declare -A losses=(
    [arcface]="loss.kind=arcface loss.margin=0.5"
    [sub]="loss.kind=sub_arcface loss.margin=0.3 loss.class_weights=balanced loss.smoothing=0.1"
    [ms]="loss.kind=multi_similarity"
    [both]="loss.kind=multi_similarity loss.classification=0.5 embedding.bn_neck=true"
)
for name in "${!losses[@]}"; do
    read -ra options <<< "${losses[$name]} shards=4"
    for ranks in 1 2 4; do train $ranks $name-$ranks "${options[@]}" steps=4; done
    for ranks in 2 4; do same_model $name-1 $name-$ranks; done
    train 2 $name-half "${options[@]}" steps=2
    train 1 $name-half "${options[@]}" steps=4 passes=two
    same_model $name-1 $name-half
done

# The weights of the classes are trained, and no part of the result.
grep -q loss.weight arcface-1/checkpoints/*/weights.safetensors || fail "no class weights in the checkpoint"
grep -q loss.weight arcface-1/model.safetensors && fail "class weights in the model"
[ "$(wc -l < arcface-1/classes.csv)" -gt 2 ] || fail "no classes in classes.csv"
cmp -s ms-1/model.safetensors both-1/model.safetensors && fail "the classification changed nothing"
echo "same bits of losses: ok"
