"""Results files, cost card and scoreboard; most against files written by hand."""

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from helpers import results
from helpers.complexity import saved_activation_bytes
from helpers.training import History, Score

COMMAND = Path(__file__).parents[1] / "publishing" / "scoreboard.py"
sys.path.append(str(COMMAND.parent))
from scoreboard import BEGIN, END, update  # noqa: E402


def write(folder: Path, lecture: str, arms: dict, profile: str = "laptop", data: str = "noise") -> None:
    """A results file; `arms` gives the accuracies of the seeds."""
    content = {"lecture": lecture, "profile": profile, "device": "cpu: Abacus", "threads": 1, "torch": "2.15.0+cpu"}
    costs = {"parameters": 1000, "trained_parameters": 7, "macs": 1_500_000, "activation_bytes": 8}
    costs |= {"seconds": [30.0, 40.0], "images_per_second": 9.0, "test_accuracy": []}
    content |= {"dataset": {"name": data, "train": 3000, "image_size": 64}}
    content |= {"arms": {name: {**costs, "seeds": seeds} for name, seeds in arms.items()}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{lecture}.json").write_text(json.dumps(content))


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    """The folder of one's own runs; it does not exist yet. Lectures 29 and 39 have committed runs."""
    monkeypatch.setenv("LECTURE_RESULTS", str(tmp_path / "own" / "results"))
    monkeypatch.setattr(results, "COMMITTED", tmp_path / "committed")
    write(results.COMMITTED, "29_lenet_mnist", {"lectured": [0.97], "improved": [0.99]}, "lecture", "MNIST")
    write(results.COMMITTED, "39_resnet18", {"lectured": [0.5, 0.6], "improved": [0.7]})
    return tmp_path / "own" / "results"


@pytest.fixture
def save(noise_set):
    """`save(arms, pretrained)` writes a quick run of lecture 39."""
    run = SimpleNamespace(lecture="39_resnet18", profile="quick", device=torch.device("cpu"), device_name="Abacus")
    run.threads, run.seed = 1, 3
    return lambda arms, *pretrained: results.save_results(run, noise_set, noise_set, 32, arms, *pretrained)


def test_results_file_follows_the_contract(own, lenet, save):
    history = History()
    history.append(Score(2.0, 0.25), Score(1.5, 0.5), seconds=2.0, images_per_second=100.0)
    history.append(Score(1.0, 0.5), Score(1.25, 0.75), seconds=2.0, images_per_second=200.0)
    lenet[0].requires_grad_(False)
    arm = results.arm_record(lenet, (1, 32, 32), 100, history, [0.75, 0.7])
    assert arm == {
        **{"parameters": 61_706, "trained_parameters": 61_706 - 156, "macs": 416_520, "batch_size": 100, "epochs": 2},
        **{
            "activation_bytes": saved_activation_bytes(lenet, (1, 32, 32)),
            "images_per_second": 150.0,
            "image_size": 32,
        },
        **{"train_loss": [2.0, 1.0], "train_accuracy": [0.25, 0.5], "test_loss": [1.5, 1.25]},
        **{"test_accuracy": [0.5, 0.75], "seconds": [2.0, 2.0], "seeds": [0.75, 0.7]},
    }
    ladder = {"ladder": {"image_size": 16, "accuracy": [0.5]}}
    path = save({"lectured": arm}, "", ladder)
    assert path == own / "39_resnet18.json" and list(own.iterdir()) == [path]
    assert json.loads(path.read_text()) == {
        **{"lecture": "39_resnet18", "profile": "quick", "device": "cpu: Abacus", "threads": 1, "seed": 3},
        "dataset": {"name": "noise", "source": "torch.randint", "train": 25, "test": 25, "image_size": 32},
        **{"torch": torch.__version__, "arms": {"lectured": arm}, "experiments": ladder},
    }


def test_an_own_run_goes_before_the_committed_one_and_never_over_it(own, save, monkeypatch):
    before = (results.COMMITTED / "39_resnet18.json").read_bytes()
    assert results.load_results("39_resnet18") == results.committed_results("39_resnet18") == json.loads(before)
    save({}, "other noise")
    assert results.load_results("39_resnet18")["pretrained"] == "other noise"
    assert results.committed_results("39_resnet18") == json.loads(before)
    monkeypatch.delenv("LECTURE_RESULTS")
    assert results.environ.folder(*results.OWN) == results.environ.ROOT / "build" / "results"


def test_files_that_cannot_be_read_name_the_notebook(own):
    with pytest.raises(FileNotFoundError, match=r"Run the notebook 33_alexnet\.ipynb to its end"):
        results.load_results("33_alexnet")
    own.mkdir(parents=True)
    (own / "39_resnet18.json").write_text('{"lecture": ')
    with pytest.raises(ValueError, match=r"^.*39_resnet18\.json is damaged.*Run the notebook.*$"):
        results.load_results("39_resnet18")


def test_results_that_cannot_be_written_name_the_variable_to_set(own, save):
    own.parent.mkdir()
    own.write_text("a file where the folder should be")
    with pytest.raises(OSError, match=r'^.*resnet18\.json cannot be written .* os\.environ\["LECTURE_RESULTS"\] .*$'):
        save({})


def test_cost_card_by_hand(own):
    card = [line.split("  ") for line in results.cost_card("39_resnet18").splitlines()]
    shown = {line[0]: [cell.strip() for cell in line[1:] if cell] for line in card}
    assert shown["39_resnet18"] == ["lectured", "improved"] and shown["profile"] == ["laptop", "laptop"]
    assert shown["parameters"] == ["1,000"] * 2 and shown["MACs an image"] == ["1.50 M"] * 2
    assert shown["test accuracy"] == ["55.00% ± 7.07 (2 seeds)", "70.00% (one seed)"]  # the deviation is 10 / √2
    assert results.cost_card("39_resnet18", ["improved"]).splitlines()[0].split() == ["39_resnet18", "improved"]


def test_scoreboard_names_each_run_above_its_arms(own):
    write(own, "39_resnet18", {"lectured": [0.1]}, "quick", "drawn shapes")
    write(results.COMMITTED, "45_transfer_learning", {"head_only": [0.4], "head_only_lectured": [0.3]})
    lines = results.scoreboard().splitlines()
    assert lines[1].endswith(" · lecture profile · MNIST, 3,000 at 64 px · cpu: Abacus, 1 thread, torch 2.15.0")
    assert "97.00% (one seed)" in lines[2] and "about 97.4 %" in lines[2]
    assert lines[4].startswith("39_resnet18 · quick profile · drawn shapes")  # one's own, and it says what it is
    assert [line.split()[-1] for line in lines[7:]] == ["–", "%"]  # what 2018 printed stands beside the arm as lectured
    assert "39_resnet18 · laptop profile · noise" in results.scoreboard(results.committed_results)


def test_the_command_writes_the_table_between_the_marks_and_changes_nothing_else(tmp_path, monkeypatch):
    page, table = tmp_path / "results.md", results.scoreboard(results.committed_results)
    monkeypatch.setattr(sys, "argv", ["scoreboard.py", str(page)])
    page.write_text(f"# É\n{BEGIN}\nold\n{END}\nend\n", encoding="utf-8")
    runpy.run_path(str(COMMAND), run_name="__main__")
    assert page.read_text(encoding="utf-8") == f"# É\n{BEGIN}\n```text\n{table}\n```\n{END}\nend\n"
    for content in ("# no marks\n", f"{END}\n{BEGIN}\n"):
        page.write_text(content)
        with pytest.raises(ValueError, match="left as it is"):
            update(page)
        assert page.read_text() == content
