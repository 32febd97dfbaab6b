"""How long until it is learned: fixed epochs, chosen beforehand, then the final test accuracy and the seconds.

`make bench ROWS=time_to` runs every record of docs/records.md in fresh processes, one seed after another, and prints
the mean and the spread; a run that is done stands in build/time_to/ and is not run again.
`python tests/benchmarks/time_to.py lenet --seed 3` runs one and prints a line of JSON.
"""

import argparse
import datetime
import hashlib
import json
import statistics
import subprocess
import sys
import time

START = time.perf_counter()  # the whole process, imports and all

from pathlib import Path  # noqa: E402

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
sys.path += [str(ROOT / "notebooks"), str(ROOT)]

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torchvision import models  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

from helpers import data, training  # noqa: E402
from helpers.data import Batches, RandomCrop, RandomFlip  # noqa: E402
from helpers.device import choose_device, choose_threads, keep_freed_memory, plan_for, processor_name  # noqa: E402
from tests.benchmarks.bench import write_readme  # noqa: E402
from tests.benchmarks.work import LeNet  # noqa: E402

RECORDS = {  # name: the command after Python, and the seeds; fewer where a run takes over ten minutes
    "lenet": (["time_to.py", "lenet"], range(5)),
    "resnet18": (["time_to.py", "resnet18"], range(2)),
    "speedrun": (["speedrun.py", "--epochs", "7"], range(3)),
    "speedrun, longer": (["speedrun.py", "--epochs", "16"], range(2)),
}
MARKS = ("<!-- records -->", "<!-- /records -->")  # docs/records.md keeps the table between them


def lenet(seed: int, plan) -> dict:
    """LeNet on MNIST: two epochs in batches of 100, AdamW to 8e-3 and back, pixels normalized, no augmentation."""
    sets = [part.to("cpu", torch.channels_last) for part in data.load_mnist()]
    transform = v2.Compose([v2.Pad(2), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.1307], [0.3081])])
    torch.manual_seed(seed)
    model = LeNet().to(memory_format=torch.channels_last)
    train, test = Batches(sets[0], 100, transform, shuffle=True), Batches(sets[1], 500, transform)
    optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 8e-3, total_steps=2 * len(train), pct_start=0.1, anneal_strategy="linear", cycle_momentum=False
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=0.05)
    return trained(model, train, test, criterion, optimizer, schedule, 2, torch.float32)


