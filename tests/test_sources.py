"""MNIST and CIFAR-10: found under any name, verified, altered, packed to do harm; on read-only and full disks."""

import gzip
import pickle
import tarfile

import isolated
import numpy as np
import pytest
import torch
from mirrors import Mirror, serve
from small_data import Trap, add_member, cifar, cifar_archive, contents, equal, mnist, packed, refusal, sha256, write
from torchvision import datasets

from helpers.datasets import sources
from helpers.keeping import store

IMAGES, LABELS = "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
ARCHIVE = "cifar-10-python.tar.gz"


@pytest.fixture
def digit_files(monkeypatch) -> dict[str, bytes]:
    return mnist(monkeypatch)


@pytest.fixture
def batches(monkeypatch) -> dict[str, bytes]:
    return cifar(monkeypatch)[0]


def test_mnist_is_read_as_torchvision_reads_it(home, digit_files, recwarn):
    write(home / "MNIST" / "raw", digit_files)
    before = contents(home)
    for mine, train in zip(sources.load_mnist(), (True, False), strict=True):
        theirs = datasets.MNIST(home, train=train)
        assert torch.equal(mine.images.squeeze(1), theirs.data) and torch.equal(mine.labels, theirs.targets)
        assert mine.name == "MNIST" and mine.images.shape == (20, 1, 28, 28) and mine.classes == list("0123456789")
    assert contents(home) == before and not list(home.rglob(".*")) and not recwarn.list  # not even a lock


def dotted(files):
    return {name.replace("-idx", ".idx"): content for name, content in files.items()}


def altered(files):
    return {name: files[name][:-1] + b"?" for name in (IMAGES, LABELS)}


LAYOUTS = {
    "dots": lambda files: {f"MNIST/raw/{name}": content for name, content in dotted(files).items()},
    "unpacked by the browser": lambda files: {f"MNIST/raw/{name}.gz": content for name, content in files.items()},
    "dots and packed": lambda files: {f"MNIST/raw/{name}": content for name, content in packed(dotted(files)).items()},
    "downloaded twice": lambda files: {f"MNIST/{i} (1).gz": c for i, c in enumerate(packed(files).values())},
    "each in a folder": lambda files: {f"mnist-dataset/{name}/{name}": content for name, content in files.items()},
    "beside other files": lambda files: packed(files) | {"notes.txt": b"?", "empty": b"", "a.gz": b"\x1f\x8b" * 9},
    "swapped": lambda files: {f"MNIST/raw/{a}": files[b] for a, b in zip(files, reversed(list(files)), strict=True)},
    "altered beside good archives": lambda files: files | packed(files) | altered(files),
    "packed again": lambda files: {f"MNIST/raw/{n}.gz": gzip.compress(c, 1, mtime=9) for n, c in files.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mnist_is_used_under_whatever_names(home, digit_files, layout):
    write(home, LAYOUTS[layout](digit_files))
    before = contents(home)
    train, test = sources.load_mnist()
    assert np.array_equal(train.images.flatten(), np.frombuffer(digit_files[IMAGES], np.uint8, offset=16))
    assert test.labels.tolist() == list(digit_files[LABELS][8:])
    assert contents(home) == before


def test_raw_and_packed_altered_at_once_is_said_with_all_that_is_needed(home, digit_files):
    bad = altered(digit_files)
    raw = write(home / "MNIST" / "raw", digit_files | bad | packed(bad))
    before, message = contents(home), refusal(sources.load_mnist)
    assert f"{raw / IMAGES}.gz" in message and "LECTURE_OFFLINE is on" in message
    assert f"in all: {IMAGES}.gz, {LABELS}.gz" in message
    assert contents(home) == before


def test_an_archive_that_unpacks_without_end_is_given_up(home, monkeypatch):
    path = write(home, {"huge.gz": gzip.compress(bytes(10_000))}) / "huge.gz"
    assert 10_000 < sources.LARGEST <= 2**26
    monkeypatch.setattr(sources, "LARGEST", 1000)
    assert len(sources.read_idx(path)) == 1000


@pytest.mark.parametrize("load", [sources.load_mnist, sources.load_cifar10])
def test_the_data_folder_is_not_made_for_reading(home, load):
    home.rmdir()
    assert f" {home}/" in refusal(load) and not home.exists()


def test_batches_are_read_as_torchvision_reads_them(home, monkeypatch, recwarn):
    files, expected = cifar(monkeypatch)
    write(home / "cifar-10-batches-py", files)
    both = sources.load_cifar10()
    assert equal(both, expected) and not recwarn.list
    assert {part.name for part in both} == {"CIFAR-10"} and both[0].classes[::9] == ["airplane", "truck"]
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.CIFAR10, "_load_meta", lambda self: None)
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[name, ""] for name in ("data_batch_1", "data_batch_2")])
    assert np.array_equal(both[0].images.permute(0, 2, 3, 1), datasets.CIFAR10(home).data)


