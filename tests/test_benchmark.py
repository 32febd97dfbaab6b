"""The benchmark still runs: every side of every row at toy size, and its tables say what they should."""

import multiprocessing

import pytest
import torch
from benchmarks import bench, growth, rows, speedrun
from benchmarks.work import Job


def test_every_side_of_every_row_runs_and_the_losses_of_a_row_agree(tmp_path):
    report = {"machine": machine(), "rows": {}}
    for name in rows.ROWS:
        if name == "first_result":  # a whole kernel: too slow here, and the notebook has tests of its own
            continue
        measured = {}
        for side in [*rows.ROWS[name].sides, *(["peak"] if name in rows.BATCH["cpu"] else [])]:
            measured[side] = rows.build(Job(name, side, "cpu", toy=True))()
        losses = {side: one.loss for side, one in measured.items()}
        assert bench.disagreement(name, losses) == ""
        report["rows"][name] = {"losses": losses, "sides": {side: [vars(one)] for side, one in measured.items()}}
    text = bench.tables(report)
    for name, row in rows.ROWS.items():
        assert row.about in text or name in ("first_result", "estimate")
    assert "Estimated time / time taken" in text and "of float32 peak" in text
    grown = growth.measure(Job("growth", "ours", "cpu", toy=True))
    growth.draw(grown, tmp_path / "growth.png")
    text = bench.tables({"machine": machine(), "rows": {}, "growth": grown})
    assert "Growth, ResNet-18: a step of 2 images of 32 to 64 px" in text and "an epoch of 4 to 8 images" in text
    assert (tmp_path / "growth.png").stat().st_size > 10_000


def test_the_growth_of_cost_is_a_fixed_part_and_a_rate():
    points = [{"operations": operations, "seconds": 0.5 + operations / 8} for operations in (8, 16, 40)]
    assert growth.fitted(points) == pytest.approx((0.5, 8))
    through_zero = [{**point, "seconds": point["operations"] / 8} for point in points]
    assert growth.fitted(through_zero, from_zero=True) == pytest.approx((0, 8))


def machine() -> dict:
    names = ["device", "threads", "python", "torch", "torchvision", "date", "rounds", "plan"]
    return {**dict.fromkeys(names, "?"), "toy": True}


def two_sides(loss: float) -> dict:
    """A row of a report in which ours took 1 s and 2 s, the loop of 2018 3 s and 8 s."""
    sides = {
        "2018": [{"seconds": 3.0, "more": {}}, {"seconds": 8.0, "more": {}}],
        "ours": [{"seconds": 1.0, "more": {"source": "MNIST"}}, {"seconds": 2.0, "more": {"source": "MNIST"}}],
    }
    return {"losses": {"2018": loss, "ours": 1.0}, "sides": sides}


def test_a_ratio_is_the_median_of_the_ratios_within_rounds_and_needs_losses_that_agree():
    def table(loss):
        return bench.tables({"machine": machine(), "rows": {"lenet": two_sides(loss)}})

    assert "| 5.50 s | 1.50 s | **3.50** | 3.00 – 4.00 | 3 · 4.5 |" in table(1.0)
    for loss in (1.02, float("nan")):
        assert "3.50" not in table(loss) and "losses differ" in table(loss)


def test_only_the_place_between_the_marks_is_rewritten(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("above\n<!-- bench -->\nold\n<!-- /bench -->\nbelow\n")
    bench.write_readme(path, "new")
    assert path.read_text() == "above\n<!-- bench -->\nnew\n<!-- /bench -->\nbelow\n"
    path.write_text("no marks")
    with pytest.raises(ValueError, match="bench"):
        bench.write_readme(path, "new")
    assert path.read_text() == "no marks"


def test_sides_take_turns_in_processes_of_their_own_and_one_that_fails_says_why():
    side = bench.Side(Job("input_mnist", "ours", "cpu", toy=True))
    assert side.answer() == "ready" and side.round().images == 200
    side.stop()
    assert side.process.exitcode == 0
    here, there = multiprocessing.Pipe()
    bench.serve(Job("no_such_row", "ours", "cpu"), there)
    assert "no_such_row" in here.recv()


def test_peers_are_named_only_on_request():
    assert "fastai" not in bench.sides_of("lenet", "cpu", peers=False)
    sides = bench.sides_of("resnet18", "cpu", peers=True)
    assert "fastai" in sides and sides[-2:] == ["ours", "peak"]


def test_the_speedruns_first_layer_whitens_the_patches():
    images = torch.randn(50, 1, 16, 16).repeat(1, 3, 1, 1) + 0.3 * torch.randn(50, 3, 16, 16)
    layer = torch.nn.Conv2d(3, 24, 2)
    speedrun.whiten(layer, images)
    maps = layer(images)[:, :12].transpose(0, 1).flatten(1)  # (12, patches)
    assert torch.allclose(maps @ maps.T / maps.shape[1], torch.eye(12), atol=0.02)
