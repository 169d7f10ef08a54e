"""Label sets that are loaded before readiness turns green."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapters.clip import Backbone
from service.errors import NotFound
from service.labels.preload import read_file
from tests.service.fakes import soon
from tests.service.served import Kept, Served, served

NAMES = ["cat", "dog", "teapot"]


async def readiness(service: Served) -> tuple[int, dict[str, str]]:
    answer = await service.http.get("/readyz")
    return answer.status_code, {check["name"]: check["status"] for check in answer.json()["checks"]}


async def test_readiness_waits_for_what_is_preloaded(tiny_backbone: Backbone, tmp_path: Path) -> None:
    file = tmp_path / "animals.txt"
    file.write_text("\n".join(NAMES))
    async with served(tiny_backbone, preload=str(file)) as service:
        code, checks = await readiness(service)
        assert (code, checks["preload"]) == (503, "failed")
        service.slow.go.set()
        await soon(lambda: not service.runtime.preload or not service.runtime.preload.waiting)
        service.app.state.readiness._found = None
        assert (await readiness(service))[0] == 200
        listed = (await service.http.get("/v1/label-sets")).json()["label_sets"]
        assert [(one["status"], one["class_count"]) for one in listed] == [("ready", 3)]


async def test_a_known_label_set_is_hot_when_readiness_turns_green(tiny_backbone: Backbone) -> None:
    kept, prompts = Kept(), 0
    async with served(tiny_backbone, kept, slow=False) as service:
        body = {"classes": NAMES, "name": "animals"}
        await service.http.post("/v1/label-sets", json=body, headers={"Prefer": "wait=20"})
        prompts = tiny_backbone.text.prompts_encoded
    async with served(tiny_backbone, kept, slow=False, preload="animals") as service:
        await soon(lambda: service.value("selftpt_hot_states") == 1)
        assert tiny_backbone.text.prompts_encoded == prompts


async def test_what_cannot_be_preloaded_degrades_and_serves(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone, preload="nothing-of-that-name") as service:
        await soon(lambda: bool(service.runtime.preload and service.runtime.preload.failed))
        code, checks = await readiness(service)
        assert (code, checks["preload"]) == (200, "degraded")


def test_a_file_is_names_or_the_body_of_an_upload(tmp_path: Path) -> None:
    names, body, broken = tmp_path / "a.txt", tmp_path / "b.json", tmp_path / "c.json"
    names.write_text("cat\n\n dog \n")
    body.write_text(json.dumps({"classes": NAMES, "adapter": "zero-shot"}))
    broken.write_text("{}")
    assert read_file(names).classes == ["cat", "dog"]
    assert read_file(body).adapter == "zero-shot"
    with pytest.raises(NotFound, match="label set"):
        read_file(broken)
