"""Which sense of an ambiguous name is meant: `turtle` is a sweater first and `hot dog` a stunt man, says WordNet.

WordNet orders senses by their frequency in a text corpus. The sentence encoder has read more: a later sense is taken
where its gloss is clearly closer to the name, with a preference for things that people take pictures of.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from torch import Tensor

from adapters.training.minilm import SentenceEncoder
from adapters.training.names import Name, collect_names
from adapters.training.wordnet import VISUAL_FILES, WordNet

logger = logging.getLogger(__name__)

SENSES = 6
MARGIN = 0.12
RANK_PENALTY = 0.03
FILE_PENALTY = {"person": 0.25, "substance": 0.2, "shape": 0.15, "phenomenon": 0.15, "body": 0.1}
FIXED = {"imagenet", "lemma", "hypernym"}  # these come from a synset in the first place


def _visible_senses(name: Name, wordnet: WordNet) -> list[str]:
    senses = wordnet.senses.get(name.text.replace(" ", "_"), ())[:SENSES]
    return [offset for offset in senses if wordnet.synsets[offset].file in VISUAL_FILES]


def _best_sense(senses: list[str], similarities: list[float], wordnet: WordNet) -> str:
    scores = [
        similarity - RANK_PENALTY * rank - FILE_PENALTY.get(VISUAL_FILES[wordnet.synsets[offset].file], 0.0)
        for rank, (offset, similarity) in enumerate(zip(senses, similarities, strict=True))
    ]
    best = max(range(len(senses)), key=scores.__getitem__)
    return senses[best] if scores[best] > scores[0] + MARGIN else senses[0]


def settle_senses(names: list[Name], wordnet: WordNet, embed: Callable[[list[str]], Tensor]) -> list[Name]:
    """The names in the same order, ambiguous ones with the sense that they most likely have."""
    ambiguous = {
        position: senses
        for position, name in enumerate(names)
        if name.source not in FIXED and len(senses := _visible_senses(name, wordnet)) > 1
    }
    offsets = sorted({offset for senses in ambiguous.values() for offset in senses})
    row = {offset: number for number, offset in enumerate(offsets)}
    glosses = embed([wordnet.synsets[offset].gloss for offset in offsets])
    texts = embed([names[position].text for position in ambiguous])
    settled = list(names)
    for (position, senses), text in zip(ambiguous.items(), texts, strict=True):
        similarities = (glosses[[row[offset] for offset in senses]] @ text).tolist()
        settled[position] = replace(names[position], synset=_best_sense(senses, similarities, wordnet))
    return settled


def write_names(data: Path, work: Path, wordnet: WordNet) -> list[Name]:
    """Write and return the names of the work folder, or return those that an earlier run wrote."""
    path = work / "names.json"
    if not path.exists():
        names = settle_senses(collect_names(data, wordnet), wordnet, SentenceEncoder().embed)
        path.write_text(json.dumps([asdict(name) for name in names]), encoding="utf-8")
    loaded = [Name(**record) for record in json.loads(path.read_text(encoding="utf-8"))]
    logger.info("%d names", len(loaded))
    return loaded
