"""Run a function in a process of its own, with a small, read-only or missing disk or network around it.

Forked, since a fresh interpreter would take seconds to import torch. Linux namespaces give a small or read-only file
system to that process alone, without rights of an administrator; where the kernel refuses, the test is skipped.
"""

import contextlib
import ctypes
import io
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

if not hasattr(os, "fork"):
    pytest.skip("needs fork (Linux, macOS)", allow_module_level=True)

LIMIT = 60  # seconds, after which a child that hangs is killed by SIGALRM
NEW_MOUNTS, NEW_USER, NEW_NETWORK = 0x00020000, 0x10000000, 0x40000000  # of unshare(2)
READ_ONLY, REMOUNT, RECURSIVE, PRIVATE = 1, 32, 1 << 14, 1 << 18  # of mount(2)


class NotPermitted(Exception):
    """This kernel or container does not let ordinary processes have such a thing of their own."""


@dataclass
class Outcome:
    """How a child ended."""

    value: object = None  # what the function returned
    error: str = ""  # "DataError: message" of what it raised
    printed: str = ""
    signal: int = 0  # by which it was killed


class Child:
    """`function()` in a forked process, begun at once."""

    def __init__(self, function: Callable[[], object]):
        self.reader, writer = os.pipe()
        sys.stdout.flush()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # a child has no threads but its own, and would wait for the others for ever
        self.pid = os.fork()
        if self.pid:
            torch.set_num_threads(threads)
            os.close(writer)
            return
        signal.alarm(LIMIT)
        outcome, printed = Outcome(), io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                outcome.value = function()
        except NotPermitted as error:
            outcome.error = f"skip {error}"
        except BaseException as error:
            lines = traceback.format_exception_only(error)
            outcome.error = "".join(lines).strip()
        outcome.printed = printed.getvalue()
        try:
            content = pickle.dumps(outcome)
        except Exception as error:
            content = pickle.dumps(Outcome(error=f"the outcome cannot be sent: {error}"))
        with open(writer, "wb") as pipe:
            pipe.write(content)
        os._exit(0)

    def wait(self) -> Outcome:
        """Its outcome, once it has ended. Skips the test where the kernel does not permit what it needs."""
        with open(self.reader, "rb") as pipe:
            content = pipe.read()
        _, status = os.waitpid(self.pid, 0)
        if os.WIFSIGNALED(status):
            return Outcome(signal=os.WTERMSIG(status))
        outcome = pickle.loads(content)
        if outcome.error.startswith("skip "):
            pytest.skip(outcome.error.removeprefix("skip "))
        return outcome


def run(function: Callable[[], object]) -> Outcome:
    """Run `function` in a process of its own and wait for it."""
    return Child(function).wait()


def call(name: str, *arguments) -> None:
    """A call of the C library. Raises NotPermitted."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments):
        raise NotPermitted(f"{name} is not permitted here ({os.strerror(ctypes.get_errno())})")


def own_namespace(kind: int) -> None:
    """Give this process mounts or a network of its own."""
    if sys.platform != "linux":
        raise NotPermitted("needs namespaces of Linux")
    user, group = os.getuid(), os.getgid()
    call("unshare", NEW_USER | kind)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    if kind == NEW_MOUNTS:
        call("mount", b"none", b"/", None, RECURSIVE | PRIVATE, None)


def small_disk(folder: Path, size: str = "1m") -> None:
    """Put an empty file system of this size on `folder`, for this process alone."""
    own_namespace(NEW_MOUNTS)
    call("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={size}".encode())


def make_read_only(folder: Path) -> None:
    """Make a disk that `small_disk` made read-only."""
    call("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", REMOUNT | READ_ONLY, None)


def without_network() -> None:
    """Leave this process without any network, the computer's own included."""
    own_namespace(NEW_NETWORK)


def die_at(event: str, number: int, contains: str = "") -> None:
    """Kill this process (SIGKILL) right before its `number`-th audit event of this name that mentions `contains`."""
    seen = []

    def watch(name: str, arguments: tuple) -> None:
        if name == event and contains in str(arguments[0]):
            seen.append(arguments)
            if len(seen) == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
