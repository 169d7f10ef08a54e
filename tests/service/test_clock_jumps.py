"""A wall clock that is set a year ahead or back while the service runs: intervals are not taken from it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from adapters.clip import Backbone
from service.settings import Settings
from service.stores import open_stores
from tests.security.keys import add_key
from tests.service.served import photo, served

YEAR = 365 * 86_400.0
PNG = {"Content-Type": "image/png"}


@pytest.mark.parametrize("jump", [YEAR, -YEAR], ids=["ahead", "back"])
async def test_answers_quotas_and_label_sets_survive_a_jump_of_the_clock(
    jump: float, tiny_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = add_key(tmp_path / "keys.json", "admin", images_per_minute=2)
    stores = open_stores(Settings(data_dir=tmp_path))
    async with served(tiny_backbone, slow=False, stores=stores, api_keys_file=tmp_path / "keys.json") as site:

        async def classified(name: str) -> int:
            path = f"/v1/classify?label_set={name}"
            return (await site.http.post(path, content=photo(), headers={**key, **PNG})).status_code

        async def uploaded(name: str, *classes: str) -> str:
            body = {"name": name, "classes": list(classes)}
            answer = await site.http.post("/v1/label-sets", json=body, headers={**key, "Prefer": "wait=20"})
            return str(answer.json()["status"])

        assert await uploaded("before", "cat", "dog") == "ready"
        assert await classified("before") == 200
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + jump)
        assert await uploaded("after", "tree", "house") == "ready"
        assert await classified("before") == 200
        assert await classified("after") == 429, "the quota is neither given back nor taken away"
        kept = (await site.http.get("/v1/label-sets", headers=key)).json()
        assert {one["name"] for one in kept["label_sets"]} == {"before", "after"}
        assert (await site.http.get("/readyz", headers=key)).status_code == 200
