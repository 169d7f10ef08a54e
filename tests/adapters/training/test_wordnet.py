"""WordNet's files are read as wndb(5WN) describes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.training.wordnet import Synset, WordNet, read_wordnet


def test_a_synset_is_read_with_its_lemmas_hypernyms_and_bare_gloss(wordnet: WordNet) -> None:
    dog = Synset("00000003", "05", ("dog", "domestic dog"), ("00000002",), "a pet; man's friend")
    assert wordnet.synsets["00000003"] == dog
    assert len(wordnet.synsets) == 11


def test_the_word_count_of_a_synset_is_hexadecimal(tmp_path: Path) -> None:
    words = " ".join(f"w{number} 0" for number in range(16))
    (tmp_path / "data.noun").write_text(f"00000001 05 n 10 {words} 001 @i 00000001 n 0000 | many words\n")
    for name in ("index.noun", "cntlist.rev"):
        (tmp_path / name).write_text("")
    synset = read_wordnet(tmp_path).synsets["00000001"]
    assert synset.lemmas == tuple(f"w{number}" for number in range(16))
    assert synset.hypernyms == ("00000001",)


def test_only_hypernyms_of_nouns_are_parents(wordnet: WordNet) -> None:
    assert wordnet.synsets["00000001"].hypernyms == ()
    assert wordnet.synsets["00000002"].hypernyms == ("00000001",)


def test_ancestors_reach_the_root_and_leave_the_synset_out(wordnet: WordNet) -> None:
    assert wordnet.ancestors("00000004") == {"00000003", "00000002", "00000001"}
    assert wordnet.ancestors("00000001") == frozenset()


def test_senses_keep_the_order_of_the_index(wordnet: WordNet) -> None:
    assert wordnet.senses["turtle"] == ("00000007", "00000008")


def test_counts_are_those_of_the_noun_over_all_its_senses(wordnet: WordNet) -> None:
    assert wordnet.counts["dog"] == 45
    assert wordnet.counts["puppy"] == 0


def test_the_visual_sense_skips_what_cannot_be_seen(wordnet: WordNet) -> None:
    assert wordnet.visual_sense("Domestic dog") == "00000003"
    assert wordnet.visual_sense("jump") is None
    assert wordnet.visual_sense("no such noun") is None


def test_a_missing_wordnet_names_the_package_to_install(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="wordnet-base"):
        read_wordnet(tmp_path)
