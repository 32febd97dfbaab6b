"""How long until it is learned: fixed epochs, chosen beforehand, then the final test accuracy and the seconds.

`make bench ROWS=time_to` runs every record of docs/records.md in fresh processes, one seed after another, and prints
the mean and the spread. `python tests/benchmarks/time_to.py lenet --seed 3` runs one and prints a line of JSON.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

START = time.perf_counter()  # the whole process, imports and all

from pathlib import Path  # noqa: E402

HERE = Path(__file__).parent
sys.path += [str(HERE.parents[1] / "notebooks"), str(HERE.parents[1])]

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torchvision import models  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

from helpers import data, training  # noqa: E402
from helpers.data import Batches, RandomCrop, RandomFlip  # noqa: E402
from helpers.device import choose_device, choose_threads, keep_freed_memory, plan_for  # noqa: E402
from tests.benchmarks.work import LeNet  # noqa: E402

RECORDS = {  # name: the command after Python, and the seeds; fewer where a run takes over ten minutes
    "lenet": (["time_to.py", "lenet"], range(5)),
    "resnet18": (["time_to.py", "resnet18"], range(2)),
    "speedrun": (["speedrun.py", "--epochs", "6"], range(3)),
    "speedrun, longer": (["speedrun.py", "--epochs", "16"], range(2)),
}


def lenet(seed: int, plan) -> dict:
    """LeNet on MNIST: two epochs in batches of 100, AdamW to 5e-3 and back, pixels normalized, no augmentation."""
    sets = [part.to("cpu", torch.channels_last) for part in data.load_mnist()]
    transform = v2.Compose([v2.Pad(2), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.1307], [0.3081])])
    torch.manual_seed(seed)
    model = LeNet().to(memory_format=torch.channels_last)
    train, test = Batches(sets[0], 100, transform, shuffle=True), Batches(sets[1], 500, transform)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.01, fused=True)
    steps = 2 * len(train)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps, pct_start=0.2)
    return trained(model, train, test, nn.CrossEntropyLoss(), optimizer, schedule, 2, torch.float32)


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
    return {"data": train.dataset.name, "accuracy": accuracy, "training_seconds": seconds, "epochs": epochs}


def run_all(names: list[str]) -> str:
    """Every record in fresh processes; a Markdown table, written to build/time_to.md as well."""
    lines = ["| record | data | epochs | test accuracy, mean (lowest – highest) | training | whole process | runs |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name in names:
        command, seeds = RECORDS[name]
        runs = []
        for seed in seeds:
            call = [sys.executable, str(HERE / command[0]), *command[1:], "--seed", str(seed)]
            runs.append(json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout))
            print(name, runs[-1], flush=True)
        accuracies = [100 * run["accuracy"] for run in runs]
        spread = f"{statistics.mean(accuracies):.2f} % ({min(accuracies):.2f} – {max(accuracies):.2f})"
        seconds = [statistics.mean(run[kind] for run in runs) for kind in ("training_seconds", "process_seconds")]
        about = f"| {name} | {runs[0]['data']} | {runs[0]['epochs']} | {spread} "
        lines.append(about + f"| {seconds[0]:.1f} s | {seconds[1]:.1f} s | {len(runs)} |")
    (HERE.parents[1] / "build").mkdir(exist_ok=True)
    (HERE.parents[1] / "build" / "time_to.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("record", nargs="*", default=[*RECORDS], help="some of: " + ", ".join(RECORDS))
    parser.add_argument("--seed", type=int, help="run one record of this file in this process")
    options = parser.parse_args()
    if options.seed is None:
        print(run_all(options.record))
        return
    keep_freed_memory()
    torch.set_num_threads(choose_threads()[0])
    plan = plan_for(choose_device("cpu")[0])
    result = {"lenet": lenet, "resnet18": resnet18}[options.record[0]](options.seed, plan)
    result |= {"seed": options.seed, "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(json.dumps({**result, "process_seconds": time.perf_counter() - START}))


if __name__ == "__main__":
    main()
