"""Generated requests, sensible and not, against the application: answers are those that the contract promises.

Each operation gets the edge cases of its parameters and bodies, and a few random requests; no shrinking, so that a
failure is said at once. What is not asked: that every body which fits the schema is accepted, since what a label set
may hold, or which images belong to which class, is more than a schema can say.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from adapters.clip import Backbone
from tests.service.listening import listening

CONTRACT = Path(__file__).resolve().parents[2] / "openapi.yaml"
KNOWN = {"label_set": "pets", "model": "pets", "class_name": "cat"}
RANDOM_REQUESTS = 15
DEADLINE = "X-Request-Timeout-Ms"
"""Those who give a millisecond are told that it was too short (504), which is no fault of the service."""

schema = schemathesis.openapi.from_path(CONTRACT)


@pytest.fixture(scope="module")
def address(tiny_backbone: Backbone) -> Iterator[str]:
    with listening(tiny_backbone, adapter="zero-shot") as url:
        httpx.post(f"{url}/v1/label-sets", json={"classes": ["cat", "dog"], "name": "pets"}).raise_for_status()
        yield url


@schemathesis.serializer("application/zip")
def zipped(context: schemathesis.SerializationContext, value: Any) -> bytes:
    """What was made up, as a file of an archive; bytes that are no archive come as they are in other requests."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("cat/1.png", value if isinstance(value, bytes) else str(value).encode("utf-8", "replace"))
    return buffer.getvalue()


@schema.hook
def map_path_parameters(context: schemathesis.HookContext, path_parameters: Any) -> Any:
    """Most requests go to what exists; deletions of label sets do not, for the others need it."""
    if not path_parameters or context.operation.method == "delete":
        return path_parameters
    return {name: KNOWN.get(name, value) for name, value in path_parameters.items()}


@schema.parametrize()
@settings(
    max_examples=RANDOM_REQUESTS,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_those_of_the_contract(case: schemathesis.Case, address: str) -> None:
    if str(case.headers.get(DEADLINE, "")).isdecimal():
        case.headers.pop(DEADLINE)
    case.call_and_validate(base_url=address, excluded_checks=[positive_data_acceptance])
