"""Kill training and downloading at random moments, go on, and compare with a run that nobody disturbed.

`python tests/soak.py` (or `make soak`) first stops a run at the end of each epoch and lets a new process go on, then
kills 200 processes with SIGKILL, SIGINT or SIGTERM; `--kills 10` fewer. Half of the runs write every epoch to disk,
half only after a pause. Each process is forked from one that has imported torch, which takes the longest, but computed
nothing. Exit status 1 and a list of what went wrong, if anything did.
"""

import argparse
import hashlib
import http.server
import os
import random
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "notebooks"))

import mirrors
import torch
from common import noise
from torch import nn

from helpers.data import Batches, RandomAffine, RandomFlip
from helpers.datasets import fetch
from helpers.environment import seed_everything
from helpers.keeping import guard, store
from helpers.keeping.checkpoint import Checkpoint
from helpers.keeping.fingerprint import checksum
from helpers.training import History, fit

EPOCHS = 5
PAUSES = -1, 0.15  # seconds between checkpoints: every epoch is on disk, or some are lost
PAYLOAD = random.Random(5).randbytes(600_000)  # what is downloaded
SIGNALS = [signal.SIGKILL, signal.SIGINT, signal.SIGTERM]


def train(folder: Path, log: Path, epochs: int = EPOCHS, pause: float = -1) -> None:
    """A small run with everything that has a state; its progress and a checksum of its result go to `log`."""
    guard.PAUSE, guard.SHARE = pause, 0
    images = noise(60, 3, 16)
    seed_everything(3)
    flip, move = RandomFlip(), RandomAffine(10, 0.1, 2)
    learn = Batches(images, 16, lambda images: move(flip(images) / 255), shuffle=True)
    test = Batches(images, 30, lambda images: images / 255)
    body = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(8 * 14 * 14, 256)]
    model = nn.Sequential(*body, nn.Linear(256, 10)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=EPOCHS * len(learn))
    history = History()
    note(log, "started")
    fit(
        *(model, learn, test, nn.CrossEntropyLoss(), optimizer, epochs, history, schedule),
        on_epoch_end=lambda so_far: note(log, f"epoch {len(so_far)}"),
        verbose=False,
        checkpoint=Checkpoint(folder, "soak", {}),
    )
    losses = "".join(value.hex() for value in history.train_loss + history.test_loss + history.test_accuracy)
    moments = [part for state in optimizer.state.values() for part in state.values()]
    note(log, f"done {checksum(*model.state_dict().values(), *moments)} {hashlib.md5(losses.encode()).hexdigest()}")


def load(url: str, folder: Path, log: Path) -> None:
    """Download the payload from a slow server."""
    note(log, "started")
    fetch.download("soak", [url], folder / "payload.bin", hashlib.sha256(PAYLOAD).hexdigest(), len(PAYLOAD))
    note(log, f"done {hashlib.md5((folder / 'payload.bin').read_bytes()).hexdigest()} -")


def serve() -> tuple[str, int]:
    """Start a server, which takes 0.3 s to send the payload, in a process of its own; its address and process id."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), mirrors.Handler)
    server.mirror = mirrors.Mirror({"payload.bin": PAYLOAD}, pause=0.01, piece=20_000)
    server.handle_error = lambda *args: None  # clients are killed
    pid = child(server.serve_forever)
    server.server_close()
    return f"http://127.0.0.1:{server.server_port}/", pid


def note(log: Path, line: str) -> None:
    """Append a line with one system call, so that a kill cannot cut it."""
    with log.open("ab", buffering=0) as file:
        file.write(f"{line}\n".encode())


def child(function, *args) -> int:
    """Run the function in a forked process, silently; its id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        function(*args)
        status = 0
    except KeyboardInterrupt:
        status = 130
    finally:
        if status == 1:
            sys.excepthook(*sys.exc_info())
        os._exit(status)


