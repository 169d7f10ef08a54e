"""BentoML: worker processes that answer HTTP, decode and compute, with adaptive batching. Run by `benchmarks.peers`."""

# Annotations stay objects here: BentoML makes its request model of them.
from pathlib import Path
from typing import Annotated, Any

import bentoml
from bentoml.validators import ContentType

from benchmarks.peers.model import LARGEST, Shape, model_of

SHAPE = Shape.from_environment()


@bentoml.service(workers=SHAPE.workers, traffic={"timeout": 60}, logging={"access": {"enabled": False}})  # type: ignore[untyped-decorator]  # untyped here
class Classify:
    def __init__(self) -> None:
        self.model = model_of(SHAPE)

    @bentoml.api(batchable=True, max_batch_size=LARGEST, max_latency_ms=60_000)  # type: ignore[untyped-decorator]  # too
    def classify(self, images: list[Annotated[Path, ContentType("image/jpeg")]]) -> list[dict[str, Any]]:
        return self.model.answers([self.model.decode(path.read_bytes()) for path in images])
