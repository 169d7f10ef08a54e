"""The few requests that end-to-end tests make, and the photos they send."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.process import ServiceProcess

Ranking = list[tuple[str, float]]

IMAGES = Path(__file__).parents[2] / "examples" / "images"
PHOTOS = ("cat", "coffee", "rocket")
LABELS = (
    "cat", "dog", "cup of coffee", "rocket", "astronaut", "bicycle", "mountain", "pizza", "piano", "umbrella",
)  # fmt: skip


def photo(name: str) -> bytes:
    return (IMAGES / f"{name}.jpg").read_bytes()


def upload(
    service: ServiceProcess, classes: Sequence[str], *, wait: int = 60, name: str | None = None
) -> dict[str, Any]:
    body = {"classes": list(classes), **({"name": name} if name else {})}
    headers = {"Prefer": f"wait={wait}"} if wait else {}
    answer = service.client.post("/v1/label-sets", json=body, headers=headers)
    assert answer.is_success, answer.text
    label_set: dict[str, Any] = answer.json()
    return label_set


def classify(service: ServiceProcess, label_set: str, image: str = "cat") -> dict[str, Any]:
    answer = service.client.post(
        "/v1/classify", params={"label_set": label_set}, content=photo(image), headers={"Content-Type": "image/jpeg"}
    )
    assert answer.is_success, answer.text
    result: dict[str, Any] = answer.json()
    return result


def ranking(answer: dict[str, Any]) -> Ranking:
    """What an image was found to be, rounded to what two runs of one machine agree on."""
    return [(one["label"], round(one["score"], 5)) for one in answer["results"][0]["predictions"]]


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.01)
