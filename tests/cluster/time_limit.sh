#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A job that reaches its time limit saves itself and is queued again by itself; where Slurm does not
# requeue, its successor goes on; under mpirun instead of srun too.
# timeout: 900
# label: slow
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)
cluster_up

ends() { grep -c '"event":"end".*"code":75' "$1/jobs.jsonl"; }
ended() { [ "$(ends "$1")" -ge "$2" ]; }
starts() { grep -c '"event":"start"' "$1/jobs.jsonl"; }
started() { [ "$(starts "$1")" -ge "$2" ]; }

# Three limits at once: a minute passes as fast for all of them.
submit requeued --nodes 2 --time 1 $endless
requeued=$job
sed 's/^cpus_per_rank/requeue: false\n&/' "$SHOAL_HOME/site.yaml" > chained.yaml
submit chained --site "$PWD/chained.yaml" --time 1 $endless
sed 's/^cpus_per_rank/launcher: mpirun\n&/' "$SHOAL_HOME/site.yaml" > mpirun.yaml
submit mpirun --site "$PWD/mpirun.yaml" --nodes 2 --time 1 $endless
for run in requeued chained mpirun; do
    until_true 120 "$run saved itself" ended $run 1
    until_true 120 "$run goes on" started $run 2
    say "$run: $("$SHOAL" status $run | head -1)"
done
[ "$(restarts_of "$requeued")" -ge 1 ] || fail "not requeued"
for run in requeued chained mpirun; do
    scancel -n $run
    until_true 60 "$run is out of the queue" eval "[ -z \"\$(squeue -h -n $run)\" ]"
    same=$(grep -c '"event":"submit"' $run/jobs.jsonl)
    [ "$same" = 1 ] || fail "$run was submitted $same times"
    finish $run
    same_as_undisturbed $run
    rm -r whole
done
