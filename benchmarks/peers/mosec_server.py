"""Mosec: a front end in Rust, one stage of processes that decode and one that computes. Run by `benchmarks.peers`."""

from __future__ import annotations

from typing import Any

from mosec import Server, Worker

from benchmarks.peers.model import LARGEST, Answer, Shape, decoding_of, model_of

WAIT = 1
"""Milliseconds that a batch is waited for, the least that can be asked for."""


class Decode(Worker):  # type: ignore[misc]  # untyped here
    def __init__(self) -> None:
        self.decode = decoding_of(Shape.from_environment())

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> Any:
        return self.decode(data)


class Compute(Worker):  # type: ignore[misc]  # untyped here
    def __init__(self) -> None:
        self.model = model_of(Shape.from_environment())

    def forward(self, data: list[Any]) -> list[Answer]:
        return self.model.answers(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Decode, num=1)
    server.append_worker(Compute, num=Shape.from_environment().workers, max_batch_size=LARGEST, max_wait_time=WAIT)
    server.run()
