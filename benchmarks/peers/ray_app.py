"""Ray Serve: a proxy and replicas, which decode and compute, with its own batching. Run by `benchmarks.peers`."""

from __future__ import annotations

import asyncio
import signal
import threading

import ray
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig
from starlette.requests import Request

from benchmarks.peers.model import LARGEST, Answer, Shape, model_of

WAITING = 256


class Classify:
    def __init__(self) -> None:
        self.model = model_of(Shape.from_environment())

    @serve.batch(max_batch_size=LARGEST, batch_wait_timeout_s=0.001)  # type: ignore[untyped-decorator]  # untyped here
    async def answers(self, bodies: list[bytes]) -> list[Answer]:
        return await asyncio.to_thread(self._answers, bodies)

    def _answers(self, bodies: list[bytes]) -> list[Answer]:
        return self.model.answers([self.model.decode(body) for body in bodies])

    async def __call__(self, request: Request) -> Answer:
        answer: Answer = await self.answers(await request.body())
        return answer


def main() -> None:
    shape = Shape.from_environment()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    serve.start(
        http_options=HTTPOptions(host="127.0.0.1", port=shape.port),
        logging_config=LoggingConfig(enable_access_log=False, log_level="WARNING"),
    )
    deployment = serve.deployment(
        Classify,
        num_replicas=shape.workers,
        max_ongoing_requests=WAITING,
        ray_actor_options={"num_cpus": 0.1},
        logging_config=LoggingConfig(enable_access_log=False, log_level="WARNING"),
    )
    serve.run(deployment.bind(), route_prefix="/classify")
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    stopped.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
