"""Weights files: found, downloaded, altered, malicious; and weights that are made here and kept."""

import contextlib
import hashlib
import http.server
import io
import json
import pickle
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torchvision import models

from helpers import weights
from helpers.files import DataError

SETTINGS = {"data": "five classes of noise", "images": 20, "epochs": 2, "seed": 0}


class Trap:
    """A pickle that would leave a file at `path` if it were loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def saved(state: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def some_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {"conv1.weight": torch.randn(4, 3, 3, 3), "bn1.num_batches_tracked": torch.tensor(7)}


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def one_line(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """`weights/` of an empty data folder."""
    monkeypatch.setenv("LECTURE_DATA", str(tmp_path))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


@pytest.fixture
def published(monkeypatch) -> bytes:
    """A small file in place of ResNet-18's, checksum and all."""
    content = saved(some_state())
    monkeypatch.setattr(weights, "RESNET18_CHECKSUM", sha256(content))
    return content


@pytest.fixture
def mirror(monkeypatch, serve):
    """Start a server on this machine that serves `content`; returns the paths it was asked for."""

    def start(content: bytes) -> list[str]:
        asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        monkeypatch.setattr(weights, "RESNET18_MIRRORS", [f"http://127.0.0.1:{serve(Handler)}/models/"])
        return asked

    monkeypatch.delenv("LECTURE_OFFLINE", raising=False)
    return start


# ImageNet's weights


def test_file_is_the_one_that_torchvision_names():
    theirs = models.ResNet18_Weights.IMAGENET1K_V1
    assert theirs.url == weights.RESNET18_MIRRORS[0] + weights.RESNET18_FILE
    assert theirs.url.startswith("https://") and weights.RESNET18_CHECKSUM[:8] in weights.RESNET18_FILE
    assert len(weights.RESNET18_CHECKSUM) == 64
    transform = theirs.transforms()
    assert list(weights.IMAGENET_MEAN) == transform.mean and list(weights.IMAGENET_STD) == transform.std


def test_good_file_is_only_read(folder, published):
    (folder / weights.RESNET18_FILE).write_bytes(published)
    pretrained = weights.imagenet_resnet18()
    assert equal(pretrained.state, some_state())
    assert pretrained.name == "ImageNet (IMAGENET1K_V1)" and "SHA-256 verified" in pretrained.made
    assert [path.name for path in folder.iterdir()] == [weights.RESNET18_FILE]  # not even a lock: may be read-only


def test_download(folder, published, mirror):
    asked = mirror(published)
    assert equal(weights.imagenet_resnet18().state, some_state())
    assert asked == ["/models/" + weights.RESNET18_FILE]
    weights.imagenet_resnet18()
    assert len(asked) == 1  # found the second time


def test_damaged_file_is_downloaded_again(folder, published, mirror):
    (folder / weights.RESNET18_FILE).write_bytes(published[:100])
    mirror(published)
    assert weights.find_imagenet_resnet18().read_bytes() == published


def test_altered_download_never_gets_the_name(folder, published, mirror):
    mirror(published[:-1] + b"x")
    with pytest.raises(DataError, match="no mirror delivered it") as error:
        weights.imagenet_resnet18()
    assert "(missing)" in one_line(error) and "46,830,571 bytes, SHA-256" in one_line(error)
    assert not [path for path in folder.iterdir() if path.suffix != ".lock"]


@pytest.mark.parametrize("content", [None, b"", b"not the weights"])
def test_without_network_one_line_says_what_to_do(folder, content, monkeypatch):
    monkeypatch.setenv("LECTURE_OFFLINE", "1")
    path = folder / weights.RESNET18_FILE
    if content is not None:
        path.write_bytes(content)
    wanted = r"LECTURE_OFFLINE=1. Copy resnet18-f37072fd.pth \(46,830,571 bytes, .*\) from https://"
    with pytest.raises(DataError, match=wanted) as error:
        weights.imagenet_resnet18()
    assert ("(missing" if content is None else "kept, not used") in one_line(error)
    assert content is None or path.read_bytes() == content


# reading


