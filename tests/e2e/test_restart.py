"""What outlives the process: an orderly restart, a kill -9 amid uploads, and a SIGTERM amid requests."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import httpx

from benchmarks.durability import Uploader, missing
from benchmarks.process import ServiceProcess
from tests.e2e.calls import LABELS, PHOTOS, Launch, classify, photo, ranking, upload, wait_until


def test_after_a_restart_the_same_answers_come_without_any_text_pass(launch: Launch) -> None:
    first = launch()
    first.wait_ready()
    label_set = upload(first, LABELS, name="things")["id"]
    before = [classify(first, label_set, image) for image in PHOTOS]
    first.terminate()
    assert first.wait() == 0
    second = launch()
    second.wait_ready()
    prompts = second.metric("selftpt_text_forwards_total")
    after = [classify(second, "things", image) for image in PHOTOS]
    assert [ranking(answer) for answer in after] == [ranking(answer) for answer in before]
    assert all(answer["adapted"] for answer in before + after)
    assert second.metric("selftpt_text_forwards_total") == prompts
    assert second.metric("selftpt_adaptations_total") == 0


def test_every_acknowledged_label_set_survives_kill_9(launch: Launch) -> None:
    first = launch()
    first.wait_ready()
    ready = upload(first, LABELS)["id"]
    before = ranking(classify(first, ready))
    uploader = Uploader(first.url, salt=0)
    with uploader.run(connections=4):
        wait_until(lambda: len(uploader.acknowledged) >= 40)
        first.kill()
    second = launch()
    second.wait_ready()
    assert missing(second, uploader.acknowledged) == []
    assert ranking(classify(second, ready)) == before
    last = list(uploader.acknowledged)[-1]
    assert classify(second, last)["label_set"] == last


def test_sigterm_answers_the_requests_in_flight(launch: Launch) -> None:
    service = launch()
    service.wait_ready()
    label_set = upload(service, LABELS)["id"]
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(classify_many, service, label_set, 32) for _ in range(6)]
        wait_until(lambda: service.metric("selftpt_in_flight_requests") >= 6 or any(map(Future.done, answers)))
        service.terminate()
        statuses = [answer.result().status_code for answer in answers]
    assert service.wait() == 0
    assert statuses == [200] * 6


def classify_many(service: ServiceProcess, label_set: str, count: int) -> httpx.Response:
    files = [("images", (f"{number}.jpg", photo("coffee"), "image/jpeg")) for number in range(count)]
    return service.client.post("/v1/classify", data={"label_set": label_set}, files=files)
