"""Mixed traffic: every form of body, known and new classes, bad images, callers that hang up, and those who only look.
A few connections, each of which goes on once it was answered."""

from __future__ import annotations

import base64
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

import httpx

from benchmarks.meanwhile import meanwhile
from benchmarks.names import class_names
from benchmarks.process import ServiceProcess

PHOTOS = tuple(sorted((Path(__file__).parents[1] / "examples" / "images").glob("*.jpg")))
JPEG = {"Content-Type": "image/jpeg"}
CHURNED = 20
"""Label sets kept while ever new ones come."""

OVERLOADED = {429, 503, 504}


@dataclass
class Seen:
    """Statuses by what was asked for, and those that were not expected. `seconds` are those of images answered."""

    statuses: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    churned: int = 0

    def note(self, visit: str, status: int | str, *expected: int) -> None:
        self.statuses[f"{visit} {status}"] += 1
        if status not in expected and status not in OVERLOADED:
            self.wrong[f"{visit} {status}"] += 1


class Visitor:
    """`visit` makes one call, drawn by lot. One thread, one connection."""

    def __init__(self, service: ServiceProcess, label_sets: Sequence[str], seen: Seen, seed: int) -> None:
        self._service = service
        self._client = httpx.Client(base_url=service.url, timeout=60.0, trust_env=False)
        self._label_sets = label_sets
        self._seen = seen
        self._random = random.Random(seed)
        self._salts = count(1_000_000 * (seed + 1))
        self._kept: list[str] = []
        self._visits: dict[Callable[[], None], int] = {
            self.raw: 40, self.form: 20, self.json: 15, self.new_classes: 3, self.broken: 5, self.hang_up: 5,
            self.churn: 5, self.look: 7,
        }  # fmt: skip

    def visit(self) -> None:
        (chosen,) = self._random.choices(list(self._visits), list(self._visits.values()))
        try:
            chosen()
        except httpx.TransportError as error:
            self._seen.note(chosen.__name__, type(error).__name__)

    def close(self) -> None:
        self._client.close()

    def raw(self) -> None:
        began = time.perf_counter()
        answer = self._client.post(self._path(), content=self._photo(), headers=JPEG)
        self._seen.note("raw", answer.status_code, 200)
        if answer.is_success:
            self._seen.seconds.append(time.perf_counter() - began)

    def form(self) -> None:
        files = [("images", (f"{number}.jpg", self._photo(), "image/jpeg")) for number in range(3)]
        answer = self._client.post(self._path(), files=files)
        self._seen.note("form", answer.status_code, 200)

    def json(self) -> None:
        images = [base64.b64encode(self._photo()).decode()]
        answer = self._client.post(self._path(), json={"images": images, "top_k": 2})
        self._seen.note("json", answer.status_code, 200)

    def new_classes(self) -> None:
        query = {"labels": class_names(4, salt=next(self._salts))}
        answer = self._client.post("/v1/classify", params=query, content=self._photo(), headers=JPEG)
        self._seen.note("new classes", answer.status_code, 200)

    def broken(self) -> None:
        answer = self._client.post(self._path(), content=self._photo()[:200], headers=JPEG)
        self._seen.note("broken image", answer.status_code, 422)

    def hang_up(self) -> None:
        """In the middle of the body, or once it was sent."""
        body = self._photo()
        sent = self._random.choice([len(body) // 2, len(body)])
        head = f"POST {self._path()} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: "
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._service.port), timeout=10) as line:
            line.sendall(f"{head}{len(body)}\r\n\r\n".encode() + body[:sent])
        self._seen.statuses["hung up"] += 1

    def churn(self) -> None:
        answer = self._client.post("/v1/label-sets", json={"classes": class_names(5, salt=next(self._salts))})
        self._seen.note("upload", answer.status_code, 200, 201, 202)
        if answer.is_success:
            self._kept.append(answer.json()["id"])
        if len(self._kept) > CHURNED:
            self._seen.note("delete", self._client.delete(f"/v1/label-sets/{self._kept.pop(0)}").status_code, 204)
            self._seen.churned += 1

    def look(self) -> None:
        path = self._random.choice(["/v1/label-sets", "/v1/models", "/v1/limits", "/readyz", "/livez", "/"])
        self._seen.note("look", self._client.get(path).status_code, 200)

    def _path(self) -> str:
        return f"/v1/classify?label_set={self._random.choice(self._label_sets)}"

    def _photo(self) -> bytes:
        """One of few, or one that was never seen: a byte after the end of a JPEG changes no pixel."""
        known = self._random.choice(PHOTOS).read_bytes()
        return known if self._random.random() < 0.5 else known + self._random.randbytes(8)


@contextmanager
def visited(service: ServiceProcess, label_sets: Sequence[str], visitors: int) -> Iterator[Seen]:
    """So many visitors come again and again until the block ends."""
    seen = Seen()

    def stay(over: threading.Event, seed: int) -> None:
        visitor = Visitor(service, label_sets, seen, seed)
        while not over.is_set():
            visitor.visit()
        visitor.close()

    with meanwhile(*(partial(stay, seed=seed) for seed in range(visitors))):
        yield seen
