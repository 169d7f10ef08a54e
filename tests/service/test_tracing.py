"""Traces, as the SDK's own in-memory exporter received them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from adapters.clip import Backbone
from service.runtime import open_tracing
from service.settings import Settings
from service.telemetry.logging import JsonFormatter
from service.telemetry.otel import OtelTracing, provider
from service.telemetry.tracing import Untraced
from tests.service.served import photo, served

ASKED = "/v1/classify?labels=a,b&adapter=zero-shot"
PNG = {"Content-Type": "image/png"}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def tracing_to(spans: InMemorySpanExporter, sample: float = 1.0) -> OtelTracing:
    made = provider(InMemorySpanExporter(), sample=sample)
    made.add_span_processor(SimpleSpanProcessor(spans))
    return OtelTracing(made)


@pytest.fixture
def tracing(spans: InMemorySpanExporter) -> Iterator[OtelTracing]:
    made = tracing_to(spans)
    yield made
    made.close()


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


def trace_of(span: ReadableSpan) -> str:
    return f"{span.context.trace_id:032x}"


async def test_a_request_joins_its_callers_trace_and_says_so(
    tiny_backbone: Backbone, spans: InMemorySpanExporter, tracing: OtelTracing
) -> None:
    async with served(tiny_backbone, tracing=tracing) as site:
        answer = await site.http.post(ASKED, content=photo(), headers={**PNG, **CALLER})
    (request,) = named(spans, "POST /v1/classify")
    assert (trace_of(request), request.kind) == (TRACE, SpanKind.SERVER)
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == PARENT
    assert answer.headers["traceparent"] == f"00-{TRACE}-{request.context.span_id:016x}-01"
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 200


async def test_every_stage_is_a_span_within_its_request_in_order(
    tiny_backbone: Backbone, spans: InMemorySpanExporter, tracing: OtelTracing
) -> None:
    async with served(tiny_backbone, tracing=tracing) as site:
        await site.http.post(ASKED, content=photo(), headers=PNG)
    (request,) = named(spans, "POST /v1/classify")
    stages = ["receive", "resolve", "decode", "queue", "batch", "forward", "head", "answer", "encode"]
    children = [
        span for span in spans.get_finished_spans() if span.parent and span.parent.span_id == request.context.span_id
    ]
    begun = {span.name: span.start_time or 0 for span in children}
    assert sorted(begun) == sorted(stages)
    assert [begun[stage] for stage in stages] == sorted(begun.values())
    assert request.start_time is not None
    assert all(begin >= request.start_time - 1_000_000 for begin in begun.values())


async def test_request_and_batch_are_linked_both_ways(
    tiny_backbone: Backbone, spans: InMemorySpanExporter, tracing: OtelTracing
) -> None:
    async with served(tiny_backbone, tracing=tracing) as site:
        await site.http.post(ASKED, content=photo(), headers=PNG)
    (request,), (shared,) = named(spans, "POST /v1/classify"), named(spans, "device batch")
    assert [link.context.span_id for link in shared.links] == [request.context.span_id]
    assert shared.context.span_id in {link.context.span_id for link in request.links}
    assert trace_of(shared) != trace_of(request)


async def test_a_request_is_linked_to_the_adaptation_that_made_its_class_weights(
    tiny_backbone: Backbone, spans: InMemorySpanExporter, tracing: OtelTracing
) -> None:
    async with served(tiny_backbone, tracing=tracing) as site:
        site.slow.go.set()
        made = await site.http.post("/v1/label-sets", json={"classes": ["a", "b"]}, headers={"Prefer": "wait=5"})
        for _ in range(2):
            await site.http.post(f"/v1/classify?label_set={made.json()['id']}", content=photo(), headers=PNG)
    (adaptation,) = [span for span in named(spans, "adaptation") if (span.attributes or {})["adapter"] == "self-tpt"]
    (upload,) = named(spans, "POST /v1/label-sets")
    assert [link.context.span_id for link in adaptation.links] == [upload.context.span_id]
    for request in named(spans, "POST /v1/classify"):
        assert adaptation.context.span_id in {link.context.span_id for link in request.links}


async def test_what_is_not_sampled_makes_no_spans_but_a_callers_decision_stands(
    tiny_backbone: Backbone, spans: InMemorySpanExporter
) -> None:
    async with served(tiny_backbone, tracing=tracing_to(spans, sample=0.0)) as site:
        await site.http.post(ASKED, content=photo(), headers=PNG)
        assert spans.get_finished_spans() == ()
        await site.http.post(ASKED, content=photo(), headers={**PNG, **CALLER})
    assert len(named(spans, "POST /v1/classify")) == 1
    assert {span.name for span in spans.get_finished_spans()} >= {"device batch", "forward"}


async def test_an_error_of_ours_marks_the_span(
    tiny_backbone: Backbone, spans: InMemorySpanExporter, tracing: OtelTracing
) -> None:
    async with served(tiny_backbone, tracing=tracing) as site:
        await site.runtime.core.engine.stop()
        await site.http.post("/v1/classify?labels=a,b", content=photo(), headers=PNG)
    (request,) = named(spans, "POST /v1/classify")
    assert not request.status.is_ok


async def test_logs_carry_request_and_trace_also_where_nothing_is_traced(
    tiny_backbone: Backbone, caplog: pytest.LogCaptureFixture
) -> None:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(JsonFormatter().format(record))  # type: ignore[method-assign]  # a sink
    log = logging.getLogger("selftpt.access")
    log.addHandler(handler)
    try:
        with caplog.at_level(logging.INFO, "selftpt.access"):
            async with served(tiny_backbone) as site:
                answer = await site.http.get("/v1/models", headers={**CALLER, "X-Request-Id": "r-1"})
    finally:
        log.removeHandler(handler)
    line = json.loads(lines[0])
    assert (line["request_id"], line["trace_id"]) == ("r-1", TRACE)
    assert "traceparent" not in answer.headers


def test_without_an_endpoint_nothing_is_traced_and_nothing_is_called_per_stage(tiny_backbone: Backbone) -> None:
    assert isinstance(open_tracing(Settings()), Untraced)
    assert Untraced().begin("GET", "nonsense").trace_id is None


def test_an_endpoint_must_be_an_address() -> None:
    with pytest.raises(ValueError, match="http://localhost:4318/v1/traces"):
        Settings(traces_endpoint="localhost:4318")
