"""A local HTTP server that fails in the ways that real mirrors do."""

import contextlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Mirror:
    """What a mirror serves, and how it fails: `fault` is a number (the answer's status) or one of the words below."""

    files: dict[str, bytes]
    fault: int | str | None = None
    pause: float = 0.0  # seconds before each piece
    piece: int = 2**16  # bytes
    asked: list[str] = field(default_factory=list)  # a name a request
    address: str = ""
    release: threading.Event = field(default_factory=threading.Event)  # ends every silence


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        mirror, name = self.server.mirror, self.path.rsplit("/", 1)[-1]
        mirror.asked.append(name)
        content, fault = mirror.files[name], mirror.fault
        if isinstance(fault, int):
            return self.send_error(fault)
        if fault == "drops":  # closes without a word
            return None
        if fault == "silent":
            mirror.release.wait(20)
            return None
        if fault in ("plain", "round"):  # sends on to plain HTTP; in a circle
            self.send_response(302)
            self.send_header("Location", mirror.address + name if fault == "plain" else self.path)
            return self.end_headers()
        if fault == "trickles":  # each byte alone is in time; all would take hours
            mirror.pause, mirror.piece = 0.05, 1
        self.send_response(200)
        if fault != "endless":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault == "flips":
            content = content[:-1] + bytes([content[-1] ^ 1])
        elif fault in ("cuts", "stops"):
            content = content[: len(content) // 2]
        elif fault == "endless":
            content = content * 20
        with contextlib.suppress(OSError):  # the other side may have gone
            for begin in range(0, len(content), mirror.piece):
                self.wfile.write(content[begin : begin + mirror.piece])
                mirror.release.wait(mirror.pause)
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
