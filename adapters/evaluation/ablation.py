"""Self-TPT taken apart: what each stage, loss and choice brings, beside the controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from adapters.base import InfoValue
from adapters.checkpoint import SourcePrompts
from adapters.clip import Backbone
from adapters.evaluation.controls import ENSEMBLED, Told, ce_ensemble, halfway, trained
from adapters.evaluation.datasets import FeatureSet
from adapters.evaluation.protocol import Method, from_source, served
from adapters.training.stage_one import StageOneSettings

VARIANTS: Mapping[str, Mapping[str, InfoValue]] = {
    "name-at-end view alone": {"views": "end"},
    "5 steps": {"steps": 5},
    "20 steps": {"steps": 20},
    "50 steps": {"steps": 50},
    "5 steps at 1e-2": {"steps": 5, "learning_rate": 1e-2},
    "dispersion 1, anchor 1": {"dispersion": 1.0, "anchor": 1.0},
    "dispersion 10, anchor 10": {"dispersion": 10.0, "anchor": 10.0},
    "seven templates as hand-written view": {"hand": "varied"},
    "half of it hand-written": {"hand_share": 0.5},
    "half of it seven templates": {"hand": "varied", "hand_share": 0.5},
    "classes centred": {"centre": 0.5},
    "without the images' mean": {"debias": 0.5},
    "backbone's own logit scale": {"calibrated": False},
}
"""Options of Self-TPT that are changed one at a time, after stages 1 and 2."""


def ablation(
    backbone: Backbone,
    features: FeatureSet,
    *,
    seeds: Sequence[int],
    folder: Path,
    settings: StageOneSettings | None = None,
    tell: Told = lambda name: None,
) -> Mapping[str, Method]:
    """Rows of the table, in the order in which parts are added. Trains what is missing in `folder`; the training with
    contrast but without gradient matching has a folder of its own."""
    base = settings or StageOneSettings()

    def train(seed: int, start: StageOneSettings, at: Path = folder) -> SourcePrompts:
        return trained(backbone, features, replace(start, seed=seed), folder=at, tell=tell)

    plain = replace(base, contrast_weight=0.0, matching_weight=0.0)
    full = {s: train(s, base) for s in seeds}
    unmatched = {s: train(s, replace(base, matching_weight=0.0), folder / "unmatched") for s in seeds}
    members = {s: [train(ENSEMBLED * s + k, plain) for k in range(ENSEMBLED)] for s in seeds}
    still: dict[str, InfoValue] = {"steps": 0}
    return {
        "single template": served("zero-shot", backbone),
        "80-template ensemble": served("zero-shot", backbone, {"ensemble": True}),
        "four CE prompts, ensembled": lambda labels, seed: ce_ensemble(backbone, members[seed])(labels, seed),
        "four views of the template": from_source(backbone, dict.fromkeys(seeds), still),
        "CE alone": from_source(backbone, {s: members[s][0] for s in seeds}, still),
        "+ contrast": from_source(backbone, unmatched, still),
        "+ gradient matching (stage 1)": from_source(backbone, full, still),
        "halfway from stage 1 to the template": from_source(
            backbone, {s: halfway(backbone, full[s]) for s in seeds}, still
        ),
        "stage 2 from the template (data-free)": from_source(backbone, dict.fromkeys(seeds)),
        "+ stage 2": from_source(backbone, full),
        **{f"+ stage 2, {name}": from_source(backbone, full, options) for name, options in VARIANTS.items()},
    }
