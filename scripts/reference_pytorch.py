# SPDX-License-Identifier: Apache-2.0
"""Reference values of networks, computed in double by the libraries that define them: see
scripts/make-reference, which makes the environment for this.

    reference_pytorch.py [--shape N,C,H,W] [--dtype float32] [--out FOLDER] [NET...]

FOLDER/NET.h5: logits in evaluation and training, loss, gradients, running statistics, as the tests
read them (tests/models/ref_net.h). Weights and inputs are made from names by a rule, so a file
holds none.
"""
import argparse
import functools
import pathlib
import unittest.mock

import h5py
import numpy as np
import torch

MASK = (1 << 64) - 1


def fnv1a(text):
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = (h ^ byte) * 0x100000001B3 & MASK
    return h


def unit(name, n, salt):
    """n numbers in [-1, 1), a pure function of the name; exact in f32."""
    with np.errstate(over="ignore"):
        i = np.arange(1, n + 1, dtype=np.uint64)
        z = np.uint64(fnv1a(salt + name)) + i * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1


def weights(name, shape, salt):
    u = unit(name, int(np.prod(shape)), salt).reshape(shape)
    if name.endswith("running_mean"):
        w = 0.1 * u
    elif name.endswith("running_var"):
        w = 1 + 0.5 * u
    elif len(shape) >= 2:
        w = u * np.sqrt(6 / np.prod(shape[1:]))
    elif name.endswith("weight"):
        w = 1 + 0.25 * u
    else:
        w = 0.1 * u
    return w.astype(np.float32)


class ResNet101V2(torch.nn.Module):
    """Keras' ResNet101V2, under its layer names."""

    stages = [(64, 3, 2), (128, 4, 2), (256, 23, 2), (512, 3, 1)]

    def __init__(self):
        super().__init__()
        self.conv("conv1_conv", 3, 64, 7, 2, 3, bias=True)
        channels = 64
        for i, (width, n, stride) in enumerate(self.stages):
            for k in range(1, n + 1):
                at = f"conv{i + 2}_block{k}_"
                self.norm(at + "preact_bn", channels)
                if k == 1:
                    self.conv(at + "0_conv", channels, 4 * width, bias=True)
                self.conv(at + "1_conv", channels, width)
                self.norm(at + "1_bn", width)
                self.conv(at + "2_conv", width, width, 3, stride if k == n else 1, 1)
                self.norm(at + "2_bn", width)
                self.conv(at + "3_conv", width, 4 * width, bias=True)
                channels = 4 * width
        self.norm("post_bn", channels)
        self.predictions = torch.nn.Linear(channels, 1000)

    def conv(self, name, n_in, n_out, kernel=1, stride=1, pad=0, bias=False):
        setattr(self, name, torch.nn.Conv2d(n_in, n_out, kernel, stride, pad, bias=bias))

    def norm(self, name, channels):
        setattr(self, name, torch.nn.BatchNorm2d(channels, eps=1.001e-5, momentum=0.01))

    def forward(self, x):
        functional = torch.nn.functional
        x = functional.pad(self.conv1_conv(x), (1, 1, 1, 1))
        x = functional.max_pool2d(x, 3, 2)
        for i, (_, n, stride) in enumerate(self.stages):
            for k in range(1, n + 1):
                layer = lambda name: getattr(self, f"conv{i + 2}_block{k}_{name}")
                active = layer("preact_bn")(x).relu()
                if k == 1:
                    x = layer("0_conv")(active)
                elif k == n and stride > 1:
                    x = x[:, :, ::stride, ::stride]
                y = layer("1_bn")(layer("1_conv")(active)).relu()
                y = layer("2_bn")(layer("2_conv")(y)).relu()
                x = x + layer("3_conv")(y)
        return self.predictions(self.post_bn(x).relu().mean((2, 3)))


class SameConv(torch.nn.Conv2d):
    """A convolution padded as TensorFlow pads: to ceil(size / stride), the odd pixel behind."""

    def forward(self, x):
        pads = []
        for axis in (1, 0):
            size, stride, kernel = x.shape[2 + axis], self.stride[axis], self.kernel_size[axis]
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return torch.nn.functional.conv2d(torch.nn.functional.pad(x, pads), self.weight, self.bias,
                                          self.stride, 0, self.dilation, self.groups)


def as_keras(net, momentum, same):
    """torchvision's network with Keras' batch norm constants, averages that leave the padding out,
    and, where `same`, TensorFlow's padding."""
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps, module.momentum = 1e-3, momentum
        if same and isinstance(module, torch.nn.Conv2d):
            module.__class__ = SameConv
    average = functools.partial(torch.nn.functional.avg_pool2d, count_include_pad=False)
    forward = net.forward

    def averaging(x):
        with unittest.mock.patch("torch.nn.functional.avg_pool2d", average):
            return forward(x)

    net.forward = averaging
    return net


def torchvision(name, **kwargs):
    import torchvision

    return torchvision.models.get_model(name, weights=None, **kwargs)


def timm(name, shape, **kwargs):
    import timm

    if name.startswith("vit"):
        kwargs["img_size"] = shape[2:]
    return timm.create_model(name, pretrained=False, **kwargs)


def lukemelas(name):
    from efficientnet_pytorch import EfficientNet

    return EfficientNet.from_name(name, image_size=None, drop_connect_rate=0.0)


def inception_v3():
    return torchvision("inception_v3", aux_logits=False, init_weights=False)


