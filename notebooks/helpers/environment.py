"""Settings of one run: the profile, the device, the threads and the seed, and the banner that names them."""

import math
import os
import platform
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision

from helpers.checkpoint import Checkpoint, checkpoint_folder
from helpers.outoforder import name_missing_sections
from helpers.plan import Plan, keep_freed_memory, plan_for

PROFILES = {
    "quick": "embedded sample data, tiny budget, no network",
    "laptop": "real data, a budget for a CPU within about 15 minutes",
    "lecture": "the lecture's own settings: all images, its image size, batch and epochs",
    "auto": "lecture on CUDA, else laptop; quick when the real data cannot be had",
}

KNOWN_LOSS = 2.4708  # of `loss_after_a_step`


@dataclass(frozen=True)
class Run:
    """What one execution of a lecture runs on. Made by `start_run`."""

    lecture: str  # the notebook's file name without .ipynb
    profile: str  # "quick", "laptop" or "lecture"
    reason: str  # why this profile
    device: torch.device
    device_name: str  # for people: the processor's or the card's name, or why CUDA is not used
    threads: int  # CPU threads torch may use
    seed: int

    @property
    def plan(self) -> Plan:
        """Number type, memory layout and optimizer kernels for this device; `plan.use_plan` changes them."""
        return plan_for(self.device)

    def banner(self, data: str) -> str:
        """The lines that say what the numbers below them were measured on. `data` describes the images."""
        lines = {
            "lecture": self.lecture,
            "profile": f"{self.profile} ({self.reason})",
            "device": f"{self.device.type} · {self.device_name}",
            "plan": str(self.plan),
            "threads": str(self.threads),
            "data": data,
            "seed": str(self.seed),
            "versions": f"Python {platform.python_version()} · torch {torch.__version__}"
            f" · torchvision {torchvision.__version__}",
        }
        return "\n".join(f"{name:9}{text}" for name, text in lines.items())

    def checkpoint(self, name: str) -> Checkpoint | None:
        """Where `training.fit` keeps the run called `name`, for example "improved"; None in the quick profile."""
        if self.profile == "quick":
            return None
        return Checkpoint(checkpoint_folder(self.lecture), name, {"lecture": self.lecture, "profile": self.profile})


def start_run(lecture: str, find_data: Callable[[], Path], seed: int = 0, device: str | None = None) -> Run:
    """Settle profile, device and threads once, and seed the random numbers.

    From then on, a cell that is run too early names the section it needs.

    The profile is the environment variable LECTURE_PROFILE (default "auto"). `find_data` makes sure that the real
    dataset is on disk, and raises OSError with a one-line reason where it cannot; it is not called in the quick
    profile. `device` ("cpu", "cuda", "mps") overrides the choice.
    """
    name_missing_sections(lecture)
    threads = available_threads()
    torch.set_num_threads(threads)
    keep_freed_memory()
    chosen, device_name = choose_device(device)
    profile, reason = choose_profile(os.environ.get("LECTURE_PROFILE", "auto"), chosen.type == "cuda", find_data)
    seed_everything(seed)
    return Run(lecture, profile, reason, chosen, device_name, threads, seed)


def choose_profile(requested: str, cuda: bool, find_data: Callable[[], Path]) -> tuple[str, str]:
    """The profile to run and the reason for it. Raises ValueError for an unknown name, OSError without data."""
    if requested not in PROFILES:
        known = "; ".join(f"{name}: {text}" for name, text in PROFILES.items())
        raise ValueError(f"LECTURE_PROFILE={requested!r} is no profile. Set it to one of: {known}.")
    if requested == "quick":
        return "quick", "asked for: " + PROFILES["quick"]
    try:
        find_data()
    except OSError as error:
        if requested != "auto":
            raise
        return "quick", f"auto, on sample data because: {error}"
    if requested != "auto":
        return requested, "asked for: " + PROFILES[requested]
    return ("lecture", "auto, a CUDA device is at hand") if cuda else ("laptop", "auto, no CUDA device is at hand")


def choose_device(wanted: str | None = None) -> tuple[torch.device, str]:
    """The first of CUDA, MPS and CPU that does a small training step as it should, and its name.

    A driver that is too old, or a card that is too old for this torch, is "available" until the first kernel runs.
    """
    notes = []
    for kind in [wanted] if wanted else ["cuda", "mps", "cpu"]:
        if not wanted and kind != "cpu" and not getattr(torch, kind).is_available():
            continue
        try:
            loss = loss_after_a_step(kind)
        except (RuntimeError, AssertionError) as error:
            notes.append(f"{kind} not used: {(str(error) or type(error).__name__).splitlines()[0]}")
            continue
        if abs(loss - KNOWN_LOSS) < 0.01:  # room for TensorFloat-32
            name = torch.cuda.get_device_name() if kind == "cuda" else processor_name()
            return torch.device(kind), "; ".join([name, *notes])
        notes.append(f"{kind} not used: a training step gave a loss of {loss:.4f}, which should be {KNOWN_LOSS:.4f}")
    raise RuntimeError(f"{'; '.join(notes)}. Leave `device` out to let the lecture choose.")


def loss_after_a_step(kind: str) -> float:
    """The loss of two images with fixed numbers after one step of gradient descent; on a CPU it is KNOWN_LOSS."""
    images = torch.linspace(-1, 1, 128).reshape(2, 1, 8, 8).to(kind)
    kernels = torch.linspace(-1, 1, 27).reshape(3, 1, 3, 3).to(kind).requires_grad_()
    labels = torch.tensor([0, 1], device=kind)
    for _ in range(2):
        logits = F.max_pool2d(F.relu(F.conv2d(images, kernels)), 6).flatten(1)  # (2, 3)
        loss = F.cross_entropy(logits, labels)
        kernels = kernels - 0.1 * torch.autograd.grad(loss, kernels)[0]
    return loss.item()


def processor_name() -> str:
    """The CPU's model name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def available_threads(cgroup: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """Threads worth starting: torch's own default, but no more than processors this process may really use.

    A container often shows all processors of its host and grants a few. Threads beyond the grant wait for each
    other at every operation: with a busy neighbour, two threads can be several times slower than one.
    """
    limits = [torch.get_num_threads(), *map(math.floor, processor_quotas(cgroup, membership))]
    if hasattr(os, "sched_getaffinity"):  # Linux: processors this process is bound to
        limits.append(len(os.sched_getaffinity(0)))
    return max(1, min(limits))


def processor_quotas(cgroup: Path, membership: Path) -> list[float]:
    """The processors granted by each Linux control group around this process that has a limit, of version 2 and 1."""
    groups = {cgroup, cgroup / "cpu"}
    with suppress(OSError, ValueError):
        for line in membership.read_text().splitlines():  # number:controllers:path; version 2 names no controllers
            _, controllers, path = line.split(":", 2)
            if controllers == "" or "cpu" in controllers.split(","):
                group = (cgroup / "cpu" if controllers else cgroup) / path.lstrip("/")
                groups |= {group, *(parent for parent in group.parents if parent.is_relative_to(cgroup))}
    quotas = []
    for group in groups:  # microseconds of each period; "max" (ValueError) and -1 mean no limit
        with suppress(OSError, ValueError):
            quota, period = map(int, (group / "cpu.max").read_text().split())
            quotas.append(quota / period)
        with suppress(OSError, ValueError):
            quota, period = (int((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
            if quota > 0:
                quotas.append(quota / period)
    return quotas


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices). Same build, device and thread count then give the same bits."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def clock(seconds: float) -> str:
    """A time for people: 42 s, 3 min 05 s, 1 h 02 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02} min"
