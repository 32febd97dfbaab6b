"""Drawings of networks and of the ideas behind them, as SVG, from the shapes of the model itself.

Every drawing has a title and a description; lines and words take the colour of the page's text, so that they can be
read on white and in the dark. In JupyterLab, in exported pages and on GitHub they are pictures without a file.
"""

import base64
import io
import itertools
import math
from collections.abc import Callable
from html import escape

import torch
from IPython.display import SVG
from PIL import Image

BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"  # convolution, pooling, sum or stack, linear
KINDS = {"Conv2d": BLUE, "MaxPool2d": ORANGE, "AvgPool2d": ORANGE, "AdaptiveAvgPool2d": ORANGE, "Linear": PINK}


def drawing(parts: list[str], width: float, height: float, title: str, description: str) -> SVG:
    """The parts on one canvas, as wide as the page allows."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img"'
    head += f' style="max-width:{width:.0f}px;width:100%" font-family="sans-serif" font-size="16" color="currentColor">'
    tip = '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    tip += '<path d="M0 0L8 4L0 8z" fill="currentColor"/></marker>'
    words = f"<title>{escape(title)}</title><desc>{escape(description)}</desc><defs>{tip}</defs>"
    return SVG(head + words + "".join(parts) + "</svg>")


def text(x: float, y: float, words: str, size: int = 16, anchor: str = "middle", weight: int = 400) -> str:
    """Words with the middle of their last line at x, y; a line break starts a new line."""
    lines = escape(words).split("\n")
    rows = "".join(
        f'<tspan x="{x:.1f}" dy="{1.15 * size if i else 0:.1f}">{row}</tspan>' for i, row in enumerate(lines)
    )
    look = f'font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="currentColor"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{rows}</text>'


def box(x: float, y: float, width: float, height: float, words: str = "", colour: str = BLUE) -> str:
    """A rectangle with words in its middle."""
    size = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="4"'
    shape = f'<rect {size} fill="{colour}" fill-opacity="0.3" stroke="{colour}" stroke-width="2"/>'
    lines = words.count("\n")
    return shape + (text(x + width / 2, y + height / 2 + 5 - 9 * lines, words) if words else "")


def arrow(*corners: tuple[float, float]) -> str:
    """A line through the corners that ends in an arrow."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    return f'<polyline points="{path}" fill="none" stroke="currentColor" stroke-width="2" marker-end="url(#tip)"/>'


def sign(x: float, y: float, words: str) -> str:
    """A circle with a sign, such as +."""
    look = f'fill="{GREEN}" fill-opacity="0.3" stroke="{GREEN}" stroke-width="2"'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="16" {look}/>' + text(x, y + 6, words, 20, weight=700)


def draw_network(layers: list, image_shape: tuple, title: str, part: Callable[[str], str] = str) -> SVG:
    """Layers from left to right: the higher a block the larger its maps, the wider the more channels.

    `layers`: what `complexity.layer_table` finds. `part` gives the name under which a layer is drawn; neighbours of one
    name, such as the layers of a stage, are one block, with the shape that comes out of them.
    """
    named = [(part(each.name), KINDS[each.kind], each.output_shape) for each in layers if each.kind in KINDS]
    blocks = [list(same)[-1] for _, same in itertools.groupby(named, key=lambda layer: layer[0])]
    parts, x, said = [], 50.0, []
    for name, colour, shape in [("image", "#888888", image_shape), *blocks]:
        flat, words = len(shape) == 1, "×".join(map(str, shape))
        high = 20 + 10 * math.log2(shape[0]) if flat else 30 + 170 * math.sqrt(shape[-1] / image_shape[-1])
        wide = 14 if flat else 8 + 2.2 * math.sqrt(shape[0])
        parts.append(box(x, 150 - high / 2, wide, high, "", colour))
        parts += [text(x + wide / 2, 34, name, 14), text(x + wide / 2, 278, words, 13)]
        said.append(f"{name} {words}")
        x += wide + max(58, 9 * len(words) - wide)
    for i, (word, colour) in enumerate({"convolution": BLUE, "pooling": ORANGE, "fully connected": PINK}.items()):
        parts += [box(20 + 170 * i, 304, 16, 16, "", colour), text(42 + 170 * i, 317, word, 14, "start")]
    return drawing(parts, x, 330, title, f"Outputs from left to right: {', '.join(said)}.")


def draw_residual_block(channels: int = 64) -> SVG:
    """Two convolutions, and the shortcut that leads around them to a sum."""
    parts = [arrow((20, 60), (88, 60)), text(48, 48, "x")]
    for i, words in enumerate([f"3×3 conv, {channels}\nbatch norm, ReLU", f"3×3 conv, {channels}\nbatch norm"]):
        parts += [box(90 + 210 * i, 30, 180, 60, words), arrow((270 + 210 * i, 60), (298 + 200 * i, 60))]
    parts += [sign(516, 60, "+"), arrow((532, 60), (560, 60)), box(562, 36, 80, 48, "ReLU", ORANGE)]
    parts += [arrow((642, 60), (700, 60)), arrow((60, 60), (60, 130), (516, 130), (516, 78))]
    parts += [text(290, 152, "shortcut: x as it is"), text(290, 20, "F(x): the change"), text(672, 48, "y")]
    said = "The input x passes two convolutions, F of x; a shortcut carries x around them; both are added, then ReLU."
    return drawing(parts, 720, 165, "A residual block adds a change to its input", said)


def draw_dense_block(layers: int = 4, channels: int = 64, growth: int = 32) -> SVG:
    """The stack of maps grows: every layer reads all before it and adds `growth` new maps."""
    parts, scale = [], 0.8
    for i in range(layers + 1):
        x = 20 + 190 * i
        for j in range(i + 1):
            high = scale * (channels if j == 0 else growth)
            top = 190 - scale * (channels + growth * j)
            parts.append(box(x, top, 40, high, "", "#888888" if j == 0 else GREEN if j == i else BLUE))
        parts.append(text(x + 20, 212, f"{channels + growth * i} maps", 14))
        if i < layers:
            parts += [
                arrow((x + 44, 120), (x + 68, 120)),
                box(x + 70, 92, 80, 56, f"1×1, 3×3\n+{growth}"),
                arrow((x + 150, 120), (x + 186, 120)),
            ]
    said = (
        f"A stack of {channels} maps grows by {growth} in each of {layers} layers; every layer reads the whole stack."
    )
    return drawing(parts, 190 * layers + 80, 225, "A dense block stacks what each layer adds", said)


def draw_add_and_concatenate(channels: int = 3) -> SVG:
    """Adding needs as many new maps as old ones; concatenating keeps the old ones and puts new ones behind them."""
    parts = []
    for row, (name, op) in enumerate([("ResNet adds", "+"), ("DenseNet concatenates", "∥")]):
        y, new = 40 + 150 * row, channels if row == 0 else 1
        parts.append(text(20, y - 14, name, 16, "start", 700))
        parts += [box(20 + 26 * i, y, 22, 70, "", "#888888") for i in range(channels)] + [sign(150, y + 35, op)]
        parts += [box(190 + 26 * i, y, 22, 70, "", BLUE) for i in range(new)] + [arrow((300, y + 35), (350, y + 35))]
        mixed = [GREEN] * channels if row == 0 else ["#888888"] * channels + [BLUE] * new
        parts += [box(370 + 26 * i, y, 22, 70, "", colour) for i, colour in enumerate(mixed)]
        parts.append(
            text(370, y + 92, "old maps are changed" if row == 0 else "old maps stay, new ones follow", 14, "start")
        )
    said = "Above, three old and three new maps are added to three; below, one new map is put behind three old ones."
    return drawing(parts, 640, 300, "Add against concatenate", said)


def picture(values: torch.Tensor, x: float, y: float, width: float, height: float) -> str:
    """Numbers (H, W) as greys, from black for the smallest to white for the largest."""
    low, high = values.min(), values.max().clamp(min=values.min() + 1e-9)
    greys, buffer = (255 * (values - low) / (high - low)).byte().cpu().numpy(), io.BytesIO()
    Image.fromarray(greys).save(buffer, "png")
    code = base64.b64encode(buffer.getvalue()).decode()
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" preserveAspectRatio="none"'
    return f'<image {place} style="image-rendering:pixelated" href="data:image/png;base64,{code}"/>'


def draw_maps(steps: dict[str, torch.Tensor], title: str) -> SVG:
    """What one image becomes: the real maps (C, H, W) or numbers (N,) of each step, from left to right."""
    parts, x, said = [], 20.0, []
    for name, maps in steps.items():
        maps, shape = maps.detach().float(), "×".join(map(str, maps.shape))
        rows = math.ceil(len(maps) / 2) if maps.ndim == 3 and len(maps) > 6 else len(maps)
        side, wide = min(110.0, 270 / rows - 3), 16.0
        if maps.ndim == 1:  # in a frame, since its largest number is as white as a page
            frame = f'<rect x="{x:.1f}" y="30" width="{wide:.1f}" height="267" fill="none" stroke="currentColor"/>'
            parts += [picture(maps[:, None], x, 30, wide, 267), frame]
            if len(maps) == 10:
                parts += [text(x + wide + 12, 48 + 26.7 * i, str(i), 16) for i in range(10)]
        else:
            wide = math.ceil(len(maps) / rows) * (side + 3)
            places = [(x + i // rows * (side + 3), 30 + i % rows * (side + 3)) for i in range(len(maps))]
            parts += [picture(one, *place, side, side) for one, place in zip(maps, places, strict=True)]
        parts += [text(x + wide / 2, 16, name, 14), text(x + wide / 2, 318, shape, 13)]
        said.append(f"{name} {shape}")
        x += wide + 70
    return drawing(parts, x, 330, title, "From left to right: " + ", ".join(said) + ".")
