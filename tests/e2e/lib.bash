# SPDX-License-Identifier: Apache-2.0
# Shared by the end-to-end tests: a scratch folder, a small pack, a small configuration.
set -euo pipefail
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
SHOAL=${SHOAL_BUILD:?}/shoal
[ -x "$SHOAL" ] || { echo "skipped: $SHOAL is not built"; exit 77; }
scratch=$(mktemp -d "${TMPDIR:-/tmp}/shoal-e2e.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

fail() { echo "FAILED: $*" >&2; exit 1; }

# A pack that is the same for every test; made once per build folder.
small_pack() {
    local pack=$SHOAL_BUILD/e2e-small.h5
    if [ ! -f "$pack" ]; then
        "$SHOAL" synth -o "$scratch/small.h5" --individuals 16 --images 12 --recordings 3 --size 64x32 --seed 7 > synth.log 2>&1 || { cat synth.log >&2; fail "shoal synth"; }
        mv "$scratch/small.h5" "$pack.$$" && mv "$pack.$$" "$pack"
    fi
    echo "$pack"
}

# Small, but with everything on that could break equality: clipping, moving average, dropout,
# warm-up, augmentation, uneven shards.
small_config="net=mobilenet_v2 size=32 threads=1 loader.threads=1 sampling.individuals=6 sampling.images=4
  embedding.dim=32 embedding.dropout=0.2 optimizer.clip_norm=1 optimizer.ema=0.9
  schedule.warmup_steps=3 split.val=0.2 split.test=0.2"

# train RANKS RUN [key=value]...
train() {
    local ranks=$1 run=$2
    shift 2
    # shellcheck disable=SC2086
    timeout -k 5 "${TRAIN_SECONDS:-120}" mpirun -n "$ranks" --bind-to none "$SHOAL" train --run "$run" data="$PACK" $small_config "$@" > "$run.log" 2>&1 || {
        local code=$?
        [ $code = 75 ] && return 75
        tail -20 "$run.log" >&2
        return $code
    }
}

same_model() {
    cmp "$1/model.safetensors" "$2/model.safetensors" || fail "$2 differs from $1"
}
