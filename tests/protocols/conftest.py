"""A listening service for the clients of a foreign protocol. It ends with their module: without `__init__.py` a package
is left only when all tests are done."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from adapters.clip import Backbone
from tests.service.listening import listening


@pytest.fixture(scope="module")
def address(tiny_backbone: Backbone) -> Iterator[str]:
    with listening(tiny_backbone, adapter="zero-shot", max_images=3) as url:
        yield url