PLACES = {
    "archive": lambda files: {ARCHIVE: cifar_archive(files)},
    "unpacked by the browser": lambda files: {"cifar-10-python.tar": cifar_archive(files, mode="w")},
    "packed again": lambda files: {"cifar-10-python (1).tgz": cifar_archive(files, mode="w:gz")},
    "a folder deeper": lambda files: {f"cifar-10-python/cifar-10-batches-py/{n}": c for n, c in files.items()},
    "bad batch, good archive": lambda files: {ARCHIVE: cifar_archive(files), "cifar-10-batches-py/test_batch": b""},
}


@pytest.mark.parametrize("place", PLACES)
def test_cifar10_is_used_where_its_batches_are_whatever_the_names(home, monkeypatch, place):
    files, expected = cifar(monkeypatch)
    before = PLACES[place](files)
    write(home, before)
    assert equal(sources.load_cifar10(), expected)
    after = contents(home)
    (kept,) = set(after) - set(before)  # nothing is unpacked: there is nothing that could be interrupted
    assert kept.endswith("decoded.pt") and all(after[name] == content for name, content in before.items())
    monkeypatch.setattr(sources, "decode_batches", None)  # the second start reads the kept images alone
    assert equal(both := sources.load_cifar10(), expected) and both[0].source == "python batches, MD5 verified"
    assert sources.load_cifar10(image_size=8)[0].images.shape == (40, 3, 8, 8)


def test_nothing_is_unpickled_before_its_checksum_was_right(home, batches, tmp_path):
    trap, folder = tmp_path / "trap", home / "cifar-10-batches-py"
    write(folder, batches | {"test_batch": pickle.dumps(Trap(trap)), "decoded.pt": pickle.dumps(Trap(trap))})
    assert "missing" in refusal(sources.load_cifar10)
    assert "damaged" in refusal(sources.decode_batches, folder)
    torch.save({"key": Trap(trap)}, folder / "decoded.pt")
    assert store.read(folder / "decoded.pt")[0] is None
    assert not trap.exists()


MEMBERS = [
    ("../evil", tarfile.REGTYPE, ""),
    ("{outside}/evil", tarfile.REGTYPE, ""),
    ("cifar-10-batches-py", tarfile.SYMTYPE, "{outside}"),  # what is unpacked after it would land there
    ("cifar-10-batches-py/data_batch_1", tarfile.SYMTYPE, "{outside}/secret"),
    ("cifar-10-batches-py/data_batch_1", tarfile.LNKTYPE, "../secret"),
    ("cifar-10-batches-py/data_batch_1", tarfile.FIFOTYPE, ""),
]


