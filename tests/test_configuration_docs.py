"""docs/configuration.md names every setting with its default, and none that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from service.settings import PREFIX, Settings, default_data_dir

PAGE = (Path(__file__).resolve().parents[1] / "docs/configuration.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(rf"^\| `{PREFIX}([A-Z_]+)` \| (.+?) \|", PAGE, re.MULTILINE))


def shown(field: FieldInfo) -> str:
    if field.default_factory is default_data_dir:
        return "`~/.local/share/self-tpt`"
    value = field.default
    if value is None:
        return "none"
    return f"`{int(value)}`" if isinstance(value, float) and value.is_integer() else f"`{value}`"


def test_the_page_lists_exactly_the_settings() -> None:
    assert sorted(ROWS) == sorted(name.upper() for name in Settings.model_fields)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_default_is_as_the_page_says(name: str) -> None:
    assert ROWS[name.upper()] == shown(Settings.model_fields[name])
