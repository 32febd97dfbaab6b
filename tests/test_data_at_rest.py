"""Datasets on disk that are altered, half unpacked, on a read-only or a full disk, or packed to do harm."""

import gzip
import hashlib
import io
import pickle
import signal
import sys
import tarfile
from pathlib import Path

import isolated
import numpy as np
import pytest
import torch
from PIL import Image

from helpers import results, sources
from helpers.data import ImageSet
from helpers.files import DataError
from helpers.folders import load_image_folder


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def raw_mnist(count: int) -> dict[str, bytes]:
    """Files in MNIST's own format with `count` images of noise for each part."""
    random, files = np.random.default_rng(0), {}
    sizes = [size.to_bytes(4, "big") for size in (count, 28, 28)]
    for part in ("train", "t10k"):
        pixels = random.integers(0, 256, count * 784, dtype=np.uint8).tobytes()
        files[f"{part}-images-idx3-ubyte"] = b"".join([b"\0\0\x08\x03", *sizes, pixels])
        labels = random.integers(0, 10, count, dtype=np.uint8).tobytes()
        files[f"{part}-labels-idx1-ubyte"] = b"".join([b"\0\0\x08\x01", sizes[0], labels])
    return files


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """The folder of a small MNIST, raw and packed, which the checksums are made to expect. Offline."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    monkeypatch.setenv("LECTURE_DATA", str(tmp_path))
    table = {}
    for name, content in raw_mnist(20).items():
        packed = gzip.compress(content, mtime=0)
        (folder / name).write_bytes(content)
        (folder / f"{name}.gz").write_bytes(packed)
        table[name] = sha256(content), sha256(packed), len(packed)
    monkeypatch.setattr(sources, "MNIST_FILES", table)
    return folder


def add_member(
    archive: tarfile.TarFile, name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
):
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = len(content), kind, link
    archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Make an archive of a small CIFAR-10, and the checksums that expect it: `cifar(add_more)` packs more into it."""
    home = tmp_path / "data"
    home.mkdir()
    monkeypatch.setenv("LECTURE_DATA", str(home))
    random, batches = np.random.default_rng(0), {}
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        content = {"data": random.integers(0, 256, (6, 3072), dtype=np.uint8), "labels": [0, 1, 2, 3, 4, 9]}
        batches[name] = pickle.dumps(content, protocol=2)
    sums = {name: hashlib.md5(content).hexdigest() for name, content in batches.items()}
    tables = {
        "train": {n: sums[n] for n in ("data_batch_1", "data_batch_2")},
        "test": {"test_batch": sums["test_batch"]},
    }
    monkeypatch.setattr(sources, "CIFAR10_BATCHES", tables)

    def pack(add_more=lambda archive: None, leave_out=()):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            add_more(archive)
            for name, content in batches.items():
                if name not in leave_out:
                    add_member(archive, f"cifar-10-batches-py/{name}", content)
        (home / sources.CIFAR10_ARCHIVE).write_bytes(buffer.getvalue())
        monkeypatch.setattr(sources, "CIFAR10_CHECKSUM", sha256(buffer.getvalue()))
        return home / "cifar-10-batches-py"

    pack.batches = batches
    return pack


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


# Altered files


def flip(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize("damage", [flip, cut, lambda content: b"", lambda content: content + b"?"])
def test_two_altered_raw_files_are_repaired_from_their_archives(mnist, damage):
    good = contents(mnist)
    for name in ("train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (mnist / name).write_bytes(damage(good[name]))
    train, test = sources.load_mnist()
    assert contents(mnist) == good and len(train) == len(test) == 20


@pytest.mark.parametrize("damage", [flip, cut])
def test_raw_and_packed_altered_at_once_is_said_with_all_that_is_needed(mnist, damage):
    names = ["train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"]
    for path in [mnist / name for name in names] + [mnist / f"{name}.gz" for name in names]:
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError) as error:
        sources.load_mnist()
    message = str(error.value)
    assert f"{names[0]} (its SHA-256 is not MNIST's, and {names[0]}.gz does not hold it)" in message
    assert f"Also needed: {names[1]}.gz" in message and "\n" not in message


def test_an_altered_archive_beside_good_raw_files_does_not_matter(mnist):
    packed = mnist / "train-images-idx3-ubyte.gz"
    packed.write_bytes(b"?")
    assert len(sources.load_mnist()[0]) == 20 and packed.read_bytes() == b"?"


def test_an_archive_that_unpacks_without_end_is_given_up(mnist):
    name = "t10k-labels-idx1-ubyte"
    (mnist / name).unlink()
    (mnist / f"{name}.gz").write_bytes(gzip.compress(bytes(2**27), compresslevel=1))

    def find():
        import resource  # not there on Windows, where this file is skipped

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**27, -1))  # 128 MiB more, of which reading may take half
        sources.find_mnist()

    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc to know the memory in use")
    assert f"{name}.gz does not hold it" in isolated.run(find).error


