"""Pseudo-features have the moments that their description claims."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters.training.pseudo import Domain, class_statistics, draw_pseudo, load_domains, offset_directions
from adapters.training.trunk import feature_path


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def domain(name: str, residuals: Tensor, mean: float = 50.0, share: float = 1.0) -> Domain:
    return Domain(name, residuals, [], torch.full((residuals.shape[1],), mean), residuals, 3.0, share)


def record(work: Path, name: str, features: Tensor, classes: list[str]) -> None:
    path = feature_path(work, "source", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"features": features, "classes": classes, "files": classes}, path)


def test_pseudo_features_have_the_mean_and_covariance_that_are_promised() -> None:
    residuals = normal(400, 3, seed=0) * torch.tensor([1.0, 2.0, 0.5])
    residuals -= residuals.mean(0)
    direction = F.normalize(torch.tensor([1.0, 1.0, 0.0]), dim=0)
    drawn = draw_pseudo(direction.repeat(60_000, 1), [domain("a", residuals)], torch.Generator().manual_seed(1))
    # offsets of 0.6 to 1.6 and residuals of 0.7 to 1.2, both uniform
    spread = (0.7**2 + 0.7 * 1.2 + 1.2**2) / 3 * residuals.T @ residuals / 400
    expected = spread + 3.0**2 / 12 * torch.outer(direction, direction)
    assert torch.allclose(drawn.mean(0), 50 + 1.1 * 3.0 * direction, atol=0.03)
    assert torch.allclose(drawn.T.cov(), expected, atol=0.06)


def test_domains_are_drawn_by_their_share_and_features_stay_positive() -> None:
    still = torch.zeros(1, 3)
    domains = [domain("a", still, mean=10.0, share=0.3), domain("b", still, mean=-90.0, share=0.1)]
    drawn = draw_pseudo(torch.zeros(8000, 3), domains, torch.Generator().manual_seed(0))
    assert set(drawn.unique().tolist()) == {0.0, 10.0}
    assert abs(float((drawn[:, 0] == 10).float().mean()) - 0.75) < 0.02


def test_directions_from_head_rows_point_at_the_class_means() -> None:
    scale = torch.tensor([3.0, 1.0, 0.3, 0.1])
    offsets = normal(20, 4, seed=0)
    residuals = normal(5000, 4, seed=1) * scale
    rows = F.normalize(offsets / scale**2, dim=-1)  # what linear discriminant analysis would have learnt
    found = offset_directions(
        rows, [domain("tiny_imagenet_train", residuals), domain("imagenet_det200_samples", residuals)]
    )
    agreement = F.cosine_similarity(found, offsets).mean()
    assert agreement > F.cosine_similarity(rows, offsets).mean() + 0.1
    assert torch.allclose(found.norm(dim=1), torch.ones(20), atol=1e-5)


def test_where_all_directions_spread_alike_the_rows_are_the_directions() -> None:
    alike = torch.cat([torch.eye(4), -torch.eye(4)])
    rows = F.normalize(normal(5, 4, seed=2), dim=-1)
    domains = [domain("tiny_imagenet_train", alike), domain("imagenet_det200_samples", alike)]
    assert torch.allclose(offset_directions(rows, domains), rows, atol=1e-5)


def test_class_statistics_are_the_centroids_in_alphabetical_order() -> None:
    centroids, index = class_statistics(torch.tensor([[1.0], [4.0], [3.0]]), ["b", "a", "b"])
    assert centroids.tolist() == [[4.0], [2.0]]
    assert index.tolist() == [1, 0, 1]


def test_residuals_have_the_unbiased_within_class_covariance(tmp_path: Path) -> None:
    features = normal(12, 3, seed=0)
    record(tmp_path, "tiny_imagenet_train", features, ["a"] * 6 + ["b"] * 6)
    (loaded,) = load_domains(tmp_path)
    within = (features[:6].T.cov() + features[6:].T.cov()) / 2
    assert torch.allclose(loaded.residuals.T @ loaded.residuals / 12, within, atol=1e-5)


def test_a_class_with_one_image_has_no_residual(tmp_path: Path) -> None:
    record(tmp_path, "tiny_imagenet_train", normal(4, 3, seed=0), ["a", "a", "a", "b"])
    (loaded,) = load_domains(tmp_path)
    assert loaded.residuals.isfinite().all()
    assert torch.equal(loaded.residuals[3], torch.zeros(3))


def test_classes_left_out_are_not_loaded(tmp_path: Path) -> None:
    features = normal(4, 3, seed=0)
    record(tmp_path, "imagenet_det200_samples", features, ["a", "b", "a", "b"])
    (loaded,) = load_domains(tmp_path, frozenset({"b"}))
    assert loaded.classes == ["a", "a"]
    assert torch.equal(loaded.features, features[[0, 2]])
