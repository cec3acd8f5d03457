# SPDX-License-Identifier: Apache-2.0
# A pack must be readable by h5py without any code of ours. Skipped where h5py is not installed.
set -euo pipefail
for python in python3 /usr/bin/python3; do "$python" -c 'import h5py' 2> /dev/null && break; done
"$python" -c 'import h5py' 2> /dev/null || { echo "no Python with h5py: skipped"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

mkdir -p "$folder/src/fish å" "$folder/src/fish b"
printf 'P5 2 2 255 abcd' > "$folder/src/fish å/1_l.pgm"
printf 'P6 1 2 255 efghij' > "$folder/src/fish b/2_r.ppm"
printf 'P5 9 9 255 short' > "$folder/src/fish b/3_r.pgm"
"$SHOAL_BUILD/shoal" pack "$folder/src" --pattern '{individual}/{frame}_{side:l=left,r=right}.{*}' \
    -o "$folder/crops.h5" > /dev/null

"$python" - "$folder/crops.h5" <<'PYTHON'
import sys
import h5py
f = h5py.File(sys.argv[1], "r")
assert f.attrs["format"].decode() == "shoal-pack" and f.attrs["version"] == 1
crops = f["crops"]
assert list(crops["name"].asstr()[:]) == ["fish b/2_r.ppm", "fish å/1_l.pgm"]
who = f["labels/individual"].asstr()[:]
assert [who[i] for i in crops["individual"]] == ["fish b", "fish å"]
assert list(crops["side"]) == [2, 1] and list(crops["frame"]) == [2, 1]
assert crops["size"][:].tolist() == [[1, 2], [2, 2]]
data = [f["images"][o:o + n].tobytes() for o, n in zip(crops["offset"], crops["length"])]
assert data == [b"P6 1 2 255 efghij", b"P5 2 2 255 abcd"]
raw = open(sys.argv[1], "rb").read()
start = f["images"].id.get_offset()
assert raw[start:start + len(data[0])] == data[0]
assert list(f["dropped/name"].asstr()[:]) == ["fish b/3_r.pgm"]
assert "truncated" in f["dropped/reason"].asstr()[0]
PYTHON
