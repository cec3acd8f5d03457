#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A training with device=cuda, its kernels on the emulator: the losses of the CPU but for rounding, and
# the same bytes on two ranks, whose gradients travel by NCCL (its calls on the host) or through
# the hosts. The network is cut early: kernels are slow there.
# prefix: cuda
# timeout: 420
# label: slow
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)
small_config="net=mobilenet_v2 tap=features.3 size=32 embedding.dim=8 threads=1 loader.threads=1
  sampling.individuals=3 sampling.images=2 shards=2 steps=2 optimizer.clip_norm=1 optimizer.ema=0.9
  split.val=0 split.test=0 watchdog.enabled=false"

train 1 cpu device=cpu
without_device=$SHOAL
SHOAL=$SHOAL_BUILD/tests/shoal_emulated
[ -x "$SHOAL" ] || { echo "skipped: $SHOAL is not built"; exit 77; }
train 1 one device=cuda
train 2 two device=cuda
same_model one two
grep -q "NCCL connects 2 devices" two.log || fail "NCCL was not used"
mkdir hosts && cp one/kernels.txt hosts/ # a new run can be given the kernels of another
train 2 hosts device=cuda transport=mpi
grep -q "measuring kernels" hosts.log && fail "kernels that were given were measured"
same_model one hosts
grep -q "NCCL" hosts.log && fail "NCCL was used"
train 2 fast device=cuda reduce=fast
mkdir plain && cp one/kernels.txt plain/
train 1 plain device=cuda graphs=false
same_model one plain
cmp -s cpu/model.safetensors one/model.safetensors && fail "the CPU computed instead"
# What was trained on a device answers on machines that have none.
"$without_device" embed one --data "$PACK" -o one.h5 2> embed.log || fail "no embeddings without a device: $(cat embed.log)"

train 1 free device=cuda deterministic=off steps=1
grep -q "cannot be repeated" free.log || fail "a run that cannot be repeated did not say so"
grep -q "not deterministic" free/manifest.json || fail "its fingerprint does not either"
grep -q "^forward f32 .*: e5" free/kernels.txt || fail "the fastest engine was not taken"

# The losses of experiments/koi.yaml: over all pairs, and a classification behind a neck.
koi=(loss.kind=multi_similarity loss.classification=0.5 embedding.bn_neck=true)
train 1 koi_cpu device=cpu "${koi[@]}"
for ranks in 1 2; do
    mkdir koi_$ranks && cp one/kernels.txt koi_$ranks/
    train $ranks koi_$ranks device=cuda "${koi[@]}"
done
same_model koi_1 koi_2

losses() { sed -n 's/.*"loss":\([0-9.e-]*\).*/\1/p' "$1/metrics.jsonl"; }
for pair in "cpu one" "cpu fast" "koi_cpu koi_1"; do
    read -r host run <<< "$pair"
    paste <(losses "$host") <(losses "$run") | awk '
        { if (($1 - $2) ^ 2 > (1e-4 * $1) ^ 2) { print "step " NR ": losses " $1 " and " $2; bad = 1 } }
        END { if (NR != 2) print NR " losses"; exit bad || NR != 2 }' || fail "the losses of $run differ"
done
# Convolutions were measured once, by one rank: e4 is the fastest engine that repeats. A resume takes
# what the run has, measures nothing, and refuses what cannot be used.
grep -q "^forward f32 .*: e4" one/kernels.txt || fail "no forward convolution was measured"
grep -q "^grad_w f32 .*: e4" one/kernels.txt || fail "no gradient was measured"
! grep -q ": e1" one/kernels.txt || fail "a kernel was guessed"
cmp one/kernels.txt two/kernels.txt || fail "kernels depend on the number of ranks"
sed -i "s/: e4.*/: e1 2=7/" two/kernels.txt
cp two/kernels.txt kernels.txt
train 2 two device=cuda steps=3
cmp kernels.txt two/kernels.txt || fail "a resume chose kernels"
! grep -q "measuring kernels" two.log || fail "a resume measured"
grep -q "byte identity ends" two.log || fail "other kernels were not noticed"
sed -i "s/: e1.*/: e2/" two/kernels.txt
! train 2 two device=cuda steps=4 2> refused.log || fail "a kernel that cannot be used was taken"
grep -q "retune=true" refused.log || fail "no remedy was named"
train 2 two device=cuda steps=4 retune=true
cmp one/kernels.txt two/kernels.txt || fail "kernels were not chosen anew"
# Crops on their way to the device, outside of a training.
"$SHOAL" bench data --data "$PACK" --crops 100 --size 32 --threads 1 --device cuda > bench.log || fail "shoal bench data"
grep -Eq "from the cache to cuda +[1-9]" bench.log || fail "nothing was rendered on the device"
echo "training on the emulator: ok"
