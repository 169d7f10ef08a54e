"""Label sets over a dict store and the tiny backbone: single flight, restart, failure, deletion."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from adapters import create_adapter
from adapters.base import Adapter, ClassName, InfoValue, LabelSet, Support
from adapters.clip import Backbone
from service.class_states.failures import Failures
from service.class_states.hot_states import HotStates
from service.class_states.states import States
from service.compute.engine import LocalEngine
from service.errors import LimitExceeded, NotFound, Overloaded, StoreError, Unprocessable
from service.labels.label_limits import LabelLimits
from service.labels.label_sets import LabelSets
from service.labels.plans import Planner
from service.labels.records import RecordBook
from service.labels.support import SupportLimits, SupportShelves
from service.telemetry.metrics import Metrics
from tests.service.fakes import DictStore, SlowAdapter, soon

ANIMALS = [ClassName.of(name) for name in ("cat", "dog", "horse")]


@dataclass
class Rig:
    sets: LabelSets
    metrics: Metrics
    slow: SlowAdapter
    records: DictStore
    states: DictStore

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def rig_on(
    backbone: Backbone, records: DictStore | None = None, states: DictStore | None = None, *, max_adaptations: int = 8
) -> AsyncIterator[Rig]:
    metrics, slow = Metrics(), SlowAdapter()
    records, states = records or DictStore(), states or DictStore()
    engine = LocalEngine(backbone, max_batch=8, max_waiting=64, threads=1)
    engine.start()

    def build(name: str, options: Mapping[str, InfoValue]) -> Adapter:
        return create_adapter(name, backbone, options) if name == "zero-shot" else slow

    held = States(
        engine, states, hot=HotStates(1 << 20), metrics=metrics, max_adaptations=max_adaptations,
        failures=Failures(first=0.05),
    )  # fmt: skip
    shelves = SupportShelves(records, SupportLimits(4, 16, 1 << 20, 100))
    planner = Planner(backbone, build, default_adapter="auto", load_support=no_support)
    sets = LabelSets(
        RecordBook(records), held, backbone=backbone, planner=planner, shelves=shelves,
        limits=LabelLimits(100, 64, 4, 4),
    )  # fmt: skip
    try:
        yield Rig(sets, metrics, slow, records, states)
    finally:
        slow.go.set()
        await held.close()
        await engine.stop()


async def no_support(label_set: str, digest: str, labels: LabelSet) -> Support:
    raise AssertionError("nothing here learns from images")


async def test_while_adapting_zero_shot_answers_then_the_adapted_state(tiny_backbone: Backbone) -> None:
    async with rig_on(tiny_backbone) as rig:
        plan = rig.sets.plan((await rig.sets.upload(ANIMALS))[0])
        first = await rig.sets.serve(plan)
        assert (first.adapted, first.adapter.name) == (False, "zero-shot")
        assert first.status in {"queued", "adapting"}
        rig.slow.go.set()
        later = await rig.sets.serve(plan, wait=5)
        assert (later.adapted, later.status, later.adapter.name) == (True, "ready", "self-tpt")


async def test_64_first_requests_cause_one_adaptation(tiny_backbone: Backbone) -> None:
    async with rig_on(tiny_backbone) as rig:
        plans = [await rig.sets.inline(["cat", "dog"]) for _ in range(64)]
        answers = await asyncio.gather(*(rig.sets.serve(plan) for plan in plans))
        assert {answer.adapted for answer in answers} == {False}
        rig.slow.go.set()
        assert (await rig.sets.serve(plans[0], wait=5)).adapted
        assert rig.slow.begun == 1
        assert rig.value("selftpt_adaptations_total", adapter="self-tpt", outcome="ready") == 1
        assert rig.value("selftpt_zero_shot_states_total", outcome="ready") == 1


async def test_a_waiter_that_gives_up_takes_nothing_from_the_others(tiny_backbone: Backbone) -> None:
    async with rig_on(tiny_backbone) as rig:
        plan = await rig.sets.inline(["cat", "dog"])
        first, second = (asyncio.ensure_future(rig.sets.serve(plan, wait=5)) for _ in range(2))
        await soon(lambda: rig.slow.begun > 0)
        first.cancel()
        rig.slow.go.set()
        assert (await second).adapted
        assert rig.slow.begun == 1


async def test_after_a_restart_nothing_is_computed(tiny_backbone: Backbone) -> None:
    records, states = DictStore(), DictStore()
    async with rig_on(tiny_backbone, records, states) as rig:
        rig.slow.go.set()
        record, _ = await rig.sets.upload(ANIMALS, name="animals")
        before = (await rig.sets.serve(rig.sets.plan(record), wait=5)).state
    prompts = tiny_backbone.text.prompts_encoded
    async with rig_on(tiny_backbone, records, states) as rig:
        assert await rig.sets.resume() == 0
        after = await rig.sets.serve(rig.sets.plan(await rig.sets.find("animals")))
        assert after.adapted
        assert bool((after.state.weights == before.weights).all())
        assert rig.slow.begun == 0
    assert tiny_backbone.text.prompts_encoded == prompts


async def test_a_record_without_a_state_is_adapted_after_a_restart(tiny_backbone: Backbone) -> None:
    records = DictStore()
    async with rig_on(tiny_backbone, records) as rig:
        await rig.sets.upload(ANIMALS)
    async with rig_on(tiny_backbone, records) as rig:
        rig.slow.go.set()
        assert await rig.sets.resume() == 1
        assert rig.slow.begun == 1


async def test_a_damaged_state_is_computed_again_and_counted(tiny_backbone: Backbone) -> None:
    states = DictStore()
    async with rig_on(tiny_backbone, states=states) as rig:
        rig.slow.go.set()
        await rig.sets.serve(await rig.sets.inline(["cat", "dog"]), wait=5)
    states.content = {key: value[:-7] for key, value in states.content.items()}
    async with rig_on(tiny_backbone, states=states) as rig:
        rig.slow.go.set()
        assert (await rig.sets.serve(await rig.sets.inline(["cat", "dog"]), wait=5)).adapted
        assert rig.slow.begun == 1
        assert rig.value("selftpt_state_lookups_total", tier="store", result="corrupt") >= 1


async def test_a_broken_state_store_costs_work_but_no_answers(tiny_backbone: Backbone) -> None:
    async with rig_on(tiny_backbone, states=DictStore(broken=True)) as rig:
        rig.slow.go.set()
        assert (await rig.sets.serve(await rig.sets.inline(["cat", "dog"]), wait=5)).adapted


async def test_a_broken_record_store_refuses_the_upload(tiny_backbone: Backbone) -> None:
    async with rig_on(tiny_backbone, DictStore(broken=True)) as rig:
        with pytest.raises(StoreError):
            await rig.sets.upload(ANIMALS)
        assert rig.slow.begun == 0


async def test_a_failed_adaptation_is_told_kept_and_tried_again_later(tiny_backbone: Backbone) -> None:
    async with rig_on(tiny_backbone) as rig:
        rig.slow.fail = True
        rig.slow.go.set()
        record, _ = await rig.sets.upload(ANIMALS)
        served = await rig.sets.serve(rig.sets.plan(record), wait=5)
        assert (served.adapted, served.status) == (False, "failed")
        assert (await rig.sets.snapshot(record)).error == "the loss became nan"
        assert rig.slow.begun == 1
        rig.slow.fail = False
        await asyncio.sleep(0.1)
        assert (await rig.sets.serve(rig.sets.plan(record), wait=5)).adapted


async def test_deleting_cancels_a_running_adaptation(tiny_backbone: Backbone) -> None:
    async with rig_on(tiny_backbone) as rig:
        record, _ = await rig.sets.upload(ANIMALS, name="animals")
        await soon(lambda: rig.slow.begun > 0)
        await rig.sets.remove("animals")
        assert rig.value("selftpt_adaptations_total", adapter="self-tpt", outcome="cancelled") == 1
        with pytest.raises(NotFound):
            await rig.sets.find(record.id)
        assert rig.records.content == {}


async def test_the_same_content_is_one_record_and_a_name_can_move(tiny_backbone: Backbone) -> None:
    async with rig_on(tiny_backbone) as rig:
        first, new = await rig.sets.upload(ANIMALS, name="pets")
        again, new_again = await rig.sets.upload([ClassName.of(" cat "), *ANIMALS[1:]])
        assert (first.id, new, new_again, again.name) == (again.id, True, False, "pets")
        other, _ = await rig.sets.upload(ANIMALS[:2], name="pets")
        assert (await rig.sets.find("pets")).id == other.id
        assert (await rig.sets.find(first.id)).name is None


async def test_another_method_makes_another_label_set(tiny_backbone: Backbone) -> None:
    async with rig_on(tiny_backbone) as rig:
        one, _ = await rig.sets.upload(ANIMALS)
        other, _ = await rig.sets.upload(ANIMALS, adapter="zero-shot")
        assert one.id != other.id
        served = await rig.sets.serve(rig.sets.plan(other))
        assert (served.adapted, served.status) == (False, "ready")


async def test_records_stay_readable_while_their_store_is_down(tiny_backbone: Backbone) -> None:
    async with rig_on(tiny_backbone) as rig:
        record, _ = await rig.sets.upload(ANIMALS)
        await rig.sets.find(record.id)
        rig.sets.records._fresh = 0.0
        rig.records.broken = True
        assert (await rig.sets.find(record.id)).id == record.id


async def test_too_many_adaptations_refuse_uploads_before_storing(tiny_backbone: Backbone) -> None:
    async with rig_on(tiny_backbone, max_adaptations=1) as rig:
        await rig.sets.upload(ANIMALS)
        await soon(lambda: rig.slow.begun > 0)
        with pytest.raises(Overloaded):
            await rig.sets.upload(ANIMALS[:2])
        assert len([key for key in rig.records.content if key.startswith("record:")]) == 1
        served = await rig.sets.serve(await rig.sets.inline(["a", "b"]))
        assert (served.adapted, served.status) == (False, "queued")


async def test_label_sets_are_refused_before_they_are_stored(tiny_backbone: Backbone) -> None:
    async with rig_on(tiny_backbone) as rig:
        with pytest.raises(Unprocessable) as twice:
            await rig.sets.upload([*ANIMALS, ClassName.of("CAT")])
        assert twice.value.extensions["field"] == "classes[3].name"
        with pytest.raises(LimitExceeded, match="max_classes is 100, 101 given"):
            await rig.sets.inline([str(n) for n in range(101)])
        with pytest.raises(Unprocessable) as long:
            await rig.sets.upload([*ANIMALS, ClassName.of("x y " * 14)])
        assert long.value.extensions["field"] == "classes[3].name"
        assert rig.records.content == {}


async def test_progress_is_seen_by_watchers(tiny_backbone: Backbone) -> None:
    async with rig_on(tiny_backbone) as rig:
        record, _ = await rig.sets.upload(ANIMALS)
        flight = rig.sets.flight(record)
        seen = [flight.snapshot]
        while not flight.final:
            assert await flight.changed(seen[-1], 5)
            seen.append(flight.snapshot)
            if flight.snapshot.progress > 0.3:
                rig.slow.go.set()
    assert [one.status for one in (seen[0], seen[1], seen[-1])] == ["queued", "adapting", "ready"]
    assert [one.progress for one in seen] == sorted(one.progress for one in seen)
