"""Phase 2: image projection and text tower are fitted to each other.

A step names some 450 concepts and shows two images of each, real ones where there are some and pseudo-images
elsewhere. Beside that classification loss, the trunk's ImageNet head teaches its soft answers on the classes of
the step, photographs are matched with their captions, and distillation on the corpus goes on.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import CLIP
from torch import Tensor, nn

from adapters.training.concepts import Concept, ConceptSampler, related
from adapters.training.corpus import all_templates, draw_template, read_captions
from adapters.training.distil import CorpusSampler, distillation_loss
from adapters.training.files import save
from adapters.training.names import Name
from adapters.training.optimize import AveragedWeights, TowerOptimizer, encode_bucketed
from adapters.training.pseudo import Domain, draw_pseudo, offset_directions
from adapters.training.teacher import Teacher
from adapters.training.tower import PromptTokenizer, converted_once, encode_features
from adapters.training.trunk import feature_path
from adapters.training.wordnet import WordNet

logger = logging.getLogger(__name__)

CONCEPTS, IMAGES_PER_CONCEPT, PHOTOS, CORPUS = 448, 3, 64, 96
RATES = {"text": 8e-4, "table": 6e-4, "projection": 1e-3, "scale": 1e-3}
WARM_UP = 60
START_SHARE = 0.3  # of the weights before alignment in the result
SNAPSHOT_EVERY = 200
REAL_SHARE = 0.6
# of the images of a name, how many are photographs whose captions agree on it: names of the pool `photo`, other names
PHOTO_SHARE, OTHER_PHOTO_SHARE = 0.85, 0.4
BARE_SHARE = 0.12
SAME_TARGET = 0.8  # names whose targets are that close are not told apart
TEXT_TO_IMAGE, HEAD, ROWS, CAPTION, DISTIL, SHIFT = 0.5, 0.7, 0.5, 0.5, 1.0, 1.0
START_SCALE = 25.0
PROJECTION_DRAWS, PROJECTION_RIDGE = 30_000, 0.02


@dataclass
class Material:
    """Everything that alignment draws from."""

    names: list[Name]
    wordnet: WordNet
    teacher: Teacher
    head: tuple[Tensor, Tensor]  # weight and bias of the trunk's ImageNet classifier
    domains: list[Domain]
    concepts: list[Concept]
    frequency: Tensor  # [N] how often each name should be drawn
    corpus: CorpusSampler
    shifts: Tensor  # [T, D] how each template moves a target, in the order of `all_templates`
    photos: list[Tensor]  # features [P, 1280] of the captioned photographs, one tensor for each view
    captions: list[list[str]]
    mentioned: list[frozenset[str]]  # the senses that any caption of a photograph names


def load_photos(data: Path, work: Path) -> tuple[list[Tensor], list[list[str]]]:
    """Flickr8k features, one tensor for each view, and captions; the test split is left out."""
    captions: dict[str, list[str]] = {}
    for image, _, caption in read_captions(data):
        captions.setdefault(image, []).append(caption)
    loaded, told = [], []
    for view, seed in (("plain", 0), ("crop", 4), ("low", 8)):
        path = feature_path(work, "source", "flickr8k", view, seed)
        if path.exists():
            record = torch.load(path, weights_only=True)
            rows = [row for row, file in enumerate(record["files"]) if file in captions]
            loaded.append(record["features"][rows].float())
            told = [captions[record["files"][row]] for row in rows]
    return loaded, told


def initialise_projection(model: CLIP, material: Material, directions: Tensor, seed: int = 0) -> None:
    """Ridge regression from image features to the targets of their names."""
    generator = torch.Generator().manual_seed(seed)
    owners = torch.tensor([concept.row for concept in material.concepts if concept.pool != "wordnet"])
    drawn = owners[torch.randint(len(owners), (PROJECTION_DRAWS,), generator=generator)]
    features, targets = [draw_pseudo(directions[drawn], material.domains, generator)], [material.teacher.joint[drawn]]
    for concept in material.concepts:
        for domain, index in concept.real:
            features.append(material.domains[domain].features[index : index + 1])
            targets.append(material.teacher.joint[concept.row : concept.row + 1])
    inputs, outputs = torch.cat(features), torch.cat(targets)
    mean = inputs.mean(0)
    gram = (inputs - mean).T @ (inputs - mean) / len(inputs)
    gram += PROJECTION_RIDGE * gram.diagonal().mean() * torch.eye(len(gram))
    weight = torch.linalg.solve(gram, (inputs - mean).T @ (outputs - outputs.mean(0)) / len(inputs))
    head: nn.Linear = model.visual.head.proj
    with torch.no_grad():
        head.weight.copy_(weight.T)
        head.bias.copy_(-mean @ weight)


class Aligner:
    """Draws the batches of phase 2 and computes its loss."""

    def __init__(self, model: CLIP, material: Material, seed: int) -> None:
        self._model, self._material = model, material
        self._sampler = ConceptSampler(material.concepts, material.frequency, seed)
        self._generator = torch.Generator().manual_seed(seed)
        self._random = np.random.default_rng(seed)
        self._tokenize = PromptTokenizer()
        self.directions = offset_directions(material.teacher.rows, material.domains)
        self._head = material.head
        rows = material.teacher.rows[[concept.row for concept in material.concepts]]
        self._rows = material.head[0].norm(dim=1).mean() * rows
        self._centre = torch.stack([domain.mean for domain in material.domains]).mean(0)
        # of the head, of captions, of the predicted rows
        self.scales = nn.Parameter(torch.tensor([START_SCALE, START_SCALE * 0.6, START_SCALE]).log())

    def _texts(self, positions: list[int]) -> tuple[Tensor, Tensor]:
        """Features of the names in one template, as a classifier has it, and the targets' mean in that template."""
        template = "{}" if self._random.random() < BARE_SHARE else draw_template(self._random)
        tokens = self._tokenize([(template, self._material.names[position].text) for position in positions])
        targets = self._material.teacher.joint[positions] + self._material.shifts[all_templates().index(template)]
        shared = self._tokenize.length(template.split("{}")[0])
        return encode_bucketed(self._model, tokens, 1 + shared), F.normalize(targets, dim=-1).mean(0)

    def _images(self, numbers: list[int]) -> tuple[Tensor, list[frozenset[str]]]:
        """Features of one image of each concept, and the synsets that each image shows."""
        shown = [self._sampler.member(number) for number in numbers]
        features = draw_pseudo(self.directions[[c.row for c in shown]], self._material.domains, self._generator)
        synsets = [frozenset([concept.synset] if concept.synset else []) for concept in shown]
        for row, concept in enumerate(shown):
            # a hypernym such as `animal` is seen on photographs too, so ask the concept that was drawn
            named = self._material.concepts[numbers[row]]
            share = PHOTO_SHARE if named.pool == "photo" else OTHER_PHOTO_SHARE
            if named.photos and self._random.random() < share:
                photo = self._sampler.photo(named)
                views = self._material.photos
                features[row] = views[int(self._random.integers(len(views)))][photo]
                synsets[row] = self._material.mentioned[photo]
            elif concept.real and self._random.random() < REAL_SHARE:
                domain, index = self._sampler.real(concept)
                features[row] = self._material.domains[domain].features[index]
        return features, synsets

    def _photo_batch(self) -> tuple[Tensor, list[str]]:
        if not self._material.photos:
            return torch.empty(0, self._head[0].shape[1]), []
        features = self._material.photos[int(self._random.integers(len(self._material.photos)))]
        captions = self._material.captions
        rows = self._random.choice(len(captions), PHOTOS, replace=False).tolist()
        return features[rows], [captions[row][int(self._random.integers(len(captions[row])))] for row in rows]

    def loss(self) -> tuple[Tensor, dict[str, float]]:
        """The loss of one random step and its parts."""
        numbers = self._sampler.draw(CONCEPTS)
        positions = [self._sampler.spelling(number) for number in numbers]
        texts, expected = self._texts(positions)
        photos, captions = self._photo_batch()
        corpus_tokens, corpus_targets = self._material.corpus.draw(CORPUS)
        tokens = self._tokenize([("{}", text) for text in captions])
        told, distilled = encode_bucketed(self._model, torch.cat([tokens, corpus_tokens])).split([len(tokens), CORPUS])
        draws = [self._images(numbers) for _ in range(IMAGES_PER_CONCEPT)]
        raw = torch.cat([features for features, _ in draws])
        shown = [synsets for _, drawn in draws for synsets in drawn]
        images = encode_features(self._model, torch.cat([raw, photos]))
        ignored = self._ignored(numbers, positions, shown)
        parts = {
            "class": self._class_loss(images[: len(raw)], texts, ignored),
            "head": HEAD * self._head_loss(images, torch.cat([raw, photos]), texts, numbers),
            "rows": ROWS * self._rows_loss(images, torch.cat([raw, photos]), texts, numbers),
            "distil": DISTIL * distillation_loss(distilled, corpus_targets),
            "shift": SHIFT * (texts.mean(0) - expected).square().sum(),
        }
        if captions:
            parts["caption"] = CAPTION * self._caption_loss(images[len(raw) :], told)
        return torch.stack(list(parts.values())).sum(), {name: part.item() for name, part in parts.items()}

    def _ignored(self, numbers: list[int], positions: list[int], shown: list[frozenset[str]]) -> Tensor:
        """[images, texts] True where a text other than the image's own would not be wrong either."""
        told = [self._material.concepts[number].synset for number in numbers]
        targets = self._material.teacher.joint[positions]
        close = (targets @ targets.T > SAME_TARGET).repeat(IMAGES_PER_CONCEPT, 1)
        own = torch.eye(len(numbers), dtype=torch.bool).repeat(IMAGES_PER_CONCEPT, 1)
        return (related(self._material.wordnet, shown, told) | close) & ~own

    def _class_loss(self, images: Tensor, texts: Tensor, ignored: Tensor) -> Tensor:
        logits = (self._model.logit_scale.exp() * images @ texts.T).masked_fill(ignored, -torch.inf)
        own = torch.arange(len(texts)).repeat(IMAGES_PER_CONCEPT)
        loss = F.cross_entropy(logits, own)
        for block in logits.split(len(texts)):
            loss = loss + TEXT_TO_IMAGE / IMAGES_PER_CONCEPT * F.cross_entropy(block.T, torch.arange(len(texts)))
        return loss

    def _head_loss(self, images: Tensor, raw: Tensor, texts: Tensor, numbers: list[int]) -> Tensor:
        """Divergence from the head's softmax over the ImageNet classes of this step, which come first."""
        classes = [number for number in numbers if self._material.concepts[number].pool == "imagenet"]
        weight, bias = self._head
        wanted = F.linear(raw, weight[classes], bias[classes]).softmax(-1)
        got = (self.scales[0].exp() * images @ texts[: len(classes)].T).log_softmax(-1)
        return F.kl_div(got, wanted, reduction="batchmean")

    def _rows_loss(self, images: Tensor, raw: Tensor, texts: Tensor, numbers: list[int]) -> Tensor:
        """Divergence from the linear classifier of predicted rows, over concepts that have no photographs.

        Names that captions use, such as `person`, are those whose rows are predicted badly.
        """
        columns = [column for column, number in enumerate(numbers) if self._material.concepts[number].pool != "photo"]
        rows = self._rows[[numbers[column] for column in columns]]
        wanted = ((raw - self._centre).bfloat16() @ rows.bfloat16().T).float().softmax(-1)
        got = (self.scales[2].exp() * images @ texts[columns].T).log_softmax(-1)
        return F.kl_div(got, wanted, reduction="batchmean")

    def _caption_loss(self, images: Tensor, captions: Tensor) -> Tensor:
        logits = self.scales[1].exp() * images @ captions.T
        own = torch.arange(len(captions))
        return F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)


