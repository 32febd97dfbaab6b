"""Settings of one run: the profile, the device, the threads and the seed, and the banner that names them."""

import platform
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torchvision

from helpers.device import Plan, choose_device, choose_threads, keep_freed_memory, macs_per_second, plan_for
from helpers.keeping import environ
from helpers.keeping.checkpoint import Checkpoint
from helpers.keeping.messages import clock
from helpers.keeping.outoforder import name_missing_sections
from helpers.keeping.states import seed_everything

PROFILES = {
    "quick": "embedded sample data, tiny budget, no network",
    "laptop": "real data, a budget for a CPU within about 15 minutes",
    "evening": "all images and epochs: hours on two CPU cores, minutes on a GPU",
    "lecture": "the lecture's own settings: all images, its image size, batch and epochs",
    "auto": "on CUDA lecture, or evening where that takes over an hour; else laptop; quick without the real data",
}
LONG = 3600  # seconds: work that nobody asked for must not take longer


@dataclass(frozen=True)
class Run:
    """What one execution of a lecture runs on. Made by `start_run`."""

    lecture: str  # the notebook's file name without .ipynb
    profile: str  # "quick", "laptop", "evening" or "lecture"
    reason: str  # why this profile
    device: torch.device
    device_name: str  # for people: the processor's or the card's name, or why CUDA is not used
    plan: Plan  # number type, memory layout and optimizer kernels
    threads: int  # CPU threads torch may use
    threads_reason: str
    seed: int

    def banner(self, data: str) -> str:
        """The lines that say what the numbers below them were measured on. `data` describes the images."""
        versions = platform.python_version(), torch.__version__, torchvision.__version__
        lines = {
            "lecture": self.lecture,
            "profile": f"{self.profile} ({self.reason})",
            "device": f"{self.device.type} · {self.device_name}",
            "plan": str(self.plan),
            "threads": f"{self.threads} ({self.threads_reason})",
            "data": data,
            "seed": str(self.seed),
            "versions": "Python {} · torch {} · torchvision {}".format(*versions),
        }
        return "\n".join(f"{name:9}{text}" for name, text in lines.items())

    def checkpoint(self, name: str) -> Checkpoint | None:
        """Where `training.fit` keeps the run called `name`, for example "improved"; None in the quick profile."""
        if self.profile == "quick":
            return None
        folder = environ.folder("LECTURE_CHECKPOINTS", "build/checkpoints") / self.lecture
        return Checkpoint(folder, name, {"lecture": self.lecture, "profile": self.profile})

    def start_afresh(self) -> None:
        """Delete the checkpoints of this lecture, so that the next run trains anew; the quick profile has none."""
        if (any_run := self.checkpoint("")) and any_run.folder.is_dir():
            for name in {path.name.split(".")[0] for path in any_run.folder.iterdir()}:
                self.checkpoint(name).remove()
            if not any(any_run.folder.iterdir()):  # else another kernel is training
                any_run.folder.rmdir()


def start_run(lecture: str, find_data: Callable, seed=0, device=None, precision=None, lecture_macs=0.0) -> Run:
    """Settle profile, device and threads once, seed the random numbers, and let cells run too early name their section.

    LECTURE_PROFILE names the profile (default "auto"). `find_data()` makes sure that the real dataset is on disk, or
    raises OSError with a one-line reason; the quick profile does without. `device` ("cpu", "cuda", "mps") and
    `precision` override the choice. `lecture_macs`: of all forward passes in training of `lecture`, for its estimate.
    """
    name_missing_sections(lecture)
    requested = environ.choice("LECTURE_PROFILE", PROFILES, "auto")
    keep_freed_memory()
    threads, threads_reason = choose_threads()
    torch.set_num_threads(threads)
    chosen, device_name = choose_device(device)
    plan = plan_for(chosen, precision)
    cuda = chosen.type == "cuda"
    seconds = 3 * lecture_macs / macs_per_second(chosen, plan.precision) if cuda and requested == "auto" else 0.0
    profile, reason = choose_profile(requested, cuda, find_data, seconds)
    seed_everything(seed)
    return Run(lecture, profile, reason, chosen, device_name, plan, threads, threads_reason, seed)


def choose_profile(requested: str, cuda: bool, find_data: Callable, seconds: float = 0) -> tuple[str, str]:
    """The profile to run and the reason for it. `seconds` is the estimate for `lecture`. OSError without data."""
    try:
        if requested != "quick":
            find_data()
    except OSError as error:
        if requested != "auto":
            raise
        return "quick", f"auto, on sample data because: {error}"
    if requested != "auto":
        return requested, f"asked for: {PROFILES[requested]}"
    if not cuda:
        return "laptop", "auto, no CUDA device is at hand"
    if seconds > LONG:
        return "evening", f"auto; lecture would take about {clock(seconds)} here: set LECTURE_PROFILE=lecture for it"
    return "lecture", "auto, a CUDA device is at hand"
