"""LitServe: an API server and worker processes, which decode and compute. Run by `benchmarks.peers`."""

# Annotations stay objects here: LitServe hands them to FastAPI as they are.
from typing import Annotated, Any

import litserve
from fastapi import Body

from benchmarks.peers.model import LARGEST, Answer, Shape, model_of

WAIT = 0.002
"""Seconds that a batch is waited for. With 0 every idle worker would keep a core busy looking for work."""


class Classify(litserve.LitAPI):  # type: ignore[misc]  # untyped here
    def setup(self, device: str) -> None:
        self.model = model_of(Shape.from_environment())

    def decode_request(self, request: Annotated[bytes, Body()]) -> Any:
        return self.model.decode(request)

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, images: list[Any]) -> list[Answer]:
        return self.model.answers(images)

    def unbatch(self, output: list[Answer]) -> list[Answer]:
        return output

    def encode_response(self, output: Answer) -> Answer:
        return output


if __name__ == "__main__":
    shape = Shape.from_environment()
    api = Classify(max_batch_size=LARGEST, batch_timeout=WAIT)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=shape.workers, fast_queue=True)
    server.run(host="127.0.0.1", port=shape.port, num_api_servers=1, log_level="warning", generate_client_file=False)
