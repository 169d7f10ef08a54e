"""Random views of pixels, and the features of support images."""

from __future__ import annotations

import torch

from adapters.base import Support
from adapters.clip import Backbone
from adapters.learning.support_features import IMAGES_AT_ONCE, feature_ticks, support_features
from adapters.vision.views import random_views


def noise(images: int, side: int = 32) -> torch.Tensor:
    shape = (images, 3, side, side)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_views_have_the_form_of_the_image_and_follow_the_seed() -> None:
    pixels = noise(2)
    views = random_views(pixels, 3, seed=5)
    assert (views.shape, views.dtype) == ((2, 3, 3, 32, 32), torch.uint8)
    assert torch.equal(views, random_views(pixels, 3, seed=5))
    assert not torch.equal(views, random_views(pixels, 3, seed=6))
    assert not torch.equal(views[0, 0], views[0, 1])


def test_the_views_of_an_image_do_not_depend_on_its_place_or_company() -> None:
    pixels = noise(3)
    assert torch.equal(random_views(pixels, 2, seed=0)[2], random_views(pixels[2:], 2, seed=0)[0])


def test_a_view_shows_at_least_half_of_the_image_in_its_own_colours() -> None:
    ramp = torch.arange(64, dtype=torch.uint8).expand(1, 3, 64, 64).contiguous()
    spans = [int(v.max()) - int(v.min()) for v in random_views(ramp, 50, seed=0)[0].int()]
    assert min(spans) >= 64 * 0.5**0.5 * (3 / 4) ** 0.5 - 3
    flat = torch.full((1, 3, 32, 32), 77, dtype=torch.uint8)
    assert torch.equal(random_views(flat, 1, seed=0)[:, 0], flat)


def test_the_largest_seed_is_accepted() -> None:
    assert random_views(noise(1), 1, seed=2**63 - 1).shape[0] == 1


def test_no_views_are_an_empty_axis() -> None:
    assert random_views(noise(2), 0, seed=0).shape == (2, 0, 3, 32, 32)


def test_support_features_keep_the_plain_view_first(tiny_backbone: Backbone) -> None:
    support = Support(noise(9), torch.arange(9) % 3)
    ticks: list[None] = []
    features = support_features(tiny_backbone, support, views=4, seed=0, tick=lambda: ticks.append(None))
    assert features.shape == (9, 5, tiny_backbone.embed_dim)
    assert torch.allclose(features.norm(dim=-1), torch.ones(9, 5), atol=1e-5)
    assert torch.allclose(features[:, 0], tiny_backbone.image.encode(support.pixels), atol=1e-5)
    assert len(ticks) == feature_ticks(9, 4)


def test_a_single_image_may_have_more_views_than_fit_a_pass(tiny_backbone: Backbone) -> None:
    support = Support(noise(1), torch.zeros(1, dtype=torch.long))
    assert support_features(tiny_backbone, support, views=IMAGES_AT_ONCE + 1, seed=0).shape[1] == IMAGES_AT_ONCE + 2
