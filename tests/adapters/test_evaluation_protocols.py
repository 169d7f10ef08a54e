"""What each protocol fits on and tests on, that a stopped run goes on, and that a state is scored as it is served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from adapters.base import PLAIN, Adapter, ClassState, ImageNeeds, LabelSet, Progress, Support
from adapters.clip import Backbone
from adapters.errors import OptionError, SupportError
from adapters.evaluation.datasets import DataError, ImageSet
from adapters.evaluation.layouts import DataSet
from adapters.evaluation.naming import parse_contenders, with_controls
from adapters.evaluation.protocols import ALL, BASE, CLOSED, NEW, Plan, fits, halves
from adapters.evaluation.records import Journal, Measured
from adapters.evaluation.remembering import RememberingTower, remembering
from adapters.evaluation.running import Bench
from adapters.evaluation.stored import Stored
from adapters.evaluation.transfer import served_elsewhere
from adapters.evaluation.variants import EIGHTY, SINGLE, Contender, Variant
from adapters.registry import create_adapter
from adapters.text.templates import CONTEXT_WORDS


class Prototypes:
    """Class rows are the mean image features of the support."""

    name, version = "prototypes", "1"

    def __init__(self, views: int = 1) -> None:
        self.views = views
        self.seen: list[tuple[int, ...]] = []

    def needs(self, state: ClassState) -> ImageNeeds:
        return ImageNeeds(views=self.views, scored_by=self.name) if self.views > 1 else PLAIN

    def adapt(
        self, labels: LabelSet, backbone: Backbone, support: Support | None = None, progress: Progress | None = None
    ) -> ClassState:
        if support is None:
            raise SupportError("no images")
        rows = [
            backbone.image.encode(support.pixels[support.labels == row]).mean(dim=0) for row in range(len(labels.names))
        ]
        return ClassState("prototypes", "1", F.normalize(torch.stack(rows), dim=-1), rows[0], 10.0)

    def logits(self, pixels: Tensor, state: ClassState, backbone: Backbone) -> Tensor:
        self.seen.append(tuple(pixels.shape))
        return 10.0 * backbone.image.encode(pixels[:, 0]) @ state.weights.T


@dataclass(frozen=True)
class FewShot:
    """A closed-set contender that learns from images."""

    made: Prototypes
    label: str = "prototypes"
    learns_from_images: bool = True
    open_set: bool = False
    seeded: bool = True

    def adapter(self, backbone: Backbone, seed: int) -> Adapter:
        return self.made


COLOURS = {"red": (220, 20, 20), "green": (20, 200, 30), "blue": (20, 30, 210)}


def painted(root: Path, name: str, classes: Sequence[str], *, train: bool = True) -> DataSet:
    def part(which: str, count: int) -> ImageSet:
        paths, labels = [], []
        for row, colour in enumerate(classes):
            for number in range(count):
                file = root / name / which / colour / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (40, 40 + number), tuple(c + 5 * number for c in COLOURS[colour])).save(file)
                paths.append(file)
                labels.append(row)
        return ImageSet(name, tuple(classes), tuple(paths), tuple(labels))

    return DataSet(name, part("test", 2), part("train", 3) if train else None)


def run(plan: Plan, backbone: Backbone, folder: Path | None = None) -> list[Measured]:
    bench = Bench(backbone, plan, Journal(folder), watch=lambda what, done: None)
    return [entry for entries in bench.run() for entry in entries]


@pytest.fixture
def colours(tmp_path: Path) -> DataSet:
    return painted(tmp_path, "colours", ["red", "green", "blue"])


def test_zero_shot_learns_from_names_and_runs_what_no_seed_changes_once(
    tiny_backbone: Backbone, colours: DataSet
) -> None:
    plan = Plan("zero-shot", [colours], [SINGLE, Variant("self-tpt", "self-tpt", {"steps": 1})], seeds=(1, 2))
    found = run(plan, tiny_backbone)
    assert [(e.method, e.seed) for e in found] == [("single template", 1), ("self-tpt", 1), ("self-tpt", 2)]
    assert all(e.images == 6 and e.nbytes > 0 and sum(row[0] for row in e.bins) == 6 for e in found)


def test_few_shot_draws_from_the_train_part_and_separates_colours(tiny_backbone: Backbone, colours: DataSet) -> None:
    plan = Plan("few-shot", [colours], [FewShot(Prototypes()), SINGLE], shots=(1, 2), seeds=(1, 2))
    found = run(plan, tiny_backbone)
    assert [(e.shots, e.seed) for e in found if e.method == "prototypes"] == [(1, 1), (2, 1), (1, 2), (2, 2)]
    assert [(e.shots, e.seed) for e in found if e.method == SINGLE.label] == [(0, 1)]
    assert all(e.top1 == 100 for e in found if e.shots == 2)
    drawn = {path for fit in fits(plan) if fit.pool for path in fit.pool.drawn(fit.shots, seed=fit.seed).paths}
    assert not drawn & set(colours.test.paths)


def test_base_to_new_fits_the_larger_half_and_leaves_closed_sets_out_of_the_new_one(
    tiny_backbone: Backbone, colours: DataSet
) -> None:
    assert halves(3) == (range(2), range(2, 3))
    found = run(Plan("base-to-new", [colours], [FewShot(Prototypes()), SINGLE], (2,), (1,)), tiny_backbone)
    by_part = {(e.method, e.part): e for e in found}
    assert by_part["prototypes", BASE].images == 4
    assert by_part["prototypes", NEW].skipped == CLOSED
    assert (by_part["single template", NEW].classes, by_part["single template", NEW].top1) == (1, 100.0)


def test_domain_shift_keeps_the_fit_and_maps_classes_by_name(tiny_backbone: Backbone, tmp_path: Path) -> None:
    source = painted(tmp_path, "source", ["red", "green", "blue"])
    other = painted(tmp_path, "other", ["blue", "red"], train=False)
    plan = Plan("domain-shift", [source, other], [FewShot(Prototypes())], (3,), (1,), source)
    found = run(plan, tiny_backbone)
    assert [(e.set_name, e.source, e.classes, e.top1) for e in found] == [
        ("source", "source", 3, 100.0),
        ("other", "source", 2, 100.0),
    ]
    with pytest.raises(DataError, match="lacks: green"):
        list(fits(Plan("domain-shift", [source, other], [SINGLE], source=other)))


def test_cross_dataset_serves_other_names_from_the_learnt_context(tiny_backbone: Backbone, colours: DataSet) -> None:
    adapter = create_adapter("self-tpt", tiny_backbone, {"steps": 0, "views": "end"})
    state = adapter.adapt(LabelSet.of("red", "green"), tiny_backbone)
    words = tiny_backbone.text.embed_tokens(tiny_backbone.text.tokens(CONTEXT_WORDS))
    assert torch.allclose(state.extras["context"], words)
    carried = served_elsewhere(adapter, state, LabelSet.of("blue", "cat"), tiny_backbone)
    plain = create_adapter("zero-shot", tiny_backbone).adapt(LabelSet.of("blue", "cat"), tiny_backbone)
    assert torch.allclose(carried.weights, plain.weights, atol=1e-5)
    with pytest.raises(OptionError, match="leaves no context"):
        served_elsewhere(create_adapter("zero-shot", tiny_backbone), plain, LabelSet.of("x"), tiny_backbone)


def test_a_stopped_run_goes_on_and_a_changed_setting_is_measured_anew(
    tiny_backbone: Backbone, colours: DataSet, tmp_path: Path
) -> None:
    contender: Contender = Variant("self-tpt", "self-tpt", {"steps": 1})
    plan = Plan("zero-shot", [colours], [contender], seeds=(1, 2))
    bench = Bench(tiny_backbone, plan, Journal(tmp_path / "out"), watch=lambda what, done: None)
    first = next(bench.run())  # and then the power goes
    again = run(plan, tiny_backbone, tmp_path / "out")
    assert again[0] == first[0]
    changed = run(
        Plan("zero-shot", [colours], [Variant("self-tpt", "self-tpt", {"steps": 2})], seeds=(1,)),
        tiny_backbone,
        tmp_path / "out",
    )
    assert changed[0].content != first[0].content


def test_a_set_without_images_to_learn_from_is_refused_with_what_to_do(tmp_path: Path) -> None:
    data = painted(tmp_path, "bare", ["red", "blue"], train=False)
    with pytest.raises(DataError, match="expected few_shot/bare"):
        list(fits(Plan("few-shot", [data], [FewShot(Prototypes())])))


def test_a_method_that_scores_images_gets_their_views(tiny_backbone: Backbone, colours: DataSet) -> None:
    method = Prototypes(views=3)
    found = run(Plan("few-shot", [colours], [FewShot(method)], (3,), (1,)), tiny_backbone)
    assert method.seen == [(1, 3, 3, 32, 32)] * 6
    assert found[0].top1 == 100


def test_what_cannot_be_fitted_leaves_its_reason(tiny_backbone: Backbone, colours: DataSet) -> None:
    (entry,) = run(Plan("zero-shot", [colours], [FewShotByNames()], (1,), (1,)), tiny_backbone)
    assert (entry.part, entry.skipped) == (ALL, "no images")


class FewShotByNames(FewShot):
    """Asked to do without images."""

    def __init__(self) -> None:
        super().__init__(Prototypes())


def test_methods_are_named_with_their_options() -> None:
    rows = parse_contenders("self-tpt:steps=3:views=end, zero-shot:ensemble=true")
    assert [row.label for row in with_controls(rows)] == [SINGLE.label, EIGHTY.label, "self-tpt:steps=3:views=end"]
    assert isinstance(rows[0], Variant)
    assert rows[0].options == {"steps": 3, "views": "end"}
    for wrong in ("nothing", "self-tpt:step=3", "self-tpt:steps", ""):
        with pytest.raises(OptionError):
            parse_contenders(wrong)


def test_what_prompts_learnt_serves_new_classes_whatever_tower_it_prompts_and_however_it_is_stored(
    tiny_backbone: Backbone, colours: DataSet
) -> None:
    rows = parse_contenders(
        "coop:steps=2,coop@4:steps=2,coop@8:steps=2,coop-x4:steps=1,maple:steps=1,quantized:steps=1"
    )
    found = run(Plan("base-to-new", [colours], rows, (2,), (1,)), tiny_backbone)
    assert [entry.skipped for entry in found] == [""] * 12
    assert [row.label for row in rows[1:4]] == ["coop:steps=2@4", "coop:steps=2@8", "four CE prompts, ensembled"]
    size = {entry.method: entry.prompt_bytes for entry in found if entry.part == BASE}
    assert size["coop:steps=2"] == 2 * 4 * 64 * 4  # two classes with four tokens each
    assert 0 < size["coop:steps=2@4"] < size["coop:steps=2@8"] < size["coop:steps=2"]


def test_a_fit_is_shared_by_all_numbers_of_bits(tiny_backbone: Backbone, colours: DataSet) -> None:
    first, second = parse_contenders("coop@4:steps=1,coop@1:steps=1")
    assert isinstance(first, Stored)
    assert isinstance(second, Stored)
    run(Plan("few-shot", [colours], [first, second], (2,), (1,)), tiny_backbone)
    assert len(first.memo) == 1
    assert first.memo is second.memo
    with pytest.raises(OptionError, match="1 to 8 bits"):
        parse_contenders("coop@9")


def test_a_remembering_tower_gives_the_same_rows_and_passes_each_image_once(tiny_backbone: Backbone) -> None:
    backbone = remembering(tiny_backbone)
    tower = backbone.image
    assert isinstance(tower, RememberingTower)
    pixels = torch.randint(256, (5, 3, 32, 32), dtype=torch.uint8)
    first, again = tower.encode(pixels), tower.encode(pixels.flip(0))
    assert torch.allclose(first, tiny_backbone.image.encode(pixels), atol=1e-6)
    assert torch.equal(again, first.flip(0))
    assert torch.allclose(tower.stem(pixels), tiny_backbone.image.stem(pixels), atol=1e-6)
    assert tower.passed == 10
