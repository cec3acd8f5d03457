#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Freezing by name, and stages: what is frozen keeps its bytes, and runs of one rank, of several and
# interrupted ones at every step of a stage border end the same.
# timeout: 300
# label: slow
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)
SHARDS="shards=3"

cat > staged.yaml <<'EOF'
optimizer: {lr: 0.001, lr_scale: ["features.18.*=0.5"]}
stages:
  - {name: head, steps: 2, freeze: ["features.*"], lr: 0.01}
  - {name: top, steps: 2, freeze: ["features.*", "!features.1[78].*"], fresh_optimizer: false}
  - {name: all}
EOF

# staged RANKS RUN [key=value]...
staged() {
    local ranks=$1 run=$2
    shift 2
    # shellcheck disable=SC2086
    timeout -k 5 120 mpirun -n "$ranks" --bind-to none "$SHOAL" train staged.yaml --run "$run" data="$PACK" $small_config schedule.warmup_steps=0 $SHARDS "$@" > "$run.log" 2>&1 || {
        tail -5 "$run.log" >&2
        return 1
    }
}


staged 1 whole steps=6
for ranks in 2 3; do staged $ranks ranks$ranks steps=6; same_model whole ranks$ranks; done

# Stopped and continued at both borders and between them, on another number of ranks.
for stop in 2 3 4; do
    staged 1 cut$stop steps=$stop
    staged 2 cut$stop steps=6
    same_model whole cut$stop
done
grep -q "step 2: stage 1, top" whole.log || fail "stage 1 was not entered"
grep -q "step 4: stage 2, all" whole.log || fail "stage 2 was not entered"

# A stage is what its settings say: without it, other bytes.
staged 1 plain steps=6 stages.0.freeze=
cmp -s whole/model.safetensors plain/model.safetensors && fail "freezing changed nothing"
staged 1 kept steps=6 stages.2.fresh_optimizer=false
cmp -s whole/model.safetensors kept/model.safetensors && fail "a fresh optimizer changed nothing"

# Frozen statistics that came from nowhere are warned of.
grep -q "warning: .* running statistics from features.* are frozen, but no weights were loaded" whole.log || fail "no warning of frozen statistics"
if grep -q "warning: .* running statistics" plain.log; then fail "a warning of statistics that are not frozen"; fi

# A misspelt pattern is refused with near names, and may not change on resume.
if staged 1 typo steps=1 "freeze=faetures.*" 2> /dev/null; then fail "a pattern without a match was accepted"; fi
grep -q 'matches no parameter; near names: features.0.0.weight' typo.log || fail "no near names"
if staged 1 whole steps=8 freeze=head.bias 2> /dev/null; then fail "a resume changed what is frozen"; fi
echo "stages: ok"