@pytest.mark.parametrize(("name", "kind", "link"), MEMBERS)
def test_a_crafted_archive_writes_nothing(home, batches, tmp_path, name, kind, link):
    outside = write(tmp_path / "outside", {"secret": b"secret"})

    def add(archive):
        add_member(archive, name.format(outside=outside), kind=kind, link=link.format(outside=outside))

    write(home, {ARCHIVE: cifar_archive(batches, more=add)})
    assert len(sources.load_cifar10()[0]) == 40
    assert sorted(contents(tmp_path)) == [f"data/{ARCHIVE}", f"data/{ARCHIVE}.decoded.pt", "outside/secret"]


def test_a_link_alone_in_place_of_a_batch_is_not_followed(home, batches, tmp_path):
    secret = write(tmp_path, {"secret": batches.pop("test_batch")}) / "secret"  # though it leads to the right bytes

    def add(archive):
        add_member(archive, "cifar-10-batches-py/test_batch", kind=tarfile.SYMTYPE, link=str(secret))

    write(home, {ARCHIVE: cifar_archive(batches, more=add)})
    assert str(home / ARCHIVE) in refusal(sources.find_cifar10)


def test_missing_cifar10_is_downloaded(home, batches, monkeypatch):
    monkeypatch.setenv("LECTURE_OFFLINE", "no")
    archive = cifar_archive(batches)
    with serve(Mirror({ARCHIVE: archive}, "cuts")) as bad, serve(Mirror({ARCHIVE: archive})) as good:
        monkeypatch.setattr(sources, "CIFAR10_MIRRORS", [bad.address, good.address])
        monkeypatch.setattr(sources, "CIFAR10_CHECKSUM", sha256(archive))
        assert sources.find_cifar10() == home / ARCHIVE
        assert len(sources.load_cifar10()[1]) == 20 and len(good.asked) == 1
    assert not list(home.glob("*.partial"))


@pytest.mark.parametrize(("event", "number"), [("open", 1), ("open", 2), ("os.rename", 1)])
def test_a_start_that_is_killed_while_it_keeps_images_is_finished_by_the_next(home, monkeypatch, event, number):
    files, expected = cifar(monkeypatch)
    write(home, {ARCHIVE: cifar_archive(files)})

    def load():
        isolated.die_at(event, number, "decoded.pt")
        sources.load_cifar10()

    isolated.run(load)
    assert f"{ARCHIVE}.decoded.pt" not in contents(home) or event == "open"
    assert equal(sources.load_cifar10(), expected) and equal(sources.load_cifar10(), expected)


def test_a_read_only_folder_is_used_when_good_and_named_when_not(home, digit_files, monkeypatch):
    files, expected = cifar(monkeypatch)

    def use():
        isolated.small_disk(home)
        write(home / "MNIST", dotted(digit_files))
        write(home, {ARCHIVE: cifar_archive(files)})
        isolated.make_read_only(home)
        good = len(sources.load_mnist()[0]), equal(sources.load_cifar10(), expected)
        sources.MNIST_RAW["train-labels-idx1-ubyte"] = "0" * 64  # now one file is not right
        monkeypatch.setenv("LECTURE_OFFLINE", "0")
        return good, refusal(sources.find_mnist)

    outcome = isolated.run(use)
    assert outcome.error == ""
    good, message = outcome.value
    assert good == (20, True) and "Read-only file system" in message and "LECTURE_DATA" in message
    assert str(home / "MNIST" / "raw") in message
    assert "every start decodes the images again" in outcome.printed and "Read-only file system" in outcome.printed


def test_a_full_disk_costs_the_kept_images_only_and_says_what_is_needed(home, monkeypatch):
    files, expected = cifar(monkeypatch, count=100)

    def use():
        isolated.small_disk(home, "1200k")
        write(home, {ARCHIVE: cifar_archive(files)})
        return equal(sources.load_cifar10(), expected), sorted(contents(home))

    outcome = isolated.run(use)
    assert (outcome.error, outcome.value) == ("", (True, [ARCHIVE]))
    assert "924,000 bytes needed, " in outcome.printed and outcome.printed.count("\n") == 1
