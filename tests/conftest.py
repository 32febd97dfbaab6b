"""Small things that several tests need."""

import http.server
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from common import noise
from torch import nn

from helpers.data import ImageSet


@pytest.fixture
def serve() -> Iterator[Callable]:
    """`serve(handler)` starts a local HTTP server and returns its port; all are closed after the test."""
    servers = []

    def start(handler) -> int:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return server.server_port

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def lenet() -> nn.Module:
    """LeNet as one Sequential, seeded. Input (B, 1, 32, 32)."""
    torch.manual_seed(0)
    return nn.Sequential(
        *[nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2)],
        *[nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()],
        *[nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)],
    )


@pytest.fixture
def noise_set() -> ImageSet:
    """25 images of noise, (25, 1, 32, 32), with random labels: batches of 10 leave a short last one."""
    return noise(25, 1, 32)
