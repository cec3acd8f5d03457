#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Packs that are copied to a disk of the node: by two jobs of two ranks at once, and onto a disk that
# is full. The bytes are those of a run without copies, and nothing is left.
# timeout: 120
if [ -z "${SHOAL_IN_NAMESPACE:-}" ]; then
    unshare -m true 2> /dev/null || { echo "skipped: mounting a small disk is not allowed here"; exit 77; }
    SHOAL_IN_NAMESPACE=1 exec unshare -m bash "$0"
fi
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)
small_config="net=siamese_orl size=16 sampling.individuals=3 sampling.images=2 split.val=0.2 threads=1 loader.threads=1
    embedding.dim=0"
options="shards=2 steps=4 checkpoint.every_steps=2"

start() { # RUN FOLDER: two ranks in the background
    # shellcheck disable=SC2086
    mpirun -n 2 --bind-to none "$SHOAL" train --run "$1" data="$PACK" $small_config $options loader.copy_to="$2" > "$1.log" 2>&1 &
}

# shellcheck disable=SC2086
train 1 whole $options
mkdir roomy full
start one "$PWD/roomy"
one=$!
start two "$PWD/roomy"
wait $! || { cat two.log >&2; fail "the second job"; }
wait $one || { cat one.log >&2; fail "the first job"; }
for run in one two; do
    same_model whole $run
    ! grep -q 'warning: .*copy' $run.log || { cat $run.log >&2; fail "$run could not copy"; }
done
[ "$(cat one.log two.log | grep -c "copied to $PWD/roomy")" -ge 1 ] || fail "nobody copied"
[ -z "$(ls -A roomy/shoal-*)" ] || fail "copies are left: $(ls -A roomy/shoal-*)"

mount -t tmpfs -o size=32k none full
trap 'wait || true; umount full; rm -rf "$scratch"' EXIT
start three "$PWD/full"
wait $! || { cat three.log >&2; fail "a full disk"; }
grep -q 'no local copy of .* are free; it is read where it lies' three.log || { cat three.log >&2; fail "no word of the full disk"; }
same_model whole three
[ -z "$(ls -A full/shoal-*)" ] || fail "something is left on the full disk"
echo "staging: the same bytes with copies and without"
