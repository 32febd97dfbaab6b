"""A trained LeNet alive in the page, without kernel or network: draw a digit, and every map follows."""

import base64
import json
from collections.abc import Mapping

import safetensors.torch
import torch
import torch.nn.functional as F
from IPython.display import HTML
from torch import Tensor

from helpers.datasets.images import ImageSet
from helpers.datasets.weights import OWN_FOLDER, verified
from helpers.pages import filled

LENET_FILE = "lenet-mnist.safetensors"  # made by data/weights/lenet.py; its card: README.md there
LENET_CHECKSUM = "c870a6875231911c1100c7f777a034309fbd2bf4dfa2e0ee9c2417f836589aca"
MEAN, STD = 0.1307, 0.3081  # of MNIST's training pixels, 0 … 1: how the images of that LeNet were normalized
PARTS = "weight", "bias"
SHAPES = {"conv1": (6, 1, 5, 5), "conv2": (16, 6, 5, 5), "fc1": (120, 400), "fc2": (84, 120), "fc3": (10, 84)}


def trained_lenet() -> dict[str, Tensor]:
    """The state dict of the LeNet that comes with the project, trained on MNIST. Raises OSError."""
    return safetensors.torch.load(verified(OWN_FOLDER / LENET_FILE, LENET_CHECKSUM))


def lenet_steps(state: Mapping[str, Tensor], images: Tensor) -> dict[str, Tensor]:
    """What each layer of LeNet makes of normalized images (B, 1, 32, 32), by the layer's name; last the logits."""
    steps = {"image": images, "conv1": F.relu(F.conv2d(images, state["conv1.weight"], state["conv1.bias"]))}
    steps["pool1"] = F.max_pool2d(steps["conv1"], 2)
    steps["conv2"] = F.relu(F.conv2d(steps["pool1"], state["conv2.weight"], state["conv2.bias"]))
    steps["pool2"] = F.max_pool2d(steps["conv2"], 2)
    steps["fc1"] = F.relu(F.linear(steps["pool2"].flatten(1), state["fc1.weight"], state["fc1.bias"]))
    steps["fc2"] = F.relu(F.linear(steps["fc1"], state["fc2.weight"], state["fc2.bias"]))
    return steps | {"logits": F.linear(steps["fc2"], state["fc3.weight"], state["fc3.bias"])}


def live_lenet(test_set: ImageSet, state: Mapping[str, Tensor] | None = None, mean=MEAN, std=STD, digits=10) -> HTML:
    """The page for a LeNet that takes 28×28 digits, padded to 32×32 and normalized with `mean` and `std` (of 0 … 1).

    Without a `state` dict of your own it is the LeNet that comes with the project. The page holds the weights and up to
    `digits` digits of the test set that the network gets wrong. ValueError for another network.
    """
    state = {name: tensor.detach().float().cpu() for name, tensor in (state or trained_lenet()).items()}
    expected = {f"{name}.{part}": s if part == "weight" else s[:1] for name, s in SHAPES.items() for part in PARTS}
    if {name: tuple(tensor.shape) for name, tensor in state.items()} != expected:
        raise ValueError(f"This is not LeNet with {', '.join(SHAPES)}: the page holds no other network.")
    weights = torch.cat([state[name].flatten() for name in expected]).numpy().astype("<f4").tobytes()
    wrong = mistakes(state, test_set, mean, std)[:digits]
    return HTML(filled("lenet.html", MEAN=mean, STD=std, WRONG=json.dumps(wrong), WEIGHTS=encoded(weights)))


def mistakes(state: Mapping[str, Tensor], test_set: ImageSet, mean: float, std: float) -> list[tuple[str, int]]:
    """Test digits that the network gets wrong as 16 grey levels: packed two pixels a byte, and their labels."""
    levels = (test_set.images.cpu().float() / 17).round()  # (N, 1, 28, 28), 0 … 15
    pixels = (F.pad(levels * 17 / 255, [2] * 4) - mean) / std
    answers = [lenet_steps(state, part)["logits"].argmax(dim=1) for part in pixels.split(1000)]
    wrong = (torch.cat(answers) != test_set.labels.cpu()).nonzero().flatten()
    packed = levels[wrong].flatten(1).to(torch.uint8).reshape(len(wrong), 392, 2)
    packed = packed[..., 0] * 16 + packed[..., 1]
    return [(encoded(p.numpy().tobytes()), test_set.labels[i].item()) for p, i in zip(packed, wrong, strict=True)]


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()
