#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A disk that is full for a while, a folder of checkpoints that is removed, a folder that becomes
# read-only: a message says so, the run goes on or continues, and ends with the bytes of an
# undisturbed one. A run folder that is gone ends the run.
# timeout: 600
# label: slow
if [ -z "${SHOAL_IN_NAMESPACE:-}" ]; then
    unshare -m true 2> /dev/null || { echo "skipped: mounting a small disk is not allowed here"; exit 77; }
    SHOAL_IN_NAMESPACE=1 exec unshare -m bash "$0"
fi
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)
options="net=siamese_orl size=16 sampling.individuals=3 sampling.images=2 shards=1 split.val=0.2 threads=1 loader.threads=1
    embedding.dim=0 steps=200 checkpoint.every_steps=10 log.every_steps=20"

start() { # RUN: in the background, $job
    # shellcheck disable=SC2086
    "$SHOAL" train --run "$1" data="$PACK" $options > "$1.log" 2>&1 &
    job=$!
}
run() { start "$1"; wait $job; }
await() { until grep -q "$1" "$2" 2> /dev/null; do sleep 0.05; kill -0 $job || { cat "$2" >&2; fail "no \"$1\""; }; done; }

await_checkpoint() { until compgen -G "$1/checkpoints/step-*" > /dev/null; do sleep 0.05; kill -0 $job || fail "$1 wrote no checkpoint"; done; }

run whole || { cat whole.log >&2; fail "the undisturbed run"; }
job=
mkdir small
mount -t tmpfs -o size=64m none small
trap 'kill $job 2> /dev/null || true; wait || true; umount small; rm -rf "$scratch"' EXIT

start small/full
await 'step [0-9]*/' small/full.log
cp "$PACK" small/filler
head -c 64m /dev/zero > small/more 2> /dev/null || true
await 'no checkpoint: .*No space left on device' small/full.log
rm small/filler small/more
wait $job || { cat small/full.log >&2; fail "a disk that was full for a while"; }
same_model whole small/full
echo "full: ok"
cmp whole/ledger.csv small/full/ledger.csv || fail "the ledger differs"
rm -rf small/full

start removed
await 'step [0-9]*/' removed.log
await_checkpoint removed
until rm -rf removed/checkpoints 2> /dev/null; do true; done # a checkpoint may be on its way
wait $job || { cat removed.log >&2; fail "a folder of checkpoints that was removed"; }
same_model whole removed
echo "removed: ok"

start small/frozen
await 'step [0-9]*/' small/frozen.log
kill -TERM $job
code=0
wait $job || code=$?
[ $code = 75 ] || { cat small/frozen.log >&2; fail "SIGTERM: exit code $code"; }
mount -o remount,ro small
code=0
"$SHOAL" train --run small/frozen > frozen.log 2>&1 || code=$?
[ $code = 1 ] && grep -q "Read-only file system" frozen.log || { cat frozen.log >&2; fail "exit code $code on a read-only disk"; }
mount -o remount,rw small
run small/frozen || { cat small/frozen.log >&2; fail "going on after a read-only disk"; }
same_model whole small/frozen
echo "frozen: ok"

start gone
await 'step [0-9]*/' gone.log
await_checkpoint gone
mv gone elsewhere
code=0
wait $job || code=$?
[ $code = 1 ] && grep -q "was the run's folder removed" gone.log || { cat gone.log >&2; fail "exit code $code without a run folder"; }
[ ! -e gone ] || fail "a removed run folder was made again"
echo "gone: ok"
