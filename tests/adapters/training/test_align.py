"""Alignment: which pairs its loss ignores, where the projection starts, and what a run changes."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from open_clip import CLIP
from torch import Tensor

from adapters.training.align import IMAGES_PER_CONCEPT, Aligner, Material, align, initialise_projection
from adapters.training.concepts import Concept
from adapters.training.corpus import Corpus, all_templates
from adapters.training.distil import CorpusSampler
from adapters.training.names import Name
from adapters.training.pseudo import PLAIN_SETS, Domain, draw_pseudo
from adapters.training.teacher import Teacher
from adapters.training.tower import encode_features, encode_text, tokenizer
from adapters.training.wordnet import WordNet

DOG, PUPPY, TURTLE, ORANGE = (f"0000000{number}" for number in (3, 4, 8, 9))
TEXTS = ["dog", "turtle", "puppy", "orange", "canine"]
WIDTH = 16  # of the tiny model's joint space
OWN = torch.eye(3, dtype=torch.bool)


def sampler(names: list[Name]) -> CorpusSampler:
    owners, shifts = torch.arange(5), torch.zeros(len(all_templates()), WIDTH)
    corpus = Corpus(tokenizer()(TEXTS * 2), torch.eye(5, WIDTH).repeat(2, 1), owners, shifts, 5, 0)
    return CorpusSampler(corpus, names, torch.ones(5), 0)


@pytest.fixture
def material(wordnet: WordNet) -> Material:
    torch.manual_seed(0)
    names = [Name(text, None, "clip") for text in TEXTS]
    pools = zip(("imagenet", "imagenet", "clip", "clip"), (DOG, TURTLE, PUPPY, ORANGE), strict=True)
    concepts = [Concept(pool, (row,), synset, (row,), row, ()) for row, (pool, synset) in enumerate(pools)]
    residuals = 0.1 * torch.randn(50, 6)
    domains = [Domain(name, residuals, [], torch.full((6,), 9.0), residuals, 2.0, 1.0) for name in PLAIN_SETS]
    return Material(
        names=names,
        wordnet=wordnet,
        teacher=Teacher(torch.eye(5, WIDTH), torch.eye(5, 6)),
        head=(torch.eye(2, 6), torch.zeros(2)),
        domains=domains,
        concepts=concepts,
        frequency=torch.ones(5),
        corpus=sampler(names),
        shifts=torch.zeros(len(all_templates()), WIDTH),
        photos=[torch.rand(80, 6)],
        captions=[["a dog runs"]] * 80,
        mentioned=[frozenset({DOG})] * 80,
    )


def ignored(aligner: Aligner, positions: list[int]) -> Tensor:
    """For one image each of dog, turtle and puppy, and texts at these positions."""
    shown = [frozenset({synset}) for synset in (DOG, TURTLE, PUPPY)] * IMAGES_PER_CONCEPT
    return aligner._ignored([0, 1, 2], positions, shown)


def test_a_class_and_its_hypernym_are_not_told_apart_but_each_keeps_its_own(model: CLIP, material: Material) -> None:
    expected = torch.tensor([[0, 0, 1], [0, 0, 0], [1, 0, 0]]).bool()
    found = ignored(Aligner(model, material, 0), [0, 1, 2])
    assert torch.equal(found, expected.repeat(IMAGES_PER_CONCEPT, 1))


def test_names_with_the_same_target_are_not_told_apart(model: CLIP, material: Material) -> None:
    material.teacher.joint[4] = F.normalize(material.teacher.joint[1] + 0.1, dim=0)
    found = ignored(Aligner(model, material, 0), [4, 1, 2])
    assert found[0].tolist() == [False, True, True]
    assert found[1].tolist() == [True, False, False]


def test_ignored_pairs_do_not_enter_the_class_loss(model: CLIP, material: Material) -> None:
    aligner = Aligner(model, material, 0)
    texts = F.normalize(torch.randn(3, 8), dim=-1)
    images = F.normalize(torch.randn(9, 8), dim=-1)
    pair = torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0]]).bool().repeat(3, 1)
    everything = (~OWN).repeat(3, 1)
    assert aligner._class_loss(images, texts, everything).item() == pytest.approx(0.0, abs=1e-6)
    assert aligner._class_loss(images, texts, pair) < aligner._class_loss(images, texts, torch.zeros_like(pair))


def test_the_head_teaches_only_the_classes_it_knows(model: CLIP, material: Material) -> None:
    aligner = Aligner(model, material, 0)
    raw, images = torch.rand(4, 6), F.normalize(torch.randn(4, 8), dim=-1)
    texts = F.normalize(torch.randn(3, 8), dim=-1)
    other = torch.cat([texts[:2], -texts[2:]])  # the third concept is no ImageNet class
    one, same = (aligner._head_loss(images, raw, part, [0, 1, 2]) for part in (texts, other))
    assert torch.equal(one, same)
    assert one > 0


def test_rows_are_not_trusted_where_captions_know_better(model: CLIP, material: Material) -> None:
    material.concepts[2] = Concept("photo", (2,), PUPPY, (2,), 2, (), photos=(5,))
    aligner = Aligner(model, material, 0)
    raw, images = torch.rand(4, 6), F.normalize(torch.randn(4, 8), dim=-1)
    texts = F.normalize(torch.randn(4, 8), dim=-1)
    changed = [texts.clone() for _ in range(2)]
    changed[0][2], changed[1][3] = -texts[2], -texts[3]
    one, same, other = (aligner._rows_loss(images, raw, part, [0, 1, 2, 3]) for part in (texts, *changed))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_names_of_a_step_share_a_template_and_its_shift(model: CLIP, material: Material) -> None:
    material.shifts[:, 9] = torch.arange(len(all_templates()))
    drawn = [Aligner(model, material, seed)._texts([0, 1, 2]) for seed in range(20)]
    wanted = [float(expected[9] / expected[:3].sum()) for _, expected in drawn]
    assert wanted == pytest.approx([round(shift) for shift in wanted], abs=1e-3)
    for (texts, _), shift in zip(drawn, wanted, strict=True):
        prompts = [all_templates()[round(shift)].format(text) for text in TEXTS[:3]]
        with torch.no_grad():
            assert F.cosine_similarity(texts, encode_text(model, tokenizer()(prompts))).min() > 0.999


def test_photographs_show_what_any_of_their_captions_names(model: CLIP, material: Material) -> None:
    material.concepts[3] = Concept("photo", (3,), ORANGE, (3,), 3, (), photos=(5,))
    aligner = Aligner(model, material, 0)
    features, synsets = aligner._images([3] * 40)
    from_photo = (features == material.photos[0][5]).all(1).tolist()
    assert 25 < sum(from_photo) < 40
    assert synsets == [frozenset({DOG if photo else ORANGE}) for photo in from_photo]


def test_the_projection_starts_where_images_meet_their_targets(model: CLIP, material: Material) -> None:
    directions = Aligner(model, material, 0).directions
    initialise_projection(model, material, directions)
    rows = torch.arange(4).repeat(50)
    with torch.no_grad():
        images = encode_features(model, draw_pseudo(directions[rows], material.domains, torch.Generator()))
    assert (images @ material.teacher.joint[:4].T).argmax(1).eq(rows).float().mean() > 0.95


def test_a_run_is_deterministic_and_leaves_the_trunk_alone(model: CLIP, material: Material, tmp_path: Path) -> None:
    before = deepcopy(model)
    for twin in (twins := [deepcopy(model), deepcopy(model)]):
        material.corpus = sampler(material.names)
        align(twin, material, 12, tmp_path / "snapshot.pt", 0)
    one, same = (dict(twin.named_parameters()) for twin in twins)
    assert all(torch.equal(one[name], same[name]) for name in one)
    changed = {name for name, parameter in before.named_parameters() if not torch.equal(parameter, one[name])}
    assert {"visual.head.proj.weight", "token_embedding.weight", "text_projection", "logit_scale"} <= changed
    assert not [name for name in changed if name.startswith("visual.") and not name.startswith("visual.head")]
