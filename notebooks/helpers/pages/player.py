"""Moving pictures in a page without kernel or network: a player over frames, and a kernel that slides over an image."""

import base64
import io
import math
from collections.abc import Sequence
from html import escape
from uuid import uuid4

import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import HTML, SVG
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from helpers.pages import filled
from helpers.pages.drawings import ORANGE, drawing, text

DARK, WARM, COLD = torch.tensor([[40, 40, 40], [255, 160, 10], [10, 140, 255]]) / 255  # of 0, 1 and −1


def player(frames: Sequence, labels: Sequence[str], alt: str) -> HTML:
    """Plays frames, each under its label, such as "epoch 3": by button, slider or arrow keys.

    A frame is a matplotlib figure (closed here), pixels (H, W) or (H, W, 3 or 4), 0 … 255 as uint8 or 0 … 1 as floats,
    or a drawing (SVG). `alt` says in a sentence what is drawn. Without scripts the page shows the last frame.
    """
    pairs = [(escape(f"{alt} {label}"), escape(label), frame) for frame, label in zip(frames, labels, strict=True)]
    parts = [f'<div class="frame" data-label="{label}">{picture(frame, alt)}</div>' for alt, label, frame in pairs]
    # Where scripts may not run, JupyterLab takes them and drawings out: the last picture stays.
    still = "" if isinstance(frames[-1], SVG) else parts.pop()
    stage = f'<script type="text/html" class="frames">{"".join(parts)}</script>{still}'
    return HTML(filled("player.html", ALT=escape(alt), STAGE=stage))


def picture(frame: Figure | np.ndarray | Tensor | SVG, alt: str) -> str:
    """A frame as HTML that needs no other file; pixels are magnified and stay pixels."""
    if isinstance(frame, SVG):
        return frame.data
    if isinstance(frame, Figure):
        frame.savefig(drawn := io.BytesIO(), dpi=80)
        plt.close(frame)
        return f'<img alt="{alt}" src="{as_uri(Image.open(drawn).convert("RGB"), "webp", quality=80)}">'
    pixels = np.asarray(frame)
    pixels = pixels if pixels.dtype == np.uint8 else (255 * pixels.clip(0, 1)).round().astype(np.uint8)
    wide = pixels.shape[1] * max(1, min(960 // pixels.shape[1], 480 // pixels.shape[0]))
    uri = as_uri(Image.fromarray(pixels), "png", optimize=True)
    return f'<img style="width:{wide}px;image-rendering:pixelated" alt="{alt}" src="{uri}">'


def as_uri(image: Image.Image, kind: str, **options) -> str:
    image.save(content := io.BytesIO(), kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


def coloured(values: Tensor) -> Tensor:
    """Numbers of any shape as colours (…, 3), 0 … 1: 0 is dark, the largest positive orange, negative blue."""
    size = (values.abs() / values.abs().max().clamp(min=1e-9))[..., None]
    return DARK + size * (torch.where(values[..., None] > 0, WARM, COLD) - DARK)


def sheets(stacks: Sequence[Tensor], columns: int = 6) -> list[np.ndarray]:
    """Frames for `player`: each stack of kernels or maps (N, h, w) side by side, `columns` a row, all on one scale."""
    colours = coloured(torch.stack([stack.detach().float().cpu() for stack in stacks]))
    opaque = torch.cat([colours, torch.ones_like(colours[..., :1])], dim=-1)  # what is between stays transparent
    grids = [make_grid(one.permute(0, 3, 1, 2), nrow=columns, padding=1) for one in opaque]
    return [(255 * grid.permute(1, 2, 0)).round().byte().numpy() for grid in grids]


def confusion_drawings(matrices: Sequence[Tensor], classes: Sequence[str]) -> list[SVG]:
    """Frames for `player`: counts (K, K), rows the true class, columns the answer; mistakes orange, on one scale."""
    most = max(1, *(matrix.clone().fill_diagonal_(0).max().item() for matrix in matrices))
    return [confusion_drawing(matrix, classes, most) for matrix in matrices]


def confusion_drawing(matrix: Tensor, classes: Sequence[str], most: int) -> SVG:
    count, left, wrong = len(classes), 60 + 9 * max(map(len, classes)), int(matrix.sum() - matrix.trace())
    edge = "".join(f"M{left} {50 + 40 * i}h{50 * count}M{left + 50 * i} 50v{40 * count}" for i in range(count + 1))
    parts = [text(left + 25 * count, 18, "predicted"), text(4, 18, "true", anchor="start")]
    parts.append(f'<path d="{edge}" stroke="currentColor" stroke-opacity=".3"/>')
    for i, name in enumerate(classes):
        parts += [text(left + 50 * i + 25, 42, name), text(left - 8, 75 + 40 * i, name, anchor="end")]
    for i, j in matrix.nonzero().tolist():
        x, y, shade = left + 50 * j, 50 + 40 * i, 0 if i == j else 0.75 * math.sqrt(matrix[i, j] / most)
        parts.append(f'<path d="M{x} {y}h50v40h-50z" fill="{ORANGE}" fill-opacity="{shade:.2f}"/>')
        parts.append(text(x + 25, y + 25, str(matrix[i, j].item()), weight=700 if i == j else 400))
    said = f"Counts by true and predicted class; {wrong} mistakes."
    return drawing(parts, left + 50 * count + 4, 54 + 40 * count, f"{wrong} mistakes", said)


def rounded(values: Tensor) -> list[float]:
    return [round(value, 6) for value in values.flatten().tolist()]


def sliding_convolution(image: Tensor, kernel: Tensor) -> HTML:
    """A kernel slides over an image: the patch under it × kernel, added up, is one number of the output map.

    `image`: square, such as a normalized digit (1, 28, 28); `kernel`: square, such as one of LeNet's (1, 5, 5).
    """
    image, kernel = (one.detach().float().cpu().reshape(one.shape[-2:]) for one in (image, kernel))
    output, name = F.conv2d(image[None, None], kernel[None, None])[0, 0], f"page-{uuid4().hex[:8]}"
    grey = (image - image.min()) / (image.max() - image.min()).clamp(min=1e-9)
    shown = {"INPUT": picture(grey, "the input image"), "OUTPUT": picture(coloured(output), "the output map")}
    numbers = {"IMAGE": rounded(image), "KERNEL": rounded(kernel)}
    sizes = {"N": len(image), "K": len(kernel), "S": len(output)}
    stage = filled("sliding.html", ID=name, **shown, **numbers, **sizes)
    alt = "A kernel slides over an image, and its output map fills."
    return HTML(filled("player.html", ID=name, ALT=alt, STAGE=stage))
