"""Settings of one run: the profile, the device, the threads and the seed, and the banner that names them."""

import math
import os
import platform
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision

from helpers.checkpoint import Checkpoint, checkpoint_folder

PROFILES = {
    "quick": "embedded sample data, tiny budget, no network",
    "laptop": "real data, a budget for a CPU within about 15 minutes",
    "lecture": "the lecture's own settings: all images, its image size, batch and epochs",
    "auto": "lecture on CUDA, else laptop; quick when the real data cannot be had",
}


@dataclass(frozen=True)
class Run:
    """What one execution of a lecture runs on. Made by `start_run`."""

    lecture: str  # the notebook's file name without .ipynb
    profile: str  # "quick", "laptop" or "lecture"
    reason: str  # why this profile
    device: torch.device
    device_name: str  # for people: the processor's or the card's name, or why CUDA is not used
    precision: torch.dtype  # type of the matrix products in training: torch.float32 or torch.bfloat16
    threads: int  # CPU threads torch may use
    seed: int

    def banner(self, data: str) -> str:
        """The lines that say what the numbers below them were measured on. `data` describes the images."""
        lines = {
            "lecture": self.lecture,
            "profile": f"{self.profile} ({self.reason})",
            "device": f"{self.device.type} · {self.device_name} · {str(self.precision).removeprefix('torch.')}",
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
    """Settle profile, device, precision and threads once, and seed the random numbers.

    The profile is the environment variable LECTURE_PROFILE (default "auto"). `find_data` makes sure that the real
    dataset is on disk, and raises OSError with a one-line reason where it cannot; it is not called in the quick
    profile. `device` ("cpu", "cuda", "mps") overrides the choice.
    """
    threads = available_threads()
    torch.set_num_threads(threads)
    chosen, device_name = choose_device(device)
    profile, reason = choose_profile(os.environ.get("LECTURE_PROFILE", "auto"), chosen.type == "cuda", find_data)
    seed_everything(seed)
    return Run(lecture, profile, reason, chosen, device_name, choose_precision(chosen), threads, seed)


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
    """The first of CUDA, MPS and CPU that really computes a small convolution, and its name.

    A driver that is too old, or a card that is too old for this torch, is "available" until the first kernel runs.
    """
    notes = []
    for kind in [wanted] if wanted else ["cuda", "mps", "cpu"]:
        if not wanted and kind != "cpu" and not getattr(torch, kind).is_available():
            continue
        try:
            ones = torch.ones(1, 1, 3, 3, device=kind)
            nine = torch.nn.functional.conv2d(ones, ones).item()
        except (RuntimeError, AssertionError) as error:
            notes.append(f"{kind} not used: {str(error).splitlines()[0]}")
            continue
        if nine == 9:
            name = torch.cuda.get_device_name() if kind == "cuda" else processor_name()
            return torch.device(kind), "; ".join([name, *notes])
        notes.append(f"{kind} not used: a 3×3 convolution of ones gave {nine} instead of 9")
    raise RuntimeError(f"{'; '.join(notes)}. Leave `device` out to let the lecture choose.")


def choose_precision(device: torch.device) -> torch.dtype:
    """The type for matrix products in training: bfloat16 on CUDA cards with units for it (Ampere on), else float32."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return torch.bfloat16
    return torch.float32


def processor_name() -> str:
    """The CPU's model name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def available_threads(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Threads worth starting: torch's own default, but no more than processors this process may really use.

    A container often shows all processors of its host and grants a few. Threads beyond the grant wait for each
    other at every operation: with a busy neighbour, two threads can be several times slower than one.
    """
    limits = [torch.get_num_threads()]
    if hasattr(os, "sched_getaffinity"):  # Linux: processors this process is bound to
        limits.append(len(os.sched_getaffinity(0)))
    try:  # cgroup v2: "quota period" in microseconds, or "max period"
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:  # cgroup v1: -1 means no limit
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip().replace("-1", "max")
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text()
        except OSError:
            quota, period = "max", "1"
    if quota != "max":
        limits.append(math.floor(int(quota) / int(period)))
    return max(1, min(limits))


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
