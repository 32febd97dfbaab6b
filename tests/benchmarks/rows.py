"""The rows of the benchmark. `ROWS` says what each compares; `build(job)` makes the round of one side.

The sides: "2018" is a faithful loop of 2018 (PIL `Resize` and `ToTensor` image by image, a `DataLoader` with four
workers, float32 in NCHW order, default Adam, `.item()` at every step). "today" is the same program as one would write
it now without further thought (transforms v2, persistent workers, cross-entropy, no `.item()` in the loop).
"ours" is what the lectures run. "lightning" and "fastai" (peers.py) are those libraries' stock loops.

In the steps at 224 pixels only "ours" pays for its input: the others get finished float batches. The input pipelines
have rows of their own.
"""

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from benchmarks import peers, work
from benchmarks.work import LEARNING_RATE, TO_FLOATS, Job, Measured, PictureSet, Round
from helpers import complexity, training
from helpers.data import Batches
from helpers.device import granted_threads, keep_freed_memory, plan_for
from helpers.keeping.checkpoint import Checkpoint


@dataclass(frozen=True)
class Row:
    """What one row compares, and what it is expected to show."""

    about: str
    sides: tuple[str, ...]  # "ours" is the last
    targets: dict[str, tuple[float, float]]  # side: (floor, aim) of the ratio side / ours
    tolerance: float = 0.0  # of the losses, relative


STEP_SIDES = ("2018", "today", "ours, float32", "ours")
PEERS = ("lightning", "fastai")
BATCH = {"cpu": {"alexnet": 16, "resnet18": 16, "densenet121": 16}}
BATCH["cuda"] = {"alexnet": 512, "resnet18": 128, "densenet121": 32}  # as in the lectures
STEPS = {"cpu": 3, "cuda": 20}
ROWS = {
    "lenet": Row(
        "LeNet, one epoch of training and test, MNIST at 32 px, batch 100",
        ("2018", "today", "ours"),
        {"2018": (3, 4.5), "lightning": (3, 4.5), "fastai": (3, 4.5)},
        0.01,
    ),
    "input_mnist": Row("input alone, MNIST to 32 px", ("2018", "today", "ours"), {"2018": (20, 50)}, 0.001),
    "input_cifar": Row("input alone, CIFAR-10 to 224 px", ("2018", "today", "ours"), {"2018": (2, 4)}, 0.001),
    "alexnet": Row("AlexNet, training step at 224 px", STEP_SIDES, {"2018": (1.0, 1.15)}, 0.03),
    "resnet18": Row("ResNet-18, training step at 224 px", STEP_SIDES, {"2018": (1.1, 1.3)}, 0.03),
    "densenet121": Row("DenseNet-121, training step at 224 px", STEP_SIDES, {"2018": (1.5, 1.8)}, 0.03),
    "evaluate": Row("evaluation of LeNet, 10,000 images", ("2018", "ours"), {}, 0.001),
    "cached": Row(
        "10 epochs of a new head on a frozen ResNet-18 at 224 px", ("uncached", "ours"), {"uncached": (6, 9)}, 0.001
    ),
    "saving": Row("4 epochs of ResNet-18 at 64 px, 2,000 images, saved after each", ("unsaved", "ours"), {}),
    "first_result": Row("lecture 29, cold, quick profile", ("ours",), {}),
    "estimate": Row("time estimate of a run against the run", ("lenet", "alexnet", "resnet18", "densenet121"), {}),
}
for name in ("alexnet", "resnet18", "densenet121"):
    ROWS[name].targets.update({peer: (1.0, 1.3) for peer in PEERS})


def build(job: Job) -> Round:
    """The round of one side of one row, set up and ready to be timed."""
    torch.set_num_threads(granted_threads())
    if job.side not in ("2018", "today", "peak", *PEERS):
        keep_freed_memory()  # as `start_run` does
    if job.side == "peak":
        return peak_round(job)
    if job.row in BATCH["cpu"]:
        return step_round(job)
    return {
        "lenet": lenet_round,
        "input_mnist": input_round,
        "input_cifar": input_round,
        "evaluate": evaluate_round,
        "cached": cached_round,
        "saving": saving_round,
        "first_result": first_result_round,
        "estimate": estimate_round,
    }[job.row](job)


def peak_round(job: Job) -> Round:
    """The processor at its best, measured between the sides: products of square matrices."""
    size = 256 if job.toy else 2048 if job.device == "cpu" else 8192

    def one_round() -> Measured:
        peaks = {str(t): work.matrix_peak(job.device, t, size) for t in (torch.float32, torch.bfloat16)}
        return Measured(0.0, more=peaks)

    return one_round


