"""Weights of trained networks: found, verified and read without running code; trained here where there are none.

A weights file is a pickle, and a pickle can run code. So the file's SHA-256 is checked on the very bytes that are
then read, and they are read with `weights_only=True`, which builds tensors and nothing else.
"""

import hashlib
import io
import json
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from helpers.downloads import DataError, download, verified, write_whole, writing
from helpers.progress import LiveText
from helpers.sources import data_folder

RESNET18_FILE = "resnet18-f37072fd.pth"  # torchvision's ResNet18_Weights.IMAGENET1K_V1
RESNET18_BYTES = 46_830_571
RESNET18_CHECKSUM = "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"
RESNET18_MIRRORS = ["https://download.pytorch.org/models/"]
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of red, green and blue in [0, 1]: what torchvision's weights were trained with
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Pretrained:
    """Weights of a trained network, and what must be said wherever a result that rests on them is shown."""

    name: str  # what they were trained on, for banner and titles
    state: dict[str, Tensor]  # the state dict, on the CPU
    mean: tuple[float, float, float]  # for v2.Normalize: how their images were normalised
    std: tuple[float, float, float]
    made: str  # one line: where they come from, or how they were made
    measured: dict = field(default_factory=dict)  # of weights made here: what `make` measured, and its seconds


def weights_folder() -> Path:
    """`weights/` in the folder of the datasets."""
    return data_folder() / "weights"


def find_imagenet_resnet18() -> Path:
    """The file of ResNet-18's ImageNet weights, verified; downloaded when it is missing or damaged.

    Raises DataError when it cannot be had. A good file is only read, so its folder may be read-only.
    """
    path = weights_folder() / RESNET18_FILE
    if verified(path, RESNET18_CHECKSUM):
        return path
    with writing("ImageNet weights", path.parent, f".{RESNET18_FILE}.lock"):
        if not verified(path, RESNET18_CHECKSUM):  # else another process was faster
            found = "its SHA-256 is not torchvision's; kept, not used" if path.is_file() else "missing"
            try:
                download(RESNET18_MIRRORS, path, RESNET18_CHECKSUM)
            except DataError as error:
                about = f"{RESNET18_BYTES:,} bytes, SHA-256 {RESNET18_CHECKSUM}"
                raise DataError(f"ImageNet weights: {path} ({found}; wanted: {about}): {error}") from None
    return path


def imagenet_resnet18() -> Pretrained:
    """ResNet-18 as torchvision trained it on ImageNet's 1,000 classes. Raises DataError when it cannot be had."""
    state = read_state(find_imagenet_resnet18(), RESNET18_CHECKSUM)
    made = f"torchvision's {RESNET18_FILE}, SHA-256 verified; 69.76% top-1 on ImageNet by torchvision's account"
    return Pretrained("ImageNet (IMAGENET1K_V1)", state, IMAGENET_MEAN, IMAGENET_STD, made)


def read_state(path: Path, checksum: str) -> dict[str, Tensor]:
    """The state dict in a weights file with this SHA-256, on the CPU.

    The file is read once, and those bytes are checked before they are unpickled. Raises DataError when they are
    altered, cut short, or hold anything but tensors; the file is left as it is.
    """
    advice = "The file was kept and nothing of it was used. Delete it and run again: it is then downloaded or made anew"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Run again: it is looked for anew.") from error
    found = hashlib.sha256(content).hexdigest()
    if found != checksum:
        sums = f"SHA-256 {found[:8]}… instead of {checksum[:8]}…"
        raise DataError(f"{path} is damaged or was altered ({len(content):,} bytes, {sums}). {advice}.")
    try:
        state = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception as error:  # the pickle may be refused or broken in many ways; each means: not a weights file
        raise DataError(f"{path} holds no plain weights ({type(error).__name__}). {advice}.") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"{path} holds something other than named tensors. {advice}.")
    return dict(state)


def keep_pretrained(
    name: str,
    settings: dict,
    make: Callable[[], tuple[dict[str, Tensor], dict]],
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Pretrained:
    """Weights that are trained here once, by `make`, and found in `weights/` by every later call.

    `make` returns the state dict and what was measured (for example {"source accuracy": 0.71}). `settings` are all
    that decides the weights: classes, images, image size, epochs, seed, …, as plain numbers, texts and lists. Other
    settings make other weights. Of several processes one trains and the rest wait. Seed the random numbers
    afterwards: training draws some, finding does not.

    A record lies beside the file and holds its SHA-256. That guards against damage only: who can alter the file can
    alter the record too. Against code in an altered file it is `weights_only=True` that guards.
    """
    settings = json.loads(json.dumps({**settings, "mean": list(mean), "std": list(std)}))  # as the record will hold it
    key = hashlib.sha256(json.dumps([name, settings], sort_keys=True).encode()).hexdigest()[:12]
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    path = weights_folder() / f"{slug}-{key}.pth"
    with ExitStack() as lock:
        kept, cannot = read_kept(path), ""
        if kept is None:
            try:
                lock.enter_context(writing("weights", path.parent, f".{path.stem}.lock"))
                kept = read_kept(path, say=True)  # another process may have been faster
            except DataError as error:
                cannot = str(error)
        if kept is None:
            start = time.perf_counter()
            try:
                state, measured = make()
            except OSError:
                lock.close()  # `writing` would take it for its own
                raise
            state = {key: value.detach().cpu().clone() for key, value in state.items()}
            measured = {"seconds": round(time.perf_counter() - start, 1)} | measured
            record = {"name": name, "settings": settings, "measured": measured, "torch": torch.__version__}
            if not cannot:
                cannot = keep(path, state, record)
            if cannot:
                LiveText().show(f"{name}: the weights are used, but not kept: {cannot}", final=True)
            kept = state, record
    state, record = kept
    return Pretrained(name, state, tuple(mean), tuple(std), describe(record), record["measured"])


def keep(path: Path, state: dict[str, Tensor], record: dict) -> str:
    """Write the weights and then their record, each whole or not at all. Returns why they could not be written."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    record = {**record, "sha256": hashlib.sha256(buffer.getvalue()).hexdigest()}
    try:
        write_whole(path, buffer.getvalue())
        write_whole(path.with_suffix(".json"), json.dumps(record, indent=1, ensure_ascii=False).encode())
    except OSError as error:
        return f"{path.parent} cannot be written ({error}). Free some space or set LECTURE_DATA to another folder."
    return ""


def read_kept(path: Path, say: bool = False) -> tuple[dict[str, Tensor], dict] | None:
    """State dict and record of weights that `keep` wrote, or None if they are missing or damaged."""
    beside = path.with_suffix(".json")
    if not path.is_file() or not beside.is_file():  # a kill between the two leaves one of them
        return None
    try:
        record = json.loads(beside.read_bytes())
        return read_state(path, record["sha256"]), record | {"measured": dict(record["measured"])}
    except (OSError, ValueError, KeyError, TypeError):  # DataError is an OSError
        if say:
            LiveText().show(f"{path.name} or its record is damaged; the weights are made again.", final=True)
        return None


def describe(record: dict) -> str:
    """One line on how weights were made: the settings, what was measured, and the version of torch."""

    def listed(values: dict) -> str:
        return ", ".join(
            f"{key} {value:.2%}" if key.endswith("accuracy") else f"{key} {value}" for key, value in values.items()
        )

    shown = {key: value for key, value in record["settings"].items() if key not in ("mean", "std")}
    return f"made here: {listed(shown)}; measured: {listed(record['measured'])}; torch {record['torch']}"
