# SPDX-License-Identifier: Apache-2.0
"""The recipe that users run today, for scripts/compare-recipe: EfficientNet-Lite0 from its ImageNet
weights, batches of P x K, a loss of pytorch-metric-learning, Adam.

Trains on the training and validation crops of a run's split.csv for so many minutes and writes the
embeddings of the test crops, as `shoal embed` does: datasets `embedding` [N, D] f32 and `name`.

usage: recipe_pytorch.py [--loss NAME] [--steps N] [--seed N] [--weights FILE] FOLDER_OF_CROPS SPLIT.csv MINUTES OUT.h5
"""
import argparse
import csv
import os
import random
import time

import h5py
import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image, ImageEnhance
from pytorch_metric_learning import losses, miners, samplers

SIZE, P, K, MARGIN, LR, DIM = 128, 8, 8, 0.2, 3e-4, 128


def letterbox(image):
    scale = SIZE / max(image.size)
    width, height = (max(1, round(s * scale)) for s in image.size)
    canvas = Image.new("RGB", (SIZE, SIZE), (127, 127, 127))
    canvas.paste(image.resize((width, height), Image.BILINEAR), ((SIZE - width) // 2, (SIZE - height) // 2))
    return canvas


def to_tensor(image):
    return torch.from_numpy((np.asarray(image, dtype=np.float32) - 127) / 128).permute(2, 0, 1)


class Crops(torch.utils.data.Dataset):
    def __init__(self, folder, rows, training):
        self.folder, self.rows, self.training = folder, rows, training

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        name, label = self.rows[i]
        image = Image.open(f"{self.folder}/{name}").convert("RGB")
        if self.training:
            image = image.rotate(random.uniform(-10, 10), Image.BILINEAR, fillcolor=(127, 127, 127))
            image = ImageEnhance.Brightness(image).enhance(random.uniform(0.8, 1.2))
            image = ImageEnhance.Contrast(image).enhance(random.uniform(0.8, 1.2))
        return to_tensor(letterbox(image)), label


class Net(torch.nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.trunk = EfficientNet.from_name("efficientnet-lite0")
        self.trunk.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self.head = torch.nn.Linear(1280, DIM)

    def forward(self, x):
        features = self.trunk.extract_features(x).mean((2, 3))
        return torch.nn.functional.normalize(self.head(features))


# Loss and miner, at the library's own values but for the margin of triplets.
LOSSES = {
    "semi_hard": lambda n: (losses.TripletMarginLoss(margin=MARGIN),
                            miners.TripletMarginMiner(margin=MARGIN, type_of_triplets="semihard")),
    "batch_hard": lambda n: (losses.TripletMarginLoss(margin=MARGIN), miners.BatchHardMiner()),
    "multi_similarity": lambda n: (losses.MultiSimilarityLoss(), miners.MultiSimilarityMiner()),
    "arcface": lambda n: (losses.ArcFaceLoss(num_classes=n, embedding_size=DIM), None),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder")
    parser.add_argument("split")
    parser.add_argument("minutes", type=float)
    parser.add_argument("out")
    parser.add_argument("--loss", choices=LOSSES, default="semi_hard")
    parser.add_argument("--steps", type=int, help="stop after so many; for machines that others use too")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--weights", default="weights/efficientnet_lite0.pth")
    args = parser.parse_args()
    folder, minutes = args.folder, args.minutes
    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    torch.set_num_threads(len(os.sched_getaffinity(0)))

    with open(args.split, newline="", encoding="utf-8") as f:
        rows = [r for r in csv.DictReader(f)]
    learnt = [r for r in rows if r["part"] in ("train", "val")]
    fish = {name: i for i, name in enumerate(sorted({r["individual"] for r in learnt}))}
    train = [(r["name"], fish[r["individual"]]) for r in learnt]
    test = [(r["name"], -1) for r in rows if r["part"] == "test"]

    sampler = samplers.MPerClassSampler([l for _, l in train], m=K, batch_size=P * K, length_before_new_iter=len(train))
    loader = torch.utils.data.DataLoader(Crops(folder, train, True), batch_size=P * K, sampler=sampler,
                                         num_workers=1, drop_last=True, persistent_workers=True)
    net = Net(args.weights).to(memory_format=torch.channels_last).train()
    loss_of, miner = LOSSES[args.loss](len(fish))
    # ArcFace's class weights are parameters of the loss.
    optimizer = torch.optim.Adam([*net.parameters(), *loss_of.parameters()], lr=LR)

    start, steps, seen = time.monotonic(), 0, 0
    is_done = lambda: steps == args.steps or time.monotonic() - start >= minutes * 60
    while not is_done():
        for images, labels in loader:
            if is_done():
                break
            embeddings = net(images.contiguous(memory_format=torch.channels_last))
            loss = loss_of(embeddings, labels, miner(embeddings, labels) if miner else None)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps, seen = steps + 1, seen + len(labels)
    seconds = time.monotonic() - start
    print(f"PyTorch recipe, {args.loss}: {steps} steps, {seen / seconds:.1f} images/s", flush=True)

    net.eval()
    found = []
    with torch.no_grad():
        for images, _ in torch.utils.data.DataLoader(Crops(folder, test, False), batch_size=64):
            found.append(net(images.contiguous(memory_format=torch.channels_last)).numpy())
    with h5py.File(args.out, "w") as h:
        h["embedding"] = np.concatenate(found).astype(np.float32)
        h.create_dataset("name", data=[n for n, _ in test], dtype=h5py.string_dtype())


if __name__ == "__main__":
    main()
