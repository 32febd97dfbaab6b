import gzip
import hashlib
import http.server
import threading

import pytest
import torch
from torchvision import datasets

from helpers import sources

CONTENT = {name: name.encode() * 500 for name in sources.MNIST_FILES}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty LECTURE_DATA, and small files in place of MNIST's, checksums and all."""
    monkeypatch.setenv("LECTURE_DATA", str(tmp_path))
    table = {
        name: (sha256(content), sha256(packed(content)), len(packed(content))) for name, content in CONTENT.items()
    }
    monkeypatch.setattr(sources, "MNIST_FILES", table)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    return raw


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def write_all(folder):
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)


@pytest.fixture
def server(monkeypatch):
    """Two mirrors on this machine, `answers[mirror]` decides what each serves; requests are noted in `asked`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        answers, asked = {}, []

        def do_GET(self):
            _, mirror, name = self.path.split("/")
            self.asked.append((mirror, name))
            kind = self.answers.get(mirror, "good")
            content = packed(CONTENT[name.removesuffix(".gz")])
            if kind == 404:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if kind == "flipped":
                content = bytes([content[0] ^ 1]) + content[1:]
            self.wfile.write(content[: len(content) // 2] if kind == "half" else content)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{running.server_port}"
        monkeypatch.setattr(sources, "MNIST_MIRRORS", [f"{address}/first/", f"{address}/second/"])
        monkeypatch.setenv("LECTURE_OFFLINE", "0")
        yield Handler
        running.shutdown()


def test_mirrors_use_https_only():
    assert all(mirror.startswith("https://") for mirror in sources.MNIST_MIRRORS)


def test_good_files_are_only_read(folder):
    write_all(folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert sources.find_mnist() == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_missing_file_without_network_is_one_line(folder):
    write_all(folder)
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(
        sources.DataError, match=r"t10k-labels-idx1-ubyte \(missing\).*LECTURE_OFFLINE=1.*Copy"
    ) as error:
        sources.find_mnist()
    assert "\n" not in str(error.value)


def test_altered_file_without_network_is_named(folder):
    write_all(folder)
    (folder / "train-labels-idx1-ubyte").write_bytes(b"\0" + CONTENT["train-labels-idx1-ubyte"][1:])
    with pytest.raises(sources.DataError, match=r"train-labels-idx1-ubyte \(its SHA-256 is not MNIST's\)"):
        sources.find_mnist()


def test_altered_file_is_repaired_from_the_archive_beside_it(folder):
    write_all(folder)
    name = "train-images-idx3-ubyte"
    (folder / name).write_bytes(b"half")
    # packed again with other settings: the .gz differs from the published one, the content does not
    (folder / f"{name}.gz").write_bytes(gzip.compress(CONTENT[name], compresslevel=1, mtime=9))
    sources.find_mnist()
    assert (folder / name).read_bytes() == CONTENT[name]


@pytest.mark.parametrize(
    "damage", [lambda packed: packed[: len(packed) // 2], lambda packed: b"no gzip", lambda p: b""]
)
def test_a_damaged_archive_is_not_believed(folder, damage):
    for name, content in CONTENT.items():
        (folder / f"{name}.gz").write_bytes(damage(packed(content)))
    with pytest.raises(sources.DataError, match="LECTURE_OFFLINE"):
        sources.find_mnist()
    assert not [path for path in folder.iterdir() if path.suffix != ".gz" and path.name != ".lock"]


def test_download(folder, server):
    sources.find_mnist()
    assert {name: (folder / name).read_bytes() for name in CONTENT} == CONTENT
    assert {mirror for mirror, _ in server.asked} == {"first"}


@pytest.mark.parametrize("fault", [404, "flipped", "half"])
def test_next_mirror_after_a_fault(folder, server, fault):
    server.answers["first"] = fault
    sources.find_mnist()
    assert {name: (folder / name).read_bytes() for name in CONTENT} == CONTENT
    assert ("second", "train-images-idx3-ubyte.gz") in server.asked


def test_all_mirrors_bad_lists_every_cause(folder, server):
    server.answers.update(first=404, second="flipped")
    with pytest.raises(
        sources.DataError, match=r"first/ answered 404; .*second/ sent other bytes \(wrong SHA-256\)"
    ) as error:
        sources.find_mnist()
    assert "\n" not in str(error.value)
    assert not [path for path in folder.iterdir() if path.name != ".lock"]  # nothing half done is left


def test_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LECTURE_DATA", str(tmp_path / "file"))  # not a folder, so nothing can be made below it
    with pytest.raises(sources.DataError, match=r"cannot be written.*LECTURE_DATA"):
        sources.find_mnist()


def test_loading_gives_torchvisions_images(tmp_path, monkeypatch):
    """Three images in MNIST's own format, read by torchvision and by us."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = torch.randint(0, 256, (3, 28, 28), dtype=torch.uint8)
    labels = torch.tensor([3, 0, 9], dtype=torch.uint8)
    sizes = b"".join(size.to_bytes(4, "big") for size in (3, 28, 28))
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + sizes + images.numpy().tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + sizes[:4] + labels.numpy().tobytes())
    monkeypatch.setenv("LECTURE_DATA", str(tmp_path))
    monkeypatch.setattr(sources, "MNIST_FILES", {p.name: (sha256(p.read_bytes()), "", 0) for p in raw.iterdir()})
    train_set, test_set = sources.load_mnist()
    expected = datasets.MNIST(tmp_path, train=True)
    assert torch.equal(train_set.images.squeeze(1), images) and torch.equal(expected.data, images)
    assert test_set.labels.tolist() == [3, 0, 9] and train_set.name == "MNIST"
