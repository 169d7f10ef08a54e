"""The strings of distillation and their targets, from sentence embeddings written beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adapters.training.corpus import (
    TEMPLATE_SHIFT,
    TEMPLATES_PER_SEEN_NAME,
    all_templates,
    build_corpus,
    draw_template,
    read_captions,
    templates,
)
from adapters.training.distil import CorpusSampler, distillation_loss
from adapters.training.minilm import cached_embeddings
from adapters.training.names import Name
from adapters.training.teacher import GAMMA, Teacher, kernel_ridge
from adapters.training.tower import tokenizer

NAMES = [Name("dog", None, "clip"), Name("cat", None, "clip"), Name("yak", None, "wordnet")]
COUNTS = [TEMPLATES_PER_SEEN_NAME, TEMPLATES_PER_SEEN_NAME, 2]
OWNERS = torch.tensor([0, 1, 2]).repeat_interleave(torch.tensor(COUNTS))
CAPTIONS = "image\tcaption_index\tsplit\tcaption\n" + "".join(
    f"{image}\t{index}\t{split}\tA {word} runs\n"
    for image, split, word in (("1.jpg", "train", "Dog"), ("2.jpg", "test", "Cat"))
    for index in range(5)
)


def units(count: int, width: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def store(work: Path, **embeddings: Tensor) -> None:
    (work / "minilm").mkdir(exist_ok=True)
    for name, rows in embeddings.items():
        torch.save(rows.half(), work / "minilm" / f"{name}.pt")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "source" / "flickr8k"
    folder.mkdir(parents=True)
    (folder / "captions.tsv").write_text(CAPTIONS)
    return tmp_path / "data"


@pytest.fixture
def teacher() -> Teacher:
    return Teacher(joint=units(3, 4, 0), rows=units(3, 6, 1))


def test_a_template_that_says_nothing_leaves_the_target_of_the_name(tmp_path: Path, teacher: Teacher) -> None:
    bare = units(3, 5, 2)
    store(tmp_path, names=bare, templated=bare[OWNERS])
    corpus = build_corpus(tmp_path, tmp_path, NAMES, teacher, captions=False)
    assert torch.allclose(corpus.targets, torch.cat([teacher.joint, teacher.joint[OWNERS]]), atol=1e-5)
    assert (corpus.names, corpus.captions, len(corpus.tokens)) == (3, 0, 3 + len(OWNERS))


def test_a_template_moves_the_target_by_its_share_of_the_mapped_shift(tmp_path: Path, teacher: Teacher) -> None:
    bare, framed = units(3, 5, 2).half().float(), units(len(OWNERS), 5, 3).half().float()
    store(tmp_path, names=bare, templated=framed)
    corpus = build_corpus(tmp_path, tmp_path, NAMES, teacher, captions=False)
    mapped, stayed = (kernel_ridge(bare, teacher.joint, rows, GAMMA) for rows in (framed, bare[OWNERS]))
    expected = F.normalize(teacher.joint[OWNERS] + TEMPLATE_SHIFT * (mapped - stayed), dim=-1)
    assert torch.allclose(corpus.targets[3:], expected, atol=1e-4)
    assert F.cosine_similarity(expected, teacher.joint[OWNERS]).min() < 0.99


def test_the_shift_of_a_template_is_the_mean_over_its_names(tmp_path: Path, teacher: Teacher) -> None:
    bare, framed = units(3, 5, 2).half().float(), units(len(OWNERS), 5, 3).half().float()
    store(tmp_path, names=bare, templated=framed)
    corpus = build_corpus(tmp_path, tmp_path, NAMES, teacher, captions=False)
    mapped, stayed = (kernel_ridge(bare, teacher.joint, rows, GAMMA) for rows in (framed, bare[OWNERS]))
    generator = np.random.default_rng(0)
    used = [draw_template(generator) for _ in OWNERS]
    rows = [row for row, template in enumerate(used) if template == used[0]]
    expected = TEMPLATE_SHIFT * (mapped - stayed)[rows].mean(0)
    assert torch.allclose(corpus.shifts[all_templates().index(used[0])], expected, atol=1e-4)
    assert corpus.shifts[all_templates().index("{}")].eq(0).all()


def test_a_batch_prefers_common_names(tmp_path: Path, teacher: Teacher) -> None:
    bare = units(3, 5, 2)
    store(tmp_path, names=bare, templated=bare[OWNERS])
    corpus = build_corpus(tmp_path, tmp_path, NAMES, teacher, captions=False)
    _, targets = CorpusSampler(corpus, NAMES, torch.tensor([1.0, 0.0, 0.0]), seed=0).draw(100)
    assert (targets @ teacher.joint.T).argmax(1).eq(0).sum() > 85


def test_strings_and_targets_keep_one_order(tmp_path: Path, teacher: Teacher, data: Path) -> None:
    bare = units(3, 5, 2)
    store(tmp_path, names=bare, templated=bare[OWNERS], captions=bare[[0, 0]])
    corpus = build_corpus(data, tmp_path, NAMES, teacher, captions=True)
    assert torch.equal(corpus.tokens[:3], tokenizer()(["dog", "cat", "yak"]))
    name_tokens = corpus.tokens[OWNERS, 1]
    assert (corpus.tokens[3:-2] == name_tokens[:, None]).any(1).all()
    assert torch.equal(corpus.tokens[-2:], tokenizer()(["a dog runs"] * 2))
    assert (corpus.targets[-2:] @ teacher.joint.T).argmax(1).tolist() == [0, 0]


def test_a_corpus_is_built_once_and_apart_from_that_without_captions(
    tmp_path: Path, teacher: Teacher, data: Path
) -> None:
    bare = units(3, 5, 2)
    store(tmp_path, names=bare, templated=bare[OWNERS], captions=bare[[0, 0]])
    sizes = [build_corpus(data, tmp_path, NAMES, teacher, captions=captions).captions for captions in (True, False)]
    for path in (tmp_path / "minilm").iterdir():
        path.unlink()
    again = [build_corpus(data, tmp_path, NAMES, teacher, captions=captions).captions for captions in (True, False)]
    assert sizes == again == [2, 0]


def test_embeddings_of_another_list_are_refused(tmp_path: Path) -> None:
    store(tmp_path, names=units(3, 5, 0))
    with pytest.raises(ValueError, match="3 rows for 2 texts"):
        cached_embeddings(tmp_path / "minilm" / "names.pt", ["dog", "cat"])


def test_captions_of_the_test_split_are_not_trained_on(data: Path) -> None:
    assert {image for image, _, _ in read_captions(data)} == {"1.jpg"}
    assert read_captions(data, ("test",))[0] == ("2.jpg", 0, "a cat runs")


def test_templates_are_drawn_by_the_seed_and_hold_one_name() -> None:
    one, same = ([draw_template(np.random.default_rng(seed)) for seed in range(50)] for _ in range(2))
    assert one == same
    assert len(templates()) == 80
    assert all(template.count("{}") == 1 for template in (*one, *templates()))


def test_a_batch_has_the_size_asked_for_and_pairs_tokens_with_targets(tmp_path: Path, teacher: Teacher) -> None:
    bare = units(3, 5, 2)
    store(tmp_path, names=bare, templated=bare[OWNERS])
    corpus = build_corpus(tmp_path, tmp_path, NAMES, teacher, captions=False)
    tokens, targets = CorpusSampler(corpus, NAMES, torch.ones(3), seed=0).draw(100)
    same = (tokens[:, None] == corpus.tokens).all(-1) & torch.isclose(targets[:, None], corpus.targets).all(-1)
    assert len(tokens) == len(targets) == 100
    assert same.any(1).all()


def test_the_distillation_loss_is_zero_on_target_and_falls_towards_it() -> None:
    targets, away = units(6, 4, 0), units(6, 4, 1)
    losses = [float(distillation_loss(F.normalize(targets + t * away, dim=-1), targets)) for t in (0.0, 0.2, 1.0)]
    assert losses[0] == pytest.approx(0.0, abs=1e-5)
    assert losses[0] < losses[1] < losses[2]
