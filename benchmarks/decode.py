"""What decoding and resizing costs, and whether the fast way changes embeddings or answers: open_clip's own transform,
the service's exact mode and its fast mode, in interleaved rounds."""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from adapters import create_adapter
from adapters.base import LabelSet, cosine_logits
from adapters.clip import Backbone, load_backbone
from benchmarks.classify import IMAGES
from benchmarks.pixels import decoder_of
from benchmarks.report import progress, write, write_header, write_table
from service.process.allocator import keep_large_blocks
from service.settings import Settings

SIZES = ((500, 375), (1280, 960), (4032, 3024))
QUALITY = 90
BATCH = 16

Way = Callable[[bytes], Tensor]


def ways_of(backbone: Backbone) -> dict[str, Way]:
    """The first two end with open_clip's normalised floats, which its users wait for too; ours with uint8, which the
    device normalises for a whole batch."""
    settings, preprocess = Settings(), backbone.preprocess
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocess.mean, preprocess.std))

    def open_clip(data: bytes) -> Tensor:
        return preprocess.pixels(Image.open(io.BytesIO(data))).float().div(255).sub(mean).div(std)

    def fast_normalised(data: bytes) -> Tensor:
        return fast(data).float().div(255).sub(mean).div(std)

    exact, fast = (decoder_of(settings, backbone, mode).decode for mode in ("exact", "fast"))
    return {"open_clip's transform": open_clip, "exact": exact, "fast": fast, "fast, normalised": fast_normalised}


def photo(path: Path, size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.open(path).convert("RGB").resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def speed(backbone: Backbone, source: Path, rounds: int) -> None:
    """Processor time of the thread: other work on the machine counts little."""
    ways, rows = ways_of(backbone), []
    for size in SIZES:
        data = photo(source, size)
        progress(f"{size[0]} x {size[1]}")
        times: dict[str, list[float]] = defaultdict(list)
        for _ in range(rounds):
            for name, way in ways.items():
                begun = time.thread_time()
                way(data)
                times[name].append(time.thread_time() - begun)
        first = statistics.median(times["open_clip's transform"])
        for name, seconds in times.items():
            median = statistics.median(seconds)
            shown = f"{size[0]} x {size[1]}, {len(data) // 1000} KB"
            rows.append((shown, name, f"{1e3 * median:.2f}", f"{first / median:.1f}"))
    write_table(("JPEG", "way", "ms of one core", "times as fast"), rows)
    write(f"Medians of {rounds} interleaved rounds, processor time of the thread.\n")


def agreement(backbone: Backbone, folders: Sequence[Path], most: int) -> None:
    """`folders` hold one folder per class."""
    ways = ways_of(backbone)
    rows = []
    for folder in folders:
        names = sorted(path.name for path in folder.iterdir() if path.is_dir())
        files = [path for name in names for path in sorted((folder / name).iterdir())]
        files = files[:: max(1, -(-len(files) // most))]
        progress(f"{folder.name}: {len(files)} photos")
        state = create_adapter("zero-shot", backbone).adapt(LabelSet.of(*names), backbone)
        exact, fast = (features(backbone, ways[way], files) for way in ("exact", "fast"))
        cosines = (exact * fast).sum(dim=1)
        same = cosine_logits(exact, state).argmax(dim=1) == cosine_logits(fast, state).argmax(dim=1)
        rows.append(
            (folder.name, len(files), len(names), f"{float(cosines.min()):.6f}", f"{float(cosines.median()):.6f}",
             f"{100 * float(same.float().mean()):.2f} % ({int((~same).sum())} differ)")
        )  # fmt: skip
    write_table(("photos", "number", "classes", "cosine, least", "median", "same best class"), rows)


def features(backbone: Backbone, way: Way, files: Sequence[Path]) -> Tensor:
    parts = []
    for start in range(0, len(files), BATCH):
        pixels = torch.stack([way(path.read_bytes()) for path in files[start : start + BATCH]])
        parts.append(backbone.image.encode(pixels))
    return torch.cat(parts)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--source", type=Path, default=IMAGES / "coffee.jpg")
    parser.add_argument("--photos", type=Path, nargs="*", default=[], help="folders of class folders")
    parser.add_argument("--most", type=int, default=2000, help="photos of each folder")
    arguments = parser.parse_args(argv)
    keep_large_blocks()
    torch.set_num_threads(Settings().compute_threads)
    backbone = load_backbone(Settings().backbone, device=Settings().device)
    write_header("Decoding", "decode", argv)
    speed(backbone, arguments.source, arguments.rounds)
    agreement(backbone, arguments.photos, arguments.most)


if __name__ == "__main__":
    main(sys.argv[1:])
