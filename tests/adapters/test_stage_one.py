"""Stage 1 on a tiny problem: it learns, it is deterministic, and gradient matching reaches the context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from adapters.checkpoint import find_source_prompts, load_source_prompts
from adapters.clip import Backbone
from adapters.errors import StateError
from adapters.evaluation.datasets import FeatureSet
from adapters.registry import create_adapter
from adapters.training.source_prompts import train_source_prompts
from adapters.training.stage_one import StageOne, StageOneSettings

SMALL = StageOneSettings(steps=12, classes_per_step=6, images_per_class=2, projected_width=16)


@pytest.fixture(scope="module")
def features() -> FeatureSet:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(8, 64, generator=generator)
    labels = torch.arange(8).repeat(6)
    images = F.normalize(centres[labels] + 0.3 * torch.randn(48, 64, generator=generator), dim=-1)
    return FeatureSet("toy", tuple(f"thing {letter}" for letter in "abcdefgh"), images, labels)


def test_all_three_losses_fall(tiny_backbone: Backbone, features: FeatureSet) -> None:
    told: list[dict[str, float]] = []
    train_source_prompts(
        tiny_backbone,
        features,
        replace(SMALL, steps=40),
        name="t",
        report=lambda i, n, losses: told.append(dict(losses)),
    )
    for name in ("ce", "contrast", "matching"):
        assert sum(t[name] for t in told[-8:]) < sum(t[name] for t in told[:8])


def test_the_same_seed_gives_the_same_prompts(tiny_backbone: Backbone, features: FeatureSet) -> None:
    one, same = (train_source_prompts(tiny_backbone, features, SMALL, name="t") for _ in range(2))
    other = train_source_prompts(tiny_backbone, features, replace(SMALL, seed=1), name="t")
    assert one.version == same.version != other.version


def test_gradient_matching_has_a_gradient_of_its_own(tiny_backbone: Backbone, features: FeatureSet) -> None:
    stage = StageOne(tiny_backbone, features, SMALL)
    with sdpa_kernel(SDPBackend.MATH):
        ce, contrast = (weight * stage.ctx_MW.pow(power).sum() for weight, power in ((1.0, 3), (2.0, 2)))
        (gradient,) = torch.autograd.grad(stage._matching(ce, contrast), [stage.ctx_MW])
    assert gradient.abs().sum() > 0


def test_source_prompts_survive_disk_and_are_found_by_fingerprint(
    tiny_backbone: Backbone, features: FeatureSet, tmp_path: Path
) -> None:
    prompts = train_source_prompts(tiny_backbone, features, SMALL, name="t")
    prompts.save(tmp_path / "t")
    found = find_source_prompts(tiny_backbone.fingerprint, tmp_path)
    assert found is not None
    assert (found.version, found.name) == (prompts.version, "t")
    assert find_source_prompts("0" * 64, tmp_path) is None


def test_a_folder_that_holds_no_source_prompts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(StateError):
        load_source_prompts(tmp_path)


def test_self_tpt_starts_from_source_prompts_and_says_which(tiny_backbone: Backbone, features: FeatureSet) -> None:
    from adapters.base import LabelSet

    prompts = train_source_prompts(tiny_backbone, features, SMALL, name="toy-1")
    backbone = replace(tiny_backbone, source=prompts)
    state = create_adapter("self-tpt", backbone, {"steps": 0}).adapt(LabelSet.of("cat", "dog"), backbone)
    assert state.info["source_prompts"] == "toy-1"
    assert torch.equal(state.extras["context"], prompts.ctx_MW)


def test_a_run_that_was_broken_off_goes_on_to_the_same_numbers(
    tiny_backbone: Backbone, features: FeatureSet, tmp_path: Path
) -> None:
    def stop(done: int, total: int, losses: Mapping[str, float]) -> None:
        if done == 7:
            raise KeyboardInterrupt

    file = tmp_path / "run.safetensors"
    whole, broken, resumed = (StageOne(tiny_backbone, features, SMALL) for _ in range(3))
    whole.run()
    with pytest.raises(KeyboardInterrupt):
        broken.run(stop, file=file, every=3)
    told: list[int] = []
    resumed.run(lambda done, total, losses: told.append(done), file=file)
    assert told[0] == 7
    assert torch.equal(resumed.ctx_MW, whole.ctx_MW)
    assert torch.equal(resumed.head_PD, whole.head_PD)


def test_a_file_of_other_settings_or_a_damaged_one_starts_anew(
    tiny_backbone: Backbone, features: FeatureSet, tmp_path: Path
) -> None:
    file = tmp_path / "run.safetensors"
    StageOne(tiny_backbone, features, replace(SMALL, steps=3)).run(file=file)
    told: list[int] = []
    StageOne(tiny_backbone, features, replace(SMALL, steps=2)).run(lambda d, t, _: told.append(d), file=file)
    file.write_bytes(b"broken")
    StageOne(tiny_backbone, features, replace(SMALL, steps=2)).run(lambda d, t, _: told.append(d), file=file)
    assert told == [1, 2, 1, 2]


def test_source_prompts_keep_the_mean_image(tiny_backbone: Backbone, features: FeatureSet) -> None:
    prompts = train_source_prompts(tiny_backbone, features, replace(SMALL, steps=1), name="t")
    assert prompts.image_mean_D is not None
    assert torch.allclose(prompts.image_mean_D, features.features_ND.mean(dim=0), atol=1e-6)  # classes of equal size
