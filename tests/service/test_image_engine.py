"""The service and its image engine: what /v1/models says, what is remembered, and that it always starts."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from adapters.clip import Backbone
from service.compute.image_engine import wanted_engine
from service.settings import Settings
from tests.needs import missing
from tests.service.served import Served, photo, served

PNG = {"Content-Type": "image/png"}


async def engine_of(site: Served) -> dict[str, Any]:
    (model,) = (await site.http.get("/v1/models")).json()["models"]
    engine: dict[str, Any] = model["engine"]
    return engine


async def scores_of(site: Served) -> Any:
    answer = await site.http.post("/v1/classify?labels=a,b,c", content=photo(), headers=PNG)
    return answer.json()["results"]


async def test_torch_is_what_tests_run(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        engine = await engine_of(site)
    assert (engine["name"], engine["precision"], engine["threads"], engine["source"]) == ("torch", "fp32", 1, "setting")
    assert engine["candidates"] == []


async def test_after_a_restart_the_same_engine_gives_the_same_scores(tiny_backbone: Backbone, tmp_path: Path) -> None:
    if find_spec("onnxruntime") is None:
        raise missing("onnxruntime is not installed")
    settings = {"engine": "onnxruntime", "engine_precision": "fp32", "data_dir": tmp_path}
    found = []
    for _ in range(2):
        async with served(tiny_backbone, **settings) as site:
            found.append((await engine_of(site), await scores_of(site)))
    (first, scores), (second, later) = found
    assert (first["source"], second["source"]) == ("measured", "remembered")
    assert first["name"] == second["name"] == "onnxruntime"
    assert first["candidates"] == second["candidates"]
    assert scores == later


async def test_the_service_starts_although_no_engine_can(tiny_backbone: Backbone, tmp_path: Path) -> None:
    (tmp_path / "engines").write_text("in the way", encoding="utf-8")
    async with served(tiny_backbone, engine="openvino", data_dir=tmp_path) as site:
        engine = await engine_of(site)
        assert (await site.http.get("/readyz")).status_code == 200
    assert (engine["name"], engine["precision"]) == ("torch", "fp32")
    assert engine["source"] == "fallback" or all(one["refused"] for one in engine["candidates"])


@pytest.mark.parametrize(
    ("precision", "engine_precision", "asked"),
    [("auto", "auto", "auto"), ("fp32", "auto", "fp32"), ("fp32", "bf16", "bf16"), ("auto", "int8", "int8")],
)
def test_a_backbone_asked_for_in_fp32_gets_no_other_precision(
    precision: str, engine_precision: str, asked: str
) -> None:
    settings = Settings(precision=precision, engine_precision=engine_precision)  # type: ignore[arg-type]  # parameters
    assert wanted_engine(settings).precision == asked
