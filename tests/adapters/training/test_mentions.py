"""A photograph shows the nouns that its captions agree on."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.training.mentions import mentions, nouns_by_word
from adapters.training.names import Name
from adapters.training.wordnet import WordNet

ENTITY, ANIMAL, DOG, PERSON, MAN = (f"0000000{number}" for number in (1, 2, 3, 5, 6))
NOUNS = {"dog": DOG, "man": MAN, "person": PERSON, "animal": ANIMAL}


def test_two_captions_have_to_agree_before_a_photograph_shows_a_thing(wordnet: WordNet) -> None:
    agreed, named = mentions(["a dog runs", "the dog and a man", "grass"], NOUNS, wordnet)
    assert agreed == {DOG, ANIMAL, ENTITY}
    assert named == {DOG, MAN}


def test_a_caption_that_repeats_a_word_counts_once(wordnet: WordNet) -> None:
    assert mentions(["a dog chases a dog, dogs everywhere"], NOUNS, wordnet) == (frozenset(), {DOG})


@pytest.mark.parametrize(
    ("plural", "synset"), [("dogs", DOG), ("men", MAN), ("people", PERSON), ("animals", ANIMAL), ("women", None)]
)
def test_plurals_name_their_singular(plural: str, synset: str | None, wordnet: WordNet) -> None:
    _, named = mentions([f"two {plural} on grass"], NOUNS, wordnet)
    assert named == ({synset} if synset else frozenset())


def test_no_captions_show_nothing(wordnet: WordNet) -> None:
    assert mentions([], NOUNS, wordnet) == (frozenset(), frozenset())


def test_only_single_words_that_mostly_are_visible_nouns_count(wordnet: WordNet, wordnet_folder: Path) -> None:
    names = [
        Name("dog", DOG, "clip"),
        Name("domestic dog", DOG, "lemma"),
        Name("orange", "00000009", "wordnet"),  # an adjective as well
        Name("man", ANIMAL, "clip"),  # not among the senses of the word
        Name("sky", None, "clip"),
    ]
    assert nouns_by_word(names, wordnet, wordnet_folder) == {"dog": DOG}
