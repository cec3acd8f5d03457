# SPDX-License-Identifier: Apache-2.0
"""A training step as PyTorch users run it, for scripts/compare-pytorch.

    step_pytorch.py NET ROW THREADS STEPS SIZE

Forward, a triplet loss over embeddings of 128, backward, Adam; batch 32. Prints the median
milliseconds per image and the most memory ever resident, in bytes, of all processes together. Under
torch.distributed.run each process has its share of the batch and of the threads.
"""
import os
import resource
import statistics
import sys
import time

import torch

BATCH, DIM = 32, 128


def torchvision_net(name, **options):
    import torchvision

    return getattr(torchvision.models, name)(weights=None, num_classes=DIM, **options)


def timm_net(name):
    import timm

    return timm.create_model(name, pretrained=False, num_classes=DIM)


def vgg_trunk(name):
    import torchvision

    return torch.nn.Sequential(
        getattr(torchvision.models, name)(weights=None).features,
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(512, DIM),
    )


# Networks that torchvision or timm have under another name, or with options.
NETS = {
    "vgg16": lambda: vgg_trunk("vgg16"),
    "vgg16_bn": lambda: vgg_trunk("vgg16_bn"),
    "inception_v3": lambda: torchvision_net("inception_v3", aux_logits=False, init_weights=False),
    "inception_resnet_v2": lambda: timm_net("inception_resnet_v2"),
    "efficientnet_lite0": lambda: timm_net("efficientnet_lite0"),
    "efficientnetv2_rw_m": lambda: timm_net("efficientnetv2_rw_m"),
    "vit_small_patch16_224": lambda: timm_net("vit_small_patch16_224"),
}


def triplet_loss(x, fish):
    # Batch-all triplets with a margin: a small matrix, so that its cost is none of the comparison.
    x = torch.nn.functional.normalize(x.float())
    d = torch.cdist(x, x)
    same = fish[:, None] == fish[None, :]
    margin = d[:, :, None] - d[:, None, :] + 0.2
    mask = same[:, :, None] & ~same[:, None, :]
    return torch.where(mask, margin.clamp(min=0), 0.0).sum() / mask.sum()


def main():
    net, row, threads, steps, size = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
    bf16, kind = row.startswith("bf16-"), row.removeprefix("bf16-")
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    torch.set_num_threads(max(1, threads // world))
    torch.manual_seed(1)
    if world > 1:
        torch.distributed.init_process_group("gloo")
    layout = torch.contiguous_format if kind == "eager" else torch.channels_last
    model = NETS[net]() if net in NETS else torchvision_net(net)
    model = model.to(memory_format=layout).train()
    if world > 1:
        model = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    images = torch.randn(BATCH // world, 3, size, size).to(memory_format=layout)
    fish = torch.arange(BATCH // world) // 4
    forward = torch.compile(model) if kind == "compile" else model

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = forward(images)
        triplet_loss(out, fish).backward()
        optimizer.step()

    for _ in range(2):
        step()
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    resident = torch.tensor(float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024)
    if world > 1:
        torch.distributed.all_reduce(resident)
    if rank == 0:
        print(f"{statistics.median(times) * 1e3 / BATCH:.3f} {int(resident)}")
    if world > 1:
        torch.distributed.destroy_process_group()


main()
