"""Both Python clients against a listening service: the whole life of a label set."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from adapters.clip import Backbone
from service.client import AsyncClient, Client, ServiceProblem
from tests.service.listening import listening
from tests.service.served import photo

PIXELS = np.full((20, 30, 3), 90, np.uint8)


@pytest.fixture(scope="module")
def address(tiny_backbone: Backbone) -> Iterator[str]:
    with listening(tiny_backbone) as url:
        yield url


def test_a_label_set_lives_from_upload_to_deletion(address: str) -> None:
    told: list[tuple[str, float]] = []
    with Client(address) as client:
        made = client.create_label_set(["cat", "dog"], name="pets", adapter="self-tpt", options={"steps": 2},
                                       progress=lambda status, done: told.append((status, done)))  # fmt: skip
        assert (made.status, told[-1]) == ("ready", ("ready", 1.0))
        answer = client.classify(photo(), PIXELS, Image.fromarray(PIXELS), label_set="pets")
        assert answer.adapted
        scores = [[one.score for one in result.predictions or []] for result in answer.results]
        assert scores[1] == pytest.approx(scores[2], rel=1e-5)
        assert [one.name for one in client.label_sets()] == ["pets"]
        client.delete_label_set("pets")
        with pytest.raises(ServiceProblem, match="no label set"):
            client.label_set("pets")


async def test_the_asynchronous_client_teaches_fits_and_measures(address: str) -> None:
    async with AsyncClient(address) as client:
        await client.create_label_set(["red", "blue"], name="colours", wait=10)
        for colour in ("red", "blue"):
            kept = await client.put_support("colours", colour, photo(colour=colour), photo(colour=colour, size=(9, 9)))
            assert kept.count == 2
        assert (await client.support("colours")).fewest == 2
        fitted = await client.fit("colours", adapter="coop", options={"steps": 2}, progress=lambda status, done: None)
        assert (fitted.status, fitted.adapter) == ("ready", "coop")
        report = await client.evaluate("colours", [("red", photo(colour="red")), ("blue", b"no image")])
        assert (report.images, len(report.failures)) == (1, 1)
        answers = [one async for one in client.classify_all([photo(), b"no image"], at_once=1, label_set="colours")]
        assert [one.error is None for one in answers] == [True, False]


def test_other_methods_and_the_support_images_are_measured_and_images_come_back(address: str) -> None:
    with Client(address) as client:
        client.create_label_set(["red", "blue"], name="tints", adapter="zero-shot", wait=10)
        kept = [client.put_support("tints", tint, photo(colour=tint)) for tint in ("red", "blue")]
        other = client.evaluate("tints", [("red", photo(colour="red"))], adapter="self-tpt", wait=30)
        own = client.evaluate("tints", source="support", adapter="coop", wait=30)
        assert (other.served_by, other.images, own.served_by, own.images) == ("self-tpt", 1, "coop", 2)
        assert client.class_support("tints", "red") == kept[0]
        assert client.support_image("tints", kept[1].images[0].digest) == photo(colour="blue")
        with pytest.raises(ValueError, match="source='support'"):
            client.evaluate("tints")


async def test_the_asynchronous_client_has_them_too(address: str) -> None:
    async with AsyncClient(address) as client:
        await client.create_label_set(["red", "green"], name="hues", adapter="zero-shot", wait=10)
        kept = await client.put_support("hues", "red", photo(colour="red"))
        report = await client.evaluate("hues", source="support", adapter="self-tpt", wait=30)
        assert (report.served_by, report.images) == ("self-tpt", 1)
        assert (await client.class_support("hues", "green")).images == []
        assert await client.support_image("hues", kept.images[0].digest) == photo(colour="red")


def test_what_the_service_is_can_be_asked(address: str) -> None:
    with Client(address) as client:
        assert client.models().models[0].name == "tiny"
        assert client.limits().limits["max_images"] == 64
        assert client.adapters().default == "auto"
        assert client.readiness().status == "ready"
