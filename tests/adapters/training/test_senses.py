"""A later sense is taken where its gloss is clearly closer to the name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from adapters.training.names import Name
from adapters.training.senses import MARGIN, RANK_PENALTY, settle_senses, write_names
from adapters.training.wordnet import WordNet

SWEATER, REPTILE = "00000007", "00000008"


def embedder(sweater: float, reptile: float) -> Callable[[list[str]], Tensor]:
    """Embeddings in which the name `turtle` has these similarities to the two glosses."""
    vectors = {"turtle": [1.0, 0.0], "a sweater with a high collar": [sweater, 0.0]}
    vectors["a reptile with a shell"] = [reptile, 0.0]

    def embed(texts: list[str]) -> Tensor:
        return torch.tensor([vectors[text] for text in texts]).reshape(-1, 2)

    return embed


def settled(source: str, reptile: float, wordnet: WordNet) -> str | None:
    name = Name("turtle", SWEATER, source)
    return settle_senses([name], wordnet, embedder(0.3, reptile))[0].synset


def test_a_clearly_closer_gloss_changes_the_sense(wordnet: WordNet) -> None:
    assert settled("clip", 0.3 + MARGIN + RANK_PENALTY + 0.01, wordnet) == REPTILE


def test_a_slightly_closer_gloss_does_not(wordnet: WordNet) -> None:
    assert settled("clip", 0.3 + MARGIN + RANK_PENALTY - 0.01, wordnet) == SWEATER


def test_names_that_come_from_a_synset_keep_it(wordnet: WordNet) -> None:
    assert {settled(source, 0.9, wordnet) for source in ("imagenet", "lemma", "hypernym")} == {SWEATER}


def test_order_and_unambiguous_names_stay(wordnet: WordNet) -> None:
    names = [Name("dog", "00000003", "clip"), Name("turtle", SWEATER, "clip"), Name("sky", None, "clip")]
    found = settle_senses(names, wordnet, embedder(0.3, 0.9))
    assert found == [names[0], Name("turtle", REPTILE, "clip"), names[2]]


def test_names_of_an_earlier_run_are_loaded_without_data(tmp_path: Path, wordnet: WordNet) -> None:
    names = [Name("dog", "00000003", "clip"), Name("sky", None, "clip")]
    (tmp_path / "names.json").write_text(json.dumps([asdict(name) for name in names]))
    assert write_names(tmp_path / "no-data", tmp_path, wordnet) == names