def read(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def whole(function, log: Path) -> list[str]:
    """Run `function(log)` to its end in a process of its own; the lines of its log."""
    _, status = os.waitpid(child(function, log), 0)
    assert status == 0, f"{function} failed"
    return read(log)


def disturbed(function, log: Path, longest: float, chance: random.Random) -> tuple[signal.Signals | None, int]:
    """Start the function, kill it within `longest` seconds; the signal (None: it was finished) and the exit status."""
    log.unlink(missing_ok=True)
    pid, sent = child(function, log), chance.choice(SIGNALS)
    while not read(log):
        time.sleep(0.002)
    time.sleep(chance.uniform(0, longest))
    os.kill(pid, sent)
    _, status = os.waitpid(pid, 0)
    return (None if status == 0 else sent), status


def exact() -> list[str]:
    """Stop after each epoch and go on in a new process: the same bits as without a stop?"""
    problems = []
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        expected = whole(partial(train, place / "undisturbed"), place / "log")[-1]
        for epoch in range(1, EPOCHS):
            whole(partial(train, place / f"{epoch}", epochs=epoch), place / f"{epoch}.a")
            lines = whole(partial(train, place / f"{epoch}"), place / f"{epoch}.b")
            if lines[1] != f"epoch {epoch}" or lines[-1] != expected:
                problems.append(f"stopped after epoch {epoch}: {lines[1]}, {lines[-1]} instead of {expected}")
    print(f"{EPOCHS - 1} runs stopped at an epoch's end and resumed, {len(problems)} differ")
    return problems


def soak(kills: int, seed: int) -> list[str]:
    """Kill that many processes, every third run a download; the list of what went wrong."""
    chance, problems, runs, unreadable, differing, lost = random.Random(seed), [], 0, 0, 0, 0
    counts = {"training": 0, "in the middle of saving": 0, "downloading": 0}
    by_signal = {sent.name: 0 for sent in SIGNALS}
    os.environ.pop("LECTURE_OFFLINE", None)
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        address, server = serve()
        taken, right = [], []
        for number, job in enumerate([partial(train, place / "undisturbed"), partial(load, address, place)]):
            begin = time.perf_counter()
            right.append(whole(job, place / f"log{number}")[-1])
            taken.append(time.perf_counter() - begin)
        print(f"undisturbed: {taken[0]:.2f} s of training, {taken[1]:.2f} s of downloading")
        try:
            while sum(by_signal.values()) < kills:
                runs += 1
                loads, pause = runs % 3 == 1, PAUSES[runs % 3 == 0]
                folder, log = place / f"run{runs}", place / f"run{runs}.log"
                folder.mkdir()
                saved, last = 0, ""
                todo = partial(load, address, folder) if loads else partial(train, folder, pause=pause)
                while not last.startswith("done"):
                    sent, status = disturbed(todo, log, taken[loads] * (1.2 if loads else 0.5), chance)
                    lines = read(log)
                    epochs = [int(line.split()[1]) for line in lines if line.startswith("epoch")]
                    if epochs and epochs[0] != max(saved, 1):  # the one resumed at, or the first of all
                        problems.append(f"run {runs}: went on at {epochs[0]}, but epoch {saved} was on disk")
                    reached = epochs[-1] if epochs else saved
                    saved = max(Checkpoint(folder, "soak", {}).files(), default=0)
                    lost = max(lost, reached - saved)
                    if saved < reached and (pause < 0 or os.WIFEXITED(status)):  # else SIGKILL
                        problems.append(f"run {runs}: epoch {reached} was finished, {saved} is on disk after {sent}")
                    last = lines[-1]
                    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 1:
                        problems.append(f"run {runs}: the process failed by itself after {lines}")
                        break
                    broken = [path.name for path in folder.glob("*.checkpoint") if store.read(path)[0] is None]
                    broken += [path.name for path in folder.glob("payload.bin") if path.read_bytes() != PAYLOAD]
                    if broken:
                        unreadable += len(broken)
                        problems.append(f"run {runs}: unreadable after {sent}: {broken}")
                    if sent:
                        by_signal[sent.name] += 1
                        counts["downloading" if loads else "training"] += 1
                        counts["in the middle of saving"] += any(folder.glob("soak.*.partial"))
                if last.startswith("done") and last != right[loads]:
                    differing += 1
                    problems.append(f"run {runs}: {last} instead of {right[loads]}")
        finally:
            os.kill(server, signal.SIGKILL)
            os.waitpid(server, 0)
    found = f"{unreadable} unreadable files, {differing} other results, at most {lost} epochs lost"
    print(f"{sum(by_signal.values())} kills in {runs} runs: {counts}, {by_signal}; {found}; {len(problems)} problems")
    return problems


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    found = exact() + soak(chosen.kills, chosen.seed)
    print(*found, sep="\n")
    sys.exit(bool(found))
