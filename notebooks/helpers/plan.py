"""How a lecture computes on its device: number type, memory layout, optimizer kernels. One place, one minute to read.

What each choice gave where it was measured stands in README.md, section "How fast". To try another, say so in the
settings cell: `use_plan(run.device, replace(run.plan, precision=torch.float32))`.
"""

import ctypes
import sys
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Plan:
    """The choices for one device. They change speed, and results only by rounding."""

    precision: torch.dtype  # of the matrix products in training (autocast); weights and sums stay float32
    memory_format: torch.memory_format  # layout of images and convolution weights
    fused: bool  # the optimizer updates all weights in one pass over memory, not in a dozen

    def __str__(self) -> str:
        words = [str(self.precision), str(self.memory_format), "fused optimizer" if self.fused else "plain optimizer"]
        return " · ".join(word.removeprefix("torch.") for word in words)


_wished: dict[str, Plan] = {}  # by type of device: plans that somebody chose in place of ours


def use_plan(device: torch.device, plan: Plan) -> None:
    """From now on, `plan` is the one for devices of this type in this process."""
    _wished[device.type] = plan


def plan_for(device: torch.device) -> Plan:
    """The plan given to `use_plan`, else the fastest choices that give the same results up to rounding.

    bfloat16 has float32's range and 8 significant bits; it is used where the processor multiplies it faster: CUDA
    cards from Ampere on, CPUs with AVX512-BF16 (which all CPUs with AMX have, too). `channels_last` stores the
    channels of a pixel side by side, the layout that fast convolutions read.
    """
    if device.type in _wished:
        return _wished[device.type]
    if device.type == "cuda":
        fast_bfloat16 = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        fast_bfloat16 = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    channels_last = fast_bfloat16 or device.type == "cpu"
    return Plan(
        precision=torch.bfloat16 if fast_bfloat16 else torch.float32,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
        fused=device.type in ("cuda", "cpu"),
    )


def keep_freed_memory() -> None:
    """Let the process keep memory that tensors give back, up to 1 GB, for the tensors of the next step.

    The C library of Linux hands it to the system instead, and asks for it again at every step, page by page, each
    filled with zeros. Elsewhere this does nothing.
    """
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "gnu_get_libc_version"):
            trim_threshold, mmap_threshold = -1, -3  # the names' numbers in malloc.h
            library.mallopt(trim_threshold, 2**30)
            library.mallopt(mmap_threshold, 2**30)
