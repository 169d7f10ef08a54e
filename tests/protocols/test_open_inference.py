"""The real `tritonclient` against a listening service, and the JSON form of the Open Inference Protocol."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.service.served import photo

LABELS = ["cat", "dog", "rocket"]


@pytest.fixture
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address.removeprefix("http://")) as one:
        yield one


@pytest.fixture(scope="module", autouse=True)
def label_set(address: str) -> str:
    made = httpx.post(f"{address}/v1/label-sets", json={"classes": LABELS, "name": "things"})
    return str(made.json()["id"])


def tensor(name: str, *elements: bytes, binary: bool = True) -> triton.InferInput:
    made = triton.InferInput(name, [len(elements)], "BYTES")
    return made.set_data_from_numpy(np.array(elements, dtype=np.object_), binary_data=binary)


def test_health_and_metadata(client: triton.InferenceServerClient, label_set: str) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("things")
    assert not client.is_model_ready("nothing")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    described = client.get_model_metadata("things")
    assert described["versions"] == [label_set[:12]]
    assert [one["name"] for one in described["inputs"]] == ["image"]
    assert [one["name"] for one in client.get_model_metadata("tiny")["inputs"]] == ["image", "labels"]


def test_images_of_a_label_set_in_binary_form(client: triton.InferenceServerClient) -> None:
    images = tensor("image", photo(), photo(colour="blue"))
    result = client.infer("tiny", [images], parameters={"label_set": "things", "top_k": 2}, request_id="7")
    assert result.get_response()["id"] == "7"
    assert result.get_response()["parameters"]["served_by"] == "zero-shot"
    assert result.as_numpy("label").shape == (2, 2)
    assert {one.decode() for one in result.as_numpy("label").ravel()} <= set(LABELS)
    assert (np.diff(result.as_numpy("score"), axis=1) <= 0).all()


def test_every_way_to_name_the_classes_gives_the_same_scores(client: triton.InferenceServerClient) -> None:
    images = tensor("image", photo())
    labels = tensor("labels", *(one.encode() for one in LABELS))
    ways = [
        client.infer("things", [images]),
        client.infer("tiny", [images, labels]),
        client.infer("tiny", [images], parameters={"labels": ",".join(LABELS)}),
        client.infer("tiny", [images], outputs=[triton.InferRequestedOutput("score", binary_data=False)],
                     parameters={"label_set": "things"}),
    ]  # fmt: skip
    scores = [way.as_numpy("score") for way in ways]
    assert all(np.allclose(scores[0], one, atol=1e-6) for one in scores)
    assert ways[3].as_numpy("label") is None


def test_a_timeout_in_microseconds_ends_what_takes_longer(client: triton.InferenceServerClient) -> None:
    images, chosen = [tensor("image", photo())], {"label_set": "things"}
    assert client.infer("tiny", images, parameters=chosen, timeout=60_000_000).as_numpy("label").shape[0] == 1
    images = [tensor("image", photo(size=(1500, 1500)))]
    for timeout, headers in ((1, {}), (60_000_000, {"X-Request-Timeout-Ms": "1"})):
        with pytest.raises(InferenceServerException, match="not done within 0"):
            client.infer("tiny", images, parameters=chosen, timeout=timeout, headers=headers)


@pytest.mark.parametrize("timeout", [-1, 1.5, "soon", True])
def test_a_timeout_that_is_no_number_of_microseconds_is_refused(address: str, timeout: object) -> None:
    body = {
        "parameters": {"timeout": timeout},
        "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["-"]}],
    }
    answer = httpx.post(f"{address}/v2/models/things/infer", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, "parameters.timeout")


def test_json_carries_images_as_base64(client: triton.InferenceServerClient) -> None:
    binary = client.infer("things", [tensor("image", photo())])
    text = client.infer("things", [tensor("image", base64.b64encode(photo()), binary=False)])
    assert np.allclose(binary.as_numpy("cosine"), text.as_numpy("cosine"), atol=1e-6)


def test_the_real_client_shows_the_reason_of_a_refusal(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match=r"image\[1\]: not a JPEG"):
        client.infer("things", [tensor("image", photo(), b"nothing")])
    with pytest.raises(InferenceServerException, match="max_images is 3, 4 given"):
        client.infer("things", [tensor("image", *[photo()] * 4)])
    with pytest.raises(InferenceServerException, match="has no version '1'"):
        client.infer("things", [tensor("image", photo())], model_version="1")
    with pytest.raises(InferenceServerException, match="label_set"):
        client.infer("tiny", [tensor("image", photo())])


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"datatype": "FP32"}, 422),
        ({"shape": [2]}, 422),
        ({"shape": [-1]}, 422),
        ({"data": [1]}, 422),
        ({"data": None}, 422),
        ({"name": "pixels"}, 422),
        ({"parameters": {"binary_data_size": 5}, "data": None}, 400),
        ({"parameters": {"shared_memory_region": "r"}}, 422),
    ],
)
def test_tensors_that_make_no_sense_are_refused(address: str, change: dict[str, object], status: int) -> None:
    good = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(photo()).decode()]}
    url = f"{address}/v2/models/things/infer"
    fine = httpx.post(url, json={"inputs": [good]})
    assert fine.status_code == 200, fine.text
    answer = httpx.post(url, json={"inputs": [good | change]})
    assert (answer.status_code, "error" in answer.json()) == (status, True)


def test_elements_that_reach_too_far_are_refused(address: str) -> None:
    head = b'{"inputs":[{"name":"image","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":6}}]}'
    url = f"{address}/v2/models/things/infer"
    for length, status in ((str(len(head)), 400), ("9999", 400), ("x", 400), ("3", 400)):
        headers = {"Inference-Header-Content-Length": length}
        answer = httpx.post(url, content=head + b"\xff\x00\x00\x00ab", headers=headers)
        assert answer.status_code == status, length
