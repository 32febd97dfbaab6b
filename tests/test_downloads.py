"""Mirrors and networks that fail, for real: a local server that misbehaves, no network, several processes, no space."""

import contextlib
import errno
import hashlib
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import time

import isolated
import pytest
from mirrors import Mirror, serve

from helpers import downloads, files, network, sources
from helpers.files import DataError

NAME = "file.gz"
CONTENT = random.Random(0).randbytes(300_000)
CHECKSUM = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Downloads are allowed, and a silent mirror is given up after a third of a second."""
    assert network.TIMEOUT <= 8  # nothing waits longer than 10 s to speak
    monkeypatch.setattr(network, "TIMEOUT", 0.4)
    monkeypatch.setenv("LECTURE_OFFLINE", "0")


@pytest.fixture
def mirror():
    """Start mirrors of CONTENT: `mirror("drops")`."""
    with contextlib.ExitStack() as running:

        def start(fault=None, wrap=None, **settings):
            return running.enter_context(serve(Mirror({NAME: CONTENT}, fault, **settings), wrap))

        yield start


def fetch(folder, *mirrors):
    downloads.download([mirror.address for mirror in mirrors], folder / NAME, CHECKSUM, len(CONTENT))


def failure(folder, *mirrors) -> str:
    """The one line with which a download from these mirrors fails."""
    with pytest.raises(DataError) as error:
        fetch(folder, *mirrors)
    assert "\n" not in str(error.value)
    return str(error.value)


FAULTS = {
    403: "answered 403",
    404: "answered 404",
    503: "answered 503",
    "drops": "dropped the connection",
    "silent": "said nothing for 0.4 s",
    "cuts": "broke off after 150,000 of 300,000 bytes",
    "stops": "said nothing for 0.4 s after 150,000 of 300,000 bytes",
    "flips": "sent other bytes (wrong SHA-256)",
    "plain": "redirects to plain HTTP, which is not followed",
    "endless": "sent too much: it did not end after",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_of_a_mirror_is_said_and_the_next_is_asked(tmp_path, mirror, capsys, fault):
    bad, good = mirror(fault), mirror()
    fetch(tmp_path, bad, good)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    said = capsys.readouterr().out.splitlines()
    assert f"{bad.address} {FAULTS[fault]}" in said[0] and said[0].endswith(f"now {good.address}")
    assert said[1:] == [f"{NAME}: downloaded, SHA-256 verified"]
    assert "Error" not in said[0] and len(bad.asked) == 1  # words, no names of exceptions; no second try


def test_every_cause_is_listed_where_no_mirror_is_left(tmp_path, mirror):
    mirrors = [mirror(fault) for fault in (403, "drops", "silent", "flips")]
    message = failure(tmp_path, *mirrors)
    for one, fault in zip(mirrors, (403, "drops", "silent", "flips"), strict=True):
        assert f"{one.address} {FAULTS[fault]}" in message
    assert f"{NAME} (300,000 bytes, SHA-256 {CHECKSUM})" in message and f"into {tmp_path}" in message
    assert not list(tmp_path.iterdir())


def test_two_silent_mirrors_take_two_limits_and_no_longer(tmp_path, mirror, capsys):
    begin = time.monotonic()
    failure(tmp_path, mirror("silent"), mirror("silent"))
    assert time.monotonic() - begin < 2
    assert len(capsys.readouterr().out.splitlines()) == 2  # one line as soon as each is given up


def test_the_limit_holds_for_all_redirects_together(tmp_path, mirror):
    begin = time.monotonic()
    assert "said nothing" in failure(tmp_path, mirror("round", pause=0.3))
    assert time.monotonic() - begin < 1  # each redirect alone would be in time


def test_a_mirror_that_trickles_is_given_up(tmp_path, mirror):
    slow, good = mirror(pause=0.05, piece=1), mirror()
    fetch(tmp_path, slow, good)
    assert 0 < int(good.asked[0].removeprefix(f"{NAME} from ")) < 1000  # what had come is kept


def test_a_damaged_beginning_from_an_earlier_run_is_fetched_again_from_the_same_mirror(tmp_path, mirror):
    (tmp_path / f"{NAME}.partial").write_bytes(b"?" + CONTENT[1:1000])
    only = mirror()
    fetch(tmp_path, only)
    assert only.asked == [f"{NAME} from 1000", NAME] and (tmp_path / NAME).read_bytes() == CONTENT


# TLS


@pytest.fixture(scope="module")
def own_certificate(tmp_path_factory):
    """A certificate that nobody knows, as a proxy that looks inside shows it."""
    folder = tmp_path_factory.mktemp("certificate")
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    try:
        subprocess.run(
            [*command.split(), "-keyout", "key", "-out", "cert"], cwd=folder, check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"openssl makes no certificate here ({error})")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    return folder / "cert", lambda plain: context.wrap_socket(plain, server_side=True)


def test_a_certificate_that_is_not_accepted_is_named_with_the_way_on(tmp_path, mirror, own_certificate, monkeypatch):
    certificate, wrap = own_certificate
    only = mirror(wrap=wrap)
    message = failure(tmp_path, only)
    assert "certificate not accepted (self-signed certificate): behind a proxy set REQUESTS_CA_BUNDLE" in message
    assert only.asked == []
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))  # the advice works
    fetch(tmp_path, only)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "nowhere"))
    (tmp_path / NAME).unlink()
    assert "CA certificate bundle, invalid path" in failure(tmp_path, only)


def test_where_tls_fails_plain_http_is_never_tried(tmp_path, mirror):
    only = mirror()  # speaks plain HTTP only, so a second try without TLS would succeed
    only.address = only.address.replace("http:", "https:")
    assert "made no secure connection (" in failure(tmp_path, only)
    assert only.asked == [] and not list(tmp_path.iterdir())


def test_every_mirror_is_asked_over_https():
    assert all(mirror.startswith("https://") for mirror in sources.MNIST_MIRRORS + sources.CIFAR10_MIRRORS)


# No network


def test_without_any_network_all_that_is_needed_for_copying_by_hand_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("LECTURE_DATA", str(tmp_path))
    monkeypatch.setattr(network, "TIMEOUT", 8)

    def find():
        isolated.without_network()
        sources.find_mnist()

    message = isolated.run(find).error
    packed = "train-images-idx3-ubyte.gz"
    checksum = sources.MNIST_FILES[packed.removesuffix(".gz")][1]
    assert message.count("was not found by name (no network?)") == 2
    assert f"Copy {packed} (9,912,422 bytes, SHA-256 {checksum}) from https://" in message
    assert f"into {tmp_path / 'MNIST' / 'raw'}" in message and "LECTURE_DATA" in message
    assert "Also needed: train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz" in message


def test_a_port_where_nobody_listens_is_said(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = Mirror({}, address=f"http://127.0.0.1:{free.getsockname()[1]}/")
        assert "could not be connected to (Connection refused)" in failure(tmp_path, nobody)


def test_a_proxy_that_is_not_there_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    message = failure(tmp_path, Mirror({}, address="https://mirror.invalid/"))
    assert "was not reached through the proxy that HTTPS_PROXY names" in message


# Several processes, killed processes


def locked_fetch(folder, mirror):
    with files.writing("data", folder, ".lock"):
        if not files.verified(folder / NAME, CHECKSUM):
            fetch(folder, mirror)


def test_of_four_processes_one_downloads_and_the_others_say_for_whom_they_wait(tmp_path, mirror):
    slow = mirror(pause=0.02, piece=3000)  # 2 s in all
    begin = time.monotonic()
    children = [isolated.Child(lambda: locked_fetch(tmp_path, slow)) for _ in range(4)]
    outcomes = [child.wait() for child in children]
    assert [outcome.error for outcome in outcomes] == [""] * 4
    assert slow.asked == [NAME] and (tmp_path / NAME).read_bytes() == CONTENT
    waiting = [outcome.printed for outcome in outcomes if "waiting for" in outcome.printed]
    (holder,) = [c.pid for c, o in zip(children, outcomes, strict=True) if "downloaded" in o.printed]
    assert len(waiting) == 3 and time.monotonic() - begin < 10
    for line in waiting:
        assert f"data: waiting for process {holder} since " in line
        assert line.endswith(f", which prepares {NAME} in {tmp_path}.\n")


def test_who_waits_speaks_within_two_seconds(tmp_path, capsys):
    reader, writer = os.pipe()

    def hold():
        with files.writing("data", tmp_path, ".lock"):
            os.write(writer, b"!")
            time.sleep(1.8)

    child = isolated.Child(hold)
    os.read(reader, 1)
    with files.writing("data", tmp_path, ".lock"):
        assert f"waiting for process {child.pid} since" in capsys.readouterr().out
    assert child.wait().error == ""
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_killed_download_leaves_no_lock_and_is_resumed(tmp_path, mirror):
    slow = mirror(pause=0.02, piece=3000)
    child = isolated.Child(lambda: locked_fetch(tmp_path, slow))
    partial = tmp_path / f"{NAME}.partial"
    while not partial.is_file() or partial.stat().st_size < 50_000:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait().signal == signal.SIGKILL
    assert not (tmp_path / NAME).exists()
    have = partial.stat().st_size
    locked_fetch(tmp_path, slow)
    assert slow.asked == [NAME, f"{NAME} from {have}"] and (tmp_path / NAME).read_bytes() == CONTENT


# The disk


def test_a_disk_too_small_is_said_before_anything_is_written(tmp_path, mirror):
    only, other = mirror(), mirror()

    def download():
        isolated.small_disk(tmp_path, "200k")
        (tmp_path / NAME).write_bytes(b"old")
        with pytest.raises(DataError) as error:
            fetch(tmp_path, only, other)
        return str(error.value), {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    outcome = isolated.run(download)
    message, left = outcome.value
    assert f"{tmp_path} has no space (300,000 bytes needed, " in message and " free: No space left" in message
    assert "Free some space" in message and "LECTURE_DATA" in message
    assert left == {NAME: b"old"} and other.asked == []  # the fault is not the mirror's


def test_a_disk_that_fills_up_on_the_way_keeps_what_earlier_runs_brought(tmp_path, mirror):
    slow = mirror(piece=10_000, pause=0.01)

    def download():
        isolated.small_disk(tmp_path, "400k")
        (tmp_path / f"{NAME}.partial").write_bytes(CONTENT[:50_000])
        filler = (tmp_path / "another program's").open("wb")

        def fill(event, arguments):  # at the moment when the answer begins to be written
            if event == "open" and str(arguments[0]).endswith(".partial") and "a" in arguments[1]:
                filler.write(bytes(200_000))
                filler.flush()

        sys.addaudithook(fill)
        with pytest.raises(DataError) as error:
            fetch(tmp_path, slow)
        return str(error.value), (tmp_path / f"{NAME}.partial").read_bytes()

    outcome = isolated.run(download)
    assert outcome.error == ""
    message, partial = outcome.value
    assert "has no space (250,000 bytes needed, " in message
    assert partial == CONTENT[:50_000]


def test_a_limit_on_file_size_is_named_and_the_old_file_stays(tmp_path):
    """Needs no namespace: the kernel refuses what exceeds RLIMIT_FSIZE."""
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write():
        import resource  # not there on Windows, where this file is skipped

        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        files.write_whole(path, bytes(5000))

    assert f"DataError: {tmp_path} has no space (5,000 bytes needed" in (error := isolated.run(write).error)
    assert os.strerror(errno.EFBIG) in error
    assert path.read_bytes() == b"old" and [path.name for path in tmp_path.iterdir()] == ["file"]
