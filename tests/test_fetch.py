"""Mirrors, networks, locks and disks that fail, for real: a server that misbehaves, processes, namespaces."""

import contextlib
import errno
import os
import random
import signal
import ssl
import subprocess
import time

import filelock
import isolated
import pytest
from mirrors import Mirror, serve
from small_data import contents, refusal, sha256, write

from helpers.datasets import fetch, sources, weights
from helpers.keeping import store

NAME = "file.gz"
CONTENT = random.Random(0).randbytes(300_000)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Downloads are allowed, and a silent mirror is given up soon."""
    assert fetch.TIMEOUT <= 8 and fetch.PATIENCE <= 30  # seconds; nothing waits much longer
    monkeypatch.setattr(fetch, "TIMEOUT", 0.4)
    monkeypatch.setenv("LECTURE_OFFLINE", "0")


@pytest.fixture
def mirror():
    """Start mirrors of CONTENT: `mirror("drops")`."""
    with contextlib.ExitStack() as running:

        def start(fault=None, wrap=None, **settings):
            return running.enter_context(serve(Mirror({NAME: CONTENT}, fault, **settings), wrap))

        yield start


def download(folder, *mirrors):
    fetch.download("data", [mirror.address for mirror in mirrors], folder / NAME, sha256(CONTENT), len(CONTENT))


def failure(folder, *mirrors) -> str:
    return refusal(download, folder, *mirrors)


FAULTS = {
    403: "failed (403",
    404: "failed (404",
    503: "failed (503",
    "drops": "failed (",
    "silent": "said nothing",
    "cuts": "failed (",
    "stops": "said nothing",
    "trickles": "said nothing, or next to nothing",
    "flips": "sent other bytes (wrong SHA-256)",
    "plain": "failed (it redirects to plain HTTP, which is not followed)",
    "round": "failed (Exceeded 30 redirects",
    "endless": "sent too much",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_of_a_mirror_is_said_and_the_next_is_asked(tmp_path, mirror, capsys, fault):
    bad, good = mirror(fault), mirror()
    download(tmp_path, bad, good)
    assert contents(tmp_path) == {NAME: CONTENT}
    said = capsys.readouterr().out.splitlines()
    assert f"{bad.address} {FAULTS[fault]}" in said[0] and "SHA-256 verified" in said[1] and len(said) == 2
    assert fault == "round" or len(bad.asked) == 1  # no second try


def test_every_cause_is_listed_where_no_mirror_is_left(tmp_path, mirror):
    write(tmp_path, {NAME: b"old"})
    faults = (403, "drops", "stops", "flips")
    mirrors = [mirror(fault) for fault in faults]
    message = failure(tmp_path, *mirrors)
    for one, fault in zip(mirrors, faults, strict=True):
        assert f"{one.address} {FAULTS[fault]}" in message
    assert f"{NAME} (300,000 bytes, SHA-256 {sha256(CONTENT)})" in message and f"into {tmp_path}" in message
    assert contents(tmp_path) == {NAME: b"old"}


def test_where_the_network_is_forbidden_nothing_is_asked_or_made(tmp_path, mirror, monkeypatch):
    monkeypatch.setenv("LECTURE_OFFLINE", "yes")
    only = mirror()
    assert "LECTURE_OFFLINE is on" in failure(tmp_path / "new" / "folder", only)
    assert only.asked == [] and not (tmp_path / "new").exists()


@pytest.fixture(scope="module")
def own_certificate(tmp_path_factory):
    """A certificate that nobody knows, as a proxy that looks inside shows it."""
    folder = tmp_path_factory.mktemp("certificate")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -keyout key -out cert"
    command += " -addext subjectAltName=IP:127.0.0.1"
    try:
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"openssl makes no certificate here ({error})")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    return folder / "cert", lambda plain: context.wrap_socket(plain, server_side=True)


def test_a_certificate_that_is_not_accepted_is_named_with_the_way_on(tmp_path, mirror, own_certificate, monkeypatch):
    certificate, wrap = own_certificate
    only = mirror(wrap=wrap)
    message = failure(tmp_path, only)
    assert "certificate that is not accepted" in message and "REQUESTS_CA_BUNDLE" in message and only.asked == []
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))  # the advice works
    download(tmp_path, only)


def test_where_tls_fails_plain_http_is_never_tried(tmp_path, mirror):
    only = mirror()  # speaks plain HTTP only, so a second try without TLS would succeed
    only.address = only.address.replace("http:", "https:")
    assert "SSL" in failure(tmp_path, only)
    assert only.asked == [] and not contents(tmp_path)


def test_every_mirror_is_asked_over_https():
    every = sources.MNIST_MIRRORS + sources.CIFAR10_MIRRORS + weights.RESNET18_MIRRORS
    assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in every)


def test_without_any_network_all_that_is_needed_for_copying_by_hand_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("LECTURE_DATA", str(tmp_path))
    monkeypatch.setattr(fetch, "TIMEOUT", 8)

    def find():
        isolated.without_network()
        sources.find_mnist()

    message, name = isolated.run(find).error, "train-images-idx3-ubyte"
    assert message.count("was not found by name (no network?)") == 2
    assert f"Copy {name}.gz (9,912,422 bytes, SHA-256 {sources.MNIST_PACKED[name][0]}) from https://" in message
    assert f"into {tmp_path / 'MNIST' / 'raw'}" in message and "LECTURE_DATA" in message
    assert "in all: train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, t10k-" in message


def test_a_port_where_nobody_listens_and_a_proxy_that_is_not_there_are_said(tmp_path, monkeypatch):
    assert "Connection refused" in failure(tmp_path, Mirror({}, address="http://127.0.0.1:9/"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert "the proxy that HTTPS_PROXY names" in failure(tmp_path, Mirror({}, address="https://mirror.invalid/"))


def test_of_four_processes_one_downloads_and_the_others_say_for_whom_they_wait(tmp_path, mirror):
    slow = mirror(pause=0.02, piece=3000)  # 2 s in all
    children = [isolated.Child(lambda: download(tmp_path, slow)) for _ in range(4)]
    outcomes = [child.wait() for child in children]
    assert [outcome.error for outcome in outcomes] == [""] * 4
    assert slow.asked == [NAME] and contents(tmp_path) == {NAME: CONTENT}
    waiting = [outcome.printed for outcome in outcomes if "data: waiting for another process" in outcome.printed]
    assert len(waiting) == 3 and all(str(tmp_path) in line and line.count("\n") == 1 for line in waiting)


def test_a_killed_download_leaves_no_lock_and_nothing_that_is_mistaken_for_a_file(tmp_path, mirror):
    slow = mirror(pause=0.02, piece=3000)
    child = isolated.Child(lambda: download(tmp_path, slow))
    while not any(len(content) > 50_000 for content in contents(tmp_path).values()):
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait().signal == signal.SIGKILL
    (left,) = tmp_path.glob("*.partial")
    other = left.with_name(f"{NAME}.new.partial")
    other.write_bytes(b"being written by somebody else")
    os.utime(left, (time.time() - 2 * store.ABANDONED,) * 2)
    download(tmp_path, mirror())
    assert contents(tmp_path) == {NAME: CONTENT, other.name: other.read_bytes()}  # only the old one is cleared away


def test_two_that_write_at_once_do_not_touch_each_others_files(tmp_path):
    path = tmp_path / NAME
    with store.replacing(path) as first:
        first.write_bytes(b"first")
        with contextlib.suppress(KeyboardInterrupt), store.replacing(path) as second:
            second.write_bytes(b"second")
            raise KeyboardInterrupt
        assert first.read_bytes() == b"first" and not second.exists()
    assert contents(tmp_path) == {NAME: b"first"}


def test_waiting_for_one_that_shows_no_life_ends_and_names_the_lock_file(tmp_path, mirror, monkeypatch, capsys):
    monkeypatch.setattr(fetch, "PATIENCE", 0.5)
    lock, only = tmp_path / f".{NAME}.lock", mirror()
    with filelock.FileLock(lock):
        message = failure(tmp_path, only)
    assert str(lock) in message and "delete that file" in message and only.asked == []
    assert "waiting for another process" in capsys.readouterr().out
    lock.unlink(missing_ok=True)  # the advice works
    download(tmp_path, only)


def test_one_that_works_for_long_is_waited_for(tmp_path, mirror, monkeypatch):
    monkeypatch.setattr(fetch, "PATIENCE", 1.2)
    slow = mirror(pause=0.08, piece=10_000)  # 2.4 s in all
    child = isolated.Child(lambda: download(tmp_path, slow))
    while not slow.asked:
        time.sleep(0.01)
    download(tmp_path, Mirror({}, address="http://127.0.0.1:9/"))  # is not asked
    assert child.wait().error == "" and contents(tmp_path) == {NAME: CONTENT}


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError("no flock")])
def test_a_file_system_without_locks_is_no_obstacle(tmp_path, mirror, monkeypatch, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    write(tmp_path, {f".{NAME}.lock": b""})  # left by an old version
    download(tmp_path, mirror())
    assert contents(tmp_path) == {NAME: CONTENT}


def test_a_disk_too_small_is_said_before_anything_is_written(tmp_path, mirror):
    only, other = mirror(), mirror()

    def work():
        isolated.small_disk(tmp_path, "200k")
        return failure(write(tmp_path, {NAME: b"old"}), only, other), contents(tmp_path)

    message, left = isolated.run(work).value
    assert f"{tmp_path / NAME} cannot be read or written (300,000 bytes needed, " in message
    assert " free: No space left" in message and "Free some space" in message and "LECTURE_DATA" in message
    assert left == {NAME: b"old"} and only.asked == other.asked == []  # the fault is not the mirrors'


def test_a_limit_on_file_size_is_named_and_the_old_file_stays(tmp_path, mirror):
    write(tmp_path, {NAME: b"old"})
    only = mirror()

    def work():
        import resource  # not there on Windows, where this file is skipped

        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        download(tmp_path, only)

    assert os.strerror(errno.EFBIG) in isolated.run(work).error
    assert contents(tmp_path) == {NAME: b"old"}


def test_a_folder_that_cannot_be_made_is_named(tmp_path, mirror):
    message = failure(write(tmp_path, {"file": b""}) / "file", mirror())
    assert str(tmp_path / "file") in message and "cannot be read or written" in message and "LECTURE_DATA" in message
