"""How time and memory grow with the images, their size and the batch: measured, and what `complexity` counts."""

import sys
import time
from pathlib import Path

import matplotlib
import torch
import torch.nn.functional as F
from torchvision.transforms import v2

from benchmarks import work
from benchmarks.work import LEARNING_RATE, TO_FLOATS, Job
from helpers import complexity, plots, training
from helpers.data import Batches
from helpers.environment import available_threads
from helpers.plan import keep_freed_memory, plan_for

NAME = "resnet18"


def measure(job: Job) -> dict:
    """Seconds of a step (or of an epoch) and memory, each against what is counted."""
    torch.set_num_threads(available_threads())
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
    """Median seconds of three passes over `images` images, by default a single batch."""
    images = images or batch
    train, _ = work.images_of("CIFAR-10", job, images, 10)
    plan = plan_for(torch.device(job.device))
    model = work.network(NAME).to(job.device, memory_format=plan.memory_format)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=plan.fused)
    loader = Batches(train.to(job.device), batch, v2.Compose([v2.Resize(size), TO_FLOATS]))
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        training.train_one_epoch(model, loader, F.cross_entropy, optimizer)  # ends with .item(): waits for a GPU
        seconds.append(time.perf_counter() - start)
    macs = sum(layer.macs for layer in complexity.layer_table(model, (3, size, size)))
    return {
        "size": size,
        "batch": batch,
        "images": images,
        "seconds": sorted(seconds[1:])[1],
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


def draw(grown: dict, path: Path) -> None:
    """One figure of four panels: points measured, lines in proportion to what is counted."""
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
        rate = points[-1]["operations"] / points[-1]["seconds"]
        counted = [point["operations"] / rate for point in points]
        axis.plot(x, counted, "--", label=f"operations counted, at {rate / 1e9:,.0f} GFLOP/s")
        axis.set(xlabel=label, ylabel=time_label, title=title)
    axis, points = axes.flat[3], grown["memory"]
    x = [point["batch"] for point in points]
    axis.plot(x, [point["measured"] / 1e6 for point in points], "o", label="measured")
    axis.plot(x, [point["counted"] / 1e6 for point in points], "--", label="saved activations, counted")
    axis.set(xlabel="images in a batch", ylabel="memory of a step (MB)", title=f"{points[0]['size']} pixels, float32")
    for axis in axes.flat:
        axis.legend()
        axis.set(xlim=(0, None), ylim=(0, None))
    figure.suptitle("ResNet-18: what a step costs")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
