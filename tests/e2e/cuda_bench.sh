#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `shoal bench step --backend cuda` on the emulator, and what scripts/compare-gpu makes of such figures
# and PyTorch's, which are made up here. The clock of the emulator counts launches: its figures mean
# nothing, but they are all there and fit together.
# prefix: cuda
# timeout: 120
source "$(dirname "$0")/lib.bash"
emulated=$SHOAL_BUILD/tests/shoal_emulated
[ -x "$emulated" ] || { echo "skipped: $emulated is not built"; exit 77; }
python=$(command -v python3) || { echo "skipped: no python3"; exit 77; }
bench=("$emulated" bench step --backend cuda --net mobilenet_v2 --tap features.1 --size 16 --batch 8
    --threads 1 --repeats 2 --kernels kernels.txt)

"${bench[@]}" --shards 2 --json > bench.json 2> bench.log || fail "the bench: $(cat bench.log)"
grep -q "^forward f32 .*: e4" kernels.txt || fail "kernels were not kept"
"$python" - << 'PYTHON' || fail "figures of the bench"
import json, math
b = json.load(open("bench.json"))
nodes = b["nodes"]
assert b["shards"] == 2 and b["backend"] == "cuda" and "emulator" in b["device"] and b["deterministic"]
assert {n["phase"] for n in nodes} == {"forward", "backward"}
assert any("depthwise" in n["kernel"] for n in nodes) and any("cudnn" in n["kernel"] for n in nodes)
keys = "ms_per_image best_ms_per_image step_ms mean_step_ms loss_ms update_ms device_bytes flops bytes"
keys += " peak_f32_flops peak_bf16_flops memory_bytes_per_second step_over_cold_nodes roofline_share"
for figures, names in [(b, keys.split())] + [(n, ["ms", "cold_ms", "bytes"]) for n in nodes]:
    assert all(math.isfinite(figures[k]) and figures[k] > 0 for k in names), figures
near = lambda a, b: abs(a - b) <= 1e-3 * abs(b)
assert near(b["nodes_ms"], 2 * sum(n["ms"] for n in nodes))
assert near(b["cold_nodes_ms"], 2 * sum(n["cold_ms"] for n in nodes))
assert near(b["bytes"], 2 * sum(n["bytes"] for n in nodes))
assert near(b["step_ms"], 8 * b["ms_per_image"])
alone = b["cold_nodes_ms"] + b["loss_ms"] + b["update_ms"]
assert near(b["step_ms"], b["step_over_cold_nodes"] * alone)
PYTHON
sed -i '/^forward/s/: e4.*/: e1 2=7/' kernels.txt
"${bench[@]}" > table.txt 2> bench.log || fail "the bench: $(cat bench.log)"
grep -q "batch 8 in 1 shard" table.txt || fail "a batch of 8 is not one shard"
grep -q "of the device's memory" table.txt || fail "no memory of the device"
grep -q "^forward .*: e1 2=7" kernels.txt || fail "kernels that were given were written again"

# Programs in place of Shoal, and of a Python with PyTorch that is faster in some rows.
cat > shoal.sh << 'SHELL'
echo "$*" >> asked
cat bench.json
SHELL
cat > torch.sh << 'SHELL'
[ "$1" != -c ] || exit 0
case $3 in
*autotune) echo "no Triton here" >&2; exit 1 ;;
*compile) echo "$TORCH_MS 2000000000 PyTorch of straw" ;;
*) echo "1000000 1000000000 PyTorch of straw" ;;
esac
SHELL
chmod +x torch.sh && sed -i '1i #!/bin/sh' torch.sh
compare() { SHOAL="sh shoal.sh" COMPARE_PYTHON=${with:-$PWD/torch.sh} TORCH_MS=$ms "$python" "$SHOAL_SOURCE/scripts/compare-gpu" "$@"; }
ms=100000 # an image
compare measure mobilenet_v2 256 rows > measure.log || fail "measuring: $(cat measure.log)"
grep -q "^autotune: no Triton here" measure.log || fail "a row that cannot be run is not named"
[ "$(wc -l < asked)" = 4 ] || fail "Shoal was asked $(wc -l < asked) times"
grep -q -- "--net mobilenet_v2 --size 175 --batch 256 .*--shards 1 --free" asked || fail "other rows: $(cat asked)"
compare measure mobilenet_v2 256 rows > again.log || fail "measuring again: $(cat again.log)"
[ "$(wc -l < asked)" = 4 ] || fail "what was there was measured again"
code=0
compare judge rows > judged.txt || code=$?
[ $code = 1 ] || fail "bars that nobody measured are reached"
grep -q "^- vgg16 at 256: not measured" judged.txt || fail "what is missing is not named"
grep -q "^- mobilenet_v2 at 256: step / its kernels is " judged.txt || fail "a bar that is missed is not named"
! grep -q "^- mobilenet_v2 at 256: speed" judged.txt || fail "a bar that is reached is named"
grep -q "^- mobilenet_v2 at 256: autotune: no Triton here" judged.txt || fail "the row that did not run is not named"
"$python" -c 'import json; f = json.load(open("rows/speed.json"))["cells"]["mobilenet_v2-256"]
assert f["best_pytorch"] == "compile" and f["ratio"] > 1.5 and f["pytorch_bytes"] == 1e9, f'
ms=.001
rm rows/mobilenet_v2-256-compile.json
compare measure mobilenet_v2 256 rows > measure.log || fail "measuring: $(cat measure.log)"
compare judge rows > judged.txt && fail "a bar is missed, and nothing said so"
grep -q "^- mobilenet_v2 at 256: speed is .*, >= 1.5 is wanted" judged.txt || fail "the bar of speed is not named"

# Without PyTorch only Shoal is measured, which is not a comparison.
mkdir none && printf '#!/bin/sh\nexit 1\n' > none/python3 && chmod +x none/python3
code=0
PATH=$PWD/none:$PATH with=none/python3 compare measure vgg16 256 rows > alone.log || code=$?
[ $code = 75 ] || fail "without PyTorch: exit code $code"
grep -q "only Shoal measured" alone.log || fail "nothing says that PyTorch is not there"
compare judge rows > judged.txt || true
grep -q "^- vgg16 at 256: speed: not measured" judged.txt || fail "a comparison that was not made is not named"
echo "the bench on the emulator and its comparison: ok"
