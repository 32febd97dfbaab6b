"""The drawings: well-formed, with title and description, and with the shapes that the model has."""

from xml.etree import ElementTree

import pytest
import torch
from torchvision import models

from helpers.complexity import layer_table
from helpers.pages import drawings

SVG = "{http://www.w3.org/2000/svg}"
RESNET = layer_table(models.resnet18(num_classes=10), (3, 64, 64))
MAPS = {"image": torch.rand(1, 8, 8), "conv": torch.rand(6, 4, 4), "more": torch.zeros(16, 2, 2), "fc": torch.rand(5)}


@pytest.mark.parametrize(
    ("drawn", "words"),
    [
        (drawings.draw_network(RESNET, (3, 64, 64), "R & R", lambda name: name.split(".")[0]),
         ["image", "conv1", "64×32×32", "layer2", "128×8×8", "layer4", "512×2×2", "fc", "10"]),
        (drawings.draw_maps(MAPS, "maps"), ["conv", "6×4×4", "16×2×2", "fc", "5"]),
        (drawings.draw_residual_block(96), ["3×3 conv, 96", "shortcut: x as it is", "+"]),
        (drawings.draw_dense_block(2, 64, 32), ["64 maps", "96 maps", "128 maps"]),
        (drawings.draw_add_and_concatenate(), ["ResNet adds", "DenseNet concatenates"]),
    ],
    ids=["network", "maps", "residual", "dense", "add and concatenate"],
)  # fmt: skip
def test_a_drawing_is_well_formed_and_says_what_it_shows(drawn, words):
    root = ElementTree.fromstring(drawn.data)
    said = [span.text for span in root.iter(f"{SVG}tspan")]
    assert root.find(f"{SVG}title").text and len(root.find(f"{SVG}desc").text) > 40
    assert set(words) <= set(said)
    _, _, width, height = map(float, root.get("viewBox").split())
    for shape in [*root.iter(f"{SVG}rect"), *root.iter(f"{SVG}image")]:
        x, y, wide, high = (float(shape.get(name)) for name in ("x", "y", "width", "height"))
        assert x >= 0 and y >= 0 and x + wide <= width and y + high <= height


def test_the_maps_are_all_there():
    root = ElementTree.fromstring(drawings.draw_maps(MAPS, "maps").data)
    assert len(list(root.iter(f"{SVG}image"))) == 1 + 6 + 16 + 1
