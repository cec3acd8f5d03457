#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shoal submit on four nodes: the job trains, evaluates itself and leaves the bytes of a run outside
# of Slurm; status and tail say so. An array covers folds and seeds, and compare reads it. GPUs are
# asked for. What cannot work is refused before it is queued, and a run that fails fails its job.
# timeout: 900
# label: slow
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)
cluster_up

SHOAL_HOME=$scratch/draft "$SHOAL" submit --init-site > draft.txt
for line in 'partition: "main"' 'gpu_partition: "main"' 'cpus_per_rank: 2' 'mpi: "pmix"' 'launcher: srun' 'requeue: true'; do
    grep -qx "$line" draft/site.yaml || { cat draft/site.yaml >&2; fail "the draft of the site file has no $line"; }
done
SHOAL_HOME=$scratch/draft "$SHOAL" submit --dry-run --run "$scratch/dry" data="$PACK" $job_config steps=4 > dry.sbatch
bash -n dry.sbatch
grep -q '^#SBATCH --partition=main$' dry.sbatch || fail "the draft is not used"
[ ! -e dry ] || fail "--dry-run wrote something"
say "site file drafted and used"

# refused WHAT ARGUMENT...: nothing is queued, and the message says what.
refused() {
    local what=$1
    shift
    # shellcheck disable=SC2086
    "$SHOAL" submit --run "$scratch/refused" data="$PACK" $job_config steps=4 "$@" > refused.txt 2>&1 && fail "not refused: $*"
    grep -q "$what" refused.txt || { cat refused.txt >&2; fail "not refused with \"$what\": $*"; }
    [ -z "$(squeue -h)" ] || fail "queued all the same: $*"
}
refused "8 ranks for 4 shards" --nodes 8
refused "unknown option \"stepps\"" stepps=3
refused "there is no nowhere.h5" data=nowhere.h5
refused "needs a number" --nodes many
say "refusals"

submit four --nodes 4 --time 10 steps=12
"$SHOAL" submit --run "$scratch/four" data="$PACK" $job_config steps=12 > second.txt 2>&1 && fail "two jobs for one run"
grep -q "job $job of .*four is still in the queue" second.txt || { cat second.txt >&2; fail "the message about a second job"; }
timeout 300 "$SHOAL" tail four -f > followed.txt || fail "shoal tail -f does not end with the run"
grep -q "done: 12 steps" followed.txt || { cat followed.txt >&2; fail "shoal tail -f"; }
wait_done four 10
[ -f four/report.html ] || fail "the job did not evaluate its run"
until_true 30 "the job is over" is_state "$job" COMPLETED
"$SHOAL" status four > status.txt
grep -q "^four: done, job $job" status.txt || { cat status.txt >&2; fail "shoal status"; }
"$SHOAL" tail four -n 1 | grep -q "job $job: done" || fail "shoal tail"
same_as_undisturbed four

submit gpu --gpus 1 --nodes 2 --time 10 device=cpu steps=4
wait_done gpu 180
until_true 60 "it is over" is_state "$job" COMPLETED
scontrol show job "$job" | grep -q 'gres[:/]gpu' || fail "no GPUs were asked for"
say "GPU template: trained on two nodes"

echo "no pack" > bad.h5
submit failing data="$PWD/bad.h5" --nodes 2 --time 10 steps=4
until_true 60 "the job fails" is_state "$job" FAILED
[ "$(restarts_of "$job")" = 0 ] || fail "a run that fails was started again"
grep -q '"code":1,"again":false' failing/jobs.jsonl || fail "the failure is not in the journal"
say "a failing run fails its job"

submit grid --time 10 steps=4 sampling.individuals=4 --folds 2 --seeds 2
for part in fold0-seed1 fold0-seed2 fold1-seed1 fold1-seed2; do
    wait_done grid/$part 240
done
"$SHOAL" compare grid/fold0-seed1,grid/fold1-seed1 grid/fold0-seed2,grid/fold1-seed2 > compared.txt
grep -q "queries" compared.txt || { cat compared.txt >&2; fail "shoal compare of the array"; }
say "array of folds and seeds: trained, evaluated, compared"
