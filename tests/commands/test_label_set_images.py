"""`selftpt labels support, support-images, evaluate` as a user of a service with API keys runs them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from adapters.clip import Backbone
from service.cli import cli
from service.client import Client
from service.commands.support_images import folder_name
from tests.security.keys import add_key
from tests.service.listening import listening
from tests.service.served import photo

Run = tuple[str, str]
"""Address and key."""


@pytest.fixture(scope="module")
def service(tiny_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    key = add_key(path, "classify", "label-sets")["Authorization"].removeprefix("Bearer ")
    with listening(tiny_backbone, api_keys_file=path) as url:
        with Client(url, api_key=key) as client:
            client.create_label_set(["red", "blue"], name="tints", adapter="zero-shot", wait=10)
        yield url, key


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for tint in ("red", "blue"):
        (folder / tint).mkdir()
        (folder / tint / "one.png").write_bytes(photo(colour=tint))
        (folder / tint / "one.txt").write_text(f"a {tint} wall", encoding="utf-8")
    return folder


def labels(service: Run, *arguments: object) -> Result:
    environment = {"SELFTPT_URL": service[0], "SELFTPT_API_KEY": service[1]}
    result = CliRunner(env=environment).invoke(cli, ["labels", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code in {0, 2}, result.output
    return result


def test_what_was_uploaded_comes_back_in_the_same_layout(service: Run, photos: Path, tmp_path: Path) -> None:
    labels(service, "support", "tints", photos)
    labels(service, "support-images", "tints", "--out", tmp_path)
    found = {path.relative_to(tmp_path).parts[0]: path for path in tmp_path.rglob("*.png")}
    assert {tint: path.read_bytes() for tint, path in found.items()} == {
        tint: photo(colour=tint) for tint in ("red", "blue")
    }
    assert found["red"].with_suffix(".txt").read_text(encoding="utf-8") == "a red wall"
    listed = json.loads(labels(service, "support-images", "tints", "--class", "blue", "--json").stdout)
    assert [one["label"] for one in listed] == ["blue"]
    assert "a blue wall" in labels(service, "support-images", "tints").stdout


def test_a_method_is_measured_on_a_folder_or_on_the_support_images(service: Run, photos: Path) -> None:
    labels(service, "support", "tints", photos)
    other = json.loads(labels(service, "evaluate", "tints", photos, "--adapter", "self-tpt", "--json").stdout)
    own = json.loads(labels(service, "evaluate", "tints", "--support", "--json").stdout)
    assert (other["served_by"], other["images"], other["adapted"]) == ("self-tpt", 2, True)
    assert (own["served_by"], own["images"]) == ("zero-shot", 2)


@pytest.mark.parametrize("source", [(), ("--support", ".")])
def test_an_evaluation_wants_one_source_of_images(service: Run, source: tuple[str, ...]) -> None:
    result = labels(service, "evaluate", "tints", *source)
    assert (result.exit_code, "give a FOLDER, or --support" in result.output) == (2, True)


@pytest.mark.parametrize(("label", "folder"), [("a/b", "a_b"), ("..", "_.."), ("hot dog", "hot dog")])
def test_a_class_name_stays_one_folder_within_the_given_one(label: str, folder: str) -> None:
    assert folder_name(label) == folder