def test_reading_gives_what_was_saved(tmp_path):
    path = tmp_path / "some.pth"
    path.write_bytes(saved(some_state()))
    assert equal(weights.read_state(path, sha256(path.read_bytes())), some_state())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_altered_or_truncated_file_is_read(tmp_path, data):
    content = saved(some_state())
    place = data.draw(st.integers(0, len(content) - 1))
    flipped = content[:place] + bytes([content[place] ^ data.draw(st.integers(1, 255))]) + content[place + 1 :]
    path = tmp_path / "some.pth"
    for damaged in (flipped, content[:place], content + b"\0"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"damaged or was altered .* was kept .* Delete it and run again") as error:
            weights.read_state(path, sha256(content))
        one_line(error)
        assert path.read_bytes() == damaged


def malicious(trap: Path) -> dict[str, bytes]:
    """A trap as a bare pickle, as torch's file of today, and hidden in a file that was good."""
    good = io.BytesIO(saved(some_state()))
    hidden = io.BytesIO()
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(hidden, "w") as target:
        for name in source.namelist():
            target.writestr(name, pickle.dumps(Trap(trap), 2) if name.endswith("data.pkl") else source.read(name))
    return {"bare": pickle.dumps(Trap(trap), 2), "zip": saved({"w": Trap(trap)}), "hidden": hidden.getvalue()}


@pytest.mark.parametrize("kind", ["bare", "zip", "hidden"])
def test_a_malicious_pickle_of_the_right_name_does_not_run(tmp_path, folder, published, kind, monkeypatch):
    monkeypatch.setenv("LECTURE_OFFLINE", "1")
    trap, content = tmp_path / "trap", malicious(tmp_path / "trap")[kind]
    path = folder / weights.RESNET18_FILE
    path.write_bytes(content)
    with pytest.raises(DataError):
        weights.imagenet_resnet18()
    with pytest.raises(DataError, match="holds no plain weights") as error:
        weights.read_state(path, sha256(content))  # not even with its own checksum
    one_line(error)
    assert not trap.exists()
    with contextlib.suppress(RuntimeError):  # a bare pickle is no file of torch's, but has run by then
        torch.load(io.BytesIO(content), weights_only=False)
    assert trap.exists()  # it was a real trap


def test_a_file_of_something_else_or_none_at_all(tmp_path):
    path = tmp_path / "some.pth"
    path.write_bytes(saved({"model": some_state(), "epoch": 3}))
    with pytest.raises(DataError, match="something other than named tensors"):
        weights.read_state(path, sha256(path.read_bytes()))
    with pytest.raises(DataError, match="cannot be read"):
        weights.read_state(tmp_path / "none.pth", "")


# weights made here


class Maker:
    """Counts how often weights were made."""

    def __init__(self):
        self.calls = 0

    def __call__(self) -> tuple[dict[str, torch.Tensor], dict]:
        self.calls += 1
        state = some_state()
        state["fc.weight"] = torch.nn.Parameter(torch.randn(10, 10))[:2]  # needs gradients, part of a larger storage
        return state, {"source accuracy": 0.715}


def test_made_once_then_found(folder):
    make = Maker()
    made = weights.keep_pretrained("5 classes of noise", SETTINGS, make, mean=(0.5, 0.5, 0.5))
    found = weights.keep_pretrained("5 classes of noise", SETTINGS, make, mean=(0.5, 0.5, 0.5))
    assert make.calls == 1
    assert equal(made.state, found.state) and not made.state["fc.weight"].requires_grad
    assert (made.name, made.made, made.mean, made.std) == (found.name, found.made, found.mean, found.std)
    assert made.measured == found.measured and set(made.measured) == {"seconds", "source accuracy"}
    assert made.made.startswith("made here: data five classes of noise, images 20, epochs 2, seed 0; measured: ")
    assert "source accuracy 71.50%" in made.made and made.made.endswith(f"torch {torch.__version__}")
    (file,) = folder.glob("*.pth")
    assert file.name.startswith("5-classes-of-noise-")
    record = json.loads(file.with_suffix(".json").read_text())
    assert record["sha256"] == sha256(file.read_bytes()) and record["settings"]["images"] == 20
    assert file.stat().st_size < 8_000  # not the storage that fc.weight was a part of, nor gradients


