"""Phase 1: the text tower learns the targets of the corpus."""

import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from open_clip import CLIP
from torch import Tensor

from adapters.training.corpus import Corpus
from adapters.training.minilm import cached_embeddings
from adapters.training.names import Name
from adapters.training.optimize import AveragedWeights, TowerOptimizer, encode_bucketed
from adapters.training.tower import tokenizer

logger = logging.getLogger(__name__)

BATCH = 512
RATES = {"text": 1.5e-3, "table": 1.5e-3}
WARM_UP = 100
RELATION_SCALE = 20.0
RELATION_WEIGHT = 0.5
# shares of a batch: bare names that are well known, any bare name, templated names, captions
KNOWN_SHARE, BARE_SHARE, CAPTION_SHARE = 0.12, 0.28, 0.06
TOKEN_STD = 0.05


def initialise_tokens(model: CLIP, work: Path) -> None:
    """Start the token table from the sentence encoder's view of each token, so that rare words mean something."""
    decoder = tokenizer().decoder
    strings = [decoder[index].replace("</w>", " ").strip() for index in range(len(decoder))]
    embeddings = cached_embeddings(work / "minilm" / "tokens.pt", strings)
    centred = embeddings - embeddings.mean(0)
    _, basis = torch.linalg.eigh(centred.T @ centred)
    projected = centred @ basis[:, -model.token_embedding.weight.shape[1] :]
    with torch.no_grad():
        model.token_embedding.weight.copy_(TOKEN_STD * projected / projected.std())


class CorpusSampler:
    """Draws batches of token ids and targets from the corpus."""

    def __init__(self, corpus: Corpus, names: list[Name], frequency: Tensor, seed: int) -> None:
        """`frequency` [N] says how often each name is drawn, compared with the others."""
        self._corpus = corpus
        self._generator = torch.Generator().manual_seed(seed)
        known = torch.tensor([float(name.source != "wordnet") for name in names])
        captions = len(corpus.targets) - corpus.captions
        # first string and weights of each kind of string; those that names inside templates share come last
        self._kinds = [
            (0, known),
            (0, frequency),
            (captions, torch.ones(corpus.captions)),
            (corpus.names, frequency[corpus.owners]),
        ]

    def draw(self, size: int) -> tuple[Tensor, Tensor]:
        """Token ids [size, L] and targets [size, D]."""
        counts = [round(size * share) for share in (KNOWN_SHARE, BARE_SHARE, CAPTION_SHARE)]
        counts[2] = counts[2] if self._corpus.captions else 0
        counts.append(size - sum(counts))
        chosen = torch.cat([self._pick(*kind, count) for kind, count in zip(self._kinds, counts, strict=True)])
        return self._corpus.tokens[chosen], self._corpus.targets[chosen]

    def _pick(self, first: int, weights: Tensor, count: int) -> Tensor:
        if not count:
            return torch.empty(0, dtype=torch.long)
        return first + torch.multinomial(weights, count, replacement=True, generator=self._generator)


def distillation_loss(features_BD: Tensor, targets_BD: Tensor) -> Tensor:
    """Cosine distance to the target, and the divergence of similarities within the batch."""
    cosine = (1 - (features_BD * targets_BD).sum(-1)).mean()
    wanted = (RELATION_SCALE * targets_BD @ targets_BD.T).softmax(-1)
    got = (RELATION_SCALE * features_BD @ features_BD.T).log_softmax(-1)
    return 2 * cosine + RELATION_WEIGHT * F.kl_div(got, wanted, reduction="batchmean")


def distil(model: CLIP, sampler: CorpusSampler, steps: int) -> None:
    """Fit the text tower in place."""
    optimizer = TowerOptimizer(model, steps, RATES, WARM_UP)
    average = AveragedWeights(model)
    for step in range(steps):
        tokens_BL, targets_BD = sampler.draw(BATCH)
        features_BD = encode_bucketed(model, tokens_BL)
        loss = distillation_loss(features_BD, targets_BD)
        optimizer.step(loss)
        average.update(model)
        if step % 50 == 0:
            cosine = float((features_BD.detach() * targets_BD).sum(-1).mean())
            logger.info("distil: step %d of %d, loss %.3f, cosine %.3f", step, steps, loss.item(), cosine)
    average.copy_to(model)