def loader(job: Job, picture_set: PictureSet, batch_size: int, order: torch.Tensor | None) -> DataLoader:
    """Four workers, as the lectures of 2018 had it; today's keep living from epoch to epoch."""
    warnings.filterwarnings("ignore", "This DataLoader will create")
    return DataLoader(
        picture_set,
        batch_size,
        sampler=None if order is None else order.tolist(),
        num_workers=1 if job.toy else 4,
        persistent_workers=job.side != "2018",
        multiprocessing_context="fork" if sys.platform == "linux" else None,  # Linux's way in 2018, and the quickest
    )


def train_2018(model: nn.Module, batches: Iterable, optimizer: torch.optim.Optimizer, device: str) -> float:
    """Mean training loss of a pass, as one wrote it in 2018."""
    criterion = nn.NLLLoss() if isinstance(model, work.LeNet2018) else nn.CrossEntropyLoss()
    running_loss = 0.0
    model.train()
    for inputs, labels in batches:
        inputs, labels = inputs.to(device), labels.to(device)
        optimizer.zero_grad()
        loss = criterion(model(inputs), labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
    return running_loss / len(batches)


def train_today(model: nn.Module, batches: Iterable, optimizer: torch.optim.Optimizer, device: str) -> float:
    model.train()
    total = torch.zeros((), device=device)
    for images, labels in batches:
        images, labels = images.to(device), labels.to(device)
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach()
    return total.item() / len(batches)


@torch.no_grad()
def test_2018(model: nn.Module, batches: Iterable, device: str) -> tuple[float, float]:
    """Mean loss and accuracy."""
    model.eval()
    loss, correct, count = 0.0, 0, 0
    for images, labels in batches:
        images, labels = images.to(device), labels.to(device)
        outputs = model(images)
        loss += F.cross_entropy(outputs, labels, reduction="sum").item()  # log-softmax twice changes nothing
        correct += (outputs.argmax(dim=1) == labels).sum().item()
        count += len(labels)
    return loss / count, correct / count


def lenet_round(job: Job) -> Round:
    train, test = work.images_of("MNIST", job, *((300, 100) if job.toy else (60_000, 10_000)))
    work.network("lenet")
    order = torch.randperm(len(train))  # what `shuffle=True` draws on our side after making the network
    if job.side == "ours":
        plan = plan_for(torch.device(job.device))
        start = time.perf_counter()
        train_32, test_32 = (part.resized(32).to(job.device, plan.memory_format) for part in (train, test))
        resize = (time.perf_counter() - start) / 10  # done once a run, of ten epochs
        train_batches = Batches(train_32, 100, TO_FLOATS, shuffle=True)
        test_batches = Batches(test_32, 500, TO_FLOATS)

        def ours() -> tuple[int, float]:
            model = work.network("lenet").to(job.device, memory_format=plan.memory_format)
            optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=plan.fused)
            score = training.train_one_epoch(model, train_batches, F.cross_entropy, optimizer)
            training.evaluate(model, test_batches, F.cross_entropy)
            return len(train), score.loss

        def one_round() -> Measured:
            measured = work.timed(ours)
            measured.seconds += resize
            measured.more = {"source": train.name}
            return measured

        return one_round
    transform = work.transform_2018(32) if job.side == "2018" else work.transform_today(32)
    train_loader = loader(job, PictureSet(train, transform), 100, order)
    test_loader = loader(job, PictureSet(test, transform), 100, None)
    if job.side in PEERS:
        return peers.epoch_round(job, "lenet", train_loader, test_loader, again=True)
    train_pass = train_2018 if job.side == "2018" else train_today

    def theirs() -> tuple[int, float]:
        model = work.network("lenet2018" if job.side == "2018" else "lenet").to(job.device)
        optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
        loss = train_pass(model, train_loader, optimizer, job.device)
        test_2018(model, test_loader, job.device)
        return len(train), loss

    return lambda: work.timed(theirs)


