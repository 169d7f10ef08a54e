"""The model against what theory knows, so that its figures can be believed."""

from __future__ import annotations

import pytest

from benchmarks.queueing import Costs, Plant, Simulation, bottleneck, ceilings

ONE = Plant(front_ends=1, decoders=1, workers=1, max_batch=1)


def only_device(each: float, fixed: float = 0.0) -> Costs:
    return Costs(parse=0.0, decode=0.0, answer=0.0, hand_over=0.0, device_fixed=fixed, device_each=each)


def test_one_server_waits_as_the_formula_for_constant_service_says() -> None:
    # M/D/1 at 80 %: mean time in the system = s + rho s / (2 (1 - rho)) = 3 s
    outcome = Simulation(ONE, only_device(0.001)).open_loop(800, 60)
    mean = sum(outcome.latencies) / len(outcome.latencies)
    assert mean == pytest.approx(0.003, rel=0.1)
    assert outcome.busy["device"] == pytest.approx(0.8, abs=0.02)


def test_a_closed_loop_is_as_fast_as_its_slowest_part() -> None:
    costs = Costs(parse=0.001, decode=0.004, answer=0.001, hand_over=0.0, device_fixed=0.0, device_each=0.001)
    plant = Plant(front_ends=1, decoders=2, workers=1, max_batch=8)
    assert bottleneck(plant, costs)[1] == pytest.approx(500)
    assert Simulation(plant, costs).closed_loop(64, 5).rate == pytest.approx(500, rel=0.03)


def test_batches_form_by_themselves_when_the_device_is_busy() -> None:
    plant = Plant(front_ends=1, decoders=1, workers=1, max_batch=32)
    outcome = Simulation(plant, only_device(0.0001, fixed=0.004)).closed_loop(32, 5)
    assert outcome.mean_batch > 15
    quiet = Simulation(plant, only_device(0.0001, fixed=0.004)).closed_loop(1, 5)
    assert quiet.mean_batch == 1
    assert quiet.quantile(0.5) == pytest.approx(0.0041, rel=0.01)


def test_shared_cores_bound_the_sum_of_all_work() -> None:
    costs = Costs(parse=0.001, decode=0.002, answer=0.001, hand_over=0.0, device_fixed=0.0, device_each=0.004)
    alone = Simulation(Plant(1, 4, 1, 8, cores=1), costs).closed_loop(16, 10)
    assert alone.rate == pytest.approx(1 / 0.008, rel=0.03)


def test_twice_of_everything_is_twice_as_much() -> None:
    costs = Costs(0.001, 0.002, 0.001, 0.0001, 0.001, 0.0005, store=0.0002, store_share=0.01)
    small, large = Plant(2, 2, 1, 32), Plant(4, 4, 2, 32)
    assert ceilings(large, costs)["device"] == 2 * ceilings(small, costs)["device"]
    assert ceilings(large, costs)["store"] == ceilings(small, costs)["store"], "there is one store"
