"""All lectures side by side: what the results files hold, next to what the lectures of 2018 printed.

    python -m helpers.scoreboard ../README.md

writes the table into the README, between the two marks. The figure and the texts read the results files alone.
"""

import math
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from helpers.environment import clock
from helpers.files import write_whole
from helpers.plots import COLOURS, use_style
from helpers.results import load_results, results_folder, spread

# Test accuracy that each lecture of 2018 showed last, by lecture and arm, after its own number of epochs. All used
# every image, at 224 pixels (lecture 29: 32). "about": read from the talk or from a plot, not printed.
TRANSCRIPTS = {
    "29_lenet_mnist": {"lectured": "about 97.4 % (97.05 % printed after 9 of 10 epochs)"},
    "33_alexnet": {"lectured": "10.000 % (2 epochs)"},
    "39_resnet18": {"lectured": "70.31 % (best 75.05 %)"},
    "40_densenet121": {"lectured": "86.06 %"},
    "45_transfer_learning": {"scratch": "about 80 %", "fine_tuned": "94 %", "head_only": "about 80 %"},
}
BEGIN, END = "<!-- scoreboard -->", "<!-- /scoreboard -->"
MARKERS = "osD^vP*X"


class Row(NamedTuple):
    """One arm of one lecture."""

    lecture: str
    arm: str
    profile: str
    data: str  # name, number of training images, side in pixels, and what pretrained weights had learned before
    printed: str  # by the lecture of 2018, or "–"
    device: str
    accuracies: list[float]  # last test accuracy of each seed
    parameters: int
    macs: int  # for one image
    seconds: float  # all epochs of the first seed


def rows() -> list[Row]:
    """The arms of every results file there is, in the order of the lectures."""
    found = []
    for path in sorted(results_folder().glob("*.json")):
        content = load_results(path.stem)
        dataset, device = content["dataset"], content["device"]
        data = f"{dataset['name']}, {dataset['train']:,} at {dataset['image_size']} px"
        if "pretrained" in content:
            data += f"; pretrained: {content['pretrained']}"
        if device.startswith("cpu"):
            device += f", {content['threads']} thread{'s' if content['threads'] > 1 else ''}"
        device += f", torch {content['torch'].split('+')[0]}"
        for name, arm in content["arms"].items():
            accuracies = arm.get("seeds", arm["test_accuracy"][-1:])
            costs = arm["parameters"], arm["macs"], sum(arm["seconds"])
            printed = printed_in_2018(path.stem, name, content["arms"])
            found.append(Row(path.stem, name, content["profile"], data, printed, device, accuracies, *costs))
    return found


def printed_in_2018(lecture: str, arm: str, arms: dict) -> str:
    """What 2018 printed for this arm. Where an arm `x_lectured` stands beside `x`, it belongs to `x_lectured`."""
    of_lecture = TRANSCRIPTS.get(lecture, {})
    if f"{arm}_lectured" in arms:
        return "–"
    return of_lecture.get(arm) or of_lecture.get(arm.removesuffix("_lectured"), "–")


def not_run(found: list[Row]) -> dict[str, dict[str, str]]:
    """The transcripts' numbers of the lectures that have no results."""
    return {lecture: arms for lecture, arms in TRANSCRIPTS.items() if lecture not in {row.lecture for row in found}}


def text() -> str:
    """The scoreboard for a notebook: a line for each arm, under a line that says on what its lecture was run."""
    titles = f"{'parameters':>12} {'MACs':>10} {'time':>12}  {'test accuracy':26} in 2018"
    found, lines, lecture = rows(), [f"{'lecture, arm':22}{titles}"], None
    for row in found:
        if row.lecture != lecture:
            lecture = row.lecture
            lines.append(f"{lecture} · {row.profile} profile · {row.data} · {row.device}")
        lines.append(
            f"  {row.arm:20}{row.parameters:12,} {millions(row.macs):>10} {clock(row.seconds):>12}"
            f"  {spread(row.accuracies):26} {row.printed}"
        )
    for lecture, arms in not_run(found).items():
        lines.append(f"{lecture} · not run yet")
        lines += [f"  {arm:20}{'':12} {'':10} {'':12}  {'':26} {printed}" for arm, printed in arms.items()]
    return "\n".join(line.rstrip() for line in lines)


