"""Files from mirrors: fetched by one process at a time, used only with the right checksum, moved into place whole."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import requests

from helpers.keeping import environ, store
from helpers.keeping.messages import LiveText, Progress, say

TIMEOUT = 8  # seconds for the answer, and for each further piece; then the next mirror is asked
PIECE = 2**13  # bytes, so that a mirror is given up that brings less than 1,000 a second
PATIENCE = 20  # seconds in which the process that holds a lock has fetched nothing
CAUSES = {  # what the library's message has in it, and the end of the sentence "<mirror> …" for people
    "CERTIFICATE_VERIFY_FAILED": "has a certificate that is not accepted: set REQUESTS_CA_BUNDLE to your proxy's",
    "ProxyError": "was not reached through the proxy that HTTPS_PROXY names",
    "Failed to resolve": "was not found by name (no network?)",
    "timed out": f"said nothing, or next to nothing, for {TIMEOUT} s",
}


class DataError(OSError):
    """A dataset cannot be had. The message says which file, why, and what to do next."""


class NotDelivered(Exception):
    """A mirror did not deliver. The message ends the sentence "<mirror> …"."""


def verified(path: Path, checksum: str) -> bool:
    """Whether the file exists and has this SHA-256. Raises OSError where it cannot be read."""
    digest = hashlib.sha256()
    with suppress(FileNotFoundError, NotADirectoryError), path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest() == checksum


def download(what: str, mirrors: list[str], path: Path, checksum: str, size: int) -> None:
    """Fetch `path`, of this SHA-256 and `size` bytes, from the first mirror that has it, unless it is there.

    Raises DataError if none has it, and leaves what was at `path` as it was. `what` begins every message.
    """
    failures = []
    try:
        if verified(path, checksum):
            return
        if not environ.switch("LECTURE_OFFLINE"):
            with alone(what, path):
                for mirror in mirrors:
                    if verified(path, checksum) or fetch(mirror, path, checksum, size, failures):
                        return  # another process was faster, or it is there now
    except DataError:
        raise
    except OSError as error:
        advice = "Free some space, or set LECTURE_DATA to a folder that can be written or that has the data"
        raise DataError(f"{what}: {path} cannot be read or written ({error.strerror}). {advice}.") from error
    found = "its SHA-256 is not the published one; kept, not used" if path.exists() else "missing"
    why = f"no mirror delivered it ({'; '.join(failures)})" if failures else "not downloaded: LECTURE_OFFLINE is on"
    by_hand = f"Copy {path.name} ({size:,} bytes, SHA-256 {checksum}) from {' or '.join(mirrors)} into {path.parent}"
    raise DataError(f"{what}: {path} ({found}): {why}. {by_hand}, or set LECTURE_DATA to a folder that has the data.")


@contextmanager
def alone(what: str, path: Path) -> Iterator[None]:
    """Of several notebooks one makes `path`; the others say so, wait and find it. DataError after PATIENCE seconds."""
    guard, seen, since = path.with_name(f".{path.name}.lock"), None, time.monotonic()
    while (lock := store.locked(guard, timeout=1)) is None:
        sizes = [file.stat().st_size for file in path.parent.glob(f"{path.name}.*.partial") if file.is_file()]
        if seen is None:
            say(f"{what}: waiting for another process, which fetches {path}.")
        if sizes != seen:
            seen, since = sizes, time.monotonic()
        if time.monotonic() - since > PATIENCE:
            what += f": {guard} is held by another process, which has fetched nothing for {PATIENCE:g} s"
            raise DataError(f"{what}. If no other works there, delete that file and run again.")
    try:
        yield
    finally:
        lock.release()


def fetch(mirror: str, path: Path, checksum: str, size: int, failures: list[str]) -> bool:
    """Download one file aside and move it to `path`. A mirror's failure is added to the list, the disk's is raised."""
    live, digest = LiveText(), hashlib.sha256()
    live.show(f"{path.name}: asking {mirror}")
    bar = Progress(lambda line: live.show(f"{path.name}  {line}"), "bytes", size)
    try:
        with store.replacing(path, size) as partial, partial.open("wb") as target:
            for piece in pieces(mirror + path.name):
                target.write(piece)
                digest.update(piece)
                bar.update(len(piece))
                if bar.done > size:
                    raise NotDelivered("sent too much")
            if digest.hexdigest() != checksum:
                raise NotDelivered("sent other bytes (wrong SHA-256)")
    except NotDelivered as error:
        failures.append(f"{mirror} {error}" + (f" after {bar.done:,} of {size:,} bytes" if bar.done else ""))
        live.show(f"{path.name}: {failures[-1]}", final=True)
        return False
    live.show(f"{path.name}: downloaded, SHA-256 verified", final=True)
    return True


def pieces(url: str) -> Iterator[bytes]:
    """The bytes of the answer as they arrive. Raises NotDelivered where it fails, stops, or nearly does."""
    how = {"headers": {"Accept-Encoding": "identity"}, "hooks": {"response": no_plain_http}}
    try:
        with requests.get(url, stream=True, timeout=TIMEOUT, **how) as response:
            response.raise_for_status()
            read = getattr(response.raw, "read1", response.raw.read)  # what is there; older urllib3: a whole piece
            came, since = 0, time.monotonic()
            while piece := read(PIECE):
                yield piece
                came += len(piece)
                if came >= PIECE:
                    came, since = 0, time.monotonic()
                elif time.monotonic() - since > TIMEOUT:
                    raise TimeoutError("timed out")  # each byte alone may be in time
    except Exception as error:
        text = " ".join(str(error).split())
        raise NotDelivered(next((CAUSES[words] for words in CAUSES if words in text), f"failed ({text})")) from error


def no_plain_http(response: requests.Response, **_: object) -> None:  # called before a redirect is followed
    if response.is_redirect and response.headers["Location"].strip().lower().startswith("http:"):
        raise requests.exceptions.InvalidSchema("it redirects to plain HTTP, which is not followed")
