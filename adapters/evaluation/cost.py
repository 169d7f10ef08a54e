"""What a method costs: one fit and a few images in a fresh process, so that nothing of another method is measured.

`python -m adapters.evaluation.cost` reads a task as JSON from standard input and writes a `Cost` as JSON.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters.base import Adapter, ClassState, ImageAdapter, InfoValue, LabelSet, Support, cosine_logits
from adapters.checkpoint import state_to_bytes
from adapters.clip import Backbone, load_backbone
from adapters.errors import AdapterError
from adapters.evaluation.datasets import open_image, read_pixels
from adapters.evaluation.memory import peak_memory
from adapters.evaluation.records import Cost
from adapters.evaluation.variants import Variant

TIMED = 12
"""Images that are timed one by one; the median is reported. The first image warms up and is left out."""


@dataclass(frozen=True, slots=True)
class CostTask:
    """Everything a fresh process needs to know. `support` and `labels` are empty for methods that take no images."""

    backbone: str
    label: str
    method: str
    set_name: str
    classes: tuple[str, ...]
    images: tuple[str, ...]
    content: str = ""
    options: Mapping[str, InfoValue] = field(default_factory=dict)
    templates: tuple[str, ...] = ()
    support: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    seed: int = 1
    device: str = "auto"
    prompts: str = ""
    threads: int = 0
    """0 leaves the number of threads as it is."""


def measured_apart(task: CostTask, *, timeout: float | None = None) -> Cost:
    """Runs the task in a process of its own. A method that refuses, fails or takes too long gives a `Cost` that says
    so."""
    command = [sys.executable, "-m", "adapters.evaluation.cost"]
    try:
        done = subprocess.run(
            command, input=json.dumps(asdict(task)), capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return _failed(task, f"not finished after {timeout:.0f} s")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1]
        return _failed(task, last)
    return Cost(**json.loads(done.stdout))


def measure(task: CostTask) -> Cost:
    """In this process."""
    if task.threads:
        torch.set_num_threads(task.threads)
    backbone = load_backbone(task.backbone, device=task.device, source_dir=Path(task.prompts) if task.prompts else None)
    labels = LabelSet.of(*task.classes, templates=task.templates)
    adapter = Variant(task.label, task.method, task.options).adapter(backbone, task.seed)
    support = _support(task, backbone)
    backbone.image.encode(read_pixels(Path(task.images[0]), backbone)[None])  # towers warm before anything is counted
    backbone.text.encode_texts(["a photo of a thing."])
    with peak_memory() as fit:
        started = time.perf_counter()
        state = adapter.adapt(labels, backbone, support)
        seconds = time.perf_counter() - started
    answer = answerer(adapter, state, backbone)
    prepared = [_input(adapter, state, Path(path), backbone) for path in task.images[: TIMED + 1]]
    with peak_memory() as image:
        times = [_timed(answer, pixels) for pixels in prepared]
    return Cost(
        method=task.label,
        set_name=task.set_name,
        classes=len(task.classes),
        content=task.content,
        fit_seconds=round(seconds, 3),
        nbytes=len(state_to_bytes(state)),
        fit_mib=round(fit.rss_mib, 1),
        image_ms=round(1000 * statistics.median(times[1:] or times), 2),
        image_mib=round(image.rss_mib, 1),
        cuda_fit_mib=round(fit.cuda_mib, 1),
        cuda_image_mib=round(image.cuda_mib, 1),
    )


def answerer(adapter: Adapter, state: ClassState, backbone: Backbone) -> Callable[[Tensor], Tensor]:
    """Pixels of one image (with a batch dimension) to logits, by the path that serves such a state."""
    if adapter.needs(state).scored_by:
        assert isinstance(adapter, ImageAdapter)
        scorer = adapter
        return lambda pixels: scorer.logits(pixels, state, backbone)
    prompts = state.visual_prompts
    if prompts is not None:
        return lambda pixels: cosine_logits(backbone.image.encode_prompted(pixels, prompts), state)
    return lambda pixels: cosine_logits(backbone.image.encode(pixels), state)


def _input(adapter: Adapter, state: ClassState, path: Path, backbone: Backbone) -> Tensor:
    views = adapter.needs(state).views
    if views > 1:
        return backbone.preprocess.views(open_image(path), views, seed=0)[None]
    return read_pixels(path, backbone)[None]


def _timed(answer: Callable[[Tensor], Tensor], pixels: Tensor) -> float:
    started = time.perf_counter()
    answer(pixels).sum().item()  # waits for a device that works on its own
    return time.perf_counter() - started


def _support(task: CostTask, backbone: Backbone) -> Support | None:
    if not task.support:
        return None
    pixels = torch.stack([read_pixels(Path(path), backbone) for path in task.support])
    return Support(pixels, torch.tensor(task.labels))


def _failed(task: CostTask, reason: str) -> Cost:
    return Cost(task.label, task.set_name, len(task.classes), task.content, skipped=reason)


def main() -> None:
    plain: dict[str, Any] = json.load(sys.stdin)
    facts: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()}
    task = CostTask(**facts)
    try:
        found = measure(task)
    except AdapterError as reason:
        found = _failed(task, str(reason))
    sys.stdout.write(json.dumps(asdict(found)) + "\n")


if __name__ == "__main__":
    main()
