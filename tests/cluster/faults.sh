#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A node is killed, a link is cut, the controller is killed and restarted: the run goes on by itself,
# to the bytes of an undisturbed one.
# timeout: 900
# label: slow
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)
cluster_up

starts() { grep -c '"event":"start"' faulty/jobs.jsonl; }
started() { [ "$(starts)" -ge "$1" ]; }
# trains START: the run's START-th job moves on.
trains() {
    local before=$(($(steps_done faulty) + 3))
    until_true 120 "job number $1" started "$1"
    until_true 120 "steps in job number $1" past_step faulty $before
}
last_node() { scontrol show hostnames "$(squeue -h -j "$job" -o %N)" | tail -n 1; }
jobs_saved() { [ -n "$(find "$C/state" -name job_state -newer "$1")" ]; }
is_up() { sinfo -h -N -n "$1" -o %T | grep -qE '^(idle|mixed|allocated)$'; }

submit faulty --nodes 2 --time 20 $endless
# The controller first: what it could not tell a node that was gone it tells the node that is back, and
# a job of the same number may be queued once more by it.
trains 1
# Slurm itself loses what it has not yet written down: wait for a change made now to be on disk.
touch mark
scontrol update jobid="$job" comment=marked
until_true 30 "the controller has saved that the job runs" jobs_saved mark
kill_controller
say "the controller is killed"
trains 1
start_controller
trains 1
until_true 60 "the controller knows its running job" is_state "$job" RUNNING
say "the run went on without it: $("$SHOAL" status faulty | head -1)"

victim=$(last_node)
power_off "$victim"
say "$victim has lost its power"
trains 2
say "the run goes on: $("$SHOAL" status faulty | head -1)"
power_on "$victim"
until_true 60 "$victim is back" is_up "$victim"

victim=$(last_node)
cut_link "$victim"
say "the link of $victim is cut"
trains 3
say "the run goes on: $("$SHOAL" status faulty | head -1)"
mend_link "$victim"
until_true 60 "$victim is back" is_up "$victim"

scancel "$job"
until_true 60 "the job is gone" is_gone "$job"
"$SHOAL" status faulty
finish faulty
same_as_undisturbed faulty
