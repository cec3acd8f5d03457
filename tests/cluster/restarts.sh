#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Jobs that Slurm interrupts on purpose - scancel, scontrol requeue, a more urgent job - save
# themselves and go on, in turn on 4, 1, 3 and 2 ranks, to the bytes of an undisturbed run.
# timeout: 900
# label: slow
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)
cluster_up

starts() { grep -c '"event":"start"' elastic/jobs.jsonl; }
started() { [ "$(starts)" -ge "$1" ] && tail -n 1 elastic/jobs.jsonl | grep -q '"event":"start"'; }
saved() { tail -n 1 elastic/jobs.jsonl | grep -q '"event":"end".*"code":75'; }
# trains START RANKS: the run's START-th job trains on this many ranks, and has moved on.
trains() {
    local before=$(($(steps_done elastic) + 3))
    until_true 90 "job number $1" started "$1"
    until_true 120 "steps in job number $1" past_step elastic $before
    "$SHOAL" status elastic > status.txt
    cat status.txt
    grep -q "^elastic: running, job $job, $2 ranks\? on n" status.txt || fail "not running on $2 ranks"
}
# Something more urgent takes this many nodes; its job is $hold.
hold_nodes() {
    hold=$(sbatch --parsable -p urgent -N "$1" --exclusive -o /dev/null --wrap 'sleep 900')
    until_true 60 "an urgent job has $1 nodes" is_state "$hold" RUNNING
}

submit elastic --nodes 1-4 --time 20 $endless
trains 1 4
scancel "$job"
until_true 60 "scancel let it save itself" saved
until_true 60 "the job is gone" is_gone "$job"
say "cancelled, saved at step $(steps_done elastic)"

hold_nodes 3
submit elastic --nodes 1-4 --time 20 $endless
trains 2 1
three=$hold
hold_nodes 1
scancel "$three"
say "preempted, for one node"
trains 3 3
scontrol requeue "$job"
scancel "$hold"
hold_nodes 2
say "requeued, when two nodes are free"
trains 4 2
scancel "$job"
until_true 60 "scancel let it save itself" saved
until_true 60 "the job is gone" is_gone "$job"
finish elastic --nodes 1-4
"$SHOAL" status elastic | tee status.txt
grep -q "^  started again 4 times:" status.txt || fail "shoal status does not count restarts"
same_as_undisturbed elastic
