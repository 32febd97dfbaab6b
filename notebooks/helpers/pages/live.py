"""A trained LeNet alive in the page, without kernel or network: draw a digit, and every map follows."""

import base64
from pathlib import Path
from uuid import uuid4

import torch
from IPython.display import HTML

from helpers.datasets.images import ImageSet

PARTS = "weight", "bias"
TEMPLATE = Path(__file__).with_name("lenet.html")
SHAPES = {"conv1": (6, 1, 5, 5), "conv2": (16, 6, 5, 5), "fc1": (120, 400), "fc2": (84, 120), "fc3": (10, 84)}


def live_lenet(model: torch.nn.Module, test_set: ImageSet, mean: float, std: float, digits: int = 10) -> HTML:
    """The page for a LeNet that takes 28×28 digits, padded to 32×32 and normalized with `mean` and `std` (of 0 … 1).

    It holds the weights and up to `digits` test digits that the network gets wrong. ValueError for another network.
    """
    state = {name: tensor.detach().float().cpu() for name, tensor in model.state_dict().items()}
    expected = {f"{name}.{part}": s if part == "weight" else s[:1] for name, s in SHAPES.items() for part in PARTS}
    if {name: tuple(tensor.shape) for name, tensor in state.items()} != expected:
        raise ValueError(f"This is not LeNet with {', '.join(SHAPES)}: the page holds no other network.")
    weights = torch.cat([state[name].flatten() for name in expected]).numpy().astype("<f4").tobytes()
    filled = {"WEIGHTS": encoded(weights), "MEAN_": str(mean), "STD_": str(std), "ID": f"lenet-{uuid4().hex[:8]}"}
    filled["WRONG"] = str([list(pair) for pair in mistakes(model, test_set, mean, std)[:digits]]).replace("'", '"')
    page = TEMPLATE.read_text(encoding="utf-8")
    for name in ("MEAN_", "STD_", "WRONG", "ID", "WEIGHTS"):  # the weights last: no text of theirs is replaced
        page = page.replace(name, filled[name])
    return HTML(page)


@torch.inference_mode()
def mistakes(model: torch.nn.Module, test_set: ImageSet, mean: float, std: float) -> list[tuple[str, int]]:
    """Test digits that the network gets wrong as 16 grey levels: packed two pixels a byte, and their labels."""
    levels = (test_set.images.cpu().float() / 17).round()  # (N, 1, 28, 28), 0 … 15
    pixels = torch.nn.functional.pad(levels * 17 / 255, [2] * 4)
    device = next(model.parameters()).device
    answers = [model(part.to(device)).argmax(dim=1).cpu() for part in ((pixels - mean) / std).split(1000)]
    wrong = (torch.cat(answers) != test_set.labels.cpu()).nonzero().flatten()
    packed = levels[wrong].flatten(1).to(torch.uint8).reshape(len(wrong), 392, 2)
    packed = packed[..., 0] * 16 + packed[..., 1]
    return [(encoded(p.numpy().tobytes()), test_set.labels[i].item()) for p, i in zip(packed, wrong, strict=True)]


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()
