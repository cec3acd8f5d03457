#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The time of day jumps by a day, back and forth, twice a second: no verdict of the watchdog, no limit
# reached early or late, the bytes of an undisturbed run.
# timeout: 120
source "$(dirname "$0")/lib.bash"
cc=$(command -v cc) || { echo "skipped: no compiler here"; exit 77; }
PACK=$(small_pack)
options="shards=2 checkpoint.every_minutes=0.01"
"$cc" -D_GNU_SOURCE -shared -fPIC -O1 -o jumps.so "$SHOAL_SOURCE/tests/e2e/clock_jumps.c"

# shellcheck disable=SC2086
train 1 whole $options steps=6
cat > jumping <<- END
	#!/bin/sh
	export ASAN_OPTIONS=\$ASAN_OPTIONS:verify_asan_link_order=0 LD_PRELOAD=$PWD/jumps.so
	exec $SHOAL "\$@"
END
chmod +x jumping
SHOAL=$PWD/jumping
# The shim does what it says.
LD_PRELOAD=$PWD/jumps.so python3 - <<- 'END'
	import time
	seen = set()
	for _ in range(40):
	    seen.add(int(time.time() / 86400))
	    time.sleep(0.05)
	assert len(seen) >= 3, seen
END
# shellcheck disable=SC2086
train 2 jumped $options steps=6
! grep -q watchdog jumped.log || { cat jumped.log >&2; fail "the watchdog believes a clock that jumps"; }
same_model whole jumped
# shellcheck disable=SC2086
train 2 limited $options minutes=0.05
grep -q 'limit: minutes' limited.log || { cat limited.log >&2; fail "no limit of minutes"; }
seconds=$(grep -ho '"seconds": *[0-9]*' limited/checkpoints/step-*/state.json | grep -o '[0-9]*$' | sort -n | tail -n 1)
[ "$seconds" -ge 3 ] && [ "$seconds" -lt 100 ] || fail "3 s of training took $seconds s by its own count"
echo "clock: jumps change nothing"
