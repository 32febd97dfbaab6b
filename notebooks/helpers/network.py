"""One request to one mirror: limited in time, never sent on to plain HTTP, its failures put into words."""

import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import requests
import urllib3

TIMEOUT = 8  # seconds that a mirror may stay silent before the next one is tried
SLOWEST = 1000  # bytes/s; a mirror that sends less is given up


class BrokenOff(requests.RequestException):
    """The answer began and did not end. The message says how, and after how many bytes."""


def ask(url: str, start: int = 0) -> requests.Response:
    """The answer to a request for the bytes from `start` on, its body not read yet. Raises requests' errors.

    It gets TIMEOUT seconds in all. requests' own limit begins anew for each address of a host and each redirect,
    and leaves out the look-up of the name; a network that swallows everything could keep it silent for minutes.
    """
    headers = {"Accept-Encoding": "identity"}  # the file's own bytes, or their positions mean nothing
    if start:
        headers["Range"] = f"bytes={start}-"
    answers = queue.SimpleQueue()

    def request():
        try:
            hooks = {"response": refuse_plain_http}
            answers.put(requests.get(url, headers=headers, stream=True, timeout=TIMEOUT, hooks=hooks))
        except Exception as error:  # handed to the waiting thread, which raises it
            answers.put(error)

    threading.Thread(target=request, daemon=True).start()
    try:
        answer = answers.get(timeout=TIMEOUT)
    except queue.Empty:
        raise requests.Timeout from None
    if isinstance(answer, requests.Response):
        return answer
    raise answer if isinstance(answer, requests.RequestException) else requests.RequestException(str(answer))


def refuse_plain_http(response: requests.Response, **_: object) -> None:
    """Called by requests for each answer, before a redirect is followed."""
    if response.is_redirect and response.headers["Location"].lower().startswith("http:"):
        response.close()
        raise requests.exceptions.InvalidSchema("redirects to plain HTTP, which is not followed")


def chunks(response: requests.Response) -> Iterator[bytes]:
    """The body, piece by piece as it arrives. Raises requests' errors where it stops, or nearly does."""
    came, since = 0, time.monotonic()
    try:
        while chunk := response.raw.read1(2**16, decode_content=False):
            yield chunk
            came += len(chunk)
            if time.monotonic() - since > TIMEOUT:
                if came < SLOWEST * TIMEOUT:
                    raise BrokenOff(f"sent less than {SLOWEST:,} bytes/s")
                came, since = 0, time.monotonic()
    except urllib3.exceptions.TimeoutError as error:
        raise requests.Timeout from error
    except urllib3.exceptions.HTTPError as error:
        raise BrokenOff("broke off") from error


def cause(error: Exception) -> str:
    """Why a mirror did not deliver, in words that end the sentence "<mirror> …"."""
    if isinstance(error, requests.HTTPError):
        return f"answered {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return f"said nothing for {TIMEOUT:g} s"
    if isinstance(error, requests.exceptions.ProxyError):
        return "was not reached through the proxy that HTTPS_PROXY names"
    chain = [error]
    while below := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(below)
    for link in chain:
        if isinstance(link, ssl.SSLCertVerificationError):
            advice = "behind a proxy set REQUESTS_CA_BUNDLE to the file of its certificate"
            return f"certificate not accepted ({link.verify_message}): {advice}"
        if isinstance(link, ssl.SSLError):
            return f"made no secure connection ({(link.reason or 'TLS failed').replace('_', ' ').lower()})"
        if isinstance(link, socket.gaierror):
            return "was not found by name (no network?)"
        if isinstance(link, ConnectionResetError):  # also when it closed without a word
            return "dropped the connection"
        if isinstance(link, OSError) and link.strerror:
            return f"could not be connected to ({link.strerror})"
    return " ".join(str(error).split()) or "failed"
