"""The list of names: each once, the surest list first, and WordNet's common visible nouns at the end."""

from __future__ import annotations

from pathlib import Path

import pytest
from open_clip import IMAGENET_CLASSNAMES

from adapters.training.names import Name, collect_names, commonness, hypernyms_of_imagenet
from adapters.training.wordnet import WordNet

ENTITY, ANIMAL, DOG, TURTLE, ORANGE = (f"0000000{number}" for number in (1, 2, 3, 8, 9))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    teacher = tmp_path / "source" / "teacher"
    teacher.mkdir(parents=True)
    (teacher / "imagenet_wordnet_offsets.txt").write_text("\n".join([DOG, TURTLE, *[ORANGE] * 998]))
    (teacher / "names.txt").write_text("Domestic dog\nManhole\nMan\n")
    for folder in ("tiny_imagenet_train/Man", "imagenet_det200_samples/Puppy"):
        (tmp_path / "source" / folder).mkdir(parents=True)
        (tmp_path / "source" / folder / "1.jpg").touch()
    return tmp_path


def test_a_hypernym_stands_for_several_classes_but_not_for_all(wordnet: WordNet) -> None:
    assert hypernyms_of_imagenet(wordnet, [DOG, TURTLE, *[ORANGE] * 998]) == {ANIMAL: [0, 1]}


def test_the_first_list_that_has_a_name_decides(data: Path, wordnet: WordNet) -> None:
    found = {name.text: name for name in collect_names(data, wordnet)}
    assert found["man"].source == "tiny_imagenet_train"
    assert found["domestic dog"] == Name("domestic dog", DOG, "clip")
    assert found["manhole"] == Name("manhole", None, "clip")
    assert found["beast"] == Name("beast", ANIMAL, "hypernym")
    assert found[IMAGENET_CLASSNAMES[0].lower()] == Name(IMAGENET_CLASSNAMES[0].lower(), DOG, "imagenet")


def test_names_are_listed_once_and_lower_case(data: Path, wordnet: WordNet) -> None:
    texts = [name.text for name in collect_names(data, wordnet)]
    assert len(set(texts)) == len(texts)
    assert all(text == text.lower() for text in texts)


def test_wordnet_adds_visible_common_nouns_only(data: Path, wordnet: WordNet) -> None:
    added = {name.text for name in collect_names(data, wordnet) if name.source == "wordnet"}
    assert added == {"person", "individual", "turtleneck"}  # no `jump`, no `entity`, no `Canidae`


def test_a_word_counts_where_texts_and_definitions_use_it(wordnet: WordNet) -> None:
    found = commonness([Name(text, None, "clip") for text in ("dog", "person", "turtleneck", "man")], wordnet)
    assert found.tolist() == pytest.approx([(1 + 42 + 2) ** 0.5 + 0.0, 2**0.5, 1.0, (1 + 100 + 1) ** 0.5], abs=1.0)
    assert found[2] == 1.0
    assert found[3] > found[0] > found[1]
