"""What the alignment phase tells apart: classes, hypernyms and names, each with its spellings and its images."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from open_clip import IMAGENET_CLASSNAMES
from torch import Tensor

from adapters.training.names import Name, hypernyms_of_imagenet, imagenet_synsets
from adapters.training.pseudo import Domain
from adapters.training.wordnet import WordNet

# share of the concepts of a step that come from each pool
POOL_SHARES = {"imagenet": 0.47, "folder": 0.07, "hypernym": 0.07, "photo": 0.16, "clip": 0.13, "wordnet": 0.10}
DRAWN_BY_FREQUENCY = {"photo", "clip", "wordnet"}
PHOTOS_OF_A_CONCEPT = 12  # from so many captioned photographs on, a name belongs to the pool `photo`


@dataclass(frozen=True)
class Concept:
    """One thing to recognise.

    `spellings` are positions in the list of names; `members` are the concepts whose images show it (itself, or
    the classes below a hypernym); `row` is the name whose head row makes its pseudo-images; `real` lists
    (domain, index) of its real features, `photos` the captioned photographs that show it.
    """

    pool: str
    spellings: tuple[int, ...]
    synset: str | None
    members: tuple[int, ...]
    row: int
    real: tuple[tuple[int, int], ...]
    photos: tuple[int, ...] = ()


def folder_name(text: str) -> str:
    """A class name as folders spell it: `baluster / handrail` is `baluster or handrail` there."""
    return re.sub(r"\s*/\s*", " or ", text.lower())


def _real_features(domains: list[Domain]) -> dict[str, list[tuple[int, int]]]:
    found: dict[str, list[tuple[int, int]]] = {}
    for number, domain in enumerate(domains):
        for index, label in enumerate(domain.classes):
            found.setdefault(label.lower(), []).append((number, index))
    return found


def with_photos(concepts: list[Concept], shown: list[frozenset[str]]) -> list[Concept]:
    """The concepts with the photographs whose captions agree on them; `shown` holds the senses of each photograph."""
    photos: dict[str, list[int]] = {}
    for row, synsets in enumerate(shown):
        for synset in synsets:
            photos.setdefault(synset, []).append(row)
    completed = []
    for concept in concepts:
        own = tuple(photos.get(concept.synset or "", ()))
        moves = concept.pool in {"clip", "wordnet"} and len(own) >= PHOTOS_OF_A_CONCEPT
        completed.append(replace(concept, pool="photo" if moves else concept.pool, photos=own))
    return completed


def build_concepts(data: Path, names: list[Name], wordnet: WordNet, domains: list[Domain]) -> list[Concept]:
    """ImageNet's 1,000 classes first, in order, then all other concepts."""
    position = {name.text: number for number, name in enumerate(names)}
    synsets = imagenet_synsets(data)
    lemmas: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        if name.synset is not None and name.source in {"lemma", "hypernym"}:
            lemmas.setdefault(name.synset, []).append(number)
    real = _real_features(domains)
    concepts = []
    for number, text in enumerate(IMAGENET_CLASSNAMES):
        own = position[text.lower()]
        features = tuple(real.get(folder_name(text), ()))
        spellings = (own, *lemmas.get(synsets[number], ()))
        concepts.append(Concept("imagenet", spellings, synsets[number], (number,), own, features))
    for synset, classes in hypernyms_of_imagenet(wordnet, synsets).items():
        if synset in lemmas:
            concepts.append(Concept("hypernym", tuple(lemmas[synset]), synset, tuple(classes), lemmas[synset][0], ()))
    taken = {folder_name(text) for text in IMAGENET_CLASSNAMES}
    for number, name in enumerate(names):
        if name.source in {"imagenet", "lemma", "hypernym"} or name.text in taken:
            continue
        pool = name.source if name.source in {"clip", "wordnet"} else "folder"
        features = tuple(real.get(name.text, ()))
        concepts.append(Concept(pool, (number,), name.synset, (len(concepts),), number, features))
    return concepts


class ConceptSampler:
    """Draws the concepts of a step and a spelling and an image source for each."""

    def __init__(self, concepts: list[Concept], frequency: Tensor, seed: int) -> None:
        """`frequency` [N] says how often each name is drawn within its pool, ImageNet classes aside."""
        self.concepts = concepts
        weights = frequency[[concept.spellings[0] for concept in concepts]].double().numpy()
        self._generator = np.random.default_rng(seed)
        self._by_domain: dict[int, list[tuple[int, list[int]]]] = {}
        self._pools = {
            pool: np.array(members)
            for pool in POOL_SHARES
            if (members := [number for number, concept in enumerate(concepts) if concept.pool == pool])
        }
        self._weights = {
            pool: weights[members] / weights[members].sum() if pool in DRAWN_BY_FREQUENCY else None
            for pool, members in self._pools.items()
        }

    def draw(self, count: int) -> list[int]:
        """Distinct concepts, ImageNet classes first in the answer."""
        chosen: list[int] = []
        for pool, members in self._pools.items():
            size = min(round(count * POOL_SHARES[pool]), len(members))
            chosen += self._generator.choice(members, size, replace=False, p=self._weights[pool]).tolist()
        return chosen

    def spelling(self, number: int) -> int:
        """A name of the concept: its own in three of four cases, else any spelling."""
        spellings = self.concepts[number].spellings
        if len(spellings) == 1 or self._generator.random() < 0.75:
            return spellings[0]
        return int(self._generator.choice(spellings))

    def member(self, number: int) -> Concept:
        """A concept whose image shows this one."""
        members = self.concepts[number].members
        return self.concepts[members[int(self._generator.integers(len(members)))] if len(members) > 1 else members[0]]

    def photo(self, concept: Concept) -> int:
        """One of the photographs that show the concept."""
        return concept.photos[int(self._generator.integers(len(concept.photos)))]

    def real(self, concept: Concept) -> tuple[int, int]:
        """One of the concept's real features: a random domain, then a random image, so that rare views count."""
        if concept.row not in self._by_domain:
            by_domain: dict[int, list[int]] = {}
            for domain, index in concept.real:
                by_domain.setdefault(domain, []).append(index)
            self._by_domain[concept.row] = list(by_domain.items())
        domains = self._by_domain[concept.row]
        domain, indices = domains[int(self._generator.integers(len(domains)))]
        return domain, indices[int(self._generator.integers(len(indices)))]


def related(wordnet: WordNet, shown: list[frozenset[str]], told: list[str | None]) -> Tensor:
    """[B, T] True where a synset of an image and that of a text are equal or one lies above the other."""
    at: dict[str, list[int]] = {}
    under: dict[str, list[int]] = {}
    for column, synset in enumerate(told):
        if synset is not None:
            at.setdefault(synset, []).append(column)
            for ancestor in wordnet.ancestors(synset):
                under.setdefault(ancestor, []).append(column)
    rows: list[int] = []
    columns: list[int] = []
    for row, synsets in enumerate(shown):
        for synset in synsets:
            found = list(under.get(synset, ()))
            for ancestor in wordnet.ancestors(synset) | {synset}:
                found += at.get(ancestor, ())
            columns += found
            rows += [row] * len(found)
    mask = torch.zeros(len(shown), len(told), dtype=torch.bool)
    mask[rows, columns] = True
    return mask
