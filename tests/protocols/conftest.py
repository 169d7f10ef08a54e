"""One listening service for all clients of foreign protocols."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from adapters.clip import Backbone
from tests.service.listening import listening


@pytest.fixture(scope="package")
def address(tiny_backbone: Backbone) -> Iterator[str]:
    with listening(tiny_backbone, adapter="zero-shot", max_images=3) as url:
        yield url
