#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shoal submit on four nodes: the job trains, evaluates itself and leaves the bytes of a run outside
# of Slurm; status and tail say so. An array covers folds and seeds, and compare reads it.
# timeout: 600
# label: slow
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)
cluster_up
submit four --nodes 4 --time 10 steps=12
wait_done four 180
[ -f four/report.html ] || fail "the job did not evaluate its run"
until_true 30 "the job is over" is_state "$job" COMPLETED
"$SHOAL" status four > status.txt
grep -q "^four: done, job $job" status.txt || { cat status.txt >&2; fail "shoal status"; }
"$SHOAL" tail four -n 1 | grep -q "job $job: done" || fail "shoal tail"
same_as_undisturbed four

submit grid --time 10 steps=4 --folds 2 --seeds 2
for part in fold0-seed1 fold0-seed2 fold1-seed1 fold1-seed2; do
    wait_done grid/$part 240
done
"$SHOAL" compare grid/fold0-seed1,grid/fold1-seed1 grid/fold0-seed2,grid/fold1-seed2 > compared.txt
grep -q "queries" compared.txt || { cat compared.txt >&2; fail "shoal compare of the array"; }
say "array of folds and seeds: trained, evaluated, compared"
