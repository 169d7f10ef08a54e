"""The cache of image features: by content and by everything that decides them, bounded, shared if wanted, one pass for
many who ask at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from adapters.clip import Backbone
from service.images.embeddings import ENTRY_BYTES, Embeddings, embedding_space
from service.telemetry.metrics import Metrics
from tests.service.fakes import DictStore
from tests.service.served import Kept, Served, photo, served

WIDTH = 8


def embeddings(*, entries: int = 10, shared: DictStore | None = None, space: str = "space") -> Embeddings:
    return Embeddings(space, WIDTH, max_bytes=entries * (4 * WIDTH + ENTRY_BYTES), metrics=Metrics(), shared=shared)


def row(seed: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed)), dim=0)


async def key_of(made: Embeddings, data: bytes) -> str:
    key = await made.key(data)
    assert key is not None
    return key


async def test_what_was_kept_is_found_by_content() -> None:
    made = embeddings()
    key = await key_of(made, b"cat")
    made.keep(key, row(1))
    found = await made.find(await key_of(made, b"cat"))
    assert found is not None
    assert torch.equal(found, row(1))
    assert await made.find(await key_of(made, b"dog")) is None


def test_everything_that_decides_the_features_is_in_the_key(tiny_backbone: Backbone) -> None:
    spaces = {
        embedding_space(backbone, preprocessing)
        for backbone in (
            tiny_backbone,
            replace(tiny_backbone, fingerprint="other"),
            replace(tiny_backbone, precision="bf16"),
            replace(tiny_backbone, image=tiny_backbone.image.run_by(Unused(), "openvino bf16")),
        )
        for preprocessing in ("fast-1:apply", "exact:apply", "fast-1:ignore")
    }
    assert len(spaces) == 12


class Unused:
    def features(self, pixels_B3SS: Tensor, /) -> Tensor:
        raise NotImplementedError


async def test_the_least_recently_used_go_first() -> None:
    made = embeddings(entries=2)
    keys = [await key_of(made, data) for data in (b"a", b"b", b"c")]
    for number, key in enumerate(keys[:2]):
        made.keep(key, row(number))
    await made.find(keys[0])
    made.keep(keys[2], row(2))
    assert [await made.find(key) is not None for key in keys] == [True, False, True]


async def test_without_room_nothing_is_kept_or_looked_up() -> None:
    assert await embeddings(entries=0).key(b"cat") is None


async def test_a_shared_store_serves_another_process() -> None:
    store = DictStore()
    one, other = embeddings(shared=store), embeddings(shared=store)
    key = await key_of(one, b"cat")
    one.keep(key, row(1))
    await asyncio.sleep(0.01)
    found = await other.find(key)
    assert found is not None
    assert torch.equal(found, row(1))


@pytest.mark.parametrize("blob", [b"", bytes(4 * WIDTH), bytes(5), torch.full((WIDTH,), torch.nan).numpy().tobytes()])
async def test_damaged_shared_features_are_a_miss(blob: bytes) -> None:
    store = DictStore()
    made = embeddings(shared=store)
    key = await key_of(made, b"cat")
    store.content[key] = blob
    assert await made.find(key) is None


async def test_a_store_that_is_down_is_a_miss() -> None:
    made = embeddings(shared=DictStore(broken=True))
    key = await key_of(made, b"cat")
    assert await made.find(key) is None
    made.keep(key, row(1))
    assert await made.find(key) is not None


async def test_of_many_who_ask_at_once_one_leads_and_the_others_get_what_it_lands() -> None:
    made = embeddings()
    key = await key_of(made, b"cat")
    assert await made.find_or_lead(key) is None
    others = [asyncio.ensure_future(made.find_or_lead(key)) for _ in range(3)]
    await asyncio.sleep(0)
    made.land(key, row(1))
    assert all(torch.equal(found, row(1)) for found in await asyncio.gather(*others) if found is not None)


async def test_when_a_leader_fails_another_leads() -> None:
    made = embeddings()
    key = await key_of(made, b"cat")
    await made.find_or_lead(key)
    others = [asyncio.ensure_future(made.find_or_lead(key)) for _ in range(2)]
    await asyncio.sleep(0)
    made.land(key, None)
    first, second = others
    assert await first is None
    assert not second.done()
    made.land(key, row(1))
    assert await second is not None


async def classify(site: Served, data: bytes, labels: str, **headers: str) -> dict[str, object]:
    answer = await site.http.post(
        f"/v1/classify?labels={labels}&adapter=zero-shot",
        content=data,
        headers={"Content-Type": "image/png", **headers},
    )
    assert answer.status_code == 200, answer.text
    body: dict[str, object] = answer.json()
    return body


def passes(site: Served) -> float:
    return site.value("selftpt_cache_lookups_total", cache="embedding_memory", result="miss")


def hits(site: Served) -> float:
    return site.value("selftpt_cache_lookups_total", cache="embedding_memory", result="hit")


async def test_the_same_image_against_another_label_set_costs_no_tower_pass(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        first = await classify(site, photo(), "cat,dog")
        other = await classify(site, photo(), "rocket,cup")
        again = await classify(site, photo(), "cat,dog")
        assert (passes(site), hits(site)) == (1, 2)
    assert again["results"] == first["results"] != other["results"]


async def test_many_images_of_one_request_are_found_and_kept_too(tiny_backbone: Backbone) -> None:
    files = [("images", (f"{colour}.png", photo(colour=colour))) for colour in ("red", "green", "red")]
    async with served(tiny_backbone) as site:
        await classify(site, photo(colour="green"), "cat,dog")
        answer = await site.http.post("/v1/classify", files=files, data={"labels": "cat,dog", "adapter": "zero-shot"})
        results = answer.json()["results"]
        assert (passes(site), hits(site)) == (3, 1)
        after = await site.http.post("/v1/classify", files=files, data={"labels": "cat,dog", "adapter": "zero-shot"})
        assert hits(site) == 4
    assert results[0]["predictions"] == results[2]["predictions"] != results[1]["predictions"]
    assert [one["filename"] for one in after.json()["results"]] == ["red.png", "green.png", "red.png"]


async def test_requests_for_the_same_image_at_once_share_a_pass(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        await classify(site, photo(), "cat,dog")  # the label set is ready
        answers = await asyncio.gather(*(classify(site, photo(colour="blue"), "cat,dog") for _ in range(8)))
        assert passes(site) == 2
    assert len(answers) == 8


async def test_an_image_that_cannot_be_read_fails_for_everybody_who_sent_it(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        bad = [
            site.http.post("/v1/classify?labels=cat,dog", content=b"nothing", headers={"Content-Type": "image/png"})
            for _ in range(4)
        ]
        assert {answer.status_code for answer in await asyncio.gather(*bad)} == {415}


async def test_processes_that_share_a_redis_share_embeddings(tiny_backbone: Backbone) -> None:
    kept = Kept()
    for expected in (0.0, 1.0):
        async with served(tiny_backbone, kept, redis_url="redis://unused", share_embeddings=True) as site:
            await classify(site, photo(), "cat,dog")
            await asyncio.sleep(0.01)
            assert site.value("selftpt_cache_lookups_total", cache="embedding_shared", result="hit") == expected


async def test_a_deadline_that_cannot_be_kept_ends_the_request(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        late = await site.http.post(
            "/v1/classify?labels=cat,dog",
            content=photo(),
            headers={"Content-Type": "image/png", "X-Request-Timeout-Ms": "1", "Prefer": "wait=5"},
        )
        wrong = await site.http.post("/v1/classify?labels=a,b", content=photo(), headers={"X-Request-Timeout-Ms": "0"})
    assert (late.status_code, wrong.status_code) == (504, 422)