def resnet18(seed: int, plan) -> dict:
    """torchvision's ResNet-18, unchanged, at 64 pixels: ten epochs with the recipe of lecture 39."""
    sets = [part.to("cpu", plan.memory_format) for part in data.load_cifar10()]
    pixels = sets[0].images.float() / 255
    mean, std = pixels.mean(dim=(0, 2, 3)).tolist(), pixels.std(dim=(0, 2, 3)).tolist()
    steps = [v2.Resize(64, antialias=True), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    train = Batches(sets[0], 128, v2.Compose([RandomCrop(4), RandomFlip(), *steps]), shuffle=True)
    test = Batches(sets[1], 250, v2.Compose(steps))
    torch.manual_seed(seed)
    model = models.resnet18(num_classes=10, zero_init_residual=True).to(memory_format=plan.memory_format)
    weights, others = ([p for p in model.parameters() if (p.ndim > 1) == large] for large in (True, False))
    groups = [{"params": weights, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.2, momentum=0.9, nesterov=True, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.2, total_steps=10 * len(train), pct_start=0.25, cycle_momentum=False
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    return trained(model, train, test, criterion, optimizer, schedule, 10, plan.precision)


def trained(model, train, test, criterion, optimizer, schedule, epochs: int, precision: torch.dtype) -> dict:
    """Train without any look at the test images, then test once."""
    start, step = time.perf_counter(), training.Step(torch.device("cpu"), precision)
    for _ in range(epochs):
        training.train_one_epoch(model, train, criterion, optimizer, schedule, step)
    seconds = time.perf_counter() - start
    accuracy = training.evaluate(model, test, criterion).accuracy
    result = {"data": train.dataset.name, "accuracy": accuracy, "training_seconds": seconds, "epochs": epochs}
    return result | {"precision": str(precision)}


def run_all(names: list[str]) -> str:
    """The table of these records, in Markdown, with what it was measured on; runs what has not been run yet."""
    lines = ["| record | data | epochs | test accuracy, mean (lowest – highest) | training | whole process | runs |"]
    lines.append("|---|---|---|---|---|---|---|")
    runs = {name: [run_once(name, seed) for seed in RECORDS[name][1]] for name in names}
    lines += [line(name, runs[name]) for name in names]
    for about in sorted({about_run(run) for name in names for run in runs[name]}):
        lines += ["", about]
    return "\n".join(lines)


def run_once(name: str, seed: int) -> dict:
    """One run in a fresh process. Kept in build/time_to/ under what was run, so that it is not run twice."""
    command = [*RECORDS[name][0], "--seed", str(seed)]
    script = (HERE / command[0]).read_bytes()
    key = hashlib.sha256(script + " ".join([*command, torch.__version__, processor_name()]).encode()).hexdigest()[:12]
    path = ROOT / "build" / "time_to" / f"{name.replace(', ', '-')}-{seed}-{key}.json"
    if not path.exists():
        call = [sys.executable, str(HERE / command[0]), *command[1:]]
        answer = json.loads(subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
        answer |= {"date": f"{datetime.date.today():%Y-%m-%d}", "commit": commit()}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    result = json.loads(path.read_text(encoding="utf-8"))
    print(f"{name}, seed {seed}: {result}", flush=True)
    return result


def commit() -> str:
    """The commit of the code, with a + where files differ from it; "unknown" outside a repository."""
    call = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(call, capture_output=True, text=True).stdout.strip() or "unknown"


def line(name: str, runs: list[dict]) -> str:
    """A record's row of the table."""
    percent = [100 * run["accuracy"] for run in runs]
    spread = f"{statistics.mean(percent):.2f} % ({min(percent):.2f} – {max(percent):.2f})"
    training, process = (statistics.mean(run[kind] for run in runs) for kind in ("training_seconds", "process_seconds"))
    about = f"| {name} | {runs[0]['data']} | {runs[0]['epochs']} | {spread} "
    return about + f"| {training:.1f} s | {process:.1f} s | {len(runs)} |"


def about_run(run: dict) -> str:
    """What a run was made on."""
    machine = f"{run['processor']}, {run['threads']} threads, {run['precision'].removeprefix('torch.')}"
    return f"{machine}, torch {run['torch']}, {run['date']}, commit {run['commit']}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("record", nargs="*", default=[*RECORDS], help="some of: " + ", ".join(RECORDS))
    parser.add_argument("--seed", type=int, help="run one record of this file in this process")
    parser.add_argument("--docs", action="store_true", help="put the table into docs/records.md (make bench DOCS=1)")
    options = parser.parse_args()
    if unknown := [name for name in options.record if name not in RECORDS]:
        parser.error(f"no record is called {', '.join(unknown)}. There are: {', '.join(RECORDS)}.")
    if options.seed is not None:
        print(json.dumps(run_here(options.record[0], options.seed)))
        return
    table = run_all(options.record)
    print("\n" + table)
    if options.docs:
        write_readme(ROOT / "docs" / "records.md", table, MARKS)


def run_here(name: str, seed: int) -> dict:
    """One record of this file, with what it was run on."""
    keep_freed_memory()
    torch.set_num_threads(choose_threads()[0])
    plan = plan_for(choose_device("cpu")[0])
    result = {"lenet": lenet, "resnet18": resnet18}[name](seed, plan)
    result |= {"seed": seed, "threads": torch.get_num_threads(), "torch": torch.__version__}
    return result | {"processor": processor_name(), "process_seconds": time.perf_counter() - START}


if __name__ == "__main__":
    main()
