"""Files on disk and on mirrors: checked by checksum, unpacked and downloaded so that no half of one is ever used."""

import functools
import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pooch
import requests
from filelock import FileLock

from helpers.progress import LiveText, Progress

TIMEOUT = 8  # seconds that a mirror may stay silent before the next one is tried


class DataError(OSError):
    """A dataset cannot be had. The message says which file, why, and what to do next."""


@contextmanager
def writing(dataset: str, folder: Path, lock: str) -> Iterator[None]:
    """Make the folder and let in one process at a time: of several notebooks one downloads, the others then find it.

    Raises DataError where the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / lock):
            yield
    except DataError:
        raise
    except OSError as error:
        advice = "Free some space or set LECTURE_DATA to a folder that can be written"
        raise DataError(f"{dataset}: {folder} cannot be written ({error}). {advice}.") from error


def verified(path: Path, checksum: str, algorithm: Callable = hashlib.sha256) -> bool:
    """Whether the file exists and has this checksum."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest() == checksum


def unpack(packed: Path, path: Path, checksum: str) -> bool:
    """Unpack a .gz file to `path` if the content has this SHA-256; say whether it had."""
    try:
        content = gzip.decompress(packed.read_bytes())
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return False
    if hashlib.sha256(content).hexdigest() != checksum:
        return False
    write_whole(path, content)
    return True


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees half of it under its name."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)  # atomic
    finally:
        partial.unlink(missing_ok=True)


def download(mirrors: list[str], path: Path, checksum: str) -> None:
    """Download `path.name` from the first mirror that delivers this SHA-256. Raises DataError if none does.

    What came before a connection broke stays in `path.name.partial`; the next mirror, or the next run, goes on there.
    """
    places = " or ".join(mirrors)
    by_hand = f"Copy {path.name} from {places} into {path.parent}, or set LECTURE_DATA to a folder that has the data"
    partial = path.with_name(path.name + ".partial")
    if os.environ.get("LECTURE_OFFLINE") == "1":
        raise DataError(f"not downloaded, since LECTURE_OFFLINE=1. {by_hand}.")
    pooch.get_logger().setLevel("WARNING")  # its notes would go to stderr, and the bar says the same
    live, failures = LiveText(), []
    for mirror in mirrors:
        bar = Progress(lambda line: live.show(f"{path.name}  {line}"), "bytes")
        fetch = functools.partial(resume, partial=partial, bar=bar)
        try:
            pooch.retrieve(mirror + path.name, f"sha256:{checksum}", path.name, path.parent, downloader=fetch)
        except (ValueError, requests.RequestException) as error:  # pooch: ValueError for a wrong checksum
            failures.append(f"{mirror}: {type(error).__name__}")
        else:
            live.show(f"{path.name}: downloaded, SHA-256 verified", final=True)
            return
    if partial.is_file():
        by_hand = f"Run again to go on after the {partial.stat().st_size:,} bytes that have come. Or: {by_hand}"
    raise DataError(f"no mirror delivered it ({'; '.join(failures)}). {by_hand}.")


def resume(url: str, file: str, _: object, partial: Path, bar: Progress) -> None:
    """Download what is missing at the end of `partial`, then move it to `file`. Called by pooch, which checks it."""
    have = partial.stat().st_size if partial.is_file() else 0
    headers = {"Accept-Encoding": "identity"}  # the file's own bytes, or their positions mean nothing
    if have:
        headers["Range"] = f"bytes={have}-"
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code != 416:  # 416: there is nothing after `have`
            response.raise_for_status()
            bar.total = int(response.headers.get("Content-Length", 0))
            with partial.open("ab" if response.status_code == 206 else "wb") as target:  # 200: all from the start
                for chunk in response.iter_content(2**16):
                    target.write(chunk)
                    bar.update(len(chunk))
    partial.replace(file)
