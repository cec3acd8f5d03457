# SPDX-License-Identifier: Apache-2.0
"""Embedding images with PyTorch, onnxruntime and Shoal in turn, for scripts/compare-embed.

    embed_pytorch.py SHOAL RUN NET SIZE DTYPE THREADS BATCHES ROUNDS IMAGES PACK [--json]

RUN.onnx is the network as Shoal exported it. PyTorch and onnxruntime each take the one of BATCHES
("1,4,16") that is quickest per image. PACK has so many IMAGES; "": no whole embedding.
"""
import json
import random
import statistics
import subprocess
import sys
import time

import numpy
import onnxruntime
import torch

DIM, SECONDS = 128, 0.3  # a measurement takes at least so long


def network(name):
    if name == "efficientnet_lite0":
        import timm

        return timm.create_model(name, pretrained=False, num_classes=DIM)
    import torchvision

    return getattr(torchvision.models, name)(weights=None, num_classes=DIM)


def torch_way(name, layout, bf16):
    """images -> what embeds them."""
    model = network(name).to(memory_format=layout).eval()

    def way(images):
        x = torch.from_numpy(images).to(memory_format=layout)

        def run():
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                torch.nn.functional.normalize(model(x).float())

        return run

    return way


def onnx_way(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin after a run would take the cores from whoever is measured next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: lambda: session.run(["embedding"], {"image": images})


def timed(run):
    """Median seconds of a run; after one that warms up."""
    run()
    times, end = [], time.perf_counter() + SECONDS
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def quickest(way, images, batches):
    """The way at its best batch, as a function that gives milliseconds per image; that batch."""
    runs = {batch: way(images[:batch]) for batch in batches}
    batch = min(batches, key=lambda b: min(timed(runs[b]), timed(runs[b])) / b)
    return lambda: timed(runs[batch]) * 1e3 / batch, batch


def interval(values):
    draws = random.Random(1)
    medians = sorted(
        statistics.median(draws.choices(values, k=len(values))) for _ in range(2000)
    )
    return statistics.median(values), medians[50], medians[1949]


def main():
    shoal, run, name, size, dtype, threads, batches, rounds, n_images, pack = sys.argv[1:11]
    size, threads, rounds = int(size), int(threads), int(rounds)
    batches = [int(batch) for batch in batches.split(",")]
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    shape = (max(batches), 3, size, size)
    images = numpy.random.default_rng(1).standard_normal(shape, numpy.float32)
    bf16 = dtype == "bf16"
    theirs = {
        "pytorch eager": torch_way(name, torch.contiguous_format, bf16),
        "pytorch channels_last": torch_way(name, torch.channels_last, bf16),
        "onnxruntime": onnx_way(run + ".onnx", threads),
    }
    ways, best = {}, {}
    for key, way in theirs.items():
        ways[key], best[key] = quickest(way, images, batches)

    def network_alone():
        command = [shoal, "bench", "embed", "--net", name, "--size", size, "--dtype", dtype]
        command += ["--batch", 16, "--threads", threads, "--repeats", 8, "--json"]
        out = subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True)
        return json.loads(out.stdout)["ms_per_image"]

    def whole():
        command = [shoal, "embed", run, "--data", pack, "-o", run + ".h5", "--threads", threads]
        start = time.perf_counter()
        subprocess.run([str(c) for c in command], check=True, capture_output=True)
        return (time.perf_counter() - start) * 1e3 / int(n_images)

    ways["shoal network"] = network_alone
    if pack:
        ways["shoal embed"] = whole
    found = {way: [] for way in ways}
    for i in range(rounds):
        order = list(ways)
        for way in order[i % len(order) :] + order[: i % len(order)]:
            found[way].append(ways[way]())
            time.sleep(0.05)
    result = {"net": name, "size": size, "dtype": dtype, "threads": threads}
    result["rounds"] = rounds
    for way, values in found.items():
        row = {"ms_per_image": statistics.median(values)}
        if way in best:
            row["batch"] = best[way]
            for ours in [w for w in ways if w.startswith("shoal")]:
                row["over " + ours] = interval([v / s for v, s in zip(values, found[ours])])
        result[way] = row
    if "--json" in sys.argv:
        print(json.dumps(result))
        return
    print(f"{name} {size}x{size}, {dtype}, {threads} threads, {rounds} rounds")
    for way in ways:
        row = result[way]
        ratios = [
            "{:.2f} [{:.2f}, {:.2f}] x {}".format(*row[key], key.removeprefix("over "))
            for key in row
            if key.startswith("over ")
        ]
        label = f"{way}, by {row['batch']}" if "batch" in row else way
        print(f"  {label:28s} {row['ms_per_image']:8.3f} ms/image  {'; '.join(ratios)}")


main()
