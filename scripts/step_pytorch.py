# SPDX-License-Identifier: Apache-2.0
"""A training step as PyTorch users run it, for scripts/compare-pytorch and scripts/compare-gpu.

    step_pytorch.py NET ROW THREADS STEPS SIZE [--batch 32] [--device cpu]

Forward, a triplet loss over embeddings of 128, backward, Adam, on images that are in memory already.
Prints the median milliseconds per image and the most memory, in bytes: ever resident, of all
processes together; on a GPU, what steps after the first ones had allocated at most, with the versions
behind it. Under torch.distributed.run each process has its share of the batch and of the threads.

ROW is a layout or a way to run, with "bf16-" before it under bf16 autocast: eager, channels_last,
compile (channels_last with torch.compile), autotune (the same with mode=max-autotune), deterministic
(compile, with torch.use_deterministic_algorithms), ddp.
"""
import argparse
import os
import resource
import statistics
import sys
import time

import torch

DIM, PER_FISH, BLOCKS = 128, 4, 5
MODES = {"compile": "default", "deterministic": "default", "autotune": "max-autotune"}


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


def triplet_loss(n, device):
    """Semi-hard triplets of n embeddings, PER_FISH of each fish in a row: a few n x n matrices, so that
    the loss's cost is none of the comparison."""
    rows = torch.arange(n, device=device)
    fish = rows // PER_FISH
    other = fish[:, None] != fish[None, :]
    positives = [
        torch.nn.functional.one_hot(fish * PER_FISH + (rows + k) % PER_FISH, n).float()
        for k in range(1, PER_FISH)
    ]

    def loss(x):
        x = torch.nn.functional.normalize(x.float())
        d = (2 - 2 * x @ x.T).clamp(min=1e-12).sqrt()
        farthest = torch.where(other, d, -torch.inf).amax(1)
        total = 0
        for positive in positives:
            to_positive = (d * positive).sum(1)
            beyond = torch.where(other & (d > to_positive[:, None]), d, torch.inf).amin(1)
            negative = torch.where(beyond.isfinite(), beyond, farthest)
            total = total + (to_positive - negative + 0.2).clamp(min=0).mean()
        return total / len(positives)

    return loss


def make_step(model, batch, device, bf16, kind, size, layout):
    images = torch.randn(batch, 3, size, size, device=device).to(memory_format=layout)
    loss = triplet_loss(batch, device)
    on_gpu = device == "cuda"
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=on_gpu or None)

    def forward(x):
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            out = model(x)
        return loss(out)

    if kind in MODES:
        forward = torch.compile(forward, mode=MODES[kind])

    def step():
        optimizer.zero_grad(set_to_none=True)
        if kind == "autotune":
            torch.compiler.cudagraph_mark_step_begin()
        forward(images).backward()
        optimizer.step()

    return step


def time_on_cpu(step, steps):
    """Seconds of each step."""
    times = []
    for _ in range(2):
        step()
    for _ in range(steps):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times


def time_on_gpu(step, steps):
    """Seconds of a step in each of some blocks of steps in a row, so that the host may run ahead."""
    times = []
    for _ in range(5):  # compiling, choosing kernels, recording
        step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(BLOCKS):
        start = time.perf_counter()
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) / steps)
    return times


def versions():
    return (
        f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN "
        f"{torch.backends.cudnn.version()}, {torch.cuda.get_device_name()}"
    )


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("net")
    parser.add_argument("row")
    for name in ("threads", "steps", "size"):
        parser.add_argument(name, type=int)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return parser.parse_args()


def main():
    a = parse()
    bf16, kind = a.row.startswith("bf16-"), a.row.removeprefix("bf16-")
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    torch.set_num_threads(max(1, a.threads // world))
    torch.manual_seed(1)
    torch.backends.cudnn.benchmark = True
    if kind == "deterministic":
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.backends.cudnn.deterministic = True
        torch.use_deterministic_algorithms(True, warn_only=True)  # as far as PyTorch can
    if world > 1:
        torch.distributed.init_process_group("gloo")
    layout = torch.contiguous_format if kind == "eager" else torch.channels_last
    model = NETS[a.net]() if a.net in NETS else torchvision_net(a.net)
    model = model.to(device=a.device, memory_format=layout).train()
    if world > 1:
        model = torch.nn.parallel.DistributedDataParallel(model)
    step = make_step(model, a.batch // world, a.device, bf16, kind, a.size, layout)
    if a.device == "cuda":
        ms = statistics.median(time_on_gpu(step, a.steps)) * 1e3 / a.batch
        print(f"{ms:.6f} {torch.cuda.max_memory_allocated()} {versions()}")
        return
    ms = statistics.median(time_on_cpu(step, a.steps)) * 1e3 / a.batch
    resident = torch.tensor(float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024)
    if world > 1:
        torch.distributed.all_reduce(resident)
    if rank == 0:
        print(f"{ms:.3f} {int(resident)}")
    if world > 1:
        torch.distributed.destroy_process_group()


main()