def align(model: CLIP, material: Material, steps: int, snapshot: Path, seed: int) -> None:
    """Fit both towers in place; the weights are an average over the last part of training, drawn back to the start.

    Drawing back keeps what distillation knew of names that alignment seldom shows, and of images like no photograph.
    `snapshot` receives the average from time to time, for a look at a long run.
    """
    aligner = Aligner(model, material, seed)
    initialise_projection(model, material, aligner.directions)
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        model.logit_scale.fill_(float(np.log(START_SCALE)))
    optimizer = TowerOptimizer(model, steps, RATES, WARM_UP, extra=[model.logit_scale, aligner.scales])
    average = AveragedWeights(model)
    for step in range(steps):
        with converted_once():
            loss, parts = aligner.loss()
        optimizer.step(loss)
        average.update(model)
        if step % SNAPSHOT_EVERY == SNAPSHOT_EVERY - 1:
            save(average.weights, snapshot)
        if step % 50 == 0:
            text = ", ".join(f"{name} {value:.3f}" for name, value in parts.items())
            scale = float(model.logit_scale.detach().exp())
            logger.info("align: step %d of %d, loss %.3f (%s), scale %.1f", step, steps, loss.item(), text, scale)
    average.copy_to(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.lerp_(start[name], START_SHARE)
