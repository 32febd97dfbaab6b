"""What training does to convolution kernels: copies, pictures on one common scale, and relative change."""

import math

import matplotlib
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import nn
from torchvision.utils import make_grid

SIGNED = matplotlib.colormaps["BrBG"].with_extremes(bad="0.5")  # brown − white − green, NaN grey


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy on the CPU of every convolution's weights, (out, in, height, width), by layer name."""
    convolutions = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}
    return {name: layer.weight.detach().cpu().clone() for name, layer in convolutions.items()}


def relative_change(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> dict[str, float]:
    """‖after − before‖ / ‖before‖ for each layer: 0 is untouched, 1 is a change as large as the weights were."""
    return {name: ((after[name] - weight).norm() / weight.norm()).item() for name, weight in before.items()}


def kernel_images(weight: torch.Tensor, kernel: int | None = None) -> torch.Tensor:
    """All kernels of a layer that sees grey or RGB images, as images (count, 1 or 3, height, width).

    With `kernel`: the input channels of that one kernel as grey images, for a deeper layer.
    """
    if kernel is not None:
        return weight[kernel].unsqueeze(1)
    if weight.shape[1] not in (1, 3):
        raise ValueError(f"Kernels with {weight.shape[1]} input channels are neither grey nor RGB: name one `kernel`.")
    return weight


def draw_kernels(axes: plt.Axes, images: torch.Tensor, limit: float, columns: int):
    """Draw kernels from −limit to limit: grey ones brown − white − green, RGB with 0 as mid-grey. Returns the image."""
    sheet = make_grid(images, columns, padding=1, pad_value=math.nan)  # (3, rows, columns) of pixels; grey thrice
    axes.axis("off")
    if images.shape[1] == 3:
        return axes.imshow((0.5 + sheet / (2 * limit)).clamp(0, 1).nan_to_num(1.0).permute(1, 2, 0).numpy())
    return axes.imshow(sheet[0].numpy(), cmap=SIGNED, vmin=-limit, vmax=limit)


def colour_limit(before: torch.Tensor, after: torch.Tensor, kernel: int | None = None) -> float:
    """The largest of all that `show_change` would draw: a `limit` for it, or part of one that several figures share."""
    return max(kernel_images(weight, kernel).abs().max().item() for weight in (before, after, after - before))


def show_change(before, after, layer: str, kernel: int | None = None, limit: float | None = None) -> Figure:
    """Before, after and difference of one layer's weights (out, in, height, width) side by side, on one scale.

    `kernel` is that of `kernel_images`. The scale goes from -`limit` to `limit`, by default the `colour_limit`.
    """
    panels = [kernel_images(weight, kernel) for weight in (before, after, after - before)]
    limit = limit or colour_limit(before, after, kernel)
    count = len(panels[0])
    columns = math.ceil(math.sqrt(count)) if count > 6 else 3
    height = 4.2 * math.ceil(count / columns) / columns + 1
    figure, axes = plt.subplots(1, 3, figsize=(13, height), layout="constrained")
    for axis, panel, title in zip(axes, panels, ["before", "after", "after − before"], strict=True):
        image = draw_kernels(axis, panel, limit, columns)
        axis.set_title(title)
    what = f"{layer}: all {count} kernels" if kernel is None else f"{layer}: the {count} channels of kernel {kernel}"
    colour = panels[0].shape[1] == 3
    figure.suptitle(f"{what}, on one scale" + (f": grey is 0, full colour ±{limit:.2g}" if colour else ""))
    if not colour:
        figure.colorbar(image, ax=axes, label="weight", shrink=0.9)
    return figure
