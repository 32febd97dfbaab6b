"""How time and memory grow with the images, their size and the batch: measured, and what `complexity` counts."""

import statistics
import sys
import time
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from torchvision.transforms import v2

from benchmarks import work
from benchmarks.work import LEARNING_RATE, TO_FLOATS, Job
from helpers import complexity, plots, training
from helpers.data import Batches
from helpers.device import granted_threads, keep_freed_memory, plan_for

NAME = "resnet18"


def measure(job: Job) -> dict:
    """Seconds of a step (or of an epoch) and memory, each against what is counted."""
    torch.set_num_threads(granted_threads())
    memory = memory_points(job)  # first: afterwards freed memory is kept, and no peak could be seen
    keep_freed_memory()
    sizes = [32, 64] if job.toy else [32, 64, 96, 128, 160, 192, 224]
    batches = [2, 4] if job.toy else [1, 2, 4, 8, 16, 32]
    counts = [4, 8] if job.toy else [32, 64, 128, 256]
    batch, size = (2, 32) if job.toy else (8, 112)
    return {
        "size": [step(job, value, batch) for value in sizes],
        "batch": [step(job, size, value) for value in batches],
        "images": [step(job, 64, 16, images=value) for value in counts],
        "memory": memory,
        "fixed": {"batch": batch, "size": size},
    }


def step(job: Job, size: int, batch: int, images: int | None = None) -> dict:
    """Median seconds of seven passes over `images` images, by default a single batch."""
    images = images or batch
    train, _ = work.images_of("CIFAR-10", job, images, 10)
    plan = plan_for(torch.device(job.device))
    model = work.network(NAME).to(job.device, memory_format=plan.memory_format)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=plan.fused)
    loader = Batches(train.to(job.device, plan.memory_format), batch, v2.Compose([v2.Resize(size), TO_FLOATS]))
    one_step, seconds = training.Step(torch.device(job.device), plan.precision), []
    for _ in range(8):
        start = time.perf_counter()
        training.train_one_epoch(model, loader, F.cross_entropy, optimizer, step=one_step)  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    macs = sum(layer.macs for layer in complexity.layer_table(model, (3, size, size)))
    return {
        "size": size,
        "batch": batch,
        "images": images,
        "seconds": statistics.median(seconds[1:]),
        "operations": images * macs * 6,  # 2 for each MAC; forward, and twice as much backward
    }


def memory_points(job: Job) -> list[dict]:
    """Bytes that one step adds at its fullest, in float32, for growing batches (in this order, a peak only rises)."""
    points = []
    size = 32 if job.toy else 112
    for batch in [2, 4] if job.toy else [4, 8, 16, 32, 64]:
        model = work.network(NAME).to(job.device)
        images = torch.rand(batch, 3, size, size, device=job.device)
        labels = torch.zeros(batch, dtype=torch.int64, device=job.device)
        model(images[:2]).sum().backward()  # gradients exist, and work space of the libraries
        before = memory_now(job.device)
        F.cross_entropy(model(images), labels).backward()
        measured = memory_peak(job.device) - before
        counted = batch * complexity.saved_activation_bytes(model, (3, size, size))
        points.append({"batch": batch, "size": size, "measured": measured, "counted": counted})
    return points


def memory_now(device: str) -> int:
    """Bytes in use; on Linux the peak of the process starts anew from here."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    if sys.platform != "linux":
        return 0
    Path("/proc/self/clear_refs").write_text("5")  # resets the highest resident size
    return status("VmRSS")


def memory_peak(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return status("VmHWM") if sys.platform == "linux" else 0


def status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def fitted(points: list[dict], from_zero: bool = False) -> tuple[float, float]:
    """Seconds that do not depend on the work, and operations a second beyond them (least squares)."""
    if from_zero:
        return 0.0, sum(p["operations"] ** 2 for p in points) / sum(p["operations"] * p["seconds"] for p in points)
    slope, fixed = np.polyfit([point["operations"] for point in points], [point["seconds"] for point in points], 1)
    return fixed, 1 / slope


def in_words(grown: dict) -> str:
    """The fitted lines and the memory, as sentences for the report."""
    fixed = grown["fixed"]
    span = {key: f"{grown[key][0][key]} to {grown[key][-1][key]}" for key in ("size", "batch", "images")}
    lines = []
    for key, what in (
        ("size", f"a step of {fixed['batch']} images of {span['size']} px"),
        ("batch", f"a step of {span['batch']} images of {fixed['size']} px"),
    ):
        seconds, rate = fitted(grown[key])
        lines.append(
            f"{what} takes {1000 * seconds:.0f} ms and the time of its operations at {rate / 1e9:,.0f} GFLOP/s"
        )
    _, rate = fitted(grown["images"], from_zero=True)
    epoch, last = grown["images"][-1], grown["memory"][-1]
    lines.append(
        f"an epoch of {span['images']} images, {epoch['batch']} a batch, grows with their number"
        f" ({rate / 1e9:,.0f} GFLOP/s at {epoch['size']} px)"
    )
    share = last["measured"] / last["counted"]
    memory = f"A step of {last['batch']} images of {last['size']} px takes {last['measured'] / 1e6:,.0f} MB beyond"
    return (
        f"Growth, ResNet-18: {'; '.join(lines)} (least squares, operations counted by `complexity`). {memory} weights"
        f" and gradients, {share:.0%} of the saved activations that `complexity` counts (float32)."
    )


def draw(grown: dict, path: Path) -> None:
    """One figure of four panels: points measured, and lines of what is counted."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plots.use_style()
    figure, axes = plt.subplots(2, 2, figsize=(13, 9), layout="constrained")
    fixed = grown["fixed"]
    panels = [
        ("size", "image size (pixels)", f"batch of {fixed['batch']}", "seconds of a step"),
        ("batch", "images in a batch", f"{fixed['size']} pixels", "seconds of a step"),
        ("images", "images in an epoch", "64 pixels, batches of 16", "seconds of an epoch"),
    ]
    for axis, (key, label, title, time_label) in zip(axes.flat, panels, strict=False):
        points = grown[key]
        x = [point[key] for point in points]
        axis.plot(x, [point["seconds"] for point in points], "o", label="measured")
        seconds, rate = fitted(points, from_zero=key == "images")
        counted = [seconds + point["operations"] / rate for point in points]
        fixed_part = f"{1000 * seconds:.0f} ms + " if seconds else ""
        axis.plot(x, counted, "--", label=f"{fixed_part}operations at {rate / 1e9:,.0f} GFLOP/s")
        axis.set(xlabel=label, ylabel=time_label, title=title)
    axis, points = axes.flat[3], grown["memory"]
    x = [point["batch"] for point in points]
    axis.plot(x, [point["measured"] / 1e6 for point in points], "o", label="measured")
    axis.plot(x, [point["counted"] / 1e6 for point in points], "--", label="saved activations, counted")
    axis.set(xlabel="images in a batch", ylabel="memory of a step (MB)", title=f"{points[0]['size']} pixels, float32")
    for axis in axes.flat:
        axis.legend(loc="upper left")
        axis.set(xlim=(0, None), ylim=(0, 1.3 * axis.get_ylim()[1]))  # room for the legend
    figure.suptitle("ResNet-18: what a step costs")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