def test_old_files_of_torchvision_beside_mnist_are_not_believed(mnist):
    """torchvision's MNIST loads `processed/*.pt`, where there are such files, in place of the raw ones."""
    processed = mnist.parent / "processed"
    processed.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(1, 28, 28, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)), processed / name)
    assert len(sources.load_mnist()[0]) == 20


def test_a_file_that_may_not_be_read_is_said(mnist, monkeypatch):
    path = mnist / "train-images-idx3-ubyte"

    def refuse(event, arguments):  # root may read everything, so the refusal comes from below `open`
        if event == "open" and str(arguments[0]) == str(path):
            raise PermissionError(13, "Permission denied")

    def find():
        sys.addaudithook(refuse)
        sources.find_mnist()

    error = isolated.run(find).error
    assert f"{path} cannot be read (Permission denied). Make it readable, or set LECTURE_DATA" in error


# Interrupted unpacking


@pytest.mark.parametrize("event", ["open", "os.rename"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_unpacking_mnist_killed_at_each_file_is_finished_by_the_next_run(mnist, event, number):
    good = contents(mnist)
    for path in mnist.glob("*ubyte"):
        path.unlink()

    def find():
        isolated.die_at(event, number, ".partial")
        sources.find_mnist()

    assert isolated.run(find).signal == signal.SIGKILL
    for name, content in contents(mnist).items():
        assert name.endswith((".partial", ".holder")) or content == good[name]  # no half file under a good name
    sources.load_mnist()
    assert contents(mnist) == good


@pytest.mark.parametrize("event", ["open", "os.rename"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_unpacking_cifar10_killed_at_each_file_is_finished_by_the_next_run(cifar, event, number):
    folder = cifar()

    def find():
        isolated.die_at(event, number, ".partial")
        sources.find_cifar10()

    assert isolated.run(find).signal == signal.SIGKILL
    assert len(contents(folder)) < 4
    assert sources.find_cifar10() == folder and contents(folder) == cifar.batches
    train, test = sources.load_cifar10()
    assert (len(train), len(test)) == (12, 6)


# Archives that were packed to do harm


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("../evil", tarfile.REGTYPE, ""),
        ("{outside}/evil", tarfile.REGTYPE, ""),
        ("cifar-10-batches-py/../../evil", tarfile.REGTYPE, ""),
        ("cifar-10-batches-py", tarfile.SYMTYPE, "{outside}"),  # what is unpacked after it would land there
        ("cifar-10-batches-py/data_batch_1", tarfile.SYMTYPE, "{outside}/secret"),
        ("cifar-10-batches-py/data_batch_1", tarfile.LNKTYPE, "../secret"),
        ("cifar-10-batches-py/data_batch_1", tarfile.CHRTYPE, ""),
        ("cifar-10-batches-py/data_batch_1", tarfile.FIFOTYPE, ""),
        ("cifar-10-batches-py/data_batch_1", tarfile.DIRTYPE, ""),
    ],
)
def test_a_crafted_archive_writes_nothing_outside(cifar, tmp_path, name, kind, link):
    """Its checksum is made the expected one, as if the published archive itself were bad."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (tmp_path / "data" / "secret").write_bytes(b"secret")

    def add(archive):
        add_member(
            archive,
            name.format(outside=outside),
            b"evil" if kind == tarfile.REGTYPE else b"",
            kind,
            link.format(outside=outside),
        )

    folder = cifar(add)
    assert sources.find_cifar10() == folder and contents(folder) == cifar.batches
    assert all(path.is_file() and not path.is_symlink() for path in folder.iterdir())
    assert contents(outside) == {"secret": b"secret"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "outside"]
    assert {path.name for path in (tmp_path / "data").iterdir()} == {
        *("cifar-10-batches-py", "cifar-10-python.tar.gz", "secret", ".cifar10.lock")
    }


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_alone_in_place_of_a_batch_is_refused_in_one_line(cifar, tmp_path, kind):
    secret = tmp_path / "secret"
    secret.write_bytes(cifar.batches["test_batch"])  # even where the link leads to the right bytes

    def add(archive):
        add_member(archive, "cifar-10-batches-py/test_batch", kind=kind, link=str(secret))

    cifar(add, leave_out=["test_batch"])
    with pytest.raises(DataError, match=r"holds no good cifar-10-batches-py/test_batch\. Delete the archive"):
        sources.find_cifar10()


# Read-only and full disks


def test_a_read_only_folder_is_used_when_good_and_named_when_not(mnist, tmp_path):
    files = contents(mnist)

    def use():
        isolated.small_disk(tmp_path)
        mnist.mkdir(parents=True)
        for name, content in files.items():
            if not name.endswith(".gz"):
                (mnist / name).write_bytes(content)
        isolated.make_read_only(tmp_path)
        good = len(sources.load_mnist()[0])
        sources.MNIST_FILES["train-labels-idx1-ubyte"] = ("0" * 64, "0" * 64, 1)  # now one file is not right
        with pytest.raises(DataError) as error:
            sources.find_mnist()
        return good, str(error.value)

    outcome = isolated.run(use)
    assert outcome.error == ""
    good, message = outcome.value
    assert good == 20
    assert (
        message.startswith(f"MNIST: {mnist} cannot be written (Read-only file system).") and "LECTURE_DATA" in message
    )


def test_pictures_on_a_read_only_disk_are_decoded_and_the_missing_cache_is_said(tmp_path):
    def use():
        isolated.small_disk(tmp_path)
        for path in (tmp_path / "train" / "cat" / "1.png", tmp_path / "test" / "cat" / "1.png"):
            path.parent.mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(path)
        isolated.make_read_only(tmp_path)
        return len(load_image_folder(tmp_path, "pictures")[0])

    outcome = isolated.run(use)
    assert (outcome.error, outcome.value) == ("", 1)
    assert f"{tmp_path / 'decoded.pt'} cannot be written" in outcome.printed.splitlines()[-1]


def test_a_full_disk_costs_the_cache_only_and_says_what_it_lacks(tmp_path):
    def use():
        isolated.small_disk(tmp_path)
        for number, path in enumerate((tmp_path / "train" / "cat" / "1.png", tmp_path / "test" / "cat" / "1.png")):
            path.parent.mkdir(parents=True)
            Image.new("RGB", (512, 512), color=number).save(path)
        (tmp_path / "decoded.pt").write_bytes(b"old")
        train, _ = load_image_folder(tmp_path, "pictures")
        return len(train), sorted(path.name for path in tmp_path.iterdir()), (tmp_path / "decoded.pt").read_bytes()

    outcome = isolated.run(use)
    assert (outcome.error, outcome.value) == ("", (1, ["decoded.pt", "test", "train"], b"old"))
    assert "cannot be written (1,572,880 bytes needed, " in outcome.printed.splitlines()[-1]


def test_a_full_disk_while_unpacking_is_named_and_keeps_the_archive(mnist, tmp_path):
    packed = {name: content for name, content in contents(mnist).items() if name.endswith(".gz")}

    def use():
        isolated.small_disk(tmp_path, "48k")
        mnist.mkdir(parents=True)
        for name, content in packed.items():
            (mnist / name).write_bytes(content)
        with pytest.raises(DataError) as error:
            sources.find_mnist()
        return str(error.value), sorted(contents(mnist))

    outcome = isolated.run(use)
    assert outcome.error == ""
    message, left = outcome.value
    assert "has no space (15,696 bytes needed, " in message and "\n" not in message
    assert packed.keys() <= set(left) and not any(name.endswith(".partial") for name in left)


def test_results_that_cannot_be_written_name_the_variable_to_set(tmp_path, monkeypatch):
    from helpers.environment import start_run

    run = start_run("29_lenet_mnist", lambda: tmp_path)
    images = ImageSet(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), ["0"], "x", "y")
    folder = tmp_path / "results"

    def save():
        isolated.small_disk(tmp_path)
        isolated.make_read_only(tmp_path)
        monkeypatch.setenv("LECTURE_RESULTS", str(folder))
        results.save_results(run, images, images, 8, {})

    error = isolated.run(save).error
    assert error.startswith(f"OSError: {folder / '29_lenet_mnist.json'} cannot be written (Read-only file system).")
    assert "LECTURE_RESULTS" in error and "run this cell again" in error and "\n" not in error
    folder.write_text("")  # a file where the folder should be
    monkeypatch.setenv("LECTURE_RESULTS", str(folder))
    with pytest.raises(OSError, match=r"cannot be written.*LECTURE_RESULTS"):
        results.save_results(run, images, images, 8, {})
