"""One LeNet epoch, training and test, ours against the faithful 2018-style loop, side by side: `make bench`.

Both start from the same weights and see the same images in the same order, so their losses must agree; then the
times of interleaved epochs (ours, theirs, ours, theirs, …) are compared. Reading the files is outside the clock on
both sides; so is our resizing of the whole set, which is done once a run and timed on its own. Needs MNIST.
"""

import argparse
import json
import platform
import statistics
import sys
import time
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
from torchvision.transforms import v2

sys.path.insert(0, str(Path(__file__).parents[1] / "notebooks"))
from helpers import sources
from helpers.data import Batches, ImageSet
from helpers.environment import available_threads, processor_name
from helpers.training import evaluate, train_one_epoch

BATCH_SIZE = 100
TOLERANCE = 0.01  # the same numbers in another order of summation, amplified by 600 steps


class LeNet2018(nn.Module):
    """The lecture's network: ReLU, then pooling; log-softmax at the end."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc2(F.relu(self.fc1(x.flatten(1)))))
        return F.log_softmax(self.fc3(x), dim=1)


class LeNet(LeNet2018):
    """The notebook's network: pooling, then ReLU, the same values with a quarter of the work; logits at the end."""

    def forward(self, x):
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x.flatten(1))))))


def fresh(kind: type[nn.Module]) -> nn.Module:
    """A network of this kind; the same weights for both, and the same random numbers after it."""
    torch.manual_seed(0)
    return kind()


def theirs(train_set: datasets.MNIST, test_set: datasets.MNIST) -> tuple[float, float]:
    """One epoch of the 2018-style loop; training loss and test accuracy."""
    model = fresh(LeNet2018)
    order = torch.randperm(len(train_set)).tolist()  # what shuffle=True would draw, given to both sides
    train_loader = DataLoader(train_set, BATCH_SIZE, sampler=order, num_workers=4)
    test_loader = DataLoader(test_set, BATCH_SIZE, shuffle=False, num_workers=4)
    criterion, optimizer = nn.NLLLoss(), torch.optim.Adam(model.parameters(), lr=1e-4)
    running_loss = 0.0
    model.train()
    for inputs, labels in train_loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs), labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
    model.eval()
    correct = 0
    with torch.no_grad():
        for inputs, labels in test_loader:
            correct += (model(inputs).argmax(dim=1) == labels).sum().item()
    return running_loss / len(train_loader), correct / len(test_set)


def ours(train_set: ImageSet, test_set: ImageSet) -> tuple[float, float]:
    """The same epoch as the notebook runs it."""
    model = fresh(LeNet).to(memory_format=torch.channels_last)
    scale = v2.ToDtype(torch.float32, scale=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    train = train_one_epoch(model, Batches(train_set, BATCH_SIZE, scale, shuffle=True), F.cross_entropy, optimizer)
    return train.loss, evaluate(model, Batches(test_set, 500, scale), F.cross_entropy).accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(available_threads())
    warnings.filterwarnings("ignore", "This DataLoader will create 4 worker processes")
    start = time.perf_counter()
    our_sets = [part.resized(32) for part in sources.load_mnist()]
    print(f"our set-up: {time.perf_counter() - start:.2f} s to read, verify and resize 70,000 images, once a run")
    transform = transforms.Compose([transforms.Resize(32), transforms.ToTensor()])
    their_sets = [datasets.MNIST(sources.data_folder(), train, transform) for train in (True, False)]
    seconds, scores = {"ours": [], "2018-style": []}, {}
    for _ in range(rounds):
        for name, epoch, sets in [("ours", ours, our_sets), ("2018-style", theirs, their_sets)]:
            start = time.perf_counter()
            scores[name] = epoch(*sets)
            seconds[name].append(time.perf_counter() - start)
            print(f"{name:10} {seconds[name][-1]:6.2f} s", flush=True)
    (loss, accuracy), (their_loss, their_accuracy) = scores["ours"], scores["2018-style"]
    print(f"\n{processor_name()}, {torch.get_num_threads()} threads, Python {platform.python_version()}, ", end="")
    print(f"torch {torch.__version__}; MNIST, batch {BATCH_SIZE}, one epoch with test, {rounds} interleaved rounds")
    print(
        f"training loss {loss:.5f} against {their_loss:.5f}, test accuracy {accuracy:.2%} against {their_accuracy:.2%}"
    )
    if abs(loss - their_loss) > TOLERANCE * their_loss:
        sys.exit("The losses do not agree: the two sides do not compute the same, so no ratio is given.")
    ratios = [b / a for a, b in zip(seconds["ours"], seconds["2018-style"], strict=True)]
    for name, times in seconds.items():
        print(f"{name:10}  median {statistics.median(times):6.2f} s   from {min(times):.2f} to {max(times):.2f} s")
    print(f"ratio       median {statistics.median(ratios):6.2f}     from {min(ratios):.2f} to {max(ratios):.2f}")
    path = Path(__file__).parents[1] / "build" / "bench.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"seconds": seconds, "ratios": ratios, "threads": torch.get_num_threads()}, indent=1))


if __name__ == "__main__":
    main()
