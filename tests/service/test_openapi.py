"""openapi.yaml is the contract: the application's own document must say the same, prose apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from adapters.clip import Backbone
from service.app import create_app
from service.http.openapi import page
from service.http.problems import problem_types
from service.settings import Settings

CONTRACT = Path(__file__).resolve().parents[2] / "openapi.yaml"
PROSE = {"title", "description", "summary", "tags", "examples", "example", "headers", "x-limits"}
"""What the contract says and the application's own document does not."""

WITHOUT_EXAMPLE = {"AdaptersAnswer", "ModelsAnswer", "Alive", "Live", "Ready", "ServerMetadata", "StatsAnswer"}
"""As long as the methods and engines that are served, or a word or two."""

METHODS = {"get", "put", "post", "delete", "patch", "head"}

Json = dict[str, Any]


@pytest.fixture(scope="module")
def contract() -> Json:
    loaded: Json = yaml.safe_load(CONTRACT.read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def served(tiny_backbone: Backbone) -> Json:
    return create_app(Settings(), backbone=tiny_backbone).openapi()


def plain(value: Any, document: Json, *, names: bool = False) -> Any:
    """Without prose, with references to shared answers resolved, lists of names in order. `names`: keys are names of
    the user's, not words of OpenAPI."""
    if isinstance(value, list):
        items = [plain(one, document) for one in value]
        return sorted(items) if all(isinstance(one, str) for one in items) else items
    if not isinstance(value, dict):
        return value
    if str(value.get("$ref", "")).startswith("#/components/responses/"):
        return plain(document["components"]["responses"][value["$ref"].rpartition("/")[2]], document)
    kept = {key: one for key, one in value.items() if names or not (key in PROSE or (key, one) == ("default", None))}
    return {
        key: plain(one, document, names=key in {"properties", "responses", "content", "schemas"})
        for key, one in kept.items()
    }


def operations(document: Json) -> dict[str, Json]:
    found = {}
    for path, item in document["paths"].items():
        for method in item.keys() & METHODS:
            operation = plain(item[method], document)
            operation["parameters"] = sorted(operation.get("parameters", []), key=lambda one: str(one["name"]))
            found[f"{method.upper()} {path}"] = operation
    return found


def test_the_application_serves_exactly_the_operations_of_the_contract(contract: Json, served: Json) -> None:
    assert operations(contract).keys() == operations(served).keys()


def test_each_operation_is_as_the_contract_says(contract: Json, served: Json) -> None:
    theirs = operations(served)
    for name, operation in operations(contract).items():
        assert operation == theirs[name], name


def test_each_schema_is_as_the_contract_says(contract: Json, served: Json) -> None:
    ours, theirs = (plain(one["components"]["schemas"], one, names=True) for one in (contract, served))
    assert ours.keys() == theirs.keys()
    for name, schema in ours.items():
        assert schema == theirs[name], name


def test_every_reference_in_the_contract_leads_somewhere(contract: Json) -> None:
    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [ref for one in value.values() for ref in references(one)]
        return [ref for one in value for ref in references(one)] if isinstance(value, list) else []

    for reference in references(contract):
        _, _, kind, name = reference.split("/")
        assert name in contract["components"][kind], reference


def test_the_api_page_names_every_path_and_loads_nothing_from_elsewhere(served: Json) -> None:
    text = page(served)
    assert all(path in text for path in served["paths"])
    assert "http://" not in text
    assert "https://" not in text


def described(contract: Json) -> Iterator[tuple[str, Json]]:
    for path, item in contract["paths"].items():
        yield from ((f"{method.upper()} {path}", item[method]) for method in item.keys() & METHODS)


def test_each_example_in_the_contract_fits_its_schema(contract: Json) -> None:
    found = 0
    shared = {"components": contract["components"]}
    for name, schema in contract["components"]["schemas"].items():
        for example in schema.get("examples", []):
            jsonschema_rs.validate({"$ref": f"#/components/schemas/{name}", **shared}, example)
            found += 1
    for answer in contract["components"]["responses"].values():
        for content in answer["content"].values():
            if "example" in content:
                jsonschema_rs.validate({**content["schema"], **shared}, content["example"])
                found += 1
    assert found > 30


def test_bodies_and_answers_have_examples_and_errors_say_which(contract: Json) -> None:
    schemas = contract["components"]["schemas"]
    for name, operation in described(contract):
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        references = [body.get("content", {}).get("application/json", {}).get("schema", {}) for body in bodies]
        named = {one["$ref"].rpartition("/")[2] for one in references if "$ref" in one} - WITHOUT_EXAMPLE
        assert [one for one in named if "examples" not in schemas[one]] == [], name
        generic = [code for code, one in operation["responses"].items() if one.get("$ref", "").endswith("/Problem")]
        assert generic == [], f"{name}: name the answers of {generic} by their own component"


def test_what_can_be_too_large_says_by_which_limits(contract: Json) -> None:
    limits = Settings().limits
    for name, operation in described(contract):
        assert ("413" in operation["responses"]) == ("x-limits" in operation), name
        assert set(operation.get("x-limits", [])) <= limits.keys(), name


def test_the_examples_of_problems_are_as_the_service_says_them(contract: Json) -> None:
    kinds = {str(one["type"]): one for one in problem_types().values()}
    for name, answer in contract["components"]["responses"].items():
        example = answer["content"]["application/problem+json"].get("example")
        if example is not None:
            kind = kinds[example["type"]]
            assert (example["title"], example["status"]) == (kind["title"], kind["status"]), name