def input_round(job: Job) -> Round:
    """One pass over images as they are read in training. The "loss" is the mean of all pixels."""
    data, size, count = ("MNIST", 32, 20_000) if job.row == "input_mnist" else ("CIFAR-10", 224, 2000)
    train, _ = work.images_of(data, job, 200 if job.toy else count, 10)
    torch.manual_seed(0)
    order = torch.randperm(len(train))
    resize = 0.0
    if job.side != "ours":
        transform = work.transform_2018(size) if job.side == "2018" else work.transform_today(size)
        batches = loader(job, PictureSet(train, transform), 100, order)
    elif size == 32:
        start = time.perf_counter()
        train = train.resized(size).to(job.device)
        resize = (time.perf_counter() - start) / 10  # once a run, of ten epochs
        batches = Batches(train, 100, TO_FLOATS, shuffle=True)
    else:
        batches = Batches(train.to(job.device), 100, v2.Compose([v2.Resize(size), TO_FLOATS]), shuffle=True)

    def one_pass() -> tuple[int, float]:
        for images, _ in batches:
            images.to(job.device)  # where training wants them
        return len(train), mean

    def one_round() -> Measured:
        measured = work.timed(one_pass)
        measured.seconds += resize
        measured.more = {"source": train.name}
        return measured

    sums = [images.double().mean().item() * len(images) for images, _ in batches]  # outside the clock
    mean = sum(sums) / len(train)
    return one_round


def step_round(job: Job) -> Round:
    """A few training steps on batches that differ, at 224 pixels."""
    kind = torch.device(job.device).type
    size, batch, steps = (64, 2, 1) if job.toy else (224, BATCH[kind][job.row], STEPS[kind])
    train, _ = work.images_of("CIFAR-10", job, batch * steps, 10)
    resize = v2.Compose([v2.Resize(size), TO_FLOATS])
    if job.side.startswith("ours"):
        plan = plan_for(torch.device(job.device))
        precision = torch.float32 if job.side == "ours, float32" else plan.precision
        model = work.network(job.row).to(job.device, memory_format=plan.memory_format)
        optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=plan.fused)
        batches = Batches(train.to(job.device, plan.memory_format), batch, resize)
        step = training.Step(torch.device(job.device), precision)

        def several() -> tuple[int, float]:
            score = training.train_one_epoch(model, batches, F.cross_entropy, optimizer, step=step)
            return len(train), score.loss

        macs = sum(layer.macs for layer in complexity.layer_table(model, (3, size, size)))
        more = {"macs": macs, "precision": str(precision), "batch": batch, "size": size, "source": train.name}
    else:
        images = resize(train.images).contiguous()  # (N, 3, size, size), NCHW
        if job.side in PEERS:
            stock = DataLoader(TensorDataset(images, train.labels), batch)
            return peers.epoch_round(job, job.row, stock, None, again=False)
        finished = list(zip(images.split(batch), train.labels.split(batch), strict=True))
        model = work.network(job.row).to(job.device)
        optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
        train_pass = train_2018 if job.side == "2018" else train_today
        more = {}

        def several() -> tuple[int, float]:
            return len(train), train_pass(model, finished, optimizer, job.device)

    def one_round() -> Measured:
        torch.manual_seed(1)  # the same dropout on both sides
        measured = work.timed(several)
        measured.more = more
        return measured

    return one_round


def evaluate_round(job: Job) -> Round:
    _, test = work.images_of("MNIST", job, 10, 200 if job.toy else 10_000)
    if job.side == "ours":
        plan = plan_for(torch.device(job.device))
        start = time.perf_counter()
        test = test.resized(32).to(job.device, plan.memory_format)
        resize = (time.perf_counter() - start) / 10
        model = work.network("lenet").to(job.device, memory_format=plan.memory_format)
        batches = Batches(test, 500, TO_FLOATS)

        def one_round() -> Measured:
            measured = work.timed(lambda: (len(test), training.evaluate(model, batches, F.cross_entropy).loss))
            measured.seconds += resize
            return measured

        return one_round
    model = work.network("lenet2018").to(job.device)
    batches = loader(job, PictureSet(test, work.transform_2018(32)), 100, None)
    return lambda: work.timed(lambda: (len(test), test_2018(model, batches, job.device)[0]))


