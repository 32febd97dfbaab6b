"""CIFAR-10 from its published archive or from an image folder: found, verified, resumed, decoded once, cached."""

import http.server
import io
import logging
import pickle
import re
import tarfile
import time
import warnings
from functools import partial
from hashlib import md5, sha256
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch
from PIL import Image
from torchvision import datasets

from helpers import cache, folders, sources
from helpers.folders import load_image_folder

CUT = 2**17  # bytes of an archive that arrive before the connection breaks
NAMES = {"train": ["data_batch_1", "data_batch_2"], "test": ["test_batch"]}


def old_type() -> np.dtype:
    """What NumPy 2.4.0 to 2.4.4 do with the published batches, which name their type as Python 2 did."""
    warnings.warn("dtype(): align should be passed as boolean but got `align=0`", UserWarning, stacklevel=2)
    return np.dtype("u1")


class OldType:
    def __reduce__(self):
        return old_type, ()


class OldArray:
    def __init__(self, array):
        self.array = array

    def __reduce__(self):
        rebuild, arguments, _ = self.array.__reduce__()
        return rebuild, arguments, (1, self.array.shape, OldType(), False, self.array.tobytes())


class Trap:
    """A pickle that would leave a file at `path` if it were loaded."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def batch_bytes(seed: int) -> tuple[bytes, np.ndarray, list[int]]:
    random = np.random.default_rng(seed)
    data, labels = random.integers(0, 256, (20, 3072), dtype=np.uint8), random.integers(0, 10, 20).tolist()
    return pickle.dumps({"data": OldArray(data), "labels": labels}, protocol=2), data.reshape(-1, 3, 32, 32), labels


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty data folder; downloads go nowhere unless a test says where."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("LECTURE_DATA", str(folder))
    return folder


def pack(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def small(home, monkeypatch) -> dict:
    """A CIFAR-10 of 60 images: what the checksum tables are made to expect. Nothing of it is in `home` yet."""
    made = {name: batch_bytes(seed) for seed, name in enumerate(NAMES["train"] + NAMES["test"])}
    meta = pickle.dumps({"label_names": sources.CIFAR10_CLASSES})
    files = {name: content for name, (content, _, _) in made.items()} | {"batches.meta": meta}
    sums = {name: md5(content).hexdigest() for name, content in files.items()}
    tables = {part: {name: sums[name] for name in names} for part, names in NAMES.items()}
    archive = pack({f"cifar-10-batches-py/{name}": content for name, content in files.items()})
    monkeypatch.setattr(sources, "CIFAR10_BATCHES", tables | {"names": {"batches.meta": sums["batches.meta"]}})
    monkeypatch.setattr(sources, "CIFAR10_CHECKSUM", sha256(archive).hexdigest())
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [list(pair) for pair in tables["train"].items()])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [list(pair) for pair in tables["test"].items()])
    monkeypatch.setattr(datasets.CIFAR10, "meta", datasets.CIFAR10.meta | {"md5": sums["batches.meta"]})
    return {"made": made, "files": files, "archive": archive}


def lay_out(home: Path, small: dict) -> Path:
    folder = home / "cifar-10-batches-py"
    folder.mkdir()
    for name, content in small["files"].items():
        (folder / name).write_bytes(content)
    return folder


class Mirror(http.server.BaseHTTPRequestHandler):
    """Serves `content` with ranges. `cuts` says after how many bytes each answer breaks off, None: it does not."""

    def __init__(self, content, cuts, asked, ranges, *arguments):
        self.content, self.cuts, self.asked, self.ranges = content, cuts, asked, ranges
        super().__init__(*arguments)

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.asked.append(wanted)
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.ranges else 0
        if start >= len(self.content):
            self.send_error(416)
            return
        rest = self.content[start:]
        self.send_response(206 if wanted and self.ranges else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        cut = self.cuts.pop(0) if self.cuts else None
        self.wfile.write(rest[:cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(monkeypatch, serve):
    """Start local servers that stand for the mirrors; returns what each was asked for."""
    ports = []

    def start(content: bytes, *cuts: int | None, ranges: bool = True) -> list:
        asked = []
        handler = partial(Mirror, content, list(cuts), asked, ranges)
        ports.append(serve(handler))
        monkeypatch.setattr(sources, "CIFAR10_MIRRORS", [f"http://127.0.0.1:{port}/" for port in ports])
        return asked

    monkeypatch.delenv("LECTURE_OFFLINE", raising=False)
    return start


def save_image(path: Path, seed: int = 0, size: tuple[int, int] = (32, 32), mode: str = "RGB") -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    image.save(path)
    return pixels


@pytest.fixture
def pictures(tmp_path) -> Path:
    """An image folder of two classes, three training and two test images each."""
    folder = tmp_path / "pictures"
    for label, name in enumerate(["cat", "owl"]):
        for part, count in (("train", 3), ("test", 2)):
            for i in range(count):
                save_image(folder / part / name / f"{i}.png", seed=100 * label + 10 * count + i)
    return folder


def one_line(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# torchvision's layout


def test_batches_are_read_as_torchvision_reads_them(home, small, recwarn):
    lay_out(home, small)
    both = sources.load_cifar10()
    assert not recwarn.list
    for part, train, names in zip(both, (True, False), NAMES.values(), strict=True):
        np.testing.assert_array_equal(part.images, np.concatenate([small["made"][name][1] for name in names]))
        oracle = datasets.CIFAR10(home, train=train)
        np.testing.assert_array_equal(part.images.permute(0, 2, 3, 1), oracle.data)
        assert part.labels.tolist() == oracle.targets
        assert (part.classes, part.name) == (oracle.classes, "CIFAR-10")
    assert both[0].classes[0] == "airplane" and both[0].classes[9] == "truck"


def test_checksums_are_those_torchvision_and_the_authors_publish():
    assert sources.CIFAR10_BATCHES["train"]["data_batch_1"] == "c99cafc152244af753f735de768cd75f"
    assert len(sources.CIFAR10_BATCHES["train"]) == 5 and len(sources.CIFAR10_BATCHES["test"]) == 1
    assert sources.CIFAR10_CHECKSUM.startswith("6d958be0") and len(sources.CIFAR10_CHECKSUM) == 64
    assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in sources.CIFAR10_MIRRORS)


@pytest.mark.filterwarnings("ignore:dtype")  # torchvision lets NumPy's warning through
def test_archive_beside_is_unpacked_without_network(home, small):
    (home / "cifar-10-python.tar.gz").write_bytes(small["archive"])
    folder = sources.find_cifar10()
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == small["files"]
    assert len(datasets.CIFAR10(home)) == 40


def test_a_damaged_batch_is_repaired_from_the_archive(home, small):
    folder = lay_out(home, small)
    (home / "cifar-10-python.tar.gz").write_bytes(small["archive"])
    (folder / "test_batch").write_bytes(b"cut")
    sources.find_cifar10()
    assert (folder / "test_batch").read_bytes() == small["files"]["test_batch"]


def test_nothing_is_unpickled_before_its_checksum_was_right(home, small, tmp_path):
    trap = tmp_path / "trap"
    folder = lay_out(home, small)
    (folder / "test_batch").write_bytes(pickle.dumps(Trap(str(trap))))
    with pytest.raises(sources.DataError, match="missing"):
        sources.load_cifar10()
    with pytest.raises(sources.DataError, match="test_batch is damaged"):
        sources.read_batches(folder, "test")
    assert not trap.exists()


def test_a_tampered_archive_is_neither_opened_nor_lost(home, small, monkeypatch):
    path = home / "cifar-10-python.tar.gz"
    path.write_bytes(small["archive"][:-1] + b"!")
    monkeypatch.setattr(tarfile, "open", None)
    with pytest.raises(sources.DataError) as error:
        sources.find_cifar10()
    message = one_line(error)
    assert f"{path} (its SHA-256 is not CIFAR-10's)" in message and "LECTURE_OFFLINE=1" in message
    assert path.is_file() and not (home / "cifar-10-batches-py").exists()


def test_only_expected_regular_members_are_written(home, small, monkeypatch, tmp_path):
    good = {f"cifar-10-batches-py/{name}": content for name, content in small["files"].items()}
    evil = pack({"../evil": b"x", str(tmp_path / "evil"): b"x", "cifar-10-batches-py/../../evil": b"x", **good})
    monkeypatch.setattr(sources, "CIFAR10_CHECKSUM", sha256(evil).hexdigest())  # even if it were the published one
    (home / "cifar-10-python.tar.gz").write_bytes(evil)
    folder = sources.find_cifar10()
    assert {file.name for file in folder.iterdir()} == set(small["files"])
    assert not list(tmp_path.rglob("evil"))


def test_a_link_in_place_of_a_batch_is_refused(home, small, monkeypatch):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        link = tarfile.TarInfo("cifar-10-batches-py/test_batch")
        link.type, link.linkname = tarfile.SYMTYPE, "../../secret"
        archive.addfile(link)
    monkeypatch.setattr(sources, "CIFAR10_CHECKSUM", sha256(buffer.getvalue()).hexdigest())
    (home / "cifar-10-python.tar.gz").write_bytes(buffer.getvalue())
    with pytest.raises(sources.DataError, match=r"holds no good .*test_batch"):
        sources.find_cifar10()
    assert not list((home / "cifar-10-batches-py").iterdir())


def test_an_interrupted_unpacking_is_finished_by_the_next_run(home, small, monkeypatch):
    (home / "cifar-10-python.tar.gz").write_bytes(small["archive"])
    replace, done = Path.replace, []

    def interrupt(self, target):
        if done:
            raise KeyboardInterrupt
        done.append(target)
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sources.find_cifar10()
    folder = home / "cifar-10-batches-py"
    assert [file.name for file in folder.iterdir()] == ["data_batch_1"]
    assert len(sources.load_cifar10()[1]) == 20


# Download


def test_a_download_that_breaks_goes_on_at_the_next_mirror(home, small, mirror):
    first, second = mirror(small["archive"], CUT), mirror(small["archive"])
    folder = sources.find_cifar10()
    assert {file.name for file in folder.iterdir()} == set(small["files"])
    assert first == [None] and second == [f"bytes={CUT}-"]
    assert (home / "cifar-10-python.tar.gz").read_bytes() == small["archive"]
    assert not list(home.glob("*.partial"))


def test_a_download_that_breaks_is_resumed_by_the_next_run(home, small, mirror):
    asked = mirror(small["archive"], CUT)
    with pytest.raises(sources.DataError) as error:
        sources.find_cifar10()
    assert f"Run again to go on after the {CUT:,} bytes" in one_line(error)
    assert not (home / "cifar-10-python.tar.gz").exists()
    sources.find_cifar10()
    assert asked == [None, f"bytes={CUT}-"]


def test_a_mirror_without_ranges_starts_from_the_beginning(home, small, mirror):
    mirror(small["archive"], CUT, ranges=False)
    with pytest.raises(sources.DataError):
        sources.find_cifar10()
    sources.find_cifar10()
    assert (home / "cifar-10-python.tar.gz").read_bytes() == small["archive"]


def test_a_partial_file_that_is_already_whole_is_used(home, small, mirror):
    asked = mirror(small["archive"])
    (home / "cifar-10-python.tar.gz.partial").write_bytes(small["archive"])
    sources.find_cifar10()
    assert asked == [f"bytes={len(small['archive'])}-"]


def test_altered_bytes_are_dropped_and_the_next_mirror_is_asked_for_all(home, small, mirror):
    altered, good = mirror(b"!" + small["archive"][1:]), mirror(small["archive"])
    sources.find_cifar10()
    assert altered == [None] and good == [None]


def test_a_download_keeps_pooch_from_writing_to_stderr(home, small, mirror):
    mirror(small["archive"])
    pooch.get_logger().setLevel("INFO")  # its default
    sources.find_cifar10()
    assert not pooch.get_logger().isEnabledFor(logging.INFO)


def test_where_no_mirror_delivers_each_cause_and_the_way_by_hand_are_named(home, small, mirror):
    mirror(b"something else"), mirror(small["archive"][:-1])
    with pytest.raises(sources.DataError) as error:
        sources.find_cifar10()
    message = one_line(error)
    assert message.count("wrong SHA-256") == 2 and f"into {home}" in message and "LECTURE_DATA" in message
    assert [file.name for file in home.iterdir() if not file.name.startswith(".")] == []


def test_without_data_and_network_the_reason_is_one_line(home, small):
    with pytest.raises(sources.DataError) as error:
        sources.find_cifar10()
    assert "CIFAR-10" in one_line(error) and "cifar-10-python.tar.gz (missing)" in one_line(error)
    assert not (home / "cifar-10-batches-py").exists()


# The cache


def test_the_second_start_reads_the_cache_alone(home, small, monkeypatch):
    folder = lay_out(home, small)
    first = sources.load_cifar10()
    monkeypatch.setattr(sources, "MD5", None)
    monkeypatch.setattr(pickle, "loads", None)
    for before, after in zip(first, sources.load_cifar10(), strict=True):
        assert torch.equal(before.images, after.images) and torch.equal(before.labels, after.labels)
        assert (before.classes, before.name, before.source) == (after.classes, after.name, after.source)
    assert (folder / "decoded.pt").is_file()


def test_an_altered_cache_is_noticed_at_every_place_and_made_again(pictures):
    whole, first = load_image_folder(pictures, "pictures"), None
    path = pictures / "decoded.pt"
    good = path.read_bytes()
    for place in range(0, len(good), 997):
        damaged = bytearray(good)
        damaged[place] ^= 255
        path.write_bytes(damaged)
        first, second = load_image_folder(pictures, "pictures")
        assert torch.equal(first.images, whole[0].images) and torch.equal(second.images, whole[1].images)
        assert first.labels.tolist() == [0, 0, 0, 1, 1, 1] and first.classes == ["cat", "owl"]
    path.write_bytes(good[: len(good) // 2])
    assert len(load_image_folder(pictures, "pictures")[1]) == 4


def test_altered_pixels_in_an_intact_file_are_noticed(pictures):
    load_image_folder(pictures, "pictures")
    content = torch.load(pictures / "decoded.pt", weights_only=True)
    for key in ("train_images", "test_images", "train_labels"):
        altered = {**content, key: content[key].clone()}
        altered[key].view(-1)[0] += 1
        torch.save(altered, pictures / "decoded.pt")
        assert cache.load(pictures / "decoded.pt", content["sources"]) is None
    torch.save({**content, "name": "CIFAR-10"}, pictures / "decoded.pt")
    assert cache.load(pictures / "decoded.pt", content["sources"]) is None


def test_a_cache_that_would_run_code_does_not(pictures, tmp_path):
    trap = tmp_path / "trap"
    torch.save({"sources": Trap(str(trap))}, pictures / "decoded.pt")
    assert len(load_image_folder(pictures, "pictures")[0]) == 6
    assert not trap.exists()


def test_a_changed_added_or_removed_file_is_noticed(pictures):
    load_image_folder(pictures, "pictures")
    time.sleep(0.01)
    pixels = save_image(pictures / "test" / "cat" / "0.png", seed=77)
    _, test = load_image_folder(pictures, "pictures")
    np.testing.assert_array_equal(test.images[0].permute(1, 2, 0), pixels)
    (pictures / "train" / "cat" / "1.png").unlink()
    save_image(pictures / "train" / "owl" / "9.png")
    train, _ = load_image_folder(pictures, "pictures")
    assert train.labels.tolist() == [0, 0, 1, 1, 1, 1]


def test_a_cache_made_with_other_settings_is_not_used(pictures):
    (pictures / "test" / "cat" / "bad.png").write_bytes(b"no image")
    load_image_folder(pictures, "pictures", skip_unreadable=True)
    with pytest.raises(ValueError, match=r"bad\.png"):
        load_image_folder(pictures, "pictures")
    large, _ = load_image_folder(pictures, "pictures", image_size=48, skip_unreadable=True)
    assert large.images.shape == (6, 3, 48, 48)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), RuntimeError("unexpected pos 64")])
def test_where_the_cache_cannot_be_written_the_lecture_goes_on(pictures, monkeypatch, capsys, error):
    def fail(content, path):
        Path(path).write_bytes(b"half")
        raise error

    monkeypatch.setattr(torch, "save", fail)
    train, _ = load_image_folder(pictures, "pictures")
    assert len(train) == 6
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and "cannot be written" in said[1] and str(error) in said[1]
    assert sorted(file.name for file in pictures.iterdir()) == ["test", "train"]


def test_a_place_that_really_refuses_the_cache_is_named(pictures, capsys):
    (pictures / "decoded.pt").mkdir()  # stops every user, root as well, unlike a read-only folder
    assert len(load_image_folder(pictures, "pictures")[0]) == 6
    assert "cannot be written" in capsys.readouterr().out
    assert sorted(file.name for file in pictures.iterdir()) == ["decoded.pt", "test", "train"]


# Image folders


def test_an_image_folder_is_read_as_torchvision_reads_it(pictures):
    for images, part in zip(load_image_folder(pictures, "pictures"), ("train", "test"), strict=True):
        oracle = datasets.ImageFolder(pictures / part)
        assert images.classes == oracle.classes and images.labels.tolist() == oracle.targets
        for mine, (theirs, _) in zip(images.images, oracle, strict=True):
            np.testing.assert_array_equal(mine.permute(1, 2, 0), np.asarray(theirs))
        assert images.images.is_contiguous() and images.name == "pictures"


def cifar_folder(home: Path, suffix: str, classes: list[str]) -> None:
    for part in ("train", "test"):
        for seed, name in enumerate(classes):
            save_image(home / "cifar10" / part / name / f"1{suffix}", seed)


@pytest.mark.parametrize(
    ("suffix", "name"),
    [(".jpg", "CIFAR-10 as JPEG"), (".JPEG", "CIFAR-10 as JPEG"), (".png", "CIFAR-10 (image folder)")],
)
def test_the_folder_cifar10_says_how_far_it_is_from_the_original(home, small, suffix, name):
    cifar_folder(home, suffix, sources.CIFAR10_CLASSES)
    assert sources.find_cifar10() == home / "cifar10"
    train, test = sources.load_cifar10()
    assert train.name == test.name == name and train.classes == sources.CIFAR10_CLASSES
    assert "image folder cifar10" in train.source and str(home) not in train.source
    lay_out(home, small)
    assert sources.load_cifar10()[0].name == "CIFAR-10"  # torchvision's layout comes first


def test_own_images_in_the_folder_cifar10_are_not_called_cifar10(home):
    cifar_folder(home, ".jpg", ["oak", "elm"])
    assert sources.load_cifar10()[0].name == "own images (not CIFAR-10)"


def test_hidden_files_are_ignored(pictures):
    for place in (".DS_Store", "train/.DS_Store", "train/cat/.DS_Store"):
        (pictures / place).write_bytes(b"x")
    (pictures / "test" / ".ipynb_checkpoints").mkdir()
    assert len(load_image_folder(pictures, "pictures")[0]) == 6


def test_an_unreadable_file_is_named_and_skipped_only_if_asked(pictures, capsys):
    path = pictures / "train" / "owl" / "1.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError) as error:
        load_image_folder(pictures, "pictures")
    assert one_line(error).startswith(f"{path} cannot be read") and "skip_unreadable=True" in one_line(error)
    train, _ = load_image_folder(pictures, "pictures", skip_unreadable=True)
    assert train.labels.tolist() == [0, 0, 0, 1, 1]
    assert f"skipped 1: {Path('train', 'owl', '1.png')}" in capsys.readouterr().out


def test_a_class_of_which_nothing_is_left_is_an_error(pictures):
    for path in (pictures / "test" / "owl").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="not one image of class owl could be read"):
        load_image_folder(pictures, "pictures", skip_unreadable=True)


@pytest.mark.parametrize(("mode", "kind"), [("L", "grey"), ("1", "grey"), ("P", "of mode P"), ("RGBA", "of mode RGBA")])
def test_images_that_are_not_rgb_are_named_and_converted_only_if_asked(pictures, mode, kind):
    path = pictures / "test" / "cat" / "1.png"
    save_image(path, mode=mode)
    with pytest.raises(ValueError) as error:
        load_image_folder(pictures, "pictures")
    assert one_line(error).startswith(f"{path} is {kind}, not RGB. Pass to_rgb=True")
    _, test = load_image_folder(pictures, "pictures", to_rgb=True)
    np.testing.assert_array_equal(test.images[1].permute(1, 2, 0), Image.open(path).convert("RGB"))
    if kind == "grey":
        assert torch.equal(test.images[1, 0], test.images[1, 2])


def test_sixteen_bits_are_refused_rather_than_clipped(pictures):
    path = pictures / "test" / "cat" / "1.png"
    Image.fromarray(np.full((32, 32), 40000, np.uint16)).save(path)
    with pytest.raises(ValueError, match="8 bits a channel"):
        load_image_folder(pictures, "pictures", to_rgb=True)


def test_images_of_different_sizes_are_named_and_cropped_only_if_asked(pictures):
    path = pictures / "test" / "owl" / "1.png"
    save_image(path, size=(40, 20))
    with pytest.raises(ValueError) as error:
        load_image_folder(pictures, "pictures")
    assert one_line(error).startswith(f"{path} has 40×20 pixels, but {pictures / 'train' / 'cat' / '0.png'} 32×32.")
    train, test = load_image_folder(pictures, "pictures", image_size=24)
    assert train.images.shape == (6, 3, 24, 24) and test.images.shape == (4, 3, 24, 24)


def test_photographs_stand_upright(pictures):
    path = pictures / "test" / "cat" / "1.jpg"
    image = Image.fromarray(np.repeat(np.array([[0] * 16 + [255] * 16], np.uint8), 32, axis=0)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90° clockwise
    image.save(path, exif=exif)
    _, test = load_image_folder(pictures, "pictures")
    top, bottom = test.images[1, 0, :16].float().mean(), test.images[1, 0, 16:].float().mean()
    assert top < 50 < 200 < bottom


def test_classes_that_differ_between_train_and_test_are_named(pictures):
    (pictures / "test" / "owl").rename(pictures / "test" / "owls")
    with pytest.raises(ValueError) as error:
        load_image_folder(pictures, "pictures")
    assert "only in train: ['owl'], only in test: ['owls']" in one_line(error) and str(pictures) in one_line(error)


@pytest.mark.parametrize("part", ["train", "test"])
def test_an_empty_class_folder_is_named(pictures, part):
    folder = pictures / part / "wolf"
    folder.mkdir()
    with pytest.raises(ValueError) as error:
        load_image_folder(pictures, "pictures")
    assert one_line(error).startswith(f"{folder} holds no image.")


def test_wrong_layouts_are_named(pictures):
    (pictures / "train" / "cat" / "more").mkdir()
    with pytest.raises(ValueError, match="more is no file"):
        load_image_folder(pictures, "pictures")
    with pytest.raises(FileNotFoundError, match=r"train is missing. Lay the images out as train/<class>/<image>"):
        load_image_folder(pictures / "train", "pictures")
    for part in folders.PARTS:
        (pictures / "bare" / part).mkdir(parents=True)
    with pytest.raises(ValueError, match="has no class folder"):
        load_image_folder(pictures / "bare", "pictures")
