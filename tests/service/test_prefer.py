"""The wait preference."""

from __future__ import annotations

import pytest

from service.http.prefer import applied, preferred_wait


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, 0), ("", 0), ("wait=10", 10), ("respond-async, wait=5", 5), ('wait="7"', 7), ("WAIT = 3", 3),
     ("wait=999", 60), ("wait=-1", 0), ("wait=x", 0), ("await=9", 0)],
)  # fmt: skip
def test_seconds_are_read_and_capped(header: str | None, seconds: int) -> None:
    assert preferred_wait(header, longest=60) == seconds


def test_only_an_honoured_preference_is_told() -> None:
    assert applied(5) == {"Preference-Applied": "wait=5"}
    assert applied(0) == {}
