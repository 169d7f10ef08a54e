"""`auto` with support images: what is tried, what is kept, and that nothing worse than zero-shot is served."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from adapters import create_adapter
from adapters.auto import MEASURE_FROM, Auto, Candidate, Trial, candidates, verdict
from adapters.base import PLAIN, Adapter, ClassState, ImageNeeds, InfoValue, LabelSet, Progress, Support
from adapters.clip import Backbone
from adapters.errors import AdaptationDiverged, SupportError

LABELS = LabelSet.of("cat", "dog", "horse")
OFFERED = ("coop", "dapt", "tgp-t", "maple")


class Turned:
    """Serves the class weights of zero-shot with its rows moved by `shift`: only right for 0, or for shifted labels."""

    def __init__(self, name: str, shift: int, heldout: tuple[float, float] | None = None, fail: bool = False) -> None:
        self.name, self.version = name, f"{name}-{shift}"
        self._shift, self._heldout, self._fail = shift, heldout, fail

    def needs(self, state: ClassState) -> ImageNeeds:
        return PLAIN

    def adapt(
        self,
        labels: LabelSet,
        backbone: Backbone,
        support: Support | None = None,
        progress: Progress | None = None,
    ) -> ClassState:
        if self._fail:
            raise AdaptationDiverged("the loss became nan")
        state = create_adapter("zero-shot", backbone).adapt(labels, backbone)
        names = ("heldout_top1", "heldout_top1_zero_shot")
        info = dict(zip(names, self._heldout, strict=True)) if self._heldout else {}
        weights = state.weights.roll(self._shift, dims=0)
        return ClassState(self.name, self.version, weights, state.background, state.logit_scale, info=info)


def images(backbone: Backbone, per_class: int, *, shift: int) -> Support:
    """Random images, labelled as the class weights moved by `shift` see them, so many of each class as there are."""
    state = create_adapter("zero-shot", backbone).adapt(LABELS, backbone)
    pixels = torch.randint(0, 256, (600, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels[200:400, 0] //= 8
    pixels[400:] //= 6
    centred = backbone.image.encode(pixels) @ state.weights.roll(shift, dims=0).T
    labels = centred.argmax(dim=1)
    rows = torch.cat([(labels == row).nonzero().flatten()[:per_class] for row in range(3)])
    missing = [row for row in range(3) if int((labels[rows] == row).sum()) < per_class]
    extra = torch.arange(per_class * len(missing))
    return Support(
        torch.cat([pixels[rows], pixels[extra]]),
        torch.cat([labels[rows], torch.tensor(missing, dtype=torch.long).repeat_interleave(per_class)]),
    )


def auto(backbone: Backbone, *fakes: Adapter) -> Auto:
    known = {fake.name: fake for fake in fakes}

    def build(name: str, options: Mapping[str, InfoValue]) -> Adapter:
        return known[name] if name in known else create_adapter(name, backbone, options)

    return Auto(build, list(known))


def test_few_images_mean_one_method_that_leaves_the_image_tower_alone() -> None:
    (one,) = candidates(1, OFFERED)
    assert (one.method, dict(one.options)) == ("dapt", {"visual_prompts": 0})
    assert candidates(MEASURE_FROM - 1, ("coop",)) == (Candidate("coop"),)


def test_more_images_mean_methods_side_by_side_and_never_a_closed_set() -> None:
    assert {one.method for one in candidates(MEASURE_FROM, OFFERED)} == {"coop", "dapt"}
    assert candidates(MEASURE_FROM, ()) == ()


def test_the_best_on_the_heldout_images_is_served_and_a_tie_keeps_the_cheaper_one() -> None:
    first, second = Trial("coop", 0.9, 0.5, 0.7, 0.6), Trial("dapt", 0.8, 0.5, 0.8, 0.6)
    assert verdict([first, second], 8) == (1, "8 or more images per class: dapt, the best of coop, dapt "
                                              "(80.0% of the held-out images, zero-shot 60.0%)")  # fmt: skip
    assert verdict([first, Trial("dapt", 1.0, 0.5, 0.7, 0.6)], 8)[0] == 0


@pytest.mark.parametrize(
    "trial",
    [
        Trial("coop", 0.9, 0.5, 0.5, 0.6),
        Trial("coop", 0.4, 0.5, 0.7, 0.6),
        Trial("coop", 0.4, 0.5),
    ],
)
def test_what_loses_to_zero_shot_on_the_given_images_is_not_served(trial: Trial) -> None:
    best, reason = verdict([trial], 2)
    assert best is None
    assert "lost to zero-shot" in reason


def test_without_any_fit_zero_shot_serves_and_says_so() -> None:
    assert verdict([], 3) == (None, "3 or more images per class, but no few-shot method could be fitted")


def test_worse_class_weights_are_replaced_by_zero_shot(tiny_backbone: Backbone) -> None:
    one = auto(tiny_backbone, Turned("coop", shift=1))
    state = one.adapt(LABELS, tiny_backbone, images(tiny_backbone, 2, shift=0))
    plain = create_adapter("zero-shot", tiny_backbone).adapt(LABELS, tiny_backbone)
    assert (state.adapter, state.version, state.info["chosen"]) == ("auto", one.version, "zero-shot")
    assert torch.equal(state.weights, plain.weights)
    assert "coop lost to zero-shot" in str(state.info["auto_reason"])


def test_better_class_weights_are_served_with_their_figures(tiny_backbone: Backbone) -> None:
    one = auto(tiny_backbone, Turned("coop", shift=1))
    state = one.adapt(LABELS, tiny_backbone, images(tiny_backbone, 2, shift=1))
    assert state.info["chosen"] == "coop"
    top1, plain = (state.info[name] for name in ("support_top1", "support_top1_zero_shot"))
    assert isinstance(top1, float)
    assert isinstance(plain, float)
    assert top1 > plain


def test_a_method_that_diverges_leaves_the_choice_to_the_others(tiny_backbone: Backbone) -> None:
    fakes = Turned("coop", shift=1, fail=True), Turned("dapt", shift=1)
    state = auto(tiny_backbone, *fakes).adapt(LABELS, tiny_backbone, images(tiny_backbone, MEASURE_FROM, shift=1))
    assert state.info["chosen"] in {"dapt", "zero-shot"}
    broken = auto(tiny_backbone, fakes[0]).adapt(LABELS, tiny_backbone, images(tiny_backbone, 1, shift=1))
    assert broken.info["chosen"] == "zero-shot"


def test_auto_without_images_is_refused_and_its_version_follows_its_methods(tiny_backbone: Backbone) -> None:
    with pytest.raises(SupportError):
        auto(tiny_backbone, Turned("coop", shift=0)).adapt(LABELS, tiny_backbone)
    versions = {auto(tiny_backbone, Turned("coop", shift=shift)).version for shift in (0, 1, 1)}
    assert len(versions) == 2
