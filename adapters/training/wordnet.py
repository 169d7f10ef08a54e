"""WordNet 3.0 nouns, read from the database files of Debian's `wordnet-base`.

The file format is documented in wndb(5WN): one synset a line, hexadecimal word count, pointers, then the gloss.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

WORDNET = Path("/usr/share/wordnet")
HYPERNYM_POINTERS = {"@", "@i"}
# lexicographer files whose nouns can be seen: see lexnames(5WN)
VISUAL_FILES = {
    "05": "animal",
    "06": "artifact",
    "08": "body",
    "13": "food",
    "17": "object",
    "18": "person",
    "19": "phenomenon",
    "20": "plant",
    "25": "shape",
    "27": "substance",
}


@dataclass(frozen=True)
class Synset:
    """One noun sense; `gloss` is its definition without the quoted examples."""

    offset: str
    file: str
    lemmas: tuple[str, ...]
    hypernyms: tuple[str, ...]
    gloss: str


@dataclass(frozen=True)
class WordNet:
    """All noun synsets by offset, the senses of each lemma in order of frequency, and how often a lemma was seen."""

    synsets: dict[str, Synset]
    senses: dict[str, tuple[str, ...]]
    counts: Counter[str]
    _ancestors: dict[str, frozenset[str]] = field(default_factory=dict, repr=False)

    def ancestors(self, offset: str) -> frozenset[str]:
        """All hypernyms of a synset, transitively, without itself."""
        if offset not in self._ancestors:
            parents = self.synsets[offset].hypernyms
            found = frozenset(parents).union(*(self.ancestors(parent) for parent in parents))
            self._ancestors[offset] = found
        return self._ancestors[offset]

    def visual_sense(self, lemma: str, within: int = 3) -> str | None:
        """The most frequent of the first `within` senses that names something visible."""
        for offset in self.senses.get(lemma.lower().replace(" ", "_"), ())[:within]:
            if self.synsets[offset].file in VISUAL_FILES:
                return offset
        return None


def _parse_synset(line: str) -> Synset:
    head, _, gloss = line.partition(" | ")
    fields = head.split()
    words = int(fields[3], 16)
    lemmas = tuple(fields[4 + 2 * number].replace("_", " ") for number in range(words))
    rest = fields[4 + 2 * words :]
    pointers = [rest[1 + 4 * number : 5 + 4 * number] for number in range(int(rest[0]))]
    hypernyms = tuple(offset for symbol, offset, kind, _ in pointers if symbol in HYPERNYM_POINTERS and kind == "n")
    return Synset(fields[0], fields[1], lemmas, hypernyms, gloss.split('; "')[0].strip())


def _data_lines(path: Path) -> list[str]:
    # the licence at the top of each file is indented by two blanks
    return [line for line in path.read_text(encoding="latin-1").splitlines() if line and not line.startswith("  ")]


def read_wordnet(folder: Path = WORDNET) -> WordNet:
    """Parse data.noun, index.noun and cntlist.rev; about two seconds."""
    if not (folder / "data.noun").exists():
        raise FileNotFoundError(f"no WordNet in {folder}: install Debian's wordnet-base")
    synsets = {synset.offset: synset for synset in map(_parse_synset, _data_lines(folder / "data.noun"))}
    senses = {}
    for line in _data_lines(folder / "index.noun"):
        fields = line.split()
        senses[fields[0]] = tuple(fields[-int(fields[2]) :])
    counts: Counter[str] = Counter()
    for line in _data_lines(folder / "cntlist.rev"):
        key, _, count = line.split()
        lemma, _, sense = key.partition("%")
        if sense.startswith("1:"):
            counts[lemma] += int(count)
    return WordNet(synsets, senses, counts)
