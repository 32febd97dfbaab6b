import json

import pytest

from helpers import environment, results
from helpers.complexity import saved_activation_bytes
from helpers.training import History, Score


@pytest.fixture
def history():
    history = History()
    history.append(Score(2.0, 0.25), Score(1.5, 0.5), seconds=2.0, images_per_second=100.0)
    history.append(Score(1.0, 0.5), Score(1.25, 0.75), seconds=2.0, images_per_second=200.0)
    return history


def test_results_file_follows_the_contract(tmp_path, monkeypatch, lenet, noise_set, history):
    monkeypatch.setenv("LECTURE_RESULTS", str(tmp_path / "new"))
    run = environment.start_run("29_lenet_mnist", lambda: None, seed=3)
    lenet[0].requires_grad_(False)
    arms = {"lectured": results.arm_record(lenet, (1, 32, 32), 100, history, [0.75, 0.7])}
    path = results.save_results(run, noise_set, noise_set.subset(slice(0, 5)), 32, arms)
    card = results.cost_card("29_lenet_mnist").splitlines()
    assert card[1].split() == ["parameters", "61,706"] and card[-1].split()[2:4] == ["72.50%", "±"]  # mean of the seeds
    assert results.cost_card("29_lenet_mnist", ["lectured"]).splitlines() == card
    assert path == tmp_path / "new" / "29_lenet_mnist.json"
    content = json.loads(path.read_text())
    assert content == results.load_results("29_lenet_mnist")
    assert set(content) == {"lecture", "profile", "dataset", "device", "threads", "torch", "seed", "arms"}
    assert content["profile"] == "quick" and content["seed"] == 3
    assert content["dataset"] == {"name": "noise", "source": "torch.randint", "train": 25, "test": 5, "image_size": 32}
    assert content["arms"]["lectured"] == {
        "parameters": 61_706,
        "trained_parameters": 61_706 - 156,
        "macs": 416_520,
        "activation_bytes": saved_activation_bytes(lenet, (1, 32, 32)),
        "batch_size": 100,
        "epochs": 2,
        "train_loss": [2.0, 1.0],
        "train_accuracy": [0.25, 0.5],
        "test_loss": [1.5, 1.25],
        "test_accuracy": [0.5, 0.75],
        "seconds": [2.0, 2.0],
        "images_per_second": 150.0,
        "seeds": [0.75, 0.7],
    }


def test_results_say_what_pretrained_weights_had_learned(tmp_path, monkeypatch, noise_set):
    monkeypatch.setenv("LECTURE_RESULTS", str(tmp_path))
    run = environment.start_run("45_transfer_learning", lambda: None)
    results.save_results(run, noise_set, noise_set, 32, {}, "other noise")
    assert results.load_results("45_transfer_learning")["pretrained"] == "other noise"


def test_results_of_a_lecture_that_was_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("LECTURE_RESULTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"Run the notebook 33_alexnet\.ipynb to its end"):
        results.load_results("33_alexnet")
