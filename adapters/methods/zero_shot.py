"""Plain CLIP: class weights are the features of hand-written prompts, averaged over templates (arXiv 2103.00020)."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.base import PLAIN, ClassState, ImageNeeds, LabelSet, Progress, Support
from adapters.calibration import calibration_version, served_scale
from adapters.checkpoint import settings_version
from adapters.clip import Backbone, ensemble_templates
from adapters.learning.class_texts import background_row, blend_descriptions, named_texts, ticker
from adapters.text.templates import PLAIN_TEMPLATE


@dataclass(frozen=True, slots=True)
class ZeroShotSettings:
    """`ensemble` takes CLIP's 80 ImageNet templates instead of one. Templates of the label set itself go first."""

    ensemble: bool = False
    calibrated: bool = True
    """Whether the logit scale follows the label set, or the support images, instead of being the backbone's."""


class ZeroShot:
    """Nothing is learnt: encode and average."""

    name = "zero-shot"

    def __init__(self, settings: ZeroShotSettings, backbone: Backbone | None = None) -> None:
        """The backbone is only asked for the version of its law of calibration."""
        self.settings = settings
        self._templates = ensemble_templates() if settings.ensemble else (PLAIN_TEMPLATE,)
        self.version = settings_version(self.name, settings, calibration_version(backbone) if backbone else "none")

    def needs(self, state: ClassState) -> ImageNeeds:
        return PLAIN

    def prompts(self, labels: LabelSet) -> int:
        """Passes through the text tower."""
        return len(named_texts(labels).texts) * len(labels.templates or self._templates)

    def adapt(
        self,
        labels: LabelSet,
        backbone: Backbone,
        support: Support | None = None,
        progress: Progress | None = None,
    ) -> ClassState:
        """Support images, where there are any, only set the logit scale."""
        backbone.text.check(labels, tick=lambda: None if progress is None else progress(0.0))
        templates = labels.templates or self._templates
        named = named_texts(labels)
        tick = ticker(progress, backbone.text.text_ticks(len(named.texts) * len(templates)) + 1)
        sums_ND = backbone.text.encode_templated(named.texts, templates, tick=tick)
        weights_CD = named.mean_rows(sums_ND, len(labels.classes))
        weights_CD = blend_descriptions(weights_CD, labels, backbone.text, tick)
        scale = served_scale(weights_CD, backbone, support, calibrated=self.settings.calibrated, tick=tick)
        return ClassState(
            adapter=self.name,
            version=self.version,
            weights=weights_CD,
            background=background_row(backbone.text),
            logit_scale=scale.scale,
            info={"templates": len(templates), **scale.info},
        )
