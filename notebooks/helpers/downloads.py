"""Downloads from mirrors: resumed where they broke off, and used only with the right checksum."""

import functools
import os
from pathlib import Path

import pooch
import requests

from helpers import network
from helpers.files import DataError, space_for
from helpers.progress import LiveText, Progress


def download(mirrors: list[str], path: Path, checksum: str, size: int = 0) -> None:
    """Download `path.name` from the first mirror that delivers this SHA-256. Raises DataError if none does.

    `size`, in bytes, is for the message that says what to copy by hand, and bounds what a mirror may send. What came
    before a connection broke stays in `path.name.partial`; the next mirror, or the next run, goes on there.
    """
    about = f"{size:,} bytes, SHA-256 {checksum}" if size else f"SHA-256 {checksum}"
    by_hand = f"Copy {path.name} ({about}) from {' or '.join(mirrors)} into {path.parent}"
    by_hand += ", or set LECTURE_DATA to a folder that has the data"
    partial = path.with_name(path.name + ".partial")
    if os.environ.get("LECTURE_OFFLINE") == "1":
        raise DataError(f"not downloaded, since LECTURE_OFFLINE=1. {by_hand}.")
    pooch.get_logger().setLevel("WARNING")  # its notes would go to stderr, and the bar says the same
    waiting, failures = list(mirrors), []
    while waiting:
        mirror, resumed, live = waiting.pop(0), partial.is_file(), LiveText()
        live.show(f"{path.name}: asking {mirror}")
        bar = Progress(lambda line, live=live: live.show(f"{path.name}  {line}"), "bytes")
        fetch = functools.partial(resume, partial=partial, bar=bar, size=size)
        try:
            pooch.retrieve(mirror + path.name, f"sha256:{checksum}", path.name, path.parent, downloader=fetch)
        except requests.RequestException as error:
            failures.append(f"{mirror} {network.cause(error)}")
        except ValueError:  # pooch: the checksum is not right, and the file is removed
            failures.append(f"{mirror} sent other bytes (wrong SHA-256)")
            if resumed:  # what had come before may be to blame
                waiting.insert(0, mirror)
        else:
            live.show(f"{path.name}: downloaded, SHA-256 verified", final=True)
            return
        live.show(f"{path.name}: {failures[-1]}" + (f"; now {waiting[0]}" if waiting else ""), final=True)
    if partial.is_file():
        by_hand = f"Run again to go on after the {partial.stat().st_size:,} bytes that have come. Or: {by_hand}"
    raise DataError(f"no mirror delivered it ({'; '.join(failures)}). {by_hand}.")


def resume(url: str, file: str, _: object, partial: Path, bar: Progress, size: int) -> None:
    """Download what is missing at the end of `partial`, then move it to `file`. Called by pooch, which checks it."""
    have = partial.stat().st_size if partial.is_file() else 0
    with network.ask(url, have) as response:
        if response.status_code != 416:  # 416: there is nothing after `have`
            response.raise_for_status()
            have = have if response.status_code == 206 else 0  # 200: all from the start
            bar.total = int(response.headers.get("Content-Length", 0))
            append(response, partial, have, bar, size)
    partial.replace(file)


def append(response: requests.Response, partial: Path, have: int, bar: Progress, size: int) -> None:
    """Write the answer after the first `have` bytes of `partial`. On a full disk only those are kept."""
    try:
        with space_for(bar.total, partial.parent), partial.open("ab" if have else "wb") as target:
            for chunk in network.chunks(response):
                target.write(chunk)
                bar.update(len(chunk))
                if size and have + bar.done > size:
                    target.truncate(0)
                    raise network.BrokenOff("sent too much: it did not end")
    except requests.RequestException as error:
        whole = f" of {have + bar.total:,}" if bar.total else ""
        raise network.BrokenOff(f"{network.cause(error)} after {have + bar.done:,}{whole} bytes") from error
    except DataError:
        if partial.is_file():
            os.truncate(partial, have)
        raise
