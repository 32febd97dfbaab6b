"""The benchmark: ours against other ways to run the same, side by side. `make bench`, or see `--help`.

Each side of a row is a process of its own, set up once; then the sides take turns (A B C, A B C, …), so that whatever
else the machine does meets all of them. Counted are medians over the rounds, and ratios within each round. Before any
ratio is given, the losses of all sides must agree. Writes build/bench.json and build/bench.md.
"""

import argparse
import contextlib
import datetime
import json
import multiprocessing
import platform
import statistics
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path

import torch
import torchvision

sys.path.insert(0, str(Path(__file__).parents[2] / "notebooks"))
sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks import growth, rows
from benchmarks.work import Job, Measured
from helpers.device import choose_device, granted_threads, plan_for
from helpers.environment import clock

ROOT = Path(__file__).parents[2]
WAIT = 900  # seconds without an answer after which a side is given up
MARKS = ("<!-- bench -->", "<!-- /bench -->")  # docs/speed.md keeps the tables between them


def serve(job: Job, pipe) -> None:
    """What a side's process does: set up, then one round for each word that comes."""
    try:
        one_round = rows.build(job)
        pipe.send("ready")
        while pipe.recv() == "go":
            pipe.send(one_round())
    except (EOFError, KeyboardInterrupt):
        return
    except Exception:
        pipe.send(traceback.format_exc())


class Side:
    """A running process for one side."""

    def __init__(self, job: Job):
        spawn = multiprocessing.get_context("spawn")
        self.name = job.side
        self.pipe, theirs = spawn.Pipe()
        self.process = spawn.Process(target=serve, args=(job, theirs))
        self.process.start()
        theirs.close()

    def answer(self):
        if not self.pipe.poll(WAIT):
            raise RuntimeError(f"{self.name}: no answer within {WAIT} s")
        try:
            said = self.pipe.recv()
        except EOFError:
            raise RuntimeError(f"{self.name}: its process ended") from None
        if isinstance(said, str) and said != "ready":
            raise RuntimeError(f"{self.name}: {said}")
        return said

    def round(self) -> Measured:
        self.pipe.send("go")
        return self.answer()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self.pipe.send("stop")
        self.process.join(20)
        if self.process.is_alive():
            self.process.terminate()


def sides_of(name: str, device: str, peers: bool) -> list[str]:
    sides = list(rows.ROWS[name].sides)
    if plan_for(torch.device(device)).precision == torch.float32 and "ours, float32" in sides:
        sides.remove("ours, float32")
    if name == "lenet" or name in rows.BATCH["cpu"]:
        sides[-1:-1] = rows.PEERS if peers else ()
    return sides + (["peak"] if name in rows.BATCH["cpu"] else [])


def run_row(name: str, device: str, rounds: int, toy: bool, peers: bool) -> dict:
    """All rounds of one row: {"sides": {side: [Measured as dict, …]}, "warm_up": {side: loss}}."""
    sides, start = [], time.perf_counter()
    print(f"{name}: {rows.ROWS[name].about}", flush=True)
    try:
        for side in sides_of(name, device, peers):
            sides.append(Side(Job(name, side, device, toy)))
        for side in sides:
            side.answer()
        print(f"  set up in {clock(time.perf_counter() - start)}, one round to warm up", flush=True)
        losses = {side.name: side.round().loss for side in sides}
        measured = {side.name: [] for side in sides}
        for i in range(rounds):
            words = []
            for side in sides:
                measured[side.name].append(side.round())
                if side.name != "peak":
                    words.append(f"{side.name} {measured[side.name][-1].seconds:.3f} s")
            print(f"  round {i + 1} of {rounds}: {' · '.join(words)}", flush=True)
    finally:
        for side in sides:
            side.stop()
    print(f"  {clock(time.perf_counter() - start)} in all", flush=True)
    return {"losses": losses, "sides": {side: [asdict(one) for one in all_] for side, all_ in measured.items()}}


def disagreement(name: str, losses: dict[str, float | None]) -> str:
    """Which losses differ by more than the row's tolerance, in words; empty when all agree."""
    ours, tolerance = losses.get("ours"), rows.ROWS[name].tolerance
    if ours is None:
        return ""
    wrong = [
        f"{side} {loss:.5f}"
        for side, loss in losses.items()
        if loss is not None and not abs(loss - ours) <= tolerance * abs(ours)  # a NaN disagrees
    ]
    return f"losses differ from ours, {ours:.5f}, by more than {tolerance:.1%}: {', '.join(wrong)}" if wrong else ""


def seconds_of(result: dict, side: str) -> list[float]:
    return [one["seconds"] for one in result["sides"][side]]


