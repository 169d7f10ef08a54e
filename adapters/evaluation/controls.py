"""The controls that stand beside Self-TPT in every table: without them a gain may only be ensembling or shrinkage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch.nn import functional as F

from adapters.base import ClassState, InfoValue, LabelSet
from adapters.checkpoint import SourcePrompts, load_source_prompts
from adapters.clip import Backbone
from adapters.evaluation.datasets import FeatureSet
from adapters.evaluation.protocol import Method, from_source, served
from adapters.text.templates import CONTEXT_WORDS
from adapters.training.source_prompts import train_source_prompts
from adapters.training.stage_one import Report, StageOneSettings

ENSEMBLED = 4
"""CE-trained prompts in the ensemble control: as many as Self-TPT has views."""

Told = Callable[[str], Report | None]
"""Name of a training run to where its steps are reported."""


def trained(
    backbone: Backbone, features: FeatureSet, settings: StageOneSettings, *, folder: Path, tell: Told
) -> SourcePrompts:
    """Source prompts with these settings, from `folder` if they are there, else trained and kept there."""
    kind = "stage1" if settings.contrast_weight > 0 else "ce"
    name = f"{kind}-{backbone.fingerprint[:8]}-{settings.steps}-{settings.seed}"
    place = folder / name
    if (place / "config.json").is_file():
        return load_source_prompts(place)
    prompts = train_source_prompts(backbone, features, settings, name=name, report=tell(name))
    prompts.save(place)
    return prompts


def ce_ensemble(backbone: Backbone, members: Sequence[SourcePrompts]) -> Method:
    """Class weights averaged over prompts trained with cross-entropy alone, name at the end."""
    options: dict[str, InfoValue] = {"steps": 0, "views": "end"}

    def method(labels: LabelSet, seed: int) -> ClassState:
        states = [from_source(backbone, {seed: member}, options)(labels, seed) for member in members]
        mean_CD = sum(state.weights for state in states[1:]) + states[0].weights
        return replace(states[0], weights=F.normalize(mean_CD, dim=-1))

    return method


def halfway(backbone: Backbone, prompts: SourcePrompts) -> SourcePrompts:
    """The learnt context drawn half back to the template's: tells stage 2's effect from plain shrinkage."""
    text = backbone.text
    start_MW = text.embed_tokens(text.tokens(CONTEXT_WORDS)).cpu()
    return replace(prompts, ctx_MW=(prompts.ctx_MW + start_MW) / 2, name=f"{prompts.name}-halfway")


def full_table(
    backbone: Backbone,
    features: FeatureSet,
    *,
    seeds: Sequence[int],
    folder: Path,
    settings: StageOneSettings | None = None,
    tell: Told = lambda name: None,
) -> Mapping[str, Method]:
    """The rows of the accuracy table, training what has to be trained (`folder` keeps it)."""
    base = settings or StageOneSettings()
    plain = replace(base, contrast_weight=0.0, matching_weight=0.0)

    def train(one: StageOneSettings) -> SourcePrompts:
        return trained(backbone, features, one, folder=folder, tell=tell)

    stage1 = {seed: train(replace(base, seed=seed)) for seed in seeds}
    members = {
        seed: [train(replace(plain, seed=ENSEMBLED * seed + place)) for place in range(ENSEMBLED)] for seed in seeds
    }
    return {
        "single template": served("zero-shot", backbone),
        "80-template ensemble": served("zero-shot", backbone, {"ensemble": True}),
        "CoOp (CE only, name at end)": from_source(
            backbone, {seed: members[seed][0] for seed in seeds}, {"steps": 0, "views": "end"}
        ),
        "four CE prompts, ensembled": lambda labels, seed: ce_ensemble(backbone, members[seed])(labels, seed),
        "four views of the template (control)": from_source(backbone, dict.fromkeys(seeds), {"steps": 0}),
        "Self-TPT stage 1": from_source(backbone, stage1, {"steps": 0}),
        "Self-TPT stage 1, halfway to the template (control)": from_source(
            backbone, {seed: halfway(backbone, stage1[seed]) for seed in seeds}, {"steps": 0}
        ),
        "Self-TPT stage 2 from the template (control)": from_source(backbone, dict.fromkeys(seeds)),
        "Self-TPT stages 1+2": from_source(backbone, stage1),
    }
