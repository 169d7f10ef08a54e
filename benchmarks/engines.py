"""Image-tower engines side by side: processor milliseconds per image in every precision, the share of the core's
measured matrix peak, and how far their answers are from torch's in fp32 on photos."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from adapters.clip import Backbone, load_backbone
from adapters.engines.artefacts import Artefacts
from adapters.engines.base import REFERENCE, ImageEngine, Kind
from adapters.engines.choice import Failure, attempt, tower_of
from adapters.engines.kinds import KINDS, Workshop, obstacle, open_engine
from adapters.engines.machine import this_machine
from adapters.engines.probes import PHOTOS, TEMPLATE, Probes
from adapters.engines.torch_tower import TorchEngine
from benchmarks.random_vit import random_vit
from benchmarks.report import progress, write, write_header, write_table
from service.process.allocator import keep_large_blocks

BUNDLED = "bundled"
PEAK_SIDES = (1024, 2048, 4096)
GIGA = 1e9
Engines = dict[Kind, ImageEngine]


@contextmanager
def opened_model(name: str) -> Iterator[Backbone]:
    """The bundled backbone, or an architecture with random weights."""
    if name == BUNDLED:
        yield load_backbone(BUNDLED, device="cpu", precision="fp32")
        return
    with random_vit(name) as folder:
        yield load_backbone(str(folder), device="cpu", precision="fp32")


def photos_in(folder: Path | None, count: int) -> tuple[list[Path], list[str]]:
    """Photos spread over `<set>/<class>/<photo>` or `<class>/<photo>`, and the names of their classes."""
    if folder is None:
        return sorted(PHOTOS.glob("*.jpg")), (PHOTOS / "names.txt").read_text(encoding="utf-8").split()
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    names = sorted({path.parent.name for path in files})
    return files[:: max(1, len(files) // count)][:count], names


def pixels_of(files: Sequence[Path], backbone: Backbone) -> Tensor:
    return torch.stack([backbone.preprocess.pixels(Image.open(path).convert("RGB")) for path in files])


def processor_seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def peak(dtype: torch.dtype) -> float:
    """The best rate of large products, operations per second."""
    rates = []
    for side in PEAK_SIDES:
        one, other = (torch.randn(side, side).to(dtype) for _ in range(2))
        seconds = [processor_seconds(lambda one=one, other=other: torch.mm(one, other)) for _ in range(6)]  # type: ignore[misc]  # defaults bind the loop's values
        rates.append(2 * side**3 / min(seconds[1:]))
    return max(rates)


def operations_of(backbone: Backbone) -> int:
    """Of one image, a multiplication and an addition counted as two."""
    tower = tower_of(backbone)
    assert tower is not None
    torch.backends.mha.set_fastpath_enabled(False)  # the fused attention is not counted
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            TorchEngine(tower, "fp32").features(torch.zeros(1, 3, tower.size, tower.size, dtype=torch.uint8))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    return int(counter.get_total_flops())


def open_all(backbone: Backbone, folder: Path, arguments: argparse.Namespace, probes: Tensor) -> Engines:
    tower = tower_of(backbone)
    assert tower is not None
    shop = Workshop(tower, arguments.threads, Artefacts(folder))
    engines: Engines = {}
    for kind in KINDS:
        start = time.perf_counter()
        why = obstacle(kind, this_machine(), asked_for=arguments.calibrate)
        made = Failure(why) if why else attempt(lambda kind=kind: open_engine(kind, shop, probes))  # type: ignore[misc]  # as above
        if isinstance(made, Failure):
            progress(f"  {kind}: {made.text}")
            continue
        engines[kind] = made
        progress(f"  {kind}: opened in {time.perf_counter() - start:.1f} s")
    return engines


def timed(engines: Engines, pixels: Tensor, arguments: argparse.Namespace) -> dict[tuple[Kind, int], float]:
    """Median over interleaved rounds of processor seconds per image; the round that warms up is left out."""
    taken: dict[tuple[Kind, int], list[float]] = defaultdict(list)
    for number in range(arguments.rounds + 1):
        progress(f"  round {number} of {arguments.rounds}")
        for batch in arguments.batches:
            images = pixels.repeat(-(-batch // len(pixels)), 1, 1, 1)[:batch]
            for kind, engine in engines.items():
                seconds = processor_seconds(lambda engine=engine, images=images: engine.features(images)) / batch  # type: ignore[misc]  # as above
                taken[kind, batch].extend([seconds] if number else [])
    return {key: statistics.median(seconds) for key, seconds in taken.items()}


def compared(engines: Engines, backbone: Backbone, files: Sequence[Path], names: Sequence[str]
             ) -> dict[Kind, tuple[float, float, float, float]]:  # fmt: skip
    """Least and mean cosine to the reference, agreement of the best class among all names, and over label sets of ten
    names."""
    rows: dict[Kind, list[Tensor]] = defaultdict(list)
    for start in range(0, len(files), 32):
        pixels = pixels_of(files[start : start + 32], backbone)
        for kind, engine in engines.items():
            rows[kind].append(F.normalize(engine.features(pixels), dim=-1))
    classes = backbone.text.encode_texts([TEMPLATE.format(name) for name in names]).cpu()
    probes, reference = Probes(pixels[:0], classes), torch.cat(rows[REFERENCE])
    found = {}
    for kind, parts in rows.items():
        own = torch.cat(parts)
        cosines = (own * reference).sum(dim=1)
        best = ((own @ classes.T).argmax(1) == (reference @ classes.T).argmax(1)).float().mean()
        small = probes.agreement(reference, own)
        found[kind] = float(cosines.min()), float(cosines.mean()), float(best), small
    return found


def where_time_goes(engine: ImageEngine, pixels: Tensor) -> str:
    """The operators of one pass that take most of its time themselves."""
    engine.features(pixels)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        engine.features(pixels)
    events = sorted(recorded.key_averages(), key=lambda event: event.self_cpu_time_total, reverse=True)
    whole = sum(event.self_cpu_time_total for event in events)
    shares = [f"{event.key.removeprefix('aten::')} {event.self_cpu_time_total / whole:.0%}" for event in events[:8]]
    return ", ".join(shares)


def one_model(name: str, arguments: argparse.Namespace, peaks: dict[str, float]) -> None:
    progress(name)
    with opened_model(name) as backbone, tempfile.TemporaryDirectory() as folder:
        files, names = photos_in(arguments.photos, arguments.images if name == BUNDLED else arguments.random_images)
        pixels = pixels_of(files[:32], backbone)
        engines = open_all(backbone, Path(folder), arguments, pixels)
        times = timed(engines, pixels, arguments)
        figures = compared(engines, backbone, files, names)
        operations = operations_of(backbone)
        rows = []
        for kind in engines:
            milliseconds = [f"{times[kind, batch] * 1e3:.1f}" for batch in arguments.batches]
            least, mean, best, small = figures[kind]
            rate = max(operations / times[kind, batch] for batch in arguments.batches)
            share = f"{rate / GIGA:.0f} ({rate / peaks[kind.precision]:.0%})" if kind.precision in peaks else "-"
            rows.append((kind, *milliseconds, share, f"{least:.5f}", f"{mean:.5f}", f"{best:.2%}", f"{small:.2%}"))
        write(f"**{name}**, {operations / GIGA:.2f} GFLOP an image; {len(files)} photos, {len(names)} names\n")
        heads = [f"ms at {batch}" for batch in arguments.batches]
        write_table(("engine", *heads, "GFLOP/s (of peak)", "least cosine", "mean", f"top-1 of {len(names)}",
                     "top-1 of 10"), rows)  # fmt: skip
        bf16 = engines.get(Kind("torch", "bf16"))
        if bf16 is not None:
            write(f"Own time of operators, torch bf16, batch of 8: {where_time_goes(bf16, pixels[:8])}.\n")


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=[BUNDLED, "ViT-B-32", "ViT-B-16"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="processor time is only telling for one")
    parser.add_argument("--photos", type=Path, help="folder of class folders; the packaged photos without it")
    parser.add_argument("--images", type=int, default=1000, help="photos for the bundled backbone")
    parser.add_argument("--random-images", type=int, default=64, help="photos for random weights")
    parser.add_argument("--calibrate", action="store_true", help="also what is calibrated on images (minutes)")
    arguments = parser.parse_args(argv)
    keep_large_blocks()
    torch.set_num_threads(arguments.threads)
    write_header("Engines", "engines", [part for part in argv if "/" not in part])
    peaks = {"fp32": peak(torch.float32), "bf16": peak(torch.bfloat16)}
    told = ", ".join(f"{name} {rate / GIGA:.0f} GFLOP/s" for name, rate in peaks.items())
    write(f"Matrix peak, measured with products of side {'/'.join(map(str, PEAK_SIDES))}: {told}.\n")
    for name in arguments.models:
        one_model(name, arguments, peaks)
    write(f"Processor time, medians of {arguments.rounds} interleaved rounds, {arguments.threads} thread(s).\n")


if __name__ == "__main__":
    main(sys.argv[1:])
