"""Builds the bundled backbone: `python -m adapters.training.backbone --data DATA --work WORK --out OUT`.

Every phase writes its artefact into the work folder and is skipped where that exists, so the command resumes.
"""

import argparse
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path

import torch
from open_clip import CLIP
from torch import Tensor

from adapters.training.align import Material, align, load_photos
from adapters.training.calibrate import calibrate, centre_texts, left_out_classes
from adapters.training.concepts import build_concepts, with_photos
from adapters.training.corpus import Corpus, build_corpus
from adapters.training.distil import CorpusSampler, distil, initialise_tokens
from adapters.training.evaluate import report, retrieval
from adapters.training.export import WEIGHTS_FILE, export_card, export_reference, export_weights
from adapters.training.files import save
from adapters.training.mentions import mentions, nouns_by_word
from adapters.training.names import Name, commonness
from adapters.training.pseudo import load_domains
from adapters.training.senses import write_names
from adapters.training.teacher import Teacher, build_teacher
from adapters.training.tower import build_model
from adapters.training.trunk import build_features, imagenet_head
from adapters.training.wordnet import WordNet, read_wordnet

logger = logging.getLogger(__name__)

SEED = 0
DISTIL_STEPS, ALIGN_STEPS = 1000, 3200
QUICK_DIVISOR = 10


@dataclass(frozen=True)
class Build:
    """One build: where its data, intermediate artefacts and result live, and how long it trains."""

    data: Path
    work: Path
    out: Path
    captions: bool
    divisor: int

    @cached_property
    def wordnet(self) -> WordNet:
        return read_wordnet()

    @cached_property
    def names(self) -> list[Name]:
        return write_names(self.data, self.work, self.wordnet)

    @cached_property
    def frequency(self) -> Tensor:
        return commonness(self.names, self.wordnet)

    @cached_property
    def teacher(self) -> Teacher:
        return build_teacher(self.data, self.work, self.names, self.wordnet)

    @cached_property
    def corpus(self) -> Corpus:
        return build_corpus(self.data, self.work, self.names, self.teacher, self.captions)

    def features(self) -> None:
        """Trunk features of all images, once."""
        build_features(self.data, self.work, frozenset() if self.captions else frozenset({"flickr8k"}))

    def targets(self) -> None:
        """Names, their targets in the joint space, and the strings for distillation."""
        logger.info("%d strings", len(self.corpus.targets))

    def distil(self) -> None:
        """Phase 1: text tower alone."""
        if self._path("distilled").exists():
            return
        torch.manual_seed(SEED)
        model = build_model()
        initialise_tokens(model, self.work)
        distil(model, CorpusSampler(self.corpus, self.names, self.frequency, SEED), DISTIL_STEPS // self.divisor)
        save(model.state_dict(), self._path("distilled"))

    def align(self) -> None:
        """Phase 2: text tower and image projection."""
        if self._path("aligned").exists():
            return
        model = self._load("distilled")
        align(model, self._material(), ALIGN_STEPS // self.divisor, self._path("snapshot"), SEED)
        save(model.state_dict(), self._path("aligned"))

    def _material(self) -> Material:
        domains = load_domains(self.work, left_out_classes(self.work))
        concepts = build_concepts(self.data, self.names, self.wordnet, domains)
        photos, captions = load_photos(self.data, self.work) if self.captions else ([], [])
        nouns = nouns_by_word(self.names, self.wordnet)
        found = [mentions(told, nouns, self.wordnet) for told in captions]
        concepts = with_photos(concepts, [agreed for agreed, _ in found])
        return Material(
            names=self.names,
            wordnet=self.wordnet,
            teacher=self.teacher,
            head=imagenet_head(),
            domains=domains,
            concepts=concepts,
            frequency=self.frequency,
            corpus=CorpusSampler(self.corpus, self.names, self.frequency, SEED + 1),
            shifts=self.corpus.shifts,
            photos=photos,
            captions=captions,
            mentioned=[named for _, named in found],
        )

    def export(self) -> None:
        """Calibrate, write the files, and report figures; evaluation sets are read here and nowhere else."""
        model = self._load("aligned")
        photos = load_photos(self.data, self.work)[0][:1] if self.captions else []
        centre_texts(model, self.work, photos)
        scale = calibrate(model, self.work)
        export_weights(model, self.out)
        export_reference(self.out)
        recall = retrieval(model, self.data, self.work) if self.captions else {}
        figures = report(model, self.work, ("evaluation", "development"))
        for name, row in figures.items():
            logger.info("%s: %s", name, {key: round(value, 1) for key, value in row.items()})
        card = {
            "figures": figures,
            "date": datetime.now(timezone.utc).date(),
            "retrieval": ", ".join(f"{name} {value:.1f}" for name, value in recall.items()) or "not measured",
            "scale": f"{scale['scale']:.1f}",
            "captions": "with" if self.captions else "without",
            "size": f"{(self.out / WEIGHTS_FILE).stat().st_size / 1e6:.1f}",
        }
        export_card(self.out, card)

    def _path(self, phase: str) -> Path:
        suffix = ("" if self.captions else "-without-flickr8k") + ("" if self.divisor == 1 else "-quick")
        return self.work / f"{phase}{suffix}.pt"

    def _load(self, phase: str) -> CLIP:
        model = build_model()
        model.load_state_dict(torch.load(self._path(phase), weights_only=True))
        return model


PHASES: dict[str, Callable[[Build], None]] = {
    "features": Build.features,
    "targets": Build.targets,
    "distil": Build.distil,
    "align": Build.align,
    "export": Build.export,
}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line of the build."""
    parser = argparse.ArgumentParser(prog="python -m adapters.training.backbone", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with source, development and evaluation")
    parser.add_argument("--work", type=Path, required=True, help="intermediate artefacts and the log; about 1.5 GB")
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--phases", nargs="+", choices=list(PHASES), default=list(PHASES))
    parser.add_argument("--without-flickr8k", action="store_true", help="train on no Flickr8k image or caption")
    parser.add_argument("--quick", action="store_true", help="a tenth of the training steps, for a trial")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run the phases in order; the log goes to stderr and to the work folder."""
    options = parse_arguments(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    handlers: list[logging.Handler] = [logging.StreamHandler(), logging.FileHandler(options.work / "build.log")]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", handlers=handlers)
    torch.set_num_threads(options.threads)
    divisor = QUICK_DIVISOR if options.quick else 1
    build = Build(options.data, options.work, options.out, not options.without_flickr8k, divisor)
    for phase in options.phases:
        logger.info("phase %s", phase)
        PHASES[phase](build)


if __name__ == "__main__":
    main()
