"""Made-up input, a little of it in every run (`make fuzz` does more): errors of our own, no 5xx, no crash."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.clip import Backbone
from tests.fuzz import targets
from tests.service.listening import listening

quick = settings(
    max_examples=25, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:.*(EXIF|Truncated|Image|corrupt):UserWarning:PIL")

edits = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8), st.booleans()), min_size=1, max_size=6)


def changed(data: bytes, edits: list[tuple[float, bytes, bool]]) -> bytes:
    whole = bytearray(data)
    for where, new, insert in edits:
        place = int(where * len(whole))
        whole[place : place if insert else place + len(new)] = new
    return bytes(whole)


@pytest.fixture(scope="module")
def decoding(tiny_backbone: Backbone) -> Iterator[targets.Decoding]:
    made = targets.Decoding(tiny_backbone)
    yield made
    made.close()


@pytest.fixture(scope="module")
def http(tiny_backbone: Backbone) -> Iterator[httpx.Client]:
    with listening(tiny_backbone, adapter="zero-shot") as url, httpx.Client(base_url=url, timeout=30) as one:
        yield one


@quick
@given(st.sampled_from(targets.image_seeds()), edits)
def test_images(decoding: targets.Decoding, seed: bytes, edits: list[tuple[float, bytes, bool]]) -> None:
    data = changed(seed, edits)
    decoding(data)
    targets.frames(data)


@settings(quick, max_examples=200)
@given(st.sampled_from(targets.state_seeds()), edits)
def test_stored_states(seed: bytes, edits: list[tuple[float, bytes, bool]]) -> None:
    targets.state(changed(seed, edits))


@settings(quick, max_examples=200)
@given(st.sampled_from(targets.signed_state_seeds()), edits)
def test_stored_states_of_the_right_checksum(seed: bytes, edits: list[tuple[float, bytes, bool]]) -> None:
    targets.signed_state(changed(seed, edits))


@settings(quick, max_examples=200)
@given(st.sampled_from(targets.record_seeds()), edits)
def test_stored_records(seed: bytes, edits: list[tuple[float, bytes, bool]]) -> None:
    targets.record(changed(seed, edits))


BODIES = [
    b'{"classes": ["cat", {"name": "dog", "aliases": ["pup"]}], "templates": ["a {}"], "options": {"x": 1}}',
    b'{"images": ["aGk="], "labels": ["a", "b"], "top_k": 2, "reject_below": 0.5}',
    b'{"inputs": "aGk=", "parameters": {"candidate_labels": ["a", "b"]}}',
    b'{"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["aGk="]}]}',
]
ROUTES = ("/v1/label-sets", "/v1/classify", "/models/none", "/v2/models/none/infer")


@quick
@given(st.sampled_from(ROUTES), st.sampled_from(BODIES), edits)
def test_json_bodies(http: httpx.Client, route: str, body: bytes, edits: list[tuple[float, bytes, bool]]) -> None:
    answer = http.post(route, content=changed(body, edits), headers={"Content-Type": "application/json"})
    assert answer.status_code < 500


PART = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\nContent-Type: image/png\r\n\r\nxx\r\n'


@quick
@given(st.sampled_from(["/v1/classify", "/v1/label-sets/none/evaluate"]), edits, st.integers(1, 40))
def test_multipart_bodies(http: httpx.Client, route: str, edits: list[tuple[float, bytes, bool]], parts: int) -> None:
    body = changed(PART * parts + b"--b--\r\n", edits)
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert http.post(route, content=body, params={"labels": "a,b"}, headers=headers).status_code < 500


@quick
@given(st.text(max_size=60), st.sampled_from(["Content-Type", "Prefer", "Authorization", "X-Request-Id", "Origin"]))
def test_header_fields(http: httpx.Client, text: str, name: str) -> None:
    value = bytes(byte for byte in text.encode("utf-8", "replace") if byte >= 0x20 and byte != 0x7F).strip()
    answer = http.post("/v1/label-sets", content=b"{}", headers=[(name.encode(), value)])
    assert answer.status_code < 500


STRANGE = [
    "\ud800", "\0", "\x1b[31mred", "\u202eevil", "\u200b", "\U0001f469\u200d\U0001f467", "e\u0301" * 50, "\ufdfa" * 100,
    "a\nb", "\ufeff", "", " ", "\u0130", "\xdf", "x" * 10_000, "\u65e5\u672c", "\U0010ffff", "%s{}{0}", "../../etc",
    "<script>", "A" * 512, "\u0000\ud83d", "{}" * 100,
]  # fmt: skip


@pytest.mark.parametrize("name", STRANGE, ids=ascii)
def test_strange_class_names(name: str, http: httpx.Client) -> None:
    body = json.dumps({"classes": [name, "dog"], "adapter": "zero-shot"}).encode()
    answer = http.post("/v1/label-sets", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {200, 202, 400, 413, 422}
    if answer.status_code < 300:
        shown = http.get(f"/v1/label-sets/{answer.json()['id']}").json()
        assert shown["classes"][1] == "dog"
        assert http.get(f"/v1/label-sets/{answer.json()['id']}/events").status_code == 200


@quick
@given(st.text(min_size=1, max_size=40))
def test_names_in_paths(http: httpx.Client, name: str) -> None:
    for path in ("/v1/label-sets/{}", "/v1/label-sets/{}/events", "/v1/label-sets/x/support/{}", "/problems/{}"):
        url = httpx.URL(http.base_url, raw_path=path.format(quoted(name)).encode())
        assert http.get(url).status_code < 500


def quoted(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("route", ["/v1/label-sets", "/v1/classify"])
def test_json_may_be_so_deep_and_no_deeper(route: str, http: httpx.Client) -> None:
    allowed = http.get("/v1/limits").json()["limits"]["max_json_depth"]
    for depth, status in ((allowed + 1, 413), (100_000, 413), (allowed - 1, 422)):
        body = b'{"classes": ' + b"[" * depth + b"]" * depth + b"}"
        answer = http.post(route, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == status
        assert (answer.json().get("limit") == "max_json_depth") == (status == 413)
