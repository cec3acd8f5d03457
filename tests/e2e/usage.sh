#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What users get wrong is named, with the remedy and exit code 2, and nothing is lost by it.
# timeout: 240
# label: slow
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)

expect() { # CODE TEXT COMMAND...
    local want=$1 text=$2 code=0
    shift 2
    timeout 60 "$@" > out.log 2>&1 || code=$?
    [ $code = "$want" ] || { cat out.log >&2; fail "exit code $code instead of $want: $*"; }
    grep -qF -- "$text" out.log || { cat out.log >&2; fail "no \"$text\" in the message of: $*"; }
}

for script in "$SHOAL_SOURCE"/scripts/*; do
    if [ -f "$script" ] && [ -x "$script" ]; then expect 0 "" "$script" --help; fi
done
expect 0 "usage: shoal" "$SHOAL" --help
expect 2 "did you mean train" "$SHOAL" trian
expect 0 "split.by" "$SHOAL" train --help
expect 2 "did you mean optimizer.lr" "$SHOAL" train --run r optimizer.lt=1 data="$PACK" steps=1
expect 2 "must be one of" "$SHOAL" train --run r loss.kind=semihard data="$PACK" steps=1
expect 2 "no limit" "$SHOAL" train --run r data="$PACK"
expect 2 "no data" "$SHOAL" train --run r steps=1
expect 1 "nowhere.h5" "$SHOAL" train --run r data=nowhere.h5 steps=1
expect 2 "below split.folds" "$SHOAL" train --run r data="$PACK" steps=1 split.folds=3 split.fold=3
echo "steps: [1" > bad.yaml
expect 2 "bad.yaml:" "$SHOAL" train bad.yaml --run r data="$PACK"
printf 'steps: 1\nstep: 2\n' > unknown.yaml
expect 2 "unknown.yaml:2: unknown option \"step\"" "$SHOAL" train unknown.yaml --run r data="$PACK"
expect 1 "no such backend" "$SHOAL" train --run r data="$PACK" steps=1 device=cuda
[ ! -e r/config.yaml ] || fail "a refused configuration left a run behind"

# A run continues with the same command, refuses fixed options, and says when it is finished.
# shellcheck disable=SC2086
base="$SHOAL train --run run data=$PACK $small_config shards=2"
expect 0 "done: 2 steps" $base steps=2
[ "$(stat -c %a run)" = 700 ] || fail "the run is open to others"
expect 0 "is finished" $base steps=2
expect 1 "optimizer.lr: the run has" $base steps=3 optimizer.lr=1
expect 0 "continuing run from step 2" $base steps=3
expect 2 "more than the batch" "$SHOAL" train --run r data="$PACK" steps=1 shards=1000
# shellcheck disable=SC2086
expect 2 "3 ranks but only 2 shards" mpirun -n 3 --bind-to none "$SHOAL" train --run r data="$PACK" $small_config shards=2 steps=1
echo "usage: ok"
