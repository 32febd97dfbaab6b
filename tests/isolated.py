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
        value, error = None, ""
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            try:
                value = function()
            except BaseException as raised:
                error = "".join(traceback.format_exception_only(raised)).strip()
        try:
            content = pickle.dumps(Outcome(value, error, printed.getvalue()))
        except Exception as raised:
            content = pickle.dumps(Outcome(error=f"the outcome cannot be sent: {raised}"))
        with open(writer, "wb") as pipe:
            pipe.write(content)
        os._exit(0)

    def wait(self) -> Outcome:
        """Its outcome, once it has ended. Skips the test where the kernel does not permit what it needs."""
        with open(self.reader, "rb") as pipe:
            content = pipe.read()
        _, status = os.waitpid(self.pid, 0)
        outcome = Outcome(signal=os.WTERMSIG(status)) if os.WIFSIGNALED(status) else pickle.loads(content)
        if "NotPermitted: " in outcome.error:
            pytest.skip(outcome.error)
        return outcome


def run(function: Callable[[], object]) -> Outcome:
    """Run `function` in a process of its own and wait for it."""
    return Child(function).wait()


def call(name: str, *arguments) -> None:
    """A call of the C library. Raises NotPermitted."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        raise NotPermitted(f"{name} is not permitted here ({os.strerror(ctypes.get_errno())})")


def own_namespace(kind: int) -> None:
    """Give this process mounts or a network of its own."""
    if sys.platform != "linux":
        raise NotPermitted("needs namespaces of Linux")
    user, group = os.getuid(), os.getgid()
    ids = {"setgroups": "deny", "uid_map": f"{user} {user} 1", "gid_map": f"{group} {group} 1"}
    call("unshare", NEW_USER | kind)
    for name, text in ids.items():
        Path(f"/proc/self/{name}").write_text(text)
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
    left = [number]

    def watch(name: str, arguments: tuple) -> None:
        if name == event and contains in str(arguments[0]):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
