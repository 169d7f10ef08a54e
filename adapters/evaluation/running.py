"""Runs a plan: fit, test, write down, go on. What is already written down is not run again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from adapters.base import Adapter, ClassState, Support
from adapters.checkpoint import state_to_bytes
from adapters.clip import Backbone
from adapters.errors import AdaptationDiverged, BackboneError, LabelSetError, OptionError, SupportError
from adapters.evaluation.datasets import ImageSet, read_pixels
from adapters.evaluation.layouts import DataSet, digest_of
from adapters.evaluation.metrics import reliability, score
from adapters.evaluation.pictures import Pictures
from adapters.evaluation.protocols import CLOSED, Fit, Plan, Trial, fits
from adapters.evaluation.records import Journal, Measured
from adapters.evaluation.remembering import RememberingTower
from adapters.evaluation.transfer import served_elsewhere
from adapters.quantization.stored_prompts import CONTEXT

Watch = Callable[[str, float], None]
"""Told what is being done, and the fraction of that which is done."""

SETS_IN_MEMORY = 4

NOT_POSSIBLE = (OptionError, SupportError, LabelSetError, BackboneError, AdaptationDiverged)
"""Reasons to leave a row of the table empty, with the reason in it, instead of giving up."""


def support_of(images: ImageSet, backbone: Backbone) -> Support:
    """Decoded support images."""
    pixels = torch.stack([read_pixels(path, backbone) for path in images.paths])
    return Support(pixels, torch.tensor(images.labels))


@dataclass(frozen=True, slots=True)
class Fitted:
    """An adapter with the state it made, and the seconds that took (support images were decoded before)."""

    adapter: Adapter
    state: ClassState
    seconds: float


def backbone_mark(backbone: Backbone) -> str:
    """Short name of the weights, of what else makes image tokens, and of the precision."""
    return f"{backbone.fingerprint[:12]}{backbone.image.tokens_version[:12]}/{backbone.precision}"


def prompt_bytes(state: ClassState) -> int:
    """Of the learnt prompts alone: packed ones as packed, others as the float32 that they are."""
    packed = state.info.get("packed_bytes")
    if packed is not None:
        return int(packed)
    context = state.extras[CONTEXT].nbytes if CONTEXT in state.extras else 0
    return context + (state.visual_prompts.tokens.nbytes if state.visual_prompts else 0)


class Bench:
    """One backbone, one protocol, one journal; images of a set are decoded and encoded once."""

    def __init__(
        self, backbone: Backbone, plan: Plan, journal: Journal, *, cache: Path | None = None, watch: Watch
    ) -> None:
        self._backbone = backbone
        self._plan = plan
        self._journal = journal
        self._cache = cache
        self._watch = watch
        self._pictures: dict[str, Pictures] = {}
        self._digests: dict[int, str] = {}
        order = {seed: place for place, seed in enumerate(plan.seeds)}
        # seed by seed: a run that is cut off has everything with one seed rather than something with all
        self._fits = sorted(fits(plan), key=lambda fit: order[fit.seed])

    def __len__(self) -> int:
        return len(self._fits)

    def run(self) -> Iterator[list[Measured]]:
        """The results of each fit as they come, also of those that were in the journal before."""
        known = {entry.key: entry for entry in self._journal.measured() if not entry.skipped}
        for fit in self._fits:
            wanted = [self._blank(fit, trial) for trial in fit.trials]
            if all(blank.key in known for blank in wanted):
                yield [known[blank.key] for blank in wanted]
                continue
            found = self._measured(fit)
            for entry in found:
                self._journal.add(entry)
            yield found

    def _measured(self, fit: Fit) -> list[Measured]:
        label = f"{fit.contender.label}, {fit.source}" + (f", {fit.shots} shots" if fit.shots else "")
        try:
            adapter = fit.contender.adapter(self._backbone, fit.seed)
            support = None
            if fit.pool is not None:
                support = support_of(fit.pool.drawn(fit.shots, seed=fit.seed), self._backbone)
            started = time.perf_counter()
            progress = partial(self._watch, f"fitting {label}")
            state = adapter.adapt(fit.labels, self._backbone, support, progress)
            fitted = Fitted(adapter, state, time.perf_counter() - started)
        except NOT_POSSIBLE as reason:
            return [self._blank(fit, trial, skipped=str(reason)) for trial in fit.trials]
        return [self._tested(fit, trial, fitted) for trial in fit.trials]

    def _tested(self, fit: Fit, trial: Trial, fitted: Fitted) -> Measured:
        if trial.labels is not None and not fit.contender.open_set:
            return self._blank(fit, trial, skipped=CLOSED)
        done = 0

        def tick(images: int) -> None:
            nonlocal done
            done += images
            self._watch(f"testing {fit.contender.label} on {trial.data.name}", min(1.0, done / len(trial.rows)))

        adapter, state = fitted.adapter, fitted.state
        try:
            if trial.labels is not None:
                state = served_elsewhere(adapter, state, trial.labels, self._backbone)
            logits_NC = self._of(trial.data).logits(adapter, state, trial.rows, tick)
        except NOT_POSSIBLE as reason:
            return self._blank(fit, trial, skipped=str(reason))
        if trial.columns:
            logits_NC = logits_NC[:, list(trial.columns)]
        return self._entry(fit, trial, logits_NC, Fitted(adapter, state, fitted.seconds))

    def _entry(self, fit: Fit, trial: Trial, logits_NC: Tensor, fitted: Fitted) -> Measured:
        truth_N = torch.tensor(trial.truth)
        found = score(logits_NC, truth_N)
        return self._blank(
            fit,
            trial,
            top1=round(found.top1, 4),
            ece=round(found.ece, 4),
            images=found.images,
            classes=logits_NC.shape[1],
            seconds=round(fitted.seconds, 4),
            nbytes=len(state_to_bytes(fitted.state)),
            prompt_bytes=prompt_bytes(fitted.state),
            bins=reliability(logits_NC, truth_N),
            reused=isinstance(self._backbone.image, RememberingTower),
        )

    def _blank(self, fit: Fit, trial: Trial, **figures: object) -> Measured:
        return Measured(
            protocol=self._plan.protocol,
            set_name=trial.data.name,
            source=fit.source,
            part=trial.part,
            method=fit.contender.label,
            shots=fit.shots,
            seed=fit.seed,
            backbone=backbone_mark(self._backbone),
            images_digest=trial.data.digest,
            content=self._content(fit),
            **figures,  # type: ignore[arg-type]  # figures of the same dataclass
        )

    def _content(self, fit: Fit) -> str:
        """The adapter with its settings, the label set, and the images to draw from."""
        try:
            version = fit.contender.adapter(self._backbone, fit.seed).version
        except NOT_POSSIBLE:
            version = "impossible"
        pool = "" if fit.pool is None else self._pool_digest(fit.pool)
        return hashlib.sha256("\n".join((version, fit.labels.id, pool)).encode()).hexdigest()[:16]

    def _pool_digest(self, pool: ImageSet) -> str:
        if id(pool) not in self._digests:
            self._digests[id(pool)] = digest_of(pool)
        return self._digests[id(pool)]

    def _of(self, data: DataSet) -> Pictures:
        """Pixels and stems of the sets that were used last stay in memory."""
        pictures = self._pictures.pop(data.name, None) or Pictures(data.test, self._backbone, cache=self._cache)
        self._pictures[data.name] = pictures
        for name in list(self._pictures)[:-SETS_IN_MEMORY]:
            self._pictures[name].release()
        return pictures
