# SPDX-License-Identifier: Apache-2.0
"""What EfficientNet-Lite0's Python package makes of real images: see scripts/compare-weights.

    features_pytorch.py FOLDER WEIGHTS OUT.h5 N SIZE

OUT.h5: pixels [N, SIZE, SIZE, 3] u8, features [N, 1280] f32 (global average of the last feature
map), computed by PyTorch in f32.
"""
import pathlib
import sys

import h5py
import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

folder, weights, out, n, size = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])

names = sorted(p for p in pathlib.Path(folder).rglob("*")
               if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
if len(names) < n:
    sys.exit(f"{folder} has {len(names)} images, {n} are needed")
names = names[:: len(names) // n][:n]
pixels = np.stack([np.asarray(Image.open(p).convert("RGB").resize((size, size), Image.BILINEAR))
                   for p in names])

net = EfficientNet.from_name("efficientnet-lite0")
net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
net.eval()
features = []
with torch.no_grad():
    for batch in np.array_split(pixels, max(1, n // 20)):
        x = (torch.from_numpy(batch).permute(0, 3, 1, 2).float() - 127) / 128
        features.append(net.extract_features(x).mean((2, 3)))
with h5py.File(out, "w") as f:
    f["pixels"] = pixels
    f["features"] = torch.cat(features).numpy()
