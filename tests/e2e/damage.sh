#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A checkpoint of which any file is cut, or has one flipped bit, is noticed and skipped, by all ranks
# if one of them cannot read it; the run continues from the one before to the bytes of an undisturbed
# one. What a checkpoint holds is exact: a score that is only as good as the best one so far does not
# become the best because the run was interrupted. A damaged crop ends all ranks with its name, and the
# run continues when the pack is whole again.
# timeout: 600
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)
small_config="net=siamese_orl size=16 threads=1 loader.threads=1 sampling.individuals=4 sampling.images=3 embedding.dim=0
    split.val=0.3 split.test=0.2"
options="shards=2 checkpoint.every_steps=2 validate.every_steps=2"

# shellcheck disable=SC2086
train 1 whole $options steps=6
# shellcheck disable=SC2086
train 1 base $options steps=4
newest=checkpoints/step-000000004
[ -f base/$newest/best.safetensors ] || fail "nothing was validated"

damage() { # FILE HOW: cut it in the middle, or flip one bit there; of a state, of a number in it
    python3 - "$1" "$2" <<- 'END'
	import re, sys
	path, how = sys.argv[1:]
	data = bytearray(open(path, "rb").read())
	at = len(data) // 2
	found = re.search(rb'"metrics_bytes": *\d', data) if path.endswith("state.json") else None
	if found: at = found.end() - 1
	if how == "cut": data = data[:at]
	else: data[at] ^= 1
	open(path, "wb").write(data)
	END
}

continues() { # RUN: from the checkpoint before the newest
    grep -q "skipping a checkpoint that is not whole: .*step-000000004" "$1.log" || { cat "$1.log" >&2; fail "$1: no word of the damage"; }
    grep -q "continuing $1 from step 2" "$1.log" || { cat "$1.log" >&2; fail "$1 did not continue from step 2"; }
    same_model whole "$1"
    cmp whole/ledger.csv "$1/ledger.csv" || fail "$1: the ledger differs"
    cmp whole/metrics.jsonl "$1/metrics.jsonl" || fail "$1: the metrics differ"
}

for file in weights.safetensors optimizer.safetensors best.safetensors state.json; do
    for how in cut flip; do
        run=$how-${file%.*}
        cp -r base "$run"
        damage "$run/$newest/$file" $how
        # shellcheck disable=SC2086
        train 1 "$run" $options steps=6
        continues "$run"
    done
done

cp -r base hopeless
for state in hopeless/checkpoints/step-*/state.json; do damage "$state" flip; done
code=0
# shellcheck disable=SC2086
train 1 hopeless $options steps=6 2> /dev/null || code=$?
[ $code = 1 ] && grep -q "none of the 2 checkpoints of hopeless is whole" hopeless.log || { cat hopeless.log >&2; fail "without a whole checkpoint: code $code"; }

if unshare -m true 2> /dev/null; then
    cp -r base lagging
    cat > view <<- END
	#!/bin/sh
	[ "\$OMPI_COMM_WORLD_RANK" = 0 ] || exec unshare -m sh -c 'mount -t tmpfs none $PWD/lagging/$newest && exec "\$0" "\$@"' $SHOAL "\$@"
	exec $SHOAL "\$@"
	END
    chmod +x view
    # shellcheck disable=SC2086
    SHOAL=$PWD/view train 2 lagging $options steps=6
    continues lagging
else
    echo "not tried: a rank that does not see the newest checkpoint (mounting is not allowed here)"
fi

# Nothing is learnt, and nothing measured: every validation has the same score.
still="optimizer.lr=0 checkpoint.keep=1 freeze=cnn1.*"
# shellcheck disable=SC2086
train 1 still $options $still steps=8
# shellcheck disable=SC2086
train 1 again $options $still steps=3
# shellcheck disable=SC2086
train 1 again $options $still steps=8
[ "$(grep -c '"val"' still/metrics.jsonl)" = 4 ] && [ "$(sed -n 's/.*"val"//p' still/metrics.jsonl | sort -u | wc -l)" = 1 ] || fail "scores differ although nothing is learnt"
for run in still again; do
    grep -qE '"best_score": *[01]\.[0-9]{12}' $run/checkpoints/step-000000008/state.json || { cat $run/checkpoints/step-000000008/state.json >&2; fail "$run: the best score is rounded"; }
    grep -qE '"best_step": *2,' $run/checkpoints/step-000000008/state.json || { cat $run/checkpoints/step-000000008/state.json >&2; fail "$run: a score that is as good became the best"; }
done
mkdir own
own=$PWD/own/$(basename "$PACK")
cp "$PACK" "$own"
flip_images() { # every 300th byte of the images: no crop is spared
    python3 - "$own" <<- 'END'
	import re, sys
	data = bytearray(open(sys.argv[1], "rb").read())
	at, n = (int(re.search(rb"images_%s (\d+)" % key, data[:512])[1]) for key in (b"offset", b"bytes"))
	for i in range(at + 7, at + n, 300): data[i] ^= 4
	open(sys.argv[1], "wb").write(data)
	END
}
flip_images
code=0
# shellcheck disable=SC2086
PACK=$own train 2 crops $options steps=6 2> /dev/null || code=$?
[ $code != 0 ] && grep -q "is damaged: crop .* has checksum" crops.log || { cat crops.log >&2; fail "damaged crops: code $code"; }
flip_images
# shellcheck disable=SC2086
PACK=$own train 2 crops $options steps=6
same_model whole crops
echo "damage: all of it noticed, the same bytes"
