"""What serving costs over the same model's raw loop: latency at concurrency 1 and 16, and images per second, in
interleaved rounds."""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from adapters import create_adapter
from adapters.base import ClassState, LabelSet, cosine_logits
from adapters.clip import Backbone, load_backbone
from benchmarks.adaptation import adapt_once
from benchmarks.load import Job, LoadProcess
from benchmarks.names import class_names
from benchmarks.pixels import decoder_of
from benchmarks.process import ServiceProcess, running_service
from benchmarks.report import progress, write, write_header, write_table
from service.compute.image_engine import with_engine
from service.process.allocator import keep_large_blocks
from service.settings import Settings

IMAGES = Path(__file__).parents[1] / "examples" / "images"
Figures = tuple[float, float, float]
"""Images/s, p50 and p95 in seconds."""


class RawLoop:
    """Preprocess, encode, multiply, rank: what anybody would write around the model, `batch` images at a time."""

    def __init__(
        self,
        backbone: Backbone,
        state: ClassState,
        images: Sequence[Path],
        pixels: Callable[[bytes], Tensor] | None = None,
    ) -> None:
        """`pixels` takes the place of open_clip's own transform."""
        self._backbone = backbone
        self._state = state
        self._images = [path.read_bytes() for path in images]
        self._pixels = pixels or (lambda data: backbone.preprocess.pixels(Image.open(io.BytesIO(data))))

    def run(self, batch: int, seconds: float) -> Figures:
        times: list[float] = []
        begun, number = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            start = time.perf_counter()
            self.once([self._images[(number + offset) % len(self._images)] for offset in range(batch)])
            number += batch
            times.append(time.perf_counter() - start)
        rate = number / (time.perf_counter() - begun)
        return rate, statistics.median(times), sorted(times)[int(0.95 * len(times))]

    def pipelined(self, images: Sequence[bytes], seconds: float, decoder: Executor) -> float:
        """Images a second where the same batch comes again and again, and `decoder` has the next one ready."""

        def decode() -> Tensor:
            return torch.stack([self._pixels(data) for data in images])

        begun, number = time.perf_counter(), 0
        ready = decoder.submit(decode)
        while time.perf_counter() - begun < seconds:
            pixels, ready = ready.result(), decoder.submit(decode)
            self._answer(pixels)
            number += len(images)
        return number / (time.perf_counter() - begun)

    def once(self, images: Sequence[bytes]) -> None:
        self._answer(torch.stack([self._pixels(data) for data in images]))

    def _answer(self, pixels: Tensor) -> None:
        scores = cosine_logits(self._backbone.image.encode(pixels), self._state).softmax(dim=1)
        scores.topk(min(5, scores.shape[1]))


def one_round(
    service: ServiceProcess, load: LoadProcess, raw: RawLoop, *, path: str, arguments: argparse.Namespace
) -> dict[str, Figures]:
    found: dict[str, Figures] = {}
    images = tuple(map(str, arguments.images))
    for batch in (1, 16):
        found[f"raw loop, batch {batch}"] = raw.run(batch, arguments.seconds)
    for concurrency in arguments.concurrency:
        outcome = load.run(Job(service.port, path, images, concurrency, arguments.seconds))
        if outcome.failures:
            raise SystemExit(f"{outcome.failures} requests failed")
        found[f"service, concurrency {concurrency}"] = outcome.rate, outcome.quantile(0.5), outcome.quantile(0.95)
    return found


def raw_loop(names: Sequence[str], images: Sequence[Path], settings: Settings | None = None) -> RawLoop:
    """The same model, engine and preprocessing as the service has with these settings. The product with the class
    weights costs the same whatever made them, so zero-shot ones do."""
    settings = settings or Settings()
    keep_large_blocks()
    torch.set_num_threads(settings.compute_threads)
    loaded = load_backbone(settings.backbone, device=settings.device, precision=settings.precision)
    backbone, _ = with_engine(settings, loaded)
    state = create_adapter("zero-shot", backbone).adapt(LabelSet.of(*names), backbone)
    return RawLoop(backbone, state, images, decoder_of(settings, backbone, settings.preprocess).decode)


def adapted_path(service: ServiceProcess, names: Sequence[str]) -> str:
    _, label_set = adapt_once(service, names, None)
    return f"/v1/classify?label_set={label_set['id']}"


def measure(arguments: argparse.Namespace) -> dict[str, list[Figures]]:
    """The figures of every round; the round that warms up is left out."""
    names = class_names(arguments.classes)
    raw = raw_loop(names, arguments.images)
    rounds: dict[str, list[Figures]] = defaultdict(list)
    with running_service(embedding_bytes="0") as service, LoadProcess() as load:
        path = adapted_path(service, names)
        for number in range(arguments.rounds + 1):
            progress(f"round {number} of {arguments.rounds}{'' if number else ' (warming up)'}")
            found = one_round(service, load, raw, path=path, arguments=arguments)
            for what, figures in found.items() if number else ():
                rounds[what].append(figures)
    return rounds


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement in a round")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--images", type=Path, nargs="+", default=sorted(IMAGES.glob("*.jpg")))
    arguments = parser.parse_args(argv)
    write_header("Classification", "classify", argv)
    rounds = measure(arguments)
    best_raw = [max(rates) for rates in zip(*(_rates(rounds, what) for what in rounds if "raw" in what), strict=True)]
    rows = []
    for what, figures in rounds.items():
        rate, p50, p95 = (statistics.median(column) for column in zip(*figures, strict=True))
        ratio = statistics.median(own / raw for own, raw in zip(_rates(rounds, what), best_raw, strict=True))
        rows.append((what, f"{rate:.1f}", f"{p50 * 1e3:.1f}", f"{p95 * 1e3:.1f}", f"{ratio:.2f}"))
    write_table(("what", "images/s", "p50 ms", "p95 ms", "of the faster raw loop"), rows)
    write(f"Medians of {arguments.rounds} interleaved rounds; the raw loop's times are per batch.\n")


def _rates(rounds: dict[str, list[Figures]], what: str) -> list[float]:
    return [figures[0] for figures in rounds[what]]


if __name__ == "__main__":
    main(sys.argv[1:])