# How a network is made, where torchvision does not know it by its name here.
DEFINED = {
    "mobilenet_v2_keras": lambda shape: as_keras(torchvision("mobilenet_v2"), 0.001, True),
    "timm_efficientnet_b5": lambda shape: timm("efficientnet_b5", shape),
    "tf_efficientnet_b0": lambda shape: lukemelas("efficientnet-b0"),
    "tf_efficientnet_b5": lambda shape: lukemelas("efficientnet-b5"),
    "resnet101_v2": lambda shape: ResNet101V2(),
    "inception_v3": lambda shape: inception_v3(),
    "inception_v3_keras": lambda shape: as_keras(inception_v3(), 0.01, False),
    "inception_resnet_v2": lambda shape: timm("inception_resnet_v2", shape),
    "efficientnetv2_rw_m": lambda shape: timm("efficientnetv2_rw_m", shape),
    "vit_small_patch16_224": lambda shape: timm("vit_small_patch16_224", shape),
    "vit_small_patch16_224_dino":
        lambda shape: timm("vit_small_patch16_224", shape, num_classes=0),
    "vit_small_patch14_dinov2": lambda shape: timm("vit_small_patch14_dinov2", shape),
}

# Odd sizes on purpose; transformers want multiples of their patch.
SHAPES = {
    "inception_v3": (3, 3, 139, 161),
    "inception_v3_keras": (3, 3, 139, 161),
    "inception_resnet_v2": (3, 3, 139, 161),
    "vit_small_patch16_224": (2, 3, 96, 128),
    "vit_small_patch16_224_dino": (2, 3, 96, 128),
    "vit_small_patch14_dinov2": (2, 3, 98, 126),
}


# Other weights where those of the rule, in evaluation, are no test: with salt "" the logits grow to
# 1e4 and PyTorch's own f32 is off its f64 by 0.3.
SALTS = {"timm_efficientnet_b5": "5"}


def define(name, shape):
    """The network without dropout and stochastic depth."""
    net = DEFINED[name](shape) if name in DEFINED else torchvision(name)
    for module in net.modules():
        if "Dropout" in type(module).__name__:
            module.p = 0.0
        if type(module).__name__ in ("StochasticDepth", "DropPath"):
            module.p = module.drop_prob = 0.0
    return net


def fill(net, dtype, salt):
    state = {}
    for name, value in net.state_dict().items():
        if value.dtype.is_floating_point:
            value = torch.from_numpy(weights(name, tuple(value.shape), salt))
        state[name] = value
    net.load_state_dict(state)
    return net.to(dtype)


def norms(net):
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            return module.eps, module.momentum
    return 0.0, 0.0


def compute(net, shape, dtype, salt):
    x = torch.from_numpy(unit("input", int(np.prod(shape)), salt).reshape(shape)).to(dtype)
    out = {}
    net.eval()
    with torch.no_grad():
        out["eval/logits"] = net(x)
    net.train()
    x.requires_grad_(True)
    logits = net(x)
    cotangent = torch.from_numpy(unit("cotangent", logits.numel(), salt)).to(dtype)
    loss = (logits * cotangent.reshape(logits.shape)).sum() / shape[0]
    loss.backward()
    out["train/logits"], out["train/loss"] = logits, loss
    out["train/input_grad"] = x.grad.reshape(shape[0], -1)[:, :64]
    out["train/input_grad_norm"] = x.grad.norm()
    params = list(net.named_parameters())
    grads = [p.grad.reshape(-1) for _, p in params]
    out["train/param_grad_norm"] = torch.stack([g.norm() for g in grads])
    out["train/param_grad_sum"] = torch.stack([g.sum() for g in grads])
    out["train/param_grad_abs_sum"] = torch.stack([g.abs().sum() for g in grads])
    out["train/param_grad_first8"] = torch.stack([first(g, 8) for g in grads])
    buffers = [(n, b) for n, b in net.named_buffers() if b.dtype.is_floating_point]
    names = {"train/param_names": [n for n, _ in params],
             "train/buffer_names": [n for n, _ in buffers]}
    if buffers:
        out["train/buffer_norm"] = torch.stack([b.norm() for _, b in buffers])
        out["train/buffer_first4"] = torch.stack([first(b, 4) for _, b in buffers])
    return {k: v.detach().double().numpy() for k, v in out.items()}, names


def first(values, n):
    return torch.nn.functional.pad(values[:n], (0, max(0, n - values.numel())))


def write(name, path, args):
    shape = SHAPES.get(name, (4, 3, 97, 129))
    if args.shape:
        shape = tuple(int(n) for n in args.shape.split(","))
    dtype = getattr(torch, args.dtype)
    salt = SALTS.get(name, "") if args.salt is None else args.salt
    net = fill(define(name, shape), dtype, salt)
    values, names = compute(net, shape, dtype, salt)
    with h5py.File(path, "w") as f:
        f.attrs["salt"] = salt
        f.attrs["input_shape"] = shape
        eps, momentum = norms(net)
        f.attrs["bn_eps"], f.attrs["bn_momentum"] = [eps], [momentum]
        for key, value in values.items():
            f[key] = value
        for key, value in names.items():
            f.create_dataset(key, data=value, dtype=h5py.string_dtype())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nets", nargs="+")
    parser.add_argument("--out", default=".", type=pathlib.Path)
    parser.add_argument("--shape", help="instead of 4,3,97,129, or what the network wants")
    parser.add_argument("--dtype", default="float64", choices=["float64", "float32"])
    parser.add_argument("--salt", help="of the weights' rule")
    args = parser.parse_args()
    for name in args.nets:
        path = args.out / (name + ".h5")
        write(name, path, args)
        print(path, flush=True)


if __name__ == "__main__":
    main()
