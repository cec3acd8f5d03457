#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A disk that is full for a while, also when a stop is asked for and when a run starts, a folder of
# checkpoints that is removed, a folder that becomes read-only, a file system that vanishes or hangs: a
# message says so, the run goes on or continues, and ends with the bytes of an undisturbed one. A run
# folder that is gone ends the run.
# timeout: 600
# label: slow
if [ -z "${SHOAL_IN_NAMESPACE:-}" ]; then
    unshare -m true 2> /dev/null || { echo "skipped: mounting a small disk is not allowed here"; exit 77; }
    SHOAL_IN_NAMESPACE=1 exec unshare -m bash "$0"
fi
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)
options="net=siamese_orl size=16 sampling.individuals=3 sampling.images=2 shards=2 split.val=0.2 threads=1 loader.threads=1
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

start small/asked
await_checkpoint small/asked
cp "$PACK" small/filler
head -c 64m /dev/zero > small/more 2> /dev/null || true
await 'no checkpoint: .*No space left on device' small/asked.log
kill -TERM $job
code=0
wait $job || code=$?
[ $code = 75 ] || { cat small/asked.log >&2; fail "SIGTERM on a full disk: exit code $code"; }
code=0
timeout 60 mpirun -n 2 --bind-to none "$SHOAL" train --run small/asked > asked.log 2>&1 || code=$?
[ $code = 74 ] && grep -q "No space left on device" asked.log || { cat asked.log >&2; fail "a start on a full disk: exit code $code"; }
rm small/filler small/more
run small/asked || { cat small/asked.log >&2; fail "going on after a stop on a full disk"; }
same_model whole small/asked
cmp whole/ledger.csv small/asked/ledger.csv || fail "the ledger differs"
echo "asked: ok"
rm -rf small/asked

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

mkdir store there
mount --bind store there
start there/vanished
await_checkpoint there/vanished
umount -l there
code=0
wait $job || code=$?
[ $code = 1 ] && grep -q "was the run's folder removed" store/vanished.log || { cat store/vanished.log >&2; fail "exit code $code when the file system vanished"; }
[ -z "$(ls -A there)" ] || fail "something was written where the file system had been"
mount --bind store there
run there/vanished || { cat there/vanished.log >&2; fail "going on when the file system is back"; }
umount there
same_model whole store/vanished
cmp whole/ledger.csv store/vanished/ledger.csv || fail "the ledger differs"
echo "vanished: ok"

# Each write takes longer than it may: from the first one of the start.
start hung
await_checkpoint hung
kill -TERM $job
wait $job || true
code=0
# shellcheck disable=SC2086
SHOAL_SLOW_FILES=20 "$SHOAL" train --run hung data="$PACK" $options watchdog.files_seconds=2 > hung.log 2>&1 || code=$?
[ $code = 76 ] && grep -q 'watchdog: rank 0 .* is stuck: .* files of hung' hung.log || { cat hung.log >&2; fail "exit code $code on storage that hangs"; }
run hung || { cat hung.log >&2; fail "going on when storage does not hang"; }
same_model whole hung
echo "hung: ok"
