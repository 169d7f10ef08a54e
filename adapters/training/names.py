"""The names that the text tower learns: ImageNet's, the detection vocabularies', and WordNet's visible nouns.

Every name is lower case, as the tokenizer makes it anyway. No name is taken from an evaluation set.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from open_clip import IMAGENET_CLASSNAMES
from torch import Tensor

from adapters.training.trunk import list_images
from adapters.training.wordnet import VISUAL_FILES, WordNet

FOLDER_SETS = ("tiny_imagenet_train", "imagenet_det200_samples")
MAX_WORDS = 4
UNSEEN_LIMIT = {"person": 6000, "plant": 8000}  # rare nouns of these files are many and teach little
MOST_COMMON = 12.0  # times as often as a word that is never used
HYPERNYM_CLASSES = (2, 250)  # a hypernym name stands for at least and at most so many ImageNet classes


@dataclass(frozen=True)
class Name:
    """A name, the synset it is taken to mean, and the list it came from."""

    text: str
    synset: str | None
    source: str


def imagenet_synsets(data: Path) -> list[str]:
    """WordNet offset of each ImageNet class, in the order of open_clip's class names."""
    return (data / "source" / "teacher" / "imagenet_wordnet_offsets.txt").read_text().split()


def clip_names(data: Path) -> list[str]:
    """Names of the rows of the CLIP geometry teacher, lower case."""
    return (data / "source" / "teacher" / "names.txt").read_text(encoding="utf-8").lower().splitlines()


def hypernyms_of_imagenet(wordnet: WordNet, synsets: list[str]) -> dict[str, list[int]]:
    """Hypernym synset -> the ImageNet classes below it, for hypernyms that are neither trivial nor everything."""
    below: dict[str, list[int]] = {}
    for number, synset in enumerate(synsets):
        for ancestor in wordnet.ancestors(synset):
            below.setdefault(ancestor, []).append(number)
    fewest, most = HYPERNYM_CLASSES
    return {offset: classes for offset, classes in below.items() if fewest <= len(classes) <= most}


def _visible_nouns(wordnet: WordNet) -> Iterable[Name]:
    """Common nouns with a visible sense: seen ones first, then lower-case ones; proper names are left out."""
    unseen = dict.fromkeys(VISUAL_FILES.values(), 0)
    lemmas = sorted(wordnet.senses, key=lambda lemma: -wordnet.counts[lemma])
    for lemma in lemmas:
        synset = wordnet.visual_sense(lemma)
        text = lemma.replace("_", " ")
        if synset is None or len(text.split()) > MAX_WORDS or not text[0].isalpha() or len(text) < 2:
            continue
        file = VISUAL_FILES[wordnet.synsets[synset].file]
        spelled = [written for written in wordnet.synsets[synset].lemmas if written.lower() == text]
        if not wordnet.counts[lemma]:
            # capitals mark Latin families, surnames and places
            if not spelled or spelled[0] != spelled[0].lower() or unseen[file] >= UNSEEN_LIMIT.get(file, 20_000):
                continue
            unseen[file] += 1
        yield Name(text, synset, "wordnet")


def _candidates(data: Path, wordnet: WordNet) -> Iterable[Name]:
    synsets = imagenet_synsets(data)
    for text, synset in zip(IMAGENET_CLASSNAMES, synsets, strict=True):
        yield Name(text.lower(), synset, "imagenet")
    for folder in FOLDER_SETS:
        for text in sorted({name for _, name in list_images(data / "source" / folder)}):
            yield Name(text.lower(), wordnet.visual_sense(text), folder)
    for text in clip_names(data):
        yield Name(text, wordnet.visual_sense(text), "clip")
    for synset in synsets:
        for lemma in wordnet.synsets[synset].lemmas:
            yield Name(lemma.lower(), synset, "lemma")
    for synset in hypernyms_of_imagenet(wordnet, synsets):
        for lemma in wordnet.synsets[synset].lemmas:
            yield Name(lemma.lower(), synset, "hypernym")
    yield from _visible_nouns(wordnet)


def collect_names(data: Path, wordnet: WordNet) -> list[Name]:
    """All names, each once: the first list that has a name decides what it means."""
    unique: dict[str, Name] = {}
    for name in _candidates(data, wordnet):
        unique.setdefault(name.text, name)
    return list(unique.values())


def commonness(names: list[Name], wordnet: WordNet) -> Tensor:
    """How often training should draw each name [N]: everyday words more often than rare ones.

    Counted are WordNet's tagged texts and the definitions of all nouns; the root keeps `person` from crowding out
    the rest.
    """
    written = Counter(word for synset in wordnet.synsets.values() for word in re.findall("[a-z]+", synset.gloss))
    counts = [wordnet.counts[name.text.replace(" ", "_")] + written[name.text] for name in names]
    return (1 + torch.tensor(counts, dtype=torch.float)).sqrt().clamp(max=MOST_COMMON)
