"""The device of a run and how a lecture computes on it: number type, memory layout, optimizer kernels, CPU threads.

What each choice gave where it was measured stands in docs/speed.md. `start_run(…, precision=…)` takes another.
"""

import ctypes
import platform
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import joblib
import torch
import torch.nn.functional as F

KNOWN_LOSS = 2.4708  # of `loss_after_steps`, on a CPU


@dataclass(frozen=True)
class Plan:
    """The choices for one device. They change speed, and results only by rounding. The default is plain PyTorch."""

    precision: torch.dtype = torch.float32  # of the matrix products in training (autocast); weights stay float32
    memory_format: torch.memory_format = torch.contiguous_format  # layout of images and convolution weights
    fused: bool = False  # the optimizer updates all weights in one pass over memory, not in a dozen

    def __str__(self) -> str:
        words = [str(self.precision), str(self.memory_format), "fused optimizer" if self.fused else "plain optimizer"]
        return " · ".join(word.removeprefix("torch.") for word in words)


def plan_for(device: torch.device, wanted: torch.dtype | None = None) -> Plan:
    """The fastest choices for this device that give the same results up to rounding.

    float16 has a small range, so that gradients need a scaler. `channels_last` stores the channels of a pixel side by
    side, as tensor cores and the CPU's convolutions read them. A `wanted` number type replaces the chosen one.
    """
    generation = torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 0
    precision = torch.float16 if generation == 7 else torch.float32  # V100, T4: tensor cores that know float16 only
    if generation >= 8 or (device.type == "cpu" and bfloat16_is_faster()):  # Ampere: A100, RTX 30
        precision = torch.bfloat16
    channels_last = device.type == "cpu" or precision != torch.float32
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return Plan(wanted or precision, layout, fused=device.type in ("cuda", "cpu"))


def bfloat16_is_faster() -> bool:
    """Whether this CPU gains by bfloat16: with AMX, and AMD's (1.8 times). Intel's without AMX lose, 0.5 to 0.9."""
    on_amd = torch.cpu._is_avx512_bf16_supported() and "AMD" in processor_name()
    return on_amd or torch.cpu._is_amx_tile_supported()


def choose_device(wanted: str | None = None) -> tuple[torch.device, str]:
    """The first of CUDA, MPS and CPU that really does a small training step (a driver may be too old), and its name."""
    notes = []
    for kind in [wanted] if wanted else ["cuda", "mps", "cpu"]:
        if not wanted and kind != "cpu" and not getattr(torch, kind).is_available():
            continue
        try:
            loss = loss_after_steps(kind)
        except (RuntimeError, AssertionError) as error:
            notes.append(f"{kind} not used: {(str(error) or type(error).__name__).splitlines()[0]}")
            continue
        if abs(loss - KNOWN_LOSS) < 0.01:  # room for TensorFloat-32
            name = torch.cuda.get_device_name() if kind == "cuda" else processor_name()
            return torch.device(kind), "; ".join([name, *notes])
        notes.append(f"{kind} not used: a training step gave a loss of {loss:.4f}, which should be {KNOWN_LOSS:.4f}")
    raise RuntimeError(f"{'; '.join(notes)}. Leave `device` out to let the lecture choose.")


def loss_after_steps(kind: str, steps: int = 1, size: int = 8, batch: int = 2) -> float:
    """The loss of `batch` images of `size` pixels with fixed numbers after some steps of gradient descent."""
    images = torch.linspace(-1, 1, batch * size * size).reshape(batch, 1, size, size).to(kind)
    kernels = torch.linspace(-1, 1, 27).reshape(3, 1, 3, 3).to(kind).requires_grad_()
    labels = torch.arange(batch, device=kind) % 3
    for _ in range(steps + 1):
        maps = F.max_pool2d(F.relu(F.conv2d(images, kernels)), size - 2)
        loss = F.cross_entropy(maps.flatten(1), labels)  # logits (batch, 3)
        kernels = kernels - 0.1 * torch.autograd.grad(loss, kernels)[0]
    return loss.item()


def processor_name() -> str:
    """The CPU's model name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it: before a clock is read."""
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()


def macs_per_second(device: torch.device, precision: torch.dtype) -> float:
    """Multiply-accumulates a second that training may reach, from a tenth of a second of one convolution."""
    images = torch.ones(16, 128, 28, 28, device=device).to(memory_format=torch.channels_last)
    kernels = torch.ones(128, 128, 3, 3, device=device).requires_grad_()
    macs = 3 * images.numel() * 128 * 9  # forward, and twice as many backward
    done, start = -2, time.perf_counter()  # the first two set up
    while done < 1 or time.perf_counter() - start < 0.1:
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            F.conv2d(images, kernels, padding=1).sum().backward()
        synchronize(device)
        done += 1
        start = time.perf_counter() if done == 0 else start
    return done * macs / (time.perf_counter() - start) / 4  # a whole network is about four times slower


def granted_threads() -> int:
    """CPU threads that this process may use: torch's own default (OMP_NUM_THREADS), affinity, a container's quota."""
    return max(1, min(torch.get_num_threads(), joblib.cpu_count()))


def choose_threads(trials: int = 3) -> tuple[int, str]:
    """How many CPU threads to use, by a short trial, and why: on a busy machine fewer can be several times faster."""
    granted = granted_threads()
    candidates = sorted({1, max(1, granted // 2), granted}, reverse=True)
    if len(candidates) == 1:
        return granted, "all that this process may use"
    seconds = {threads: [] for threads in candidates}
    for threads in candidates * trials:
        torch.set_num_threads(threads)
        seconds[threads].append(trial_seconds())
    typical = {threads: statistics.median(times) for threads, times in seconds.items()}
    best = next(n for n in candidates if typical[n] < 1.15 * min(typical.values()))  # 15 %: the noise of a trial
    if best == granted:
        return best, "all that this process may use; the fastest in a short trial"
    slower = typical[granted] / typical[best]
    return best, f"of {granted}; {granted} were {slower:.1f} times slower in a short trial: this machine is busy"


def trial_seconds() -> float:
    """Seconds of a few steps about as large as LeNet's, after one that sets up."""
    loss_after_steps("cpu", 0, size=28, batch=100)
    start = time.perf_counter()
    loss_after_steps("cpu", 8, size=28, batch=100)
    return time.perf_counter() - start


def keep_freed_memory() -> None:
    """Keep memory that tensors give back, up to 1 GB, for the next step: Linux's C library would hand it back."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(library, "gnu_get_libc_version"):
        for threshold in (-1, -3):  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
            library.mallopt(threshold, 2**30)
