"""Image features for names without images: draws from the Gaussian that linear discriminant analysis implies.

If every class had the same within-class covariance S, the best linear classifier would have rows S^-1 (mu_c - mu);
read backwards, a head row w_c says that the class mean lies at mu + S w_c. On classes with real images the cosine
of predicted to true offset is about 0.65 (0.4 for the bare row). Real residuals supply the within-class spread.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters.training.trunk import feature_path

ROW_SHARE = 0.2  # of the bare head row in the offset's direction
OFFSET_RANGE = (0.6, 1.6)
RESIDUAL_RANGE = (0.7, 1.2)
SHRINKAGE = 0.05
# (set, views, share of the draws): each domain has its own mean and residuals
DOMAINS = (
    ("tiny_imagenet_train", (("plain", 0),), 0.3),
    ("tiny_imagenet_train", (("low", 6),), 0.1),
    ("imagenet_det200_samples", (("plain", 0), ("crop", 1), ("crop", 5), ("crop", 7)), 0.4),
    ("imagenet_det200_samples", (("low", 2),), 0.1),
    ("imagenet_det200_samples", (("sketch", 3),), 0.1),
)


PLAIN_SETS = ("tiny_imagenet_train", "imagenet_det200_samples")  # their first domains are plain views


@dataclass(frozen=True)
class Domain:
    """Real features [N, 1280] of one kind of image with class names, their mean, residuals and mean offset length."""

    name: str
    features: Tensor
    classes: list[str]
    mean: Tensor
    residuals: Tensor
    offset_norm: float
    share: float


def class_statistics(features: Tensor, classes: list[str]) -> tuple[Tensor, Tensor]:
    """Centroid [C, 1280] of each class in alphabetical order, and the class index [N] of each feature."""
    order = {name: number for number, name in enumerate(sorted(set(classes)))}
    index = torch.tensor([order[name] for name in classes])
    sums = torch.zeros(len(order), features.shape[1]).index_add_(0, index, features)
    return sums / torch.bincount(index).unsqueeze(1), index


def load_domains(work: Path, left_out: frozenset[str] = frozenset()) -> list[Domain]:
    """The domains whose features exist, without the classes left out."""
    domains = []
    for name, views, share in DOMAINS:
        paths = [feature_path(work, "source", name, view, seed) for view, seed in views]
        records = [torch.load(path, weights_only=True) for path in paths if path.exists()]
        if not records:
            continue
        classes = [label for record in records for label in record["classes"]]
        kept = torch.tensor([number for number, label in enumerate(classes) if label not in left_out])
        features = torch.cat([record["features"] for record in records])[kept].float()
        classes = [classes[number] for number in kept.tolist()]
        centroids, index = class_statistics(features, classes)
        mean = centroids.mean(0)
        counts = torch.bincount(index)[index].unsqueeze(1)
        # a class mean over n images takes 1/n of the variance with it; one image alone has no residual
        residuals = (features - centroids[index]) * (counts / (counts - 1).clamp(min=1)).sqrt()
        norm = float((centroids - mean).norm(dim=1).mean())
        domains.append(Domain(name, features, classes, mean, residuals, norm, share))
    return domains


def offset_directions(rows_ND: Tensor, domains: list[Domain]) -> Tensor:
    """Unit direction from the mean to each class, from its head row, by S w with a share of w."""
    plain = [next(domain for domain in domains if domain.name == name) for name in PLAIN_SETS]
    covariances = [domain.residuals.T @ domain.residuals / len(domain.residuals) for domain in plain]
    within = torch.stack(covariances).mean(0)
    within += SHRINKAGE * within.diagonal().mean() * torch.eye(len(within))
    spread = F.normalize(rows_ND @ within, dim=-1)
    return F.normalize((1 - ROW_SHARE) * spread + ROW_SHARE * rows_ND, dim=-1)


def draw_pseudo(directions_BF: Tensor, domains: list[Domain], generator: torch.Generator) -> Tensor:
    """One pseudo feature [B, 1280] for each direction, each in a random domain."""
    shares = torch.tensor([domain.share for domain in domains])
    chosen = torch.multinomial(shares, len(directions_BF), replacement=True, generator=generator)
    drawn_BF = torch.empty_like(directions_BF)
    for number, domain in enumerate(domains):
        rows = (chosen == number).nonzero().squeeze(1)
        picked = torch.randint(len(domain.residuals), (len(rows),), generator=generator)
        offset = domain.offset_norm * _uniform(OFFSET_RANGE, len(rows), generator)
        spread = _uniform(RESIDUAL_RANGE, len(rows), generator) * domain.residuals[picked]
        drawn_BF[rows] = domain.mean + offset * directions_BF[rows] + spread
    return drawn_BF.clamp_(min=0)  # the trunk ends in a ReLU6 and an average


def _uniform(bounds: tuple[float, float], count: int, generator: torch.Generator) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(count, 1, generator=generator)
