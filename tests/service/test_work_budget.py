"""What an adaptation is estimated to take, what is not begun for it, and what is said of that."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from adapters import create_adapter
from adapters.base import LabelSet
from adapters.clip import Backbone
from adapters.methods.self_tpt import SelfTPT, SelfTPTSettings
from service.class_states.flights import Flight, Snapshot, Want
from service.errors import OverBudget
from service.labels.work_budget import Counted, WorkBudget
from tests.service.served import Kept, photo, served

MANY = [f"thing {number}" for number in range(40)]


@dataclass
class Adapter:
    """A hundred prompts for every class."""

    name: str = "self-tpt"
    version: str = "1"

    def prompts(self, labels: LabelSet) -> int:
        return 100 * len(labels.classes)


def want(*names: str, **more: object) -> Want:
    return Want("key", LabelSet.of(*names), Adapter(), **more)  # type: ignore[arg-type]  # a tiny stand-in


def test_an_estimate_starts_at_the_measured_speed_and_follows_what_was_seen() -> None:
    budget, cats = WorkBudget(math.inf), want("cat", "dog")
    assert budget.estimate(cats.adapter, cats.labels) is None
    budget.calibrate(0.01)
    assert budget.estimate(cats.adapter, cats.labels) == pytest.approx(2.0)
    for _ in range(30):
        budget.learn(cats, 8.0)
    assert budget.estimate(cats.adapter, cats.labels) == pytest.approx(8.0, rel=0.01)


def test_what_is_left_counts_those_ahead_and_what_is_done() -> None:
    budget, cats = WorkBudget(math.inf), want("cat")
    budget.calibrate(0.01)
    ahead = Flight(want("cow", "horse"), snapshot=Snapshot("queued"))
    assert budget.seconds_left(cats, Snapshot("queued"), None, [ahead]) == pytest.approx(3.0)
    assert budget.seconds_left(cats, Snapshot("adapting", 0.75), None) == pytest.approx(0.25)


def test_only_what_goes_beyond_the_budget_is_declined() -> None:
    budget = WorkBudget(1.5)
    budget.calibrate(0.01)
    budget.check(want("cat"))
    with pytest.raises(OverBudget, match="MAX_ADAPT_SECONDS") as caught:
        budget.check(want("cat", "dog"))
    assert caught.value.extensions["limit"] == "max_adapt_seconds"
    budget.check(Want("key", LabelSet.of("cat", "dog"), Adapter("zero-shot")))  # type: ignore[arg-type]  # a tiny stand-in


@pytest.mark.parametrize("options", [{}, {"chunk": 8}, {"anchor": 0.1, "views": "end"}])
def test_self_tpt_knows_how_many_prompts_it_will_encode(tiny_backbone: Backbone, options: dict[str, object]) -> None:
    adapter, labels = SelfTPT(SelfTPTSettings(steps=2, **options), tiny_backbone), LabelSet.of(*MANY[:9])  # type: ignore[arg-type]  # of the case
    before = tiny_backbone.text.prompts_encoded
    adapter.adapt(labels, tiny_backbone)
    forwards = tiny_backbone.text.prompts_encoded - before - 4  # the background texts
    backwards = 2 * 2 * 27  # steps; a backward pass costs two forward passes; rows of a step
    assert adapter.prompts(labels) == forwards + backwards


def test_methods_that_learn_from_names_know_their_work(tiny_backbone: Backbone) -> None:
    for name in ("zero-shot", "self-tpt", "quantized"):
        assert isinstance(create_adapter(name, tiny_backbone), Counted)
    assert not isinstance(create_adapter("coop", tiny_backbone), Counted)


@pytest.mark.parametrize(("adapter", "status"), [("auto", "ready"), ("self-tpt", "failed")])
async def test_a_label_set_beyond_the_budget_is_served_by_zero_shot_and_says_why(
    tiny_backbone: Backbone, adapter: str, status: str
) -> None:
    async with served(tiny_backbone, slow=False, max_adapt_seconds=1e-6) as service:
        body = {"classes": MANY, "adapter": adapter}
        answer = (await service.http.post("/v1/label-sets", json=body)).json()
        assert answer["status"] == status
        reason = answer["error"] if status == "failed" else answer["info"]["auto_reason"]
        assert "budget" in reason
        assert status == "failed" or answer["info"]["chosen"] == "zero-shot"
        scored = await service.http.post(
            "/v1/classify", params={"label_set": answer["id"]}, content=photo(), headers={"Content-Type": "image/png"}
        )
        assert scored.status_code == 200
        assert (scored.json()["served_by"], scored.json()["adapted"]) == ("zero-shot", False)
        assert scored.json()["status"] == status
        assert service.value("selftpt_adaptations_total", adapter="self-tpt", outcome="failed") == 0


async def test_a_stored_state_is_served_whatever_it_would_cost_to_compute(tiny_backbone: Backbone) -> None:
    kept = Kept()
    async with served(tiny_backbone, kept, slow=False) as service:
        first = await service.http.post("/v1/label-sets", json={"classes": MANY[:3]}, headers={"Prefer": "wait=20"})
        assert first.json()["status"] == "ready"
    async with served(tiny_backbone, kept, slow=False, max_adapt_seconds=1e-6) as service:
        again = await service.http.get(f"/v1/label-sets/{first.json()['id']}")
        assert (again.json()["status"], again.json().get("error")) == ("ready", None)


async def test_an_accepted_label_set_says_how_long_it_will_take(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone, slow=False) as service:
        answer = await service.http.post("/v1/label-sets", json={"classes": MANY})
        assert answer.status_code == 202
        assert answer.json()["status"] in {"queued", "adapting"}
        assert 0 < answer.json()["estimated_seconds"] < 60
        done = await service.http.post("/v1/label-sets", json={"classes": MANY}, headers={"Prefer": "wait=20"})
        assert (done.json()["status"], done.json()["estimated_seconds"]) == ("ready", 0.0)
