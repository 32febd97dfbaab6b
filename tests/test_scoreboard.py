"""The scoreboard against results files written by hand."""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

from helpers import results, scoreboard

matplotlib.use("agg")


def write(folder: Path, lecture: str, arms: dict, profile: str = "laptop", data: str = "noise") -> None:
    """A results file of the contract; `arms` gives the accuracies of the seeds, and parameters count up."""
    costs = {"macs": 1_500_000, "seconds": [30.0, 40.0], "activation_bytes": 8, "images_per_second": 9.0, "epochs": 2}
    content = {
        "lecture": lecture,
        "profile": profile,
        "dataset": {"name": data, "source": "", "train": 3000, "test": 10, "image_size": 64},
        "device": "cpu: Abacus",
        "threads": 1,
        "torch": "2.15.0+cpu",
        "seed": 0,
        "arms": {
            name: {"parameters": 1000 + i, "test_accuracy": [0.1, seeds[0]], "seeds": seeds, **costs}
            for i, (name, seeds) in enumerate(arms.items())
        },
    }
    (folder / f"{lecture}.json").write_text(json.dumps(content))


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LECTURE_RESULTS", str(tmp_path))
    write(tmp_path, "29_lenet_mnist", {"lectured": [0.97], "improved": [0.99]}, "lecture", "MNIST")
    write(tmp_path, "39_resnet18", {"lectured": [0.5, 0.6], "improved": [0.7]})
    return tmp_path


def test_a_row_holds_what_the_file_holds(folder):
    table = scoreboard.markdown().splitlines()
    costs = "1,000 | 1.50 M | 1 min 10 s | cpu: Abacus, 1 thread, torch 2.15.0 |"
    accuracy = "55.00% ± 7.07 (2 seeds)"  # by hand: the standard deviation of 50 and 60 is 10 / √2
    data = "laptop | noise, 3,000 at 64 px"
    assert f"| 39_resnet18 | lectured | {data} | {accuracy} | 70.31 % (best 75.05 %) | {costs}" in table
    assert {line.count("|") for line in table} == {11}
    (line,) = [line for line in table if "| 39_resnet18 | improved" in line]
    assert "| 70.00% (one seed) | – | 1,001 |" in line


def test_lectures_without_results_are_named_with_the_numbers_of_2018(folder):
    for shown in (scoreboard.markdown(), scoreboard.text()):
        lines = [line for line in shown.splitlines() if "45_transfer" in line or "fine_tuned" in line]
        assert any("not run yet" in line for line in lines) and any("94 %" in line for line in lines)
    write(folder, "45_transfer_learning", {"scratch": [0.5], "fine_tuned": [0.6], "head_only": [0.4]})
    assert "45_transfer_learning · laptop profile" in scoreboard.text()
    (line,) = [line for line in scoreboard.markdown().splitlines() if "head_only" in line]
    assert "about 80 %" in line and "not run yet" not in line


def test_the_number_of_2018_stands_beside_the_arm_as_lectured(folder):
    write(folder, "45_transfer_learning", {"head_only": [0.4], "head_only_lectured": [0.3], "other": [0.2]})
    printed = {row.arm: row.printed for row in scoreboard.rows() if row.lecture.startswith("45")}
    assert printed == {"head_only": "–", "head_only_lectured": "about 80 %", "other": "–"}


def test_text_has_a_line_for_each_arm_and_no_spaces_at_the_end(folder):
    lines = scoreboard.text().splitlines()
    arms = ["lectured", "improved"]
    assert [line.split()[0] for line in lines[1:7]] == ["29_lenet_mnist", *arms, "39_resnet18", *arms]
    assert "MNIST, 3,000 at 64 px" in lines[1] and "97.00% (one seed)" in lines[2] and "about 97.4 %" in lines[2]
    assert all(line == line.rstrip() for line in lines)


def test_figure_shows_every_arm_against_each_cost(folder):
    figure = scoreboard.show()
    for axis, field in zip(figure.axes, ["parameters", "macs", "seconds"], strict=True):
        points = [line for line in axis.lines if len(line.get_xdata()) == 1]
        expected = {(getattr(row, field), row.accuracies[0]) for row in scoreboard.rows() if len(row.accuracies) == 1}
        assert {(line.get_xdata()[0], line.get_ydata()[0]) for line in points} >= expected and len(points) == 4
        assert axis.get_xscale() == "log" and all(line.get_linestyle() == "None" for line in points)
        hollow = [line.get_markerfacecolor() == "white" for line in points]
        assert hollow == [False, False, True, True]  # only lecture 29 ran in the lecture profile
        assert len({(line.get_color(), line.get_marker()) for line in points}) == 2
    labels = {text.get_text() for text in figure.axes[2].texts}
    assert labels == {"29 lectured  97.0%", "29 improved  99.0%", "39 lectured  55.0%", "39 improved  70.0%"}
    title = figure.get_suptitle()
    assert "29 (filled, lecture profile): MNIST, 3,000 at 64 px" in title
    assert "39 (hollow, laptop profile): noise, 3,000 at 64 px" in title
    plt.close("all")


def test_labels_never_overlap(folder):
    write(folder, "40_densenet121", {f"arm{i}": [0.5 + i / 1000] for i in range(9)})
    figure = scoreboard.show()
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[2].texts]
    assert len(boxes) == 13
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    plt.close("all")


def test_no_results_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("LECTURE_RESULTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="Run one of the notebooks"):
        scoreboard.show()
    assert scoreboard.text().count("not run yet") == 5


def test_readme_gets_the_table_between_its_marks_and_nothing_else_changes(folder, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("# É\n<!-- scoreboard -->\nold\n<!-- /scoreboard -->\nend\n", encoding="utf-8")
    for _ in range(2):  # again: the same
        scoreboard.update_readme(readme)
        table = scoreboard.markdown()
        expected = f"# É\n<!-- scoreboard -->\n{table}\n<!-- /scoreboard -->\nend\n"
        assert readme.read_text(encoding="utf-8") == expected


@pytest.mark.parametrize("content", ["# no marks\n", "<!-- scoreboard -->\n", "<!-- /scoreboard -->\n"])
def test_readme_without_marks_is_left_alone(folder, tmp_path, content):
    readme = tmp_path / "README.md"
    readme.write_text(content)
    with pytest.raises(ValueError, match="left as it is"):
        scoreboard.update_readme(readme)
    assert readme.read_text() == content


def test_as_a_command(folder, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- scoreboard -->\n<!-- /scoreboard -->\n")
    command = [sys.executable, "-m", "helpers.scoreboard", str(readme)]
    done = subprocess.run(command, cwd=Path(results.__file__).parents[1], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and "| 39_resnet18 | lectured |" in readme.read_text()
