"""Traces as a collector gets them: protobuf over a real socket, from the exporter that is used in earnest."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from adapters.clip import Backbone
from tests.service.served import Served, photo, served

PNG = {"Content-Type": "image/png"}
STAGES = {"receive", "resolve", "decode", "queue", "batch", "forward", "head", "answer", "encode"}


@dataclass
class Collector:
    """What came, in the order in which it came."""

    url: str = ""
    received: list[ExportTraceServiceRequest] = field(default_factory=list)
    kinds: set[tuple[str, str]] = field(default_factory=set)

    @property
    def spans(self) -> list[Span]:
        return [span for one in self.received for whole in one.resource_spans for part in whole.scope_spans
                for span in part.spans]  # fmt: skip

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def within(self, span: Span) -> list[Span]:
        return [one for one in self.spans if one.parent_span_id == span.span_id]


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            found.kinds.add((self.path, self.headers["Content-Type"]))
            found.received.append(ExportTraceServiceRequest.FromString(data))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def linked(span: Span) -> set[tuple[bytes, bytes]]:
    return {(link.trace_id, link.span_id) for link in span.links}


def place(span: Span) -> tuple[bytes, bytes]:
    return span.trace_id, span.span_id


async def worked(site: Served) -> None:
    """A label set that is adapted and then classified with, and an error."""
    site.slow.go.set()
    made = await site.http.post("/v1/label-sets", json={"classes": ["a", "b"]}, headers={"Prefer": "wait=5"})
    await site.http.post(f"/v1/classify?label_set={made.json()['id']}", content=photo(), headers=PNG)
    await site.runtime.core.engine.stop()
    failed = await site.http.post("/v1/classify?labels=a,b", content=photo(colour="red"), headers=PNG)
    assert failed.status_code >= 500


async def test_what_a_collector_receives_ties_request_batch_and_adaptation_together(
    tiny_backbone: Backbone, collector: Collector
) -> None:
    async with served(tiny_backbone, traces_endpoint=collector.url) as site:
        await worked(site)
    assert collector.kinds == {("/v1/traces", "application/x-protobuf")}
    about = {one.key: one.value.string_value for one in collector.received[0].resource_spans[0].resource.attributes}
    assert about["service.name"] == "selftpt"
    request, failed = collector.named("POST /v1/classify")
    (upload,) = collector.named("POST /v1/label-sets")
    (batch,) = collector.named("device batch")
    adaptation = next(one for one in collector.named("adaptation") if place(upload) in linked(one))
    assert {place(batch), place(adaptation)} <= linked(request)
    assert linked(batch) == {place(request)}
    assert len({one.trace_id for one in (request, batch, adaptation)}) == 3
    assert (request.kind, failed.status.code) == (Span.SPAN_KIND_SERVER, Status.STATUS_CODE_ERROR)


async def test_the_stages_of_a_request_and_of_its_batch_arrive_as_their_spans(
    tiny_backbone: Backbone, collector: Collector
) -> None:
    async with served(tiny_backbone, traces_endpoint=collector.url) as site:
        await worked(site)
    request = collector.named("POST /v1/classify")[0]
    stages = collector.within(request)
    assert {one.name for one in stages} == STAGES
    slack = 1_000_000  # ns: stages are measured by another clock than spans
    assert all(one.start_time_unix_nano <= one.end_time_unix_nano for one in stages)
    assert all(one.start_time_unix_nano >= request.start_time_unix_nano - slack for one in stages)
    assert all(one.end_time_unix_nano <= request.end_time_unix_nano + slack for one in stages)
    (batch,) = collector.named("device batch")
    assert [one.name for one in collector.within(batch)] == ["batch", "forward", "head"]


async def test_a_collector_that_is_away_costs_no_answer(tiny_backbone: Backbone, collector: Collector) -> None:
    gone = collector.url.replace("/v1/traces", "/elsewhere").replace("127.0.0.1", "127.0.0.2")
    async with served(tiny_backbone, traces_endpoint=gone, adapter="zero-shot") as site:
        answer = await site.http.post("/v1/classify?labels=a,b", content=photo(), headers=PNG)
    assert (answer.status_code, collector.received) == (200, [])
