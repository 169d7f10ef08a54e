"""The servers that are compared: how each is started, what it is sent, and what it leaves out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.peers.model import Answer, Shape

BOUNDARY = "benchmark-boundary"
OWN = "this service"


@dataclass(frozen=True, slots=True)
class Server:
    """`command` follows the interpreter. `package` is the distribution that must be there. `first` finds the
    predictions of the first image in an answer."""

    name: str
    package: str
    command: Callable[[Shape], list[str]]
    path: str = "/classify"
    multipart: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    first: Callable[[Any], Answer] = lambda answer: answer
    leaves_out: str = ""

    @property
    def content_type(self) -> str:
        return f"multipart/form-data; boundary={BOUNDARY}" if self.multipart else "image/jpeg"

    def body(self, image: bytes) -> bytes:
        """The image in the shape that is natural to this server."""
        if not self.multipart:
            return image
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\n'
        return f"{head}Content-Type: image/jpeg\r\n\r\n".encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()


def own_command(shape: Shape) -> list[str]:
    if shape.noop:
        return ["-m", "benchmarks.peers.own_noop"]
    return ["-m", "service", "serve", "--host", "127.0.0.1", "--port", str(shape.port)]


def litserve_command(shape: Shape) -> list[str]:
    return ["-m", "benchmarks.peers.litserve_server"]


def mosec_command(shape: Shape) -> list[str]:
    return ["-m", "benchmarks.peers.mosec_server", "--address", "127.0.0.1", "--port", str(shape.port),
            "--timeout", "60000", "--log-level", "warning"]  # fmt: skip


def bento_command(shape: Shape) -> list[str]:
    return ["-m", "bentoml", "serve", "benchmarks.peers.bento_service:Classify", "--host", "127.0.0.1", "--port",
            str(shape.port)]  # fmt: skip


def ray_command(shape: Shape) -> list[str]:
    return ["-m", "benchmarks.peers.ray_app"]


NO_LABELS = "label sets and their adaptation, limits read from image headers, refusals by expected wait"
RAY_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
"""Its workers would give way to every other process, the load generator among them."""
RAY_FAST = {**RAY_QUIET, "RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}

SERVERS = (
    Server(OWN, "self-tpt-service", own_command, first=lambda answer: answer["results"][0]),
    Server("Mosec", "mosec", mosec_command, path="/inference",
           leaves_out=f"{NO_LABELS}, request logs, validation of parameters"),
    Server("LitServe", "litserve", litserve_command, path="/predict",
           leaves_out=f"{NO_LABELS}, metrics, request logs, validation of parameters"),
    Server("BentoML", "bentoml", bento_command, multipart=True, first=lambda answer: answer[0],
           environment={"BENTOML_DO_NOT_TRACK": "True"},
           leaves_out=f"{NO_LABELS}, request logs (switched off)"),
    Server("Ray Serve", "ray", ray_command, environment=RAY_QUIET,
           leaves_out=f"{NO_LABELS}, request logs (switched off), validation of parameters"),
    Server("Ray Serve, HAProxy", "ray-haproxy", ray_command, environment=RAY_FAST,
           leaves_out="as Ray Serve"),
)  # fmt: skip
