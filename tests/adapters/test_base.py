"""Label sets: what they refuse, and what their id covers."""

from __future__ import annotations

import pytest

from adapters.base import ClassName, LabelSet
from adapters.errors import LabelSetError


def test_the_id_covers_content_and_order_but_not_blanks_or_unicode_form() -> None:
    assert LabelSet.of("café", "dog").id == LabelSet.of(" cafe\u0301 ", "dog").id
    assert LabelSet.of("cat", "dog").id != LabelSet.of("dog", "cat").id
    assert LabelSet.of("cat", templates=("a {}.",)).id != LabelSet.of("cat").id


def test_the_id_tells_an_alias_from_a_description_and_ab_c_from_a_bc() -> None:
    alias = LabelSet((ClassName("cat", aliases=("kitty",)),))
    description = LabelSet((ClassName("cat", descriptions=("kitty",)),))
    assert alias.id != description.id
    assert LabelSet.of("ab", "c").id != LabelSet.of("a", "bc").id


@pytest.mark.parametrize(
    ("names", "field"),
    [
        (("cat", "  "), "classes[1].name"),
        (("cat", "\u200b"), "classes[1].name"),
        (("cat", "dog", "CAT"), "classes[2].name"),
    ],
)
def test_empty_invisible_and_duplicate_names_are_refused_by_place(names: tuple[str, ...], field: str) -> None:
    with pytest.raises(LabelSetError) as caught:
        LabelSet.of(*names)
    assert caught.value.field == field


def test_a_set_without_classes_and_a_template_without_slot_are_refused() -> None:
    with pytest.raises(LabelSetError, match="at least one"):
        LabelSet(())
    with pytest.raises(LabelSetError, match=r"exactly one \{\}"):
        LabelSet.of("cat", templates=("a photo",))