def time_text(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 0.995 else f"{seconds:.2f} s"


def tables(report: dict) -> str:
    """The report as Markdown, for docs/speed.md and the terminal."""
    ratios = ["| | other | its time | ours | ratio | from – to | floor · aim |", "|---|---|---|---|---|---|---|"]
    speeds = ["| | images/s | GFLOP/s | of float32 peak | of bfloat16 peak |", "|---|---|---|---|---|"]
    notes = []
    for name, result in report["rows"].items():
        row, first_ours = rows.ROWS[name], result["sides"].get("ours", [{}])[0]
        source = first_ours.get("more", {}).get("source")
        about = row.about + (f", batch {first_ours['more']['batch']}" if "batch" in first_ours.get("more", {}) else "")
        if source and source.split()[0].split("-")[0] not in ("MNIST", "CIFAR"):
            about += f" (on {source})"
        if name == "first_result":
            banner = statistics.median(one["more"]["first_output"] for one in result["sides"]["ours"])
            took = statistics.median(seconds_of(result, "ours"))
            notes.append(
                f"Cold start of lecture 29 (new kernel, quick profile): first printed result after"
                f" {time_text(banner)}, first training run of ten epochs with its curves after {time_text(took)}."
            )
            continue
        if name == "estimate":
            parts = []
            for side, measured in result["sides"].items():
                quotients = [one["more"]["estimate"] / one["seconds"] for one in measured]
                middle = statistics.median(quotients)
                parts.append(f"{side} {middle:.2f} ({min(quotients):.2f} – {max(quotients):.2f})")
            notes.append("Estimated time / time taken, two epochs at laptop-like settings: " + ", ".join(parts) + ".")
            continue
        problem = disagreement(name, result["losses"])
        if problem:
            notes.append(f"**{about}: no ratio, because the {problem}.**")
            continue
        ours = seconds_of(result, "ours")
        for side in result["sides"]:
            if side in ("ours", "peak"):
                continue
            other = seconds_of(result, side)
            quotients = [a / b for a, b in zip(other, ours, strict=True)]
            targets = " · ".join(f"{value:g}" for value in row.targets.get(side, ())) or "–"
            ratios.append(
                f"| {about} | {side} | {time_text(statistics.median(other))} | {time_text(statistics.median(ours))}"
                f" | **{statistics.median(quotients):.2f}** | {min(quotients):.2f} – {max(quotients):.2f} | {targets} |"
            )
        for side in ("ours, float32", "ours"):
            if "peak" in result["sides"] and side in result["sides"]:
                speeds.append(speed_line(result, side, f"{name}, {side}"))
    if "growth" in report:
        notes.append(growth.in_words(report["growth"]))
    return "\n\n".join(
        part
        for part in (
            machine_text(report["machine"]),
            "\n".join(ratios) if len(ratios) > 2 else "",
            "\n".join(speeds) if len(speeds) > 2 else "",
            "\n\n".join(notes),
        )
        if part
    )


def speed_line(result: dict, side: str, title: str) -> str:
    """Images/s, and operations (2 for each MAC; forward, and twice that backward) as shares of the measured peaks."""
    measured = result["sides"][side]
    macs = measured[0]["more"]["macs"]
    speed = statistics.median(one["images"] / one["seconds"] for one in measured)
    shares = []
    for kind in ("torch.float32", "torch.bfloat16"):
        pairs = zip(measured, result["sides"]["peak"], strict=True)
        shares.append(
            statistics.median(6 * macs * one["images"] / one["seconds"] / peak["more"][kind] for one, peak in pairs)
        )
    used = measured[0]["more"]["precision"].removeprefix("torch.")
    return f"| {title} ({used}) | {speed:,.1f} | {6 * macs * speed / 1e9:,.0f} | {shares[0]:.0%} | {shares[1]:.0%} |"


def machine_text(machine: dict) -> str:
    return (
        f"{machine['device']}, {machine['threads']} threads, Python {machine['python']}, torch {machine['torch']},"
        f" torchvision {machine['torchvision']}, {machine['date']}; {machine['rounds']} interleaved rounds."
        f" Our plan: {machine['plan']}." + (" TOY SIZES: the numbers mean nothing." if machine["toy"] else "")
    )


def write_readme(path: Path, text: str, marks: tuple[str, str] = MARKS) -> None:
    """Replace what stands between the marks."""
    content = path.read_text(encoding="utf-8")
    before, _, rest = content.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not end:
        raise ValueError(f"{path.name} has no place for the table: put {marks[0]} and {marks[1]} where it belongs.")
    path.write_text(f"{before}{marks[0]}\n{text}\n{marks[1]}{after}", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    known = [*rows.ROWS, "growth"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default=",".join(known), help="some of: " + ",".join(known))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: CUDA where it works, else the CPU")
    parser.add_argument("--peers", action="store_true", help="Lightning and fastai, too (make bench PEERS=1)")
    parser.add_argument("--readme", action="store_true", help="put the tables into docs/speed.md")
    parser.add_argument("--toy", action="store_true", help="tiny sizes, to test the benchmark itself")
    parser.add_argument("--out", type=Path, default=ROOT / "build")
    options = parser.parse_args(arguments)
    names = options.rows.split(",")
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no row is called {', '.join(unknown)}. There are: {', '.join(known)}.")
    device, device_name = choose_device(options.device)
    if device.type == "mps":
        device, device_name = choose_device("cpu")
    report = {
        "machine": {
            "device": f"{device.type}: {device_name}",
            "threads": granted_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "plan": str(plan_for(device)),
            "date": datetime.date.today().isoformat(),
            "rounds": options.rounds,
            "toy": options.toy,
        },
        "rows": {},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in names:
        try:
            if name == "growth":
                print("growth: time and memory of ResNet-18 against images, image size and batch", flush=True)
                report["growth"] = growth.measure(Job(name, "ours", device.type, options.toy))
                growth.draw(report["growth"], options.out / "bench" / "growth.png")
            else:
                result = run_row(name, device.type, options.rounds, options.toy, options.peers)
                report["rows"][name] = result
                if problem := disagreement(name, result["losses"]):
                    failed.append(f"{name}: {problem}")
        except RuntimeError as error:  # the other rows are still worth having
            failed.append(f"{name}: {error}")
        (options.out / "bench.json").write_text(json.dumps(report, indent=1))
    text = tables(report)
    (options.out / "bench.md").write_text(text + "\n", encoding="utf-8")
    print("\n" + text)
    if options.readme:
        write_readme(ROOT / "docs" / "speed.md", text)
    for problem in failed:
        print(f"FAILED {problem}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