def cached_round(job: Job) -> Round:
    """Ten epochs of a head: on features computed once, or with the frozen network run in every epoch."""
    count, size = (4, 64) if job.toy else (32 if job.device == "cpu" else 1024, 224)
    train, _ = work.images_of("CIFAR-10", job, count, 10)
    plan = plan_for(torch.device(job.device))
    batches = Batches(train.to(job.device, plan.memory_format), 16, v2.Compose([v2.Resize(size), TO_FLOATS]))
    backbone = work.network("resnet18").to(job.device, memory_format=plan.memory_format).eval().requires_grad_(False)
    backbone.fc = nn.Identity()  # features (B, 512)

    def several() -> tuple[int, float]:
        torch.manual_seed(0)
        head = nn.Linear(512, 10).to(job.device)
        optimizer = torch.optim.Adam(head.parameters(), lr=1e-3, fused=plan.fused)
        if job.side == "ours":
            features, labels = (known.clone().to(job.device) for known in training.predict(backbone, batches))
            kept = list(zip(features.split(16), labels.split(16), strict=True))  # the clones may be trained on
        for _ in range(10):
            total = 0.0
            if job.side == "uncached":
                kept = ((backbone(images), labels) for images, labels in batches)
            for features, labels in kept:
                loss = F.cross_entropy(head(features), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.detach() * len(labels)
        return 10 * len(train), total.item() / len(train)

    return lambda: work.timed(several)


def saving_round(job: Job) -> Round:
    """The `laptop` profile of lecture 39, with and without its checkpoints. Saving must not change the loss at all."""
    count, size = (20, 64) if job.toy else (2000, 64)
    plan, images = plan_for(torch.device(job.device)), work.images_of("CIFAR-10", job, count, count // 2)
    train, test = (part.to(job.device, plan.memory_format) for part in images)
    transform = v2.Compose([v2.Resize(size), TO_FLOATS])
    batches = Batches(train, 128, transform, shuffle=True), Batches(test, 250, transform)
    build = Path(__file__).parents[2] / "build"  # beside the project's own files: a folder in memory costs nothing
    build.mkdir(exist_ok=True)

    def several() -> tuple[int, float]:
        model = work.network("resnet18").to(job.device, memory_format=plan.memory_format)
        optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=plan.fused)
        history = training.History()
        with tempfile.TemporaryDirectory(dir=build) as folder:
            kept = Checkpoint(Path(folder), "run", {}) if job.side == "ours" else None
            more = {"precision": plan.precision, "verbose": False, "checkpoint": kept}
            training.fit(model, *batches, F.cross_entropy, optimizer, 4, history, **more)
        return 4 * count, history.train_loss[-1]

    return lambda: work.timed(several)


def first_result_round(job: Job) -> Round:
    """A new kernel runs lecture 29 from its first cell to the end of its first training run."""
    import nbformat
    from nbclient import NotebookClient

    folder = Path(__file__).parents[2] / "notebooks"
    os.environ.update({"LECTURE_PROFILE": "quick", "LECTURE_OFFLINE": "1"})  # of this process and its kernels

    def one_round() -> Measured:
        notebook = nbformat.read(folder / "29_lenet_mnist.ipynb", as_version=4)
        words = "run.banner(" if job.toy else "training.fit("
        last = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code" and words in cell.source)
        notebook.cells = notebook.cells[: last + 1]
        client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
        start = time.perf_counter()
        first = []
        client.on_cell_executed = lambda cell, cell_index, execute_reply: (
            first.append(time.perf_counter() - start) if cell.outputs and not first else None
        )
        client.execute()
        return Measured(time.perf_counter() - start, more={"first_output": first[0]})

    return one_round


def estimate_round(job: Job) -> Round:
    """Two epochs at laptop-like settings, estimated and then run."""
    size, batch, count = {
        "lenet": (32, 100, 12_000),
        "alexnet": (64, 64, 1280),
        "resnet18": (64, 128, 768),
        "densenet121": (48, 32, 512),
    }[job.side]
    if job.toy:
        size, batch, count = (32 if job.side == "lenet" else 64), 20, 40
    train, test = work.images_of("MNIST" if job.side == "lenet" else "CIFAR-10", job, count, count // 4)
    transform = v2.Compose([v2.Resize(size), TO_FLOATS])
    plan = plan_for(torch.device(job.device))
    train_batches = Batches(train.to(job.device, plan.memory_format), batch, transform, shuffle=True)
    test_batches = Batches(test.to(job.device, plan.memory_format), 250, transform)

    def one_round() -> Measured:
        model = work.network(job.side).to(job.device, memory_format=plan.memory_format)
        optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=plan.fused)
        work_of_a_run = (model, train_batches, test_batches, F.cross_entropy, optimizer, 2)
        start = time.perf_counter()
        estimate = training.estimate_seconds(*work_of_a_run, precision=plan.precision)
        took = time.perf_counter() - start
        history = training.History()

        def run() -> tuple[int, float]:
            training.fit(*work_of_a_run, history, precision=plan.precision, verbose=False)
            return 2 * count, history.train_loss[-1]

        measured = work.timed(run)
        measured.more = {"estimate": estimate, "estimating": took}
        return measured

    return one_round
