#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every write, fsync and rename of a run fails once in turn, or the process dies there. Afterwards
# the same command goes on from a whole checkpoint and ends with the bytes of an undisturbed run.
# timeout: 900
# label: slow
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)
options="net=siamese_orl size=8 sampling.individuals=3 sampling.images=2 shards=1 steps=2 checkpoint.every_steps=1 split.val=0.2"

run() { # RUN
    # shellcheck disable=SC2086
    timeout 60 "$SHOAL" train --run "$1" data="$PACK" threads=1 loader.threads=1 embedding.dim=0 $options > "$1.log" 2>&1
}

run whole || { cat whole.log >&2; fail "the undisturbed run"; }
n=0 n_failed=0
for mode in "" ",die"; do
    for ((at = 0; ; at++)); do
        name=f$at$mode
        SHOAL_FAULT=$at$mode run "$name" && code=0 || code=$?
        if [ $code = 0 ] && ! grep -q 'Input/output error' "$name.log"; then break; fi
        [ $code != 139 ] && [ $code != 134 ] || { cat "$name.log" >&2; fail "fault $name crashed"; }
        n_failed=$((n_failed + 1))
        run "$name" || { cat "$name.log" >&2; fail "no recovery from fault $name"; }
        same_model whole "$name"
        cmp whole/ledger.csv "$name/ledger.csv" || fail "fault $name: the ledger differs"
        rm -rf "$name" "$name.log"
    done
    n=$((n + at))
done
[ $n_failed -gt 40 ] || fail "only $n_failed faults were injected"
echo "crash at every write: $n_failed faults, all recovered"
