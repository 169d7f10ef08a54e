"""Every way to classify an image is measured by the same stages, and says so in `Server-Timing`."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from adapters.clip import Backbone
from service.routes.classifying import SHOWN_STAGES
from tests.service.served import Served, photo, served

IMAGE = base64.b64encode(photo()).decode()
TENSOR = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [IMAGE]}
LABELS = "cat,dog"
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "own": ("/v1/classify", {"images": [IMAGE], "labels": ["cat", "dog"]}),
    "hugging-face": ("/models/tiny", {"inputs": IMAGE, "parameters": {"candidate_labels": LABELS}}),
    "open-inference": ("/v2/models/tiny/infer", {"inputs": [TENSOR], "parameters": {"labels": LABELS}}),
}


def counted(site: Served) -> dict[str, float]:
    name = "selftpt_stage_duration_seconds_count"
    return {stage: site.value(name, stage=stage) for stage in (*SHOWN_STAGES, "answer", "encode")}


@pytest.mark.parametrize("way", WAYS)
async def test_each_stage_is_counted_once_for_a_request(way: str, tiny_backbone: Backbone) -> None:
    path, body = WAYS[way]
    async with served(tiny_backbone, adapter="zero-shot") as site:
        answer = await site.http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        assert counted(site) == dict.fromkeys(counted(site), 1.0)
    told = [part.partition(";")[0] for part in answer.headers["Server-Timing"].split(", ")]
    assert told == list(SHOWN_STAGES)


@pytest.mark.parametrize("way", WAYS)
async def test_what_cannot_be_understood_was_received_but_not_answered(way: str, tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone, adapter="zero-shot") as site:
        answer = await site.http.post(WAYS[way][0], json={"nonsense": 1})
        assert answer.status_code == 422
        stages = counted(site)
    assert (stages["receive"], stages["encode"], stages["total"]) == (1.0, 0.0, 0.0)
    assert site.runtime.admission.running == 0
