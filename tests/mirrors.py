"""A local HTTP server that fails in the ways that real mirrors do."""

import contextlib
import http.server
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Mirror:
    """What a mirror serves, and how it fails: `fault` is a number (the answer's status) or one of the words below."""

    files: dict[str, bytes]
    fault: int | str | None = None
    pause: float = 0.0  # seconds before each piece
    piece: int = 2**16  # bytes
    asked: list[str] = field(default_factory=list)  # "name" or "name from <position>", one a request
    address: str = ""
    release: threading.Event = field(default_factory=threading.Event)  # ends every silence


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        mirror, name = self.server.mirror, self.path.rsplit("/", 1)[-1]
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        mirror.asked.append(f"{name} from {start}" if wanted else name)
        content, fault = mirror.files[name], mirror.fault
        if isinstance(fault, int):
            return self.send_error(fault)
        if fault == "drops":  # closes without a word
            return None
        if fault == "silent":
            mirror.release.wait(20)
            return None
        if fault in ("plain", "round"):  # sends on to plain HTTP; in a circle, slowly
            mirror.release.wait(mirror.pause)
            self.send_response(302)
            self.send_header("Location", mirror.address + name if fault == "plain" else self.path)
            return self.end_headers()
        if start >= len(content):
            return self.send_error(416)
        rest = content[start:]
        self.send_response(206 if wanted else 200)
        if fault != "endless":
            self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if fault == "flips":
            rest = rest[:-1] + bytes([rest[-1] ^ 1])
        elif fault in ("cuts", "stops"):
            rest = rest[: len(rest) // 2]
        elif fault == "endless":
            rest = rest * 20
        with contextlib.suppress(OSError):  # the other side may have gone
            for begin in range(0, len(rest), mirror.piece):
                self.wfile.write(rest[begin : begin + mirror.piece])
                time.sleep(mirror.pause)
        if fault == "stops":  # in the middle, without closing
            mirror.release.wait(20)
        return None

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serve(mirror: Mirror, wrap=None) -> Iterator[Mirror]:
    """Run the mirror on a port of its own; `wrap` may put TLS around its socket."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.mirror = mirror
    server.handle_error = lambda *_: None  # a connection that breaks is the purpose here
    server.daemon_threads = True
    if wrap:
        server.socket = wrap(server.socket)
    scheme = "https" if wrap else "http"
    mirror.address = f"{scheme}://127.0.0.1:{server.server_port}/"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield mirror
    finally:
        mirror.release.set()
        server.shutdown()
        server.server_close()
