# SPDX-License-Identifier: Apache-2.0
"""The Python side of scripts/compare-round-trip, which says what it does.

    round_trip_pytorch.py make NET FOLDER     weights.* in every container, case.h5
    round_trip_pytorch.py check NET FOLDER    back.safetensors against case.h5

NET: a name in the zoo; `keras:NET` from Keras; `NET@HxW` at another size than the weights were
made for. case.h5: attributes net and classes, image [2, 3, H, W] f32, logits [2, classes] f32.
"""
import os
import pathlib
import sys

import h5py
import numpy as np

TOLERANCE = 1e-5  # f32 rounding in another order of additions


def torchvision(name, **kwargs):
    import torchvision

    return torchvision.models.get_model(name, weights=None, **kwargs)


def timm(name, **kwargs):
    import timm

    return timm.create_model(name, pretrained=False, **kwargs)


def lukemelas(name):
    from efficientnet_pytorch import EfficientNet

    return EfficientNet.from_name(name, image_size=None)


def lite0():
    from efficientnet_lite_pytorch import EfficientNet

    # As made for images of 224, it pads those of other sizes as if they were.
    return EfficientNet.from_name("efficientnet-lite0", image_size=None)


DEFINED = {
    "efficientnet_lite0": lite0,
    "timm_efficientnet_b5": lambda: timm("efficientnet_b5"),
    "tf_efficientnet_b0": lambda: lukemelas("efficientnet-b0"),
    "tf_efficientnet_b5": lambda: lukemelas("efficientnet-b5"),
    "efficientnetv2_rw_m": lambda: timm("efficientnetv2_rw_m"),
    "inception_v3": lambda: torchvision("inception_v3", aux_logits=False, init_weights=False),
    "inception_resnet_v2": lambda: timm("inception_resnet_v2"),
    "vit_small_patch16_224": lambda **k: timm("vit_small_patch16_224", **k),
    "vit_small_patch16_224_dino": lambda **k: timm("vit_small_patch16_224", num_classes=0, **k),
    "vit_small_patch14_dinov2": lambda **k: timm("vit_small_patch14_dinov2", **k),
}

# In Keras: the name there, the factor and the offset that turn our image into what it takes.
KERAS = {
    "mobilenet_v2_keras": ("MobileNetV2", 1, 0),
    "inception_v3_keras": ("InceptionV3", 1, 0),
    "tf_efficientnet_b0": ("EfficientNetB0", 255, 0),
    "tf_efficientnet_b5": ("EfficientNetB5", 255, 0),
    "vgg16": ("VGG16", 1, 0),
    "resnet101_v2": ("ResNet101V2", 1, 0),
    "inception_resnet_v2": ("InceptionResNetV2", 1, 0),
}


def size_of(net):
    return net.partition("@")[2]


def make_torch(net, **kwargs):
    name = net.partition("@")[0]
    made = DEFINED[name](**kwargs) if name in DEFINED else torchvision(name)
    return made.eval()


def disturb(net, image):
    """Constants as after some training, not the 0 and 1 they begin with. Statistics are those on the
    image, of wider spread, so that the difference of two f32 computations stays small: with made-up
    ones signals grew through EfficientNetV2-M until PyTorch's logits were .7 away from those in f64."""
    import torch

    for value in net.parameters():
        if value.dim() == 1:
            value.data.add_(torch.empty_like(value).uniform_(-0.1, 0.1))
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    if norms:
        run_torch(net, image)
    for norm in norms:
        norm.running_var.mul_(torch.empty_like(norm.running_var).uniform_(1, 3))
    net.eval()


def sides(net):
    if size_of(net):
        return tuple(int(n) for n in size_of(net).split("x"))
    if net.startswith("vit"):
        return (518, 518) if "patch14" in net else (224, 224)
    return (224, 224) if net.endswith("vgg16") else (139, 160)


def write_case(folder, net, image, logits):
    with h5py.File(folder / "case.h5", "w") as f:
        f.attrs["net"] = net.partition("@")[0].removeprefix("keras:")
        f["image"], f["logits"] = image.astype(np.float32), logits.astype(np.float32)


def run_torch(net, image):
    import torch

    with torch.no_grad():
        return net(torch.from_numpy(image)).numpy()


def make(net, folder):
    image = np.random.default_rng(1).normal(size=(2, 3, *sides(net))).astype(np.float32)
    if net.startswith("keras:"):
        return make_keras(net, folder, image)
    import torch

    torch.manual_seed(1)
    made = make_torch(net)
    disturb(made, image)
    state = made.state_dict()
    torch.save(state, folder / "weights.zip.pth")
    torch.save(state, folder / "weights.legacy.pth", _use_new_zipfile_serialization=False)
    if size_of(net):
        resized = make_torch(net, img_size=sides(net))
        resized.load_state_dict(resampled(state, resized))
        made = resized
    write_case(folder, net, image, run_torch(made, image))


def resampled(state, model):
    """As timm's own loading of checkpoints does it."""
    import timm.models.vision_transformer as vit

    return vit.checkpoint_filter_fn(dict(state), model)


def make_keras(net, folder, image):
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    keras.utils.set_random_seed(1)
    name, factor, offset = KERAS[net.removeprefix("keras:")]
    model = getattr(keras.applications, name)(
        weights=None, classifier_activation=None, input_shape=(*image.shape[2:], 3))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            draw = np.random.default_rng(len(layer.name))
            layer.set_weights([w + draw.uniform(-0.1, 0.1, w.shape) for w in layer.get_weights()])
    model.save(folder / "weights.h5")
    logits = model.predict(image.transpose(0, 2, 3, 1) * factor + offset, verbose=0)
    write_case(folder, net, image, np.asarray(logits))


def check(net, folder):
    if net.startswith("keras:"):
        return
    import safetensors.torch

    with h5py.File(folder / "case.h5") as f:
        image, logits = f["image"][()], f["logits"][()]
    back = make_torch(net, **({"img_size": sides(net)} if size_of(net) else {}))
    back.load_state_dict(safetensors.torch.load_file(folder / "back.safetensors"), strict=True)
    error = np.abs(run_torch(back, image) - logits).max() / np.abs(logits).max()
    print(f"{net}: back in its package with strict=True: {error:.2g}")
    if not error <= TOLERANCE:
        sys.exit(1)


if __name__ == "__main__":
    {"make": make, "check": check}[sys.argv[1]](sys.argv[2], pathlib.Path(sys.argv[3]))
