"""The real `huggingface_hub` client against a listening service, and the shapes that other clients send."""

from __future__ import annotations

import base64
from pathlib import Path

import httpx
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from tests.service.served import photo

CAT = Path(__file__).resolve().parents[2] / "examples/images/cat.jpg"
LABELS = ["cat", "dog", "rocket"]


def test_the_real_client_classifies_among_candidate_labels(address: str) -> None:
    client = InferenceClient(model=f"{address}/models/tiny")
    found = client.zero_shot_image_classification(CAT, candidate_labels=LABELS)
    assert {one.label for one in found} == set(LABELS)
    assert sum(one.score for one in found) == pytest.approx(1)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_a_hypothesis_template_makes_other_prompts(address: str) -> None:
    client = InferenceClient(model=f"{address}/models/tiny")
    plain, own = (
        client.zero_shot_image_classification(CAT.read_bytes(), LABELS, hypothesis_template=template)
        for template in (None, "a very blurred drawing of a {}")
    )
    assert {one.label: one.score for one in plain} != {one.label: one.score for one in own}


def test_a_label_set_is_an_image_classifier_to_the_real_client(address: str) -> None:
    httpx.post(f"{address}/v1/label-sets", json={"classes": LABELS, "name": "things"}).raise_for_status()
    client = InferenceClient(model=f"{address}/models/things")
    assert {one.label for one in client.image_classification(CAT)} == set(LABELS)
    assert len(client.image_classification(CAT, top_k=2)) == 2


def test_the_real_client_shows_the_reason_of_a_refusal(address: str) -> None:
    client = InferenceClient(model=f"{address}/models/tiny")
    with pytest.raises(HfHubHTTPError, match="not a JPEG, PNG, WebP or GIF"):
        client.zero_shot_image_classification(b"no image at all", LABELS)
    with pytest.raises(HfHubHTTPError, match="there is no model 'other'"):
        InferenceClient(model=f"{address}/models/other").zero_shot_image_classification(CAT, LABELS)


def test_older_and_other_shapes_are_understood(address: str) -> None:
    image = base64.b64encode(photo()).decode()
    shapes: list[dict[str, object]] = [
        {"inputs": image, "parameters": {"candidate_labels": LABELS, "extra": None}},
        {"inputs": {"image": image}, "parameters": {"candidate_labels": "cat, dog, rocket"}, "options": {}},
    ]
    answers = [httpx.post(f"{address}/models/tiny", json=shape) for shape in shapes]
    assert answers[0].json() == answers[1].json()
    assert answers[0].headers["X-Adapted"] == "false"


def test_what_cannot_be_classified_is_a_problem_that_names_its_field(address: str) -> None:
    image = base64.b64encode(photo()).decode()
    bare = httpx.post(f"{address}/models/tiny", json={"inputs": image})
    assert (bare.status_code, bare.json()["field"]) == (422, "parameters.candidate_labels")
    shape = {"inputs": image, "parameters": {"candidate_labels": LABELS, "hypothesis_template": "no place"}}
    template = httpx.post(f"{address}/models/tiny", json=shape)
    assert (template.status_code, template.json()["error"]) == (422, template.json()["detail"])


def test_a_deadline_in_the_head_ends_what_takes_longer(address: str) -> None:
    body = {"inputs": base64.b64encode(photo(size=(1500, 1500))).decode(), "parameters": {"candidate_labels": LABELS}}
    for patience, status in (("1", 504), ("60000", 200), ("0", 422)):
        headers = {"X-Request-Timeout-Ms": patience}
        assert httpx.post(f"{address}/models/tiny", json=body, headers=headers).status_code == status
