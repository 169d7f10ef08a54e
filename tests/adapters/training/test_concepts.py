"""Concepts: which images show what, what a step draws, and which pairs are no mistakes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from open_clip import IMAGENET_CLASSNAMES

from adapters.training.concepts import (
    PHOTOS_OF_A_CONCEPT,
    Concept,
    ConceptSampler,
    build_concepts,
    folder_name,
    related,
    with_photos,
)
from adapters.training.names import Name
from adapters.training.pseudo import Domain
from adapters.training.wordnet import WordNet

ANIMAL, DOG, PUPPY, MAN, TURTLE, ORANGE = (f"0000000{number}" for number in (2, 3, 4, 6, 8, 9))
CLIP = Concept("clip", (0,), DOG, (0,), 0, ())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "source" / "teacher").mkdir(parents=True)
    offsets = [DOG, TURTLE, *[ORANGE] * 998]
    (folder / "source" / "teacher" / "imagenet_wordnet_offsets.txt").write_text("\n".join(offsets))
    return folder


def test_ancestors_and_descendants_are_no_mistakes_of_each_other(wordnet: WordNet) -> None:
    shown = [frozenset({DOG}), frozenset({ANIMAL}), frozenset({MAN, PUPPY}), frozenset()]
    expected = [[True, True, True, False, False], [True, True, True, True, False], [True, True, True, False, False]]
    mask = related(wordnet, shown, [ANIMAL, DOG, PUPPY, TURTLE, None])
    assert mask.tolist() == [*expected, [False] * 5]


def test_a_name_with_many_photographs_changes_its_pool() -> None:
    few, many = ([frozenset({DOG})] * count for count in (PHOTOS_OF_A_CONCEPT - 1, PHOTOS_OF_A_CONCEPT))
    assert with_photos([CLIP], few)[0].pool == "clip"
    assert with_photos([CLIP], many)[0] == replace(CLIP, pool="photo", photos=tuple(range(PHOTOS_OF_A_CONCEPT)))
    imagenet = with_photos([replace(CLIP, pool="imagenet")], many)[0]
    assert (imagenet.pool, len(imagenet.photos)) == ("imagenet", PHOTOS_OF_A_CONCEPT)
    assert with_photos([replace(CLIP, synset=None)], many)[0].photos == ()


def test_concepts_are_the_imagenet_classes_first_then_hypernyms_then_names(data: Path, wordnet: WordNet) -> None:
    listed = [Name(text.lower(), None, "imagenet") for text in dict.fromkeys(IMAGENET_CLASSNAMES)]
    extra = [Name("domestic dog", DOG, "lemma"), Name("beast", ANIMAL, "hypernym"), Name("man", MAN, "clip")]
    first = IMAGENET_CLASSNAMES[0]
    domain = Domain("a", torch.zeros(3, 2), [first, "man", first.upper()], torch.zeros(2), torch.zeros(3, 2), 1.0, 1.0)
    concepts = build_concepts(data, [*listed, *extra], wordnet, [domain])
    lemma, hypernym, man = (len(listed) + number for number in range(3))
    assert concepts[0] == Concept("imagenet", (0, lemma), DOG, (0,), 0, ((0, 0), (0, 2)))
    assert {concept.pool for concept in concepts[:1000]} == {"imagenet"}
    assert concepts[1000] == Concept("hypernym", (hypernym,), ANIMAL, (0, 1), hypernym, ())
    assert concepts[1001:] == [Concept("clip", (man,), MAN, (1001,), man, ((0, 1),))]


def test_folders_spell_alternatives_out() -> None:
    assert folder_name("Baluster / handrail") == "baluster or handrail"


def test_a_step_draws_distinct_concepts_with_imagenet_first() -> None:
    concepts = [replace(CLIP, pool=pool) for pool in ["clip"] * 50 + ["imagenet"] * 200 + ["photo"] * 5]
    drawn = ConceptSampler(concepts, torch.ones(1), 0).draw(100)
    pools = [concepts[number].pool for number in drawn]
    assert pools == ["imagenet"] * 47 + ["photo"] * 5 + ["clip"] * 13
    assert len(set(drawn)) == len(drawn)
    assert ConceptSampler(concepts, torch.ones(1), 0).draw(100) == drawn
    assert ConceptSampler(concepts, torch.ones(1), 1).draw(100) != drawn


def test_common_names_are_drawn_more_often() -> None:
    concepts = [replace(CLIP, spellings=(number,)) for number in range(50)]
    frequency = torch.ones(50)
    frequency[:5] = 10
    sampler = ConceptSampler(concepts, frequency, 0)
    drawn = [number for _ in range(50) for number in sampler.draw(10)]
    assert len(drawn) == 50
    assert sum(number < 5 for number in drawn) > 15


def test_a_rare_domain_is_drawn_as_often_as_a_common_one() -> None:
    sampler = ConceptSampler([CLIP], torch.ones(1), 0)
    concept = replace(CLIP, real=((1, 7), *((0, index) for index in range(50))))
    drawn = [sampler.real(concept) for _ in range(400)]
    assert 150 < drawn.count((1, 7)) < 250
    assert set(drawn) <= set(concept.real)


def test_a_hypernym_is_shown_by_the_classes_below_it() -> None:
    concepts = [CLIP, replace(CLIP, row=1), replace(CLIP, pool="hypernym", spellings=(5, 6), members=(0, 1))]
    sampler = ConceptSampler(concepts, torch.ones(7), 0)
    assert {sampler.member(2).row for _ in range(50)} == {0, 1}
    assert {sampler.spelling(2) for _ in range(50)} == {5, 6}
