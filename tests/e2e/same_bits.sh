#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The same bytes on any number of ranks, in one pass and in two, and when the number changes
# half-way; f32 and bf16.
# timeout: 420
# label: slow
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)

for dtype in f32 bf16; do
    for ranks in 1 2 3 4 8; do train $ranks $dtype-8-$ranks dtype=$dtype shards=8 steps=5; done
    for ranks in 2 3 4 8; do same_model $dtype-8-1 $dtype-8-$ranks; done
    for ranks in 1 2 4 5; do train $ranks $dtype-6-$ranks dtype=$dtype shards=6 steps=5; done
    for ranks in 2 4 5; do same_model $dtype-6-1 $dtype-6-$ranks; done

    train 1 $dtype-two dtype=$dtype shards=8 steps=5 passes=two
    same_model $dtype-8-1 $dtype-two
    train 2 $dtype-two2 dtype=$dtype shards=8 steps=5 passes=two
    same_model $dtype-8-1 $dtype-two2

    train 3 $dtype-half dtype=$dtype shards=8 steps=2
    train 2 $dtype-half dtype=$dtype shards=8 steps=5
    same_model $dtype-8-1 $dtype-half
    cmp $dtype-8-1/ledger.csv $dtype-half/ledger.csv || fail "the ledgers differ"
done

# Equality must not come from nothing having happened: other seeds and more steps give other bytes.
train 1 other dtype=f32 shards=8 steps=5 seed=2
cmp -s f32-8-1/model.safetensors other/model.safetensors && fail "another seed gave the same model"
train 1 longer dtype=f32 shards=8 steps=6
cmp -s f32-8-1/model.safetensors longer/model.safetensors && fail "one more step changed nothing"
cmp -s f32-8-1/model.safetensors bf16-8-1/model.safetensors && fail "bf16 gave the bytes of f32"
echo "same bits: ok"
