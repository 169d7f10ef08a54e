"""The strings that the text tower is distilled on: bare names, names inside templates, and captions."""

import csv
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import OPENAI_IMAGENET_TEMPLATES
from torch import Tensor

from adapters.training.files import save
from adapters.training.minilm import cached_embeddings
from adapters.training.names import Name
from adapters.training.teacher import GAMMA, Teacher, kernel_ridge
from adapters.training.tower import tokenizer

logger = logging.getLogger(__name__)

# how a template moves a name's target: the share of the sentence encoder's shift that is taken over
TEMPLATE_SHIFT = 0.8
TEMPLATES_PER_NAME = {"wordnet": 2}
TEMPLATES_PER_SEEN_NAME = 24
CAPTIONS_PER_IMAGE = 2
SIMPLE_SHARE = 0.35
ANCHORS = 4000
# the single template, its relatives, and templates with the name at the front and in the middle
SIMPLE_TEMPLATES = (
    "a photo of a {}.", "a photo of a {}", "a photo of the {}.", "a {}", "the {}", "a picture of a {}.",
    "an image of a {}.", "a photo of a {}, taken outdoors.", "{}, a photo.", "a {} photo.", "{} a photo of a.",
    "a photo {} of a.", "{} in a photo.", "this is a {}.", "a photo of {}.", "a close photo of a {}.",
)  # fmt: skip


@dataclass(frozen=True)
class Corpus:
    """Token ids [N, context] and targets [N, D]: bare names, then names inside templates, then captions.

    `owners` holds the name of each string inside a template, `shifts` [T, D] how each template moves a target on
    average, in the order of `all_templates`.
    """

    tokens: Tensor
    targets: Tensor
    owners: Tensor
    shifts: Tensor
    names: int
    captions: int


@cache
def templates() -> list[str]:
    """The 80 ImageNet templates of OpenAI's CLIP, as format strings."""
    return [template("{}") for template in OPENAI_IMAGENET_TEMPLATES]


@cache
def all_templates() -> list[str]:
    """The bare name first, then the simple templates, then the 80."""
    return list(dict.fromkeys(["{}", *SIMPLE_TEMPLATES, *templates()]))


def draw_template(generator: np.random.Generator) -> str:
    """A random template: a simple one, the project's own included, or one of the 80."""
    pool = SIMPLE_TEMPLATES if generator.random() < SIMPLE_SHARE else templates()
    return pool[int(generator.integers(len(pool)))]


def read_captions(data: Path, splits: tuple[str, ...] = ("train", "dev", "none")) -> list[tuple[str, int, str]]:
    """(image file, caption index, caption) of the Flickr8k splits; the test split is kept for reports."""
    with (data / "source" / "flickr8k" / "captions.tsv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    return [(row["image"], int(row["caption_index"]), row["caption"].lower()) for row in rows if row["split"] in splits]


def _templated(names: list[Name], generator: np.random.Generator) -> list[tuple[int, str]]:
    drawn = []
    for position, name in enumerate(names):
        for _ in range(TEMPLATES_PER_NAME.get(name.source, TEMPLATES_PER_SEEN_NAME)):
            drawn.append((position, draw_template(generator)))
    return drawn


def build_corpus(data: Path, work: Path, names: list[Name], teacher: Teacher, captions: bool) -> Corpus:
    """Write the corpus, or load the one that an earlier run wrote.

    Strings other than bare names get their target through a kernel ridge map from sentence embedding to joint
    space; a templated name only its shift: target(name) + 0.8 (map(template(name)) - map(name)).
    """
    path = work / ("corpus.pt" if captions else "corpus-without-flickr8k.pt")
    if path.exists():
        return Corpus(**torch.load(path, weights_only=True))
    drawn = _templated(names, np.random.default_rng(0))
    owners = torch.tensor([position for position, _ in drawn])
    written = [template.format(names[position].text) for position, template in drawn]
    told = [text for _, index, text in read_captions(data) if index < CAPTIONS_PER_IMAGE] if captions else []
    bare = cached_embeddings(work / "minilm" / "names.pt", [name.text for name in names])
    framed = cached_embeddings(work / "minilm" / "templated.pt", written)
    anchors = torch.arange(min(ANCHORS, len(names)))  # names are listed by how well they are known
    mapped = kernel_ridge(bare[anchors], teacher.joint[anchors], torch.cat([bare, framed]), GAMMA)
    moved = TEMPLATE_SHIFT * (mapped[len(bare) :] - mapped[: len(bare)][owners])
    targets = [teacher.joint, F.normalize(teacher.joint[owners] + moved, dim=-1)]
    number = {template: row for row, template in enumerate(all_templates())}
    used = torch.tensor([number[template] for _, template in drawn])
    shifts = torch.zeros(len(number), moved.shape[1]).index_add_(0, used, moved)
    shifts /= torch.bincount(used, minlength=len(number)).clamp(min=1).unsqueeze(1)
    if told:
        spoken = cached_embeddings(work / "minilm" / "captions.pt", told)
        targets.append(F.normalize(kernel_ridge(bare[anchors], teacher.joint[anchors], spoken, GAMMA), dim=-1))
    texts = [name.text for name in names] + written + told
    corpus = Corpus(tokenizer()(texts), torch.cat(targets), owners, shifts, len(names), len(told))
    cosine = float((targets[1] * teacher.joint[owners]).sum(-1).mean())
    logger.info("corpus: %d strings; cosine of a templated name to its name %.3f", len(texts), cosine)
    save(vars(corpus), path)
    return corpus
