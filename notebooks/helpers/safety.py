"""What keeps a training run whole: states to go back to, interrupts that wait, and errors in plain words."""

import copy
import gc
import random
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def snapshot(parts: list) -> dict:
    """Copies of the states of model, optimizer and scheduler, and of all random numbers."""
    return {"states": states_of(parts), **random_numbers()}


def states_of(parts: list) -> list[dict]:
    """Copies that later training leaves alone."""
    return [copy.deepcopy(part.state_dict()) for part in parts]


def random_numbers() -> dict:
    """The states of all random number generators."""
    name, keys, *rest = np.random.get_state()
    return {
        "random": torch.get_rng_state(),
        "cuda_random": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None,
        "mps_random": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
        "numpy_random": [name, keys.tolist(), *rest],
        "python_random": random.getstate(),
    }


def restore(parts: list, saved: dict) -> None:
    """Bring the same parts back to a `snapshot`."""
    for part, state in zip(parts, saved["states"], strict=True):
        part.load_state_dict(copy.deepcopy(state))
    torch.set_rng_state(saved["random"])
    if saved["cuda_random"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(saved["cuda_random"])
    if saved["mps_random"] is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(saved["mps_random"])
    name, keys, *rest = saved["numpy_random"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    version, numbers, gauss = saved["python_random"]
    random.setstate((version, tuple(numbers), gauss))


class Interrupts:
    """While entered, SIGTERM is treated like Stop and Ctrl-C. The first of them raises KeyboardInterrupt.

    Those within `held` wait for its end, and so do any after the first: going back to a saved state, or writing one,
    is never cut in half. Only the main thread receives signals; elsewhere this does nothing.
    """

    def __enter__(self):
        self.holding = self.waiting = False
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self.before[number] = signal.signal(number, self.receive)
        return self

    def __exit__(self, *error):
        for number, handler in self.before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def receive(self, number, frame):
        """Called by Python between two steps of the main thread."""
        if self.holding:
            self.waiting = True
        else:
            self.holding = True
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Finish what is inside before an interrupt is raised."""
        self.holding = True
        yield
        self.holding = self.waiting
        if self.waiting:
            raise KeyboardInterrupt


def out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the computer, had no memory left."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def device_lost(error: BaseException) -> bool:
    """Whether CUDA reported an error after which nothing on the GPU works in this process."""
    return isinstance(error, RuntimeError) and "CUDA error" in str(error) and not out_of_memory(error)


def lost_text(error: BaseException, epoch: int, saved: bool) -> str:
    """What to do after `device_lost`, where `epoch` epochs were finished."""
    reason = str(error).splitlines()[0]
    goes_on = f"it goes on after epoch {epoch}, which is on disk" if saved and epoch else "the run begins anew"
    return (
        f"Epoch {epoch + 1}: the GPU reported {reason!r}, and this process cannot use it any more. Restart the kernel"
        f" and run all cells: {goes_on}. The usual cause is a label that the network has no output for."
    )


def explain(error: BaseException, epoch: int, advice: str) -> None:
    """Raise in plain words what ended the epoch after `epoch`, if it is a loss that is no number or a lack of memory.

    `advice` is on memory, and empty for other errors. All was taken back to the end of `epoch` before.
    """
    back = f"all is back at the end of epoch {epoch}."
    if advice:
        text = f"Epoch {epoch + 1}: out of memory; it is free again, and {back} {advice}"
        raise torch.OutOfMemoryError(text) from None
    if isinstance(error, FloatingPointError):
        text = f"Epoch {epoch + 1}, {error}; {back} Lower the step size, or look for broken images."
        raise FloatingPointError(text) from None


def free_memory(error: BaseException, parts: list) -> None:
    """Let go of what a failed step still holds: its variables, gradients, and memory that torch keeps for later."""
    traceback.clear_frames(error.__traceback__)
    for part in parts:
        if hasattr(part, "zero_grad"):
            part.zero_grad()
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
