"""The figures of the lectures other than kernels: images, curves, confusion matrix, mistakes."""

import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython import display, get_ipython
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from helpers.pages.alternative import add_to_figures

# Okabe and Ito's palette: told apart by people with any kind of colour blindness, and in grey print.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
ARMS = ["lectured", "improved", "resnet18", "scratch", "fine_tuned", "head_only"]
ARM_COLOURS = dict(zip(ARMS, 2 * COLOURS[:3], strict=True))  # of a run, the same in every figure of a lecture


def use_style() -> None:
    """Figures that can be read from the last row: large type, opaque white, colour-blind-safe colours."""
    plt.rc("figure", facecolor="white", dpi=100)
    plt.rc("font", size=14)
    plt.rc("lines", linewidth=2.5, markersize=7)
    plt.rc("axes", grid=True, prop_cycle=plt.cycler(color=COLOURS))
    plt.rc("grid", alpha=0.3)
    plt.rc("image", interpolation="nearest")
    add_to_figures()


def show_images(images: torch.Tensor, titles: list[str], title: str, columns: int = 10) -> Figure:
    """A page of images, uint8 (N, C, H, W) with C = 1 or 3, each under its own title."""
    rows = math.ceil(len(images) / columns)
    lines = max(text.count("\n") + 1 for text in titles)
    size = (1.4 * columns, (1.45 + 0.28 * lines) * rows + 0.5)  # room for "automobile" beside "automobile"
    bare = {"frame_on": False, "xticks": [], "yticks": []}
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, subplot_kw=bare)
    for axis, image, text in zip(axes.flat, images.cpu(), titles, strict=False):
        axis.imshow(image.permute(1, 2, 0).numpy(), cmap="gray", vmin=0, vmax=255)
        axis.set_title(text)
    figure.suptitle(title)
    return figure


def show_curves(histories: dict, title: str) -> Figure:
    """Loss and accuracy of runs, `training.History` by name: train dashed, test solid, one colour a run."""
    figure, (losses, accuracies) = plt.subplots(1, 2, figsize=(13, 4.8), layout="constrained")
    for axis, measure, unit in [(losses, "loss", " (nats per image)"), (accuracies, "accuracy", "")]:
        for name, history in histories.items():
            epochs = range(1, len(history) + 1)
            test, train = getattr(history, f"test_{measure}"), getattr(history, f"train_{measure}")
            (line,) = axis.plot(epochs, test, "o-", color=ARM_COLOURS.get(name), label=f"{name}, test")
            axis.plot(epochs, train, "--", color=line.get_color(), label=f"{name}, train")
        axis.set(xlabel="epoch", ylabel=measure + unit)
        axis.xaxis.get_major_locator().set_params(integer=True)
    lowest, highest = losses.dataLim.intervaly
    if highest > 4 * lowest > 0:  # a smaller range would leave a log scale almost without marks
        losses.set(ylabel="loss (nats per image, log scale)", yscale="log")
        losses.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}", minor_formatter="")
    losses.legend()
    accuracies.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    figure.suptitle(title)
    return figure


def live_curves(name: str, title: str):
    """For `fit(on_epoch_end=…)`: curves of the run called `name` that are redrawn in place after every epoch."""
    shown = []

    def redraw(history) -> None:
        if get_ipython() is not None:
            figure = show_curves({name: history}, title)
            display.display(figure, display_id=f"{name}, {title}", update=bool(shown))
            shown.append(plt.close(figure))

    return redraw


def confusion_matrix(logits: torch.Tensor, labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Counts (classes, classes): row is the true class, column the predicted one."""
    pairs = labels * classes + logits.argmax(dim=1)
    return torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def show_confusion(matrix: torch.Tensor, classes: list[str], title: str) -> Figure:
    """The confusion matrix; colour shows the mistakes only, since correct counts would drown them."""
    figure, axis = plt.subplots(figsize=(8.5, 7), layout="constrained")
    mistakes = matrix.clone().fill_diagonal_(0)
    image = axis.imshow(mistakes.numpy(), cmap="Blues", vmin=0, vmax=max(mistakes.max().item(), 1))
    for (row, column), count in np.ndenumerate(matrix.numpy()):
        colour = "white" if row != column and count > mistakes.max() / 2 else "black"
        weight = "bold" if row == column else "normal"
        axis.text(column, row, count or "", ha="center", va="center", color=colour, weight=weight)
    axis.set_xticks(range(len(classes)), classes, rotation=90 if max(map(len, classes)) > 2 else 0)
    axis.set_yticks(range(len(classes)), classes)
    axis.set(xlabel="predicted", ylabel="true", title=title)
    axis.grid(False)
    figure.colorbar(image, label="mistakes (images)", shrink=0.8, ticks=MaxNLocator(integer=True))
    return figure


def show_mistakes(images, logits, labels, classes: list[str], title: str, count: int = 10) -> Figure:
    """The most certain mistakes. `images` (N, C, H, W) uint8, `logits` (N, classes) and `labels` (N,) on the CPU."""
    confidence, predicted = logits.softmax(dim=1).max(dim=1)  # each (N,)
    wrong = (predicted != labels).nonzero().flatten()
    worst = wrong[confidence[wrong].argsort(descending=True)][:count]
    titles = [f"{classes[labels[i]]}\nread as\n{classes[predicted[i]]}\n{confidence[i]:.1%}" for i in worst]
    if len(worst) == 0:
        raise ValueError("There is no mistake to show: every image was classified correctly.")
    return show_images(images[worst.to(images.device)], titles, title)