def markdown() -> str:
    """The scoreboard for the README: a table in Markdown with a line for each arm."""
    titles = ["lecture", "arm", "profile", "data", "test accuracy", "lectured in 2018", "parameters", "MACs an image"]
    found, table = rows(), [[*titles, "time, all epochs", "run on"], ["---"] * 10]
    for row in found:
        costs = f"{row.parameters:,}", millions(row.macs), clock(row.seconds)
        about = row.lecture, row.arm, row.profile, row.data
        table.append([*about, spread(row.accuracies), row.printed, *costs, row.device])
    for lecture, arms in not_run(found).items():
        table += [[lecture, arm, "not run yet", "–", "–", printed, *["–"] * 4] for arm, printed in arms.items()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


def millions(macs: int) -> str:
    """A number of operations for people: 0.42 M, 148 M."""
    return f"{macs / 1e6:,.{0 if macs >= 1e7 else 2}f} M"


def show() -> Figure:
    """Test accuracy against parameters, MACs and time: colour and marker tell the lecture, labels at the right the arm.

    Filled markers are runs of the `lecture` profile, hollow ones of a smaller one; the title names the data of each.
    Only points of the same data can be compared, so no line joins any. Raises FileNotFoundError without results.
    """
    use_style()
    found = rows()
    if not found:
        raise FileNotFoundError(f"No results in {results_folder()}. Run one of the notebooks to its end first.")
    lectures = sorted({*TRANSCRIPTS, *(row.lecture for row in found)})
    figure, axes = plt.subplots(1, 3, figsize=(17, 7.5), sharey=True, layout="constrained")
    panels = {"parameters": "parameters", "macs": "MACs an image", "seconds": "seconds, all epochs"}
    for axis, (field, label) in zip(axes, panels.items(), strict=True):
        for row in found:
            x, y = getattr(row, field), statistics.mean(row.accuracies)
            axis.plot(x, y, linestyle="none", **look(row, lectures))
        axis.set(xscale="log", xlabel=f"{label} (log scale)")
        axis.margins(x=0.15)
        low, high = axis.get_xlim()
        middle = math.sqrt(low * high)
        axis.set_xlim(min(low, middle / 4), max(high, 4 * middle))  # a smaller range would have no mark
        axis.xaxis.set_minor_formatter(NullFormatter())
    axes[2].xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes[2].xaxis.set_major_formatter("{x:g}")
    axes[0].set(ylabel="test accuracy after the last epoch")
    axes[0].yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    label_arms(axes[2], found, lectures)
    figure.suptitle(figure_title(found), fontsize=14)
    return figure


def look(row: Row, lectures: list[str]) -> dict:
    """How a row is marked: one colour and marker a lecture, filled for the `lecture` profile."""
    i = lectures.index(row.lecture)
    colour = COLOURS[i % len(COLOURS)]
    face = colour if row.profile == "lecture" else "white"
    return {"marker": MARKERS[i % len(MARKERS)], "color": colour, "mfc": face, "mew": 2.5, "ms": 12}


def label_arms(axis: Axes, found: list[Row], lectures: list[str]) -> None:
    """Name the arms right of the panel, at the height of their accuracy, moved apart where they would overlap."""
    ordered = sorted(found, key=lambda row: statistics.mean(row.accuracies))
    heights = [statistics.mean(row.accuracies) for row in ordered]
    lowest, highest = axis.get_ylim()
    gap, places = (highest - lowest) / 22, heights.copy()
    for _ in range(300):  # neighbours that are too close push each other apart
        for i in range(len(places) - 1):
            push = max(0.0, gap - (places[i + 1] - places[i])) / 2
            places[i], places[i + 1] = places[i] - push, places[i + 1] + push
    beside = axis.get_yaxis_transform()  # x in widths of the panel, y in data
    for row, height, place in zip(ordered, heights, places, strict=True):
        leader = Line2D([1, 1.1], [height, place], transform=beside, clip_on=False, lw=1, **look(row, lectures))
        leader.set_markevery([1])
        axis.add_artist(leader)
        text = f"{row.lecture.split('_')[0]} {row.arm}  {height:.1%}"
        axis.text(1.15, place, text, transform=beside, va="center")


def figure_title(found: list[Row]) -> str:
    """Says which lectures were run on which data in which profile, and what the markers mean."""
    runs: dict[str, dict[str, list[str]]] = {}
    for row in found:
        lectures = runs.setdefault(row.profile, {}).setdefault(row.data, [])
        number = row.lecture.split("_")[0]
        lectures += [] if number in lectures else [number]
    lines = ["Accuracy against cost; only runs on the same data can be compared"]
    for profile, data in runs.items():
        for name, lectures in data.items():
            marked = "filled" if profile == "lecture" else "hollow"
            lines.append(f"{', '.join(lectures)} ({marked}, {profile} profile): {name}")
    return "\n".join(lines)


def update_readme(path: Path | str) -> None:
    """Put the table between the two marks of a README. Raises ValueError, with the file as it was, without marks."""
    path = Path(path)
    content = path.read_text(encoding="utf-8")
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} was left as it is: put a line {BEGIN} and a line {END} where the table belongs.")
    write_whole(path, f"{before}{BEGIN}\n{markdown()}\n{END}{after}".encode())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Say which README to update, for example: python -m helpers.scoreboard ../README.md")
    update_readme(sys.argv[1])
    print(f"{sys.argv[1]}: scoreboard of {results_folder()} written")