def test_other_settings_make_other_weights(folder):
    make = Maker()
    for changed in [{}, {"seed": 1}, {"epochs": 3}]:
        weights.keep_pretrained("noise", SETTINGS | changed, make)
    weights.keep_pretrained("noise", SETTINGS, make, std=(1.0, 1.0, 1.0))
    weights.keep_pretrained("other noise", SETTINGS, make)
    assert make.calls == 5 == len(list(folder.glob("*.pth"))) == len(list(folder.glob("*.json")))


@pytest.mark.parametrize("kind", [".pth", ".json"])
@pytest.mark.parametrize("damage", [lambda c: b"", lambda c: c[: len(c) // 2], lambda c: c[:-9] + b"x" + c[-8:]])
def test_damaged_weights_are_made_again(folder, kind, damage, capsys):
    make = Maker()
    weights.keep_pretrained("noise", SETTINGS, make)
    (file,) = folder.glob(f"*{kind}")
    content = file.read_bytes()
    file.write_bytes(damage(content))
    capsys.readouterr()
    again = weights.keep_pretrained("noise", SETTINGS, make)
    assert make.calls == 2 and equal(again.state, weights.keep_pretrained("noise", SETTINGS, make).state)
    assert make.calls == 2
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "damaged; the weights are made again" in said


@pytest.mark.parametrize("kind", [".pth", ".json"])
def test_one_of_the_two_files_alone_is_not_used(folder, kind):
    """What a kill between the two leaves behind."""
    make = Maker()
    weights.keep_pretrained("noise", SETTINGS, make)
    next(folder.glob(f"*{kind}")).unlink()
    weights.keep_pretrained("noise", SETTINGS, make)
    assert make.calls == 2


def test_malicious_weights_with_a_record_that_fits_do_not_run(tmp_path, folder):
    make = Maker()
    weights.keep_pretrained("noise", SETTINGS, make)
    (file,), (beside,) = folder.glob("*.pth"), folder.glob("*.json")
    for content in malicious(tmp_path / "trap").values():
        file.write_bytes(content)
        beside.write_text(json.dumps(json.loads(beside.read_text()) | {"sha256": sha256(content)}))
        assert set(weights.keep_pretrained("noise", SETTINGS, make).state) >= set(some_state())
    assert make.calls == 4 and not (tmp_path / "trap").exists()


def test_weights_that_cannot_be_kept_are_used_all_the_same(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LECTURE_DATA", str(tmp_path / "file"))  # not a folder, so nothing can be made below it
    assert weights.keep_pretrained("noise", SETTINGS, Maker()).measured["source accuracy"] == 0.715
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and said.startswith("noise: the weights are used, but not kept: ")


def test_a_full_disk_leaves_no_half_file(folder, monkeypatch, capsys):
    """/dev/full stands in for the temporary file: every write to it fails as on a full disk."""
    write = Path.write_bytes

    def full(path, content):
        write(path, content[: len(content) // 2])
        with Path("/dev/full").open("wb", buffering=0) as disk:
            disk.write(content)

    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    monkeypatch.setattr(Path, "write_bytes", full)
    make = Maker()
    weights.keep_pretrained("noise", SETTINGS, make)
    assert "No space left" in capsys.readouterr().out
    assert [path.suffix for path in folder.iterdir()] in ([], [".lock"])


@pytest.mark.parametrize("error", [FileNotFoundError("no images"), KeyboardInterrupt(), ValueError("bad")])
def test_what_goes_wrong_in_making_is_not_blamed_on_the_folder(folder, error):
    def make():
        raise error

    with pytest.raises(type(error)) as raised:
        weights.keep_pretrained("noise", SETTINGS, make)
    assert raised.value is error and not list(folder.glob("*.pth"))
    weights.keep_pretrained("noise", SETTINGS, Maker())  # the lock is free


def test_of_several_at_once_one_trains(folder):
    """Threads, each with a lock file handle of its own, as processes would have."""
    made = []

    def make():
        made.append(threading.get_ident())
        time.sleep(0.3)
        return some_state(), {}

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: weights.keep_pretrained("noise", SETTINGS, make).state, range(4)))
    assert len(made) == 1 and all(equal(state, some_state()) for state in found)
