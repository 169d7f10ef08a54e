"""What cannot be done in time is refused at once, by how much is under way and how fast that gets done."""

from __future__ import annotations

from contextlib import ExitStack, suppress

import pytest

from service.compute.backlog import Backlog, Pace
from service.compute.work_queue import Asker
from service.errors import Overloaded


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def asker(self, seconds: float, client: str = "one") -> Asker:
        return Asker(client, self.now + seconds)


def worked(clock: Clock, *, images: int, seconds: float) -> Backlog:
    """A backlog that has done so many images, one after the other, in so many seconds."""
    backlog = Backlog(clock)
    for _ in range(images):
        with backlog.claim(1, "one"):
            clock.now += seconds / images
    return backlog


def refused(backlog: Backlog, count: int, asker: Asker) -> bool:
    try:
        backlog.check(count, asker)
    except Overloaded as error:
        return error.reason == "deadline"
    return False


def test_who_would_wait_longer_than_half_the_time_there_is_gets_refused() -> None:
    clock = Clock()
    backlog = worked(clock, images=400, seconds=4.0)
    with backlog.claim(99, "one"):
        assert not refused(backlog, 1, clock.asker(2.1))
        assert refused(backlog, 1, clock.asker(1.9))
        assert refused(backlog, 50, clock.asker(2.1))


def test_the_refusal_says_when_there_will_be_room() -> None:
    clock = Clock()
    backlog = worked(clock, images=40, seconds=4.0)
    with backlog.claim(99, "one"), pytest.raises(Overloaded) as caught:
        backlog.check(1, clock.asker(2.0))
    assert caught.value.headers["Retry-After"] == "9"


def test_with_nothing_ahead_nobody_is_refused_however_slow_it_was() -> None:
    clock = Clock()
    backlog = worked(clock, images=2, seconds=60.0)
    assert not refused(backlog, 64, clock.asker(0.1))


def test_nothing_is_refused_while_nothing_is_known_and_a_guess_counts_until_there_is_real_work() -> None:
    clock = Clock()
    backlog = Backlog(clock)
    with backlog.claim(1000, "one"):
        assert not refused(backlog, 1, clock.asker(1.0))
    backlog = Backlog(clock)
    backlog.pace.guess(0.1)
    with backlog.claim(10, "one"):
        assert refused(backlog, 1, clock.asker(2.0))
        assert not refused(backlog, 1, clock.asker(3.0))


def test_a_first_crowd_of_which_nothing_is_done_yet_is_no_standstill() -> None:
    clock = Clock()
    backlog = Backlog(clock)
    backlog.pace.guess(0.1)
    with ExitStack() as held:
        for _ in range(128):
            assert not refused(backlog, 1, clock.asker(120.0))
            held.enter_context(backlog.claim(1, "one"))
            clock.now += 0.01
        clock.now += 30.0
        assert refused(backlog, 1, clock.asker(120.0))


def test_idle_time_says_nothing_about_the_pace() -> None:
    clock = Clock()
    backlog = worked(clock, images=400, seconds=4.0)
    before = backlog.pace.per_second(backlog.busy)
    clock.now += 3600
    assert backlog.pace.per_second(backlog.busy) == before == pytest.approx(100, rel=0.05)


def test_the_pace_is_that_of_late_and_a_device_that_stands_still_has_none() -> None:
    clock = Clock()
    backlog = worked(clock, images=400, seconds=4.0)
    for _ in range(40):
        with backlog.claim(1, "one"):
            clock.now += 0.1
    assert backlog.pace.per_second(backlog.busy) == pytest.approx(10, rel=0.1)
    with backlog.claim(1, "one"):
        clock.now += 60
        assert (backlog.pace.per_second(backlog.busy) or 0) < 1


def test_slow_work_is_judged_by_many_images_not_by_the_last_seconds() -> None:
    pace = Pace()
    for number in range(1, 41):
        pace.did(1, 5.0 * number)
    assert pace.per_second(200.0) == pytest.approx(0.2)
    assert pace.per_second(204.9) == pytest.approx(0.2, rel=0.05)


def test_what_was_given_up_took_time_and_was_not_done() -> None:
    clock = Clock()
    backlog = worked(clock, images=100, seconds=1.0)
    with suppress(TimeoutError), backlog.claim(50, "one"):
        clock.now += 4.0
        raise TimeoutError
    assert backlog.images == 0
    assert backlog.pace.per_second(backlog.busy) == pytest.approx(20)


def test_a_client_that_floods_is_refused_and_its_neighbour_is_not() -> None:
    clock = Clock()
    backlog = worked(clock, images=400, seconds=4.0)
    with ExitStack() as held:
        for _ in range(150):
            held.enter_context(backlog.claim(1, "noisy"))
        assert refused(backlog, 1, clock.asker(2.0, "noisy"))
        assert not refused(backlog, 1, clock.asker(2.0, "quiet"))
