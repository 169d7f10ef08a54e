"""What outlives the process. One data directory, three processes: the first ends by SIGTERM amid requests, the second
by kill -9 amid uploads, the third finds what they left."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from benchmarks.durability import Uploader, missing
from benchmarks.process import ServiceProcess
from tests.e2e.calls import LABELS, PHOTOS, Ranking, classify, photo, ranking, upload, wait_until

pytestmark = pytest.mark.slow

CALLERS = 6


@dataclass
class First:
    """A label set adapted and used; then SIGTERM while many-image requests are being worked on."""

    label_set: str
    rankings: list[Ranking]
    statuses: list[int]
    exit_code: int


@dataclass
class Second:
    """The same photos again; then kill -9 while label sets are uploaded."""

    rankings: list[Ranking]
    adapted: bool
    prompts_encoded: float
    adaptations: float
    uploader: Uploader


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("data")
    return folder


@pytest.fixture(scope="module")
def first(data_dir: Path) -> First:
    with ServiceProcess(data_dir, {"threads": "1"}) as service, ThreadPoolExecutor(CALLERS) as pool:
        service.wait_ready()
        label_set = upload(service, LABELS, name="things")["id"]
        rankings = [ranking(classify(service, label_set, image)) for image in PHOTOS]
        answers = [pool.submit(classify_many, service, label_set, 8) for _ in range(CALLERS)]
        # The request for the metric counts, too.
        wait_until(lambda: service.metric("selftpt_in_flight_requests") > CALLERS or any(map(Future.done, answers)))
        service.terminate()
        statuses = [answer.result().status_code for answer in answers]
        return First(label_set, rankings, statuses, service.wait())


@pytest.fixture(scope="module")
def second(data_dir: Path, first: First) -> Second:
    with ServiceProcess(data_dir, {"threads": "1"}) as service:
        service.wait_ready()
        prompts = service.metric("selftpt_text_forwards_total")
        answers = [classify(service, "things", image) for image in PHOTOS]
        prompts = service.metric("selftpt_text_forwards_total") - prompts
        adaptations = service.metric("selftpt_adaptations_total")
        uploader = Uploader(service.url, salt=0)
        with uploader.run(connections=4):
            wait_until(lambda: len(uploader.acknowledged) >= 40)
            service.kill()
    adapted = all(answer["adapted"] for answer in answers)
    return Second([ranking(answer) for answer in answers], adapted, prompts, adaptations, uploader)


@pytest.fixture(scope="module")
def third(data_dir: Path, second: Second) -> Iterator[ServiceProcess]:
    with ServiceProcess(data_dir, {"threads": "1"}) as service:
        service.wait_ready()
        yield service


def test_sigterm_answers_the_requests_in_flight(first: First) -> None:
    assert first.statuses == [200] * CALLERS
    assert first.exit_code == 0


def test_after_a_restart_the_same_answers_come_without_any_text_pass(first: First, second: Second) -> None:
    assert second.rankings == first.rankings
    assert second.adapted
    assert (second.prompts_encoded, second.adaptations) == (0, 0)


def test_every_acknowledged_label_set_survives_kill_9(second: Second, third: ServiceProcess) -> None:
    assert missing(third, second.uploader.acknowledged) == []
    last = list(second.uploader.acknowledged)[-1]
    assert classify(third, last)["label_set"] == last


def test_kill_9_leaves_adapted_label_sets_as_they_were(first: First, third: ServiceProcess) -> None:
    answer = classify(third, first.label_set)
    assert answer["adapted"]
    assert ranking(answer) == first.rankings[0]


def classify_many(service: ServiceProcess, label_set: str, count: int) -> httpx.Response:
    files = [("images", (f"{number}.jpg", photo("coffee"), "image/jpeg")) for number in range(count)]
    return service.client.post("/v1/classify", data={"label_set": label_set}, files=files)
