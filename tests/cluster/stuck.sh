#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A run whose ranks are killed goes on by itself, but one that gets no further in four starts is not
# started again, and says why; submitting it again starts it.
# timeout: 600
# label: slow
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)
cluster_up

starts() { grep -c '"event":"start"' stuck/jobs.jsonl; }
started() { [ "$(starts)" -ge "$1" ]; }
ended() { [ "$(grep -c '"event":"end".*"code":137,"again":true' stuck/jobs.jsonl)" -ge "$1" ]; }

submit stuck $endless checkpoint.every_steps=1000000
for start in 1 2 3 4; do
    until_true 120 "start $start" started "$start"
    until_true 60 "its ranks are killed" pkill -9 -f '^[^ ]*/shoal train .*stuck'
    until_true 120 "end $start" ended "$start"
done
grep -q "waiting 45 s before it is started again" stuck/slurm-*.log || fail "no wait before the last start"
until_true 60 "given up" is_state "$job" FAILED
started 5 && fail "started once more"
grep -q "was restarted 3 times without a newer checkpoint" stuck/slurm-*.log || fail "no reason given"
say "stuck: given up after three restarts"
submit stuck steps=6
wait_done stuck 120
same_as_undisturbed stuck
