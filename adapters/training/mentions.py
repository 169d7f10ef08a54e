"""What a photograph shows according to its captions: the nouns that people wrote, as WordNet senses.

ImageNet has no class for a person, a street or a beach; five captions a photograph name them.
"""

import re
from collections import Counter
from pathlib import Path

from adapters.training.names import Name
from adapters.training.wordnet import WORDNET, WordNet

AGREEMENT = 2  # captions that have to name a thing before the photograph counts as an image of it


def nouns_by_word(names: list[Name], wordnet: WordNet, folder: Path = WORDNET) -> dict[str, str]:
    """Single words that are mostly used as visible nouns, with their sense; colours and other adjectives are out."""
    lines = (folder / "index.adj").read_text(encoding="latin-1").splitlines()
    adjectives = {line.split(" ", 1)[0] for line in lines if not line.startswith("  ")}
    return {
        name.text: name.synset
        for name in names
        if name.synset is not None
        and name.text.isalpha()
        and name.text not in adjectives
        and name.synset in wordnet.senses.get(name.text, ())[:2]
    }


def _lemmas(caption: str, nouns: dict[str, str]) -> set[str]:
    found = set()
    for word in re.findall(r"[a-z]+", caption):
        for form in (word, word.removesuffix("s"), word.removesuffix("es"), irregular(word)):
            if form in nouns:
                found.add(nouns[form])
                break
    return found


def irregular(word: str) -> str:
    """Singular of the few irregular plurals that captions are full of."""
    return {"men": "man", "women": "woman", "children": "child", "people": "person"}.get(word, word)


def mentions(captions: list[str], nouns: dict[str, str], wordnet: WordNet) -> tuple[frozenset[str], frozenset[str]]:
    """Senses that several captions name, with all their hypernyms; and those that any caption names."""
    counts = Counter(synset for caption in captions for synset in _lemmas(caption, nouns))
    agreed = {synset for synset, count in counts.items() if count >= AGREEMENT}
    return frozenset(agreed).union(*map(wordnet.ancestors, agreed)), frozenset(counts)
