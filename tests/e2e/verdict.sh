#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A rank of a running job is killed or stopped at a random instant: the watchdog names it, and no
# other, and all ranks end. Ranks that are stopped and continue are left alone, and the run ends with
# the bytes of an undisturbed one.
#   SHOAL_TRIALS  how many ranks are killed or stopped (default 4; 200 for the full promise)
# Prints how long it took from the fault to the verdict.
# timeout: 300
# label: slow
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)
trials=${SHOAL_TRIALS:-4}
RANDOM=11

start() { # RANKS RUN STEPS: in the background, $job
    # shellcheck disable=SC2086
    mpirun -n "$1" --bind-to none "$SHOAL" train --run "$2" data="$PACK" $small_config shards=4 steps="$3" \
        checkpoint.every_steps=50 > "$2.log" 2>&1 &
    job=$!
}

await() { # PATTERN LOG
    for ((k = 0; k < 1200; k++)); do
        grep -q "$1" "$2" 2> /dev/null && return
        sleep 0.05
    done
    cat "$2" >&2
    fail "no \"$1\" in $2"
}

# The processes of the job, rank by rank, in victims.
find_ranks() { # RANKS
    victims=()
    for pid in $(pgrep -P $job); do
        rank=$(tr '\0' '\n' < /proc/$pid/environ | sed -n 's/^OMPI_COMM_WORLD_RANK=//p')
        victims[rank]=$pid
    done
    [ ${#victims[@]} = "$1" ] || fail "found ${#victims[@]} of $1 ranks"
}

await_end() { # PROCESS
    for ((k = 0; k < 200; k++)); do
        kill -0 "$1" 2> /dev/null || return 0
        sleep 0.05
    done
    fail "process $1 outlived its job"
}

slowest=0
for ((i = 0; i < trials; i++)); do
    ranks=$((2 + i / 2 % 3)) run=trial-$i victim=$((RANDOM % ranks))
    [ $((i % 2)) = 0 ] && signal=KILL || signal=STOP
    start $ranks $run 1000000
    await 'step [0-9]*/' $run.log
    sleep "0.$((RANDOM % 10))"
    find_ranks $ranks
    before=$(date +%s%N)
    kill -$signal "${victims[victim]}"
    await 'watchdog: rank' $run.log
    took=$((($(date +%s%N) - before) / 1000000))
    code=0
    wait $job || code=$?
    # Open MPI ends with the code of the process that ended first: a killed one's is its own.
    [ $code = 76 ] || { [ $signal = KILL ] && [ $code = 137 ]; } || { cat $run.log >&2; fail "exit code $code after SIG$signal"; }
    named=$(grep -oE 'watchdog: rank [0-9]+ on [^ ]+ is (gone|lost|stuck|cut off)' $run.log)
    expected="watchdog: rank $victim on $(uname -n) is $([ $signal = KILL ] && echo gone || echo lost)"
    [ "$named" = "$expected" ] || { cat $run.log >&2; fail "SIG$signal of rank $victim of $ranks: \"$named\""; }
    for pid in "${victims[@]}"; do await_end $pid; done
    [ $took -le $slowest ] || slowest=$took
    echo "trial $i: SIG$signal of rank $victim of $ranks named after $took ms, exit code $code"
    rm -rf $run $run.log
done

start 2 whole 60
wait $job
start 2 paused 60
await 'step [0-9]*/' paused.log
find_ranks 2
for pid in "${victims[@]}"; do
    kill -STOP $pid
    sleep 5
    kill -CONT $pid
done
wait $job || { cat paused.log >&2; fail "a run that was stopped for 5 s and continued"; }
! grep watchdog paused.log || fail "the watchdog spoke about a healthy run"
same_model whole paused
echo "verdict: $trials ranks killed or stopped, each named; slowest verdict after $slowest ms"
