"""Tracing with OpenTelemetry. Imported only where tracing is on; needs the `otel` extra."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Token
from dataclasses import dataclass

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

from service.telemetry.tracing import BatchTiming, RequestTrace

ADAPTATIONS_KEPT = 1024
CLOSE_SECONDS = 3.0
SCOPE = "selftpt"

_propagator = TraceContextTextMapPropagator()


def otlp_tracing(endpoint: str, *, sample: float, version: str) -> OtelTracing:
    """Spans go to `endpoint` in OTLP over HTTP, in batches from a thread of the exporter's own. `sample` is the part
    of the traces kept that begin here; a caller's own decision goes before it."""
    # The exporter brings an HTTP client of its own: a second to import that tests and other exporters do without.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    return OtelTracing(provider(OTLPSpanExporter(endpoint=endpoint), sample=sample, version=version))


def provider(exporter: SpanExporter, *, sample: float = 1.0, version: str = "0") -> TracerProvider:
    made = TracerProvider(
        sampler=WithWhatItLinks(ParentBased(TraceIdRatioBased(sample))),
        resource=Resource.create({"service.name": SCOPE, "service.version": version}),
        shutdown_on_exit=False,
    )
    made.add_span_processor(BatchSpanProcessor(exporter))
    return made


class WithWhatItLinks(Sampler):
    """Keeps a batch or an adaptation whenever a request that it is linked to is kept."""

    def __init__(self, otherwise: Sampler) -> None:
        self._otherwise = otherwise

    def should_sample(  # noqa: PLR0917  # the signature is OpenTelemetry's
        self,
        parent_context: contexts.Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        kept = any(link.context.trace_flags.sampled for link in links or ())
        chosen = ALWAYS_ON if kept else self._otherwise
        return chosen.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        return f"WithWhatItLinks({self._otherwise.get_description()})"


@dataclass(slots=True, eq=False)
class Traced:
    span: Span
    method: str
    trace_id: str
    answer: str
    token: Token[contexts.Context]

    def end(self, route: str, status: int, caller: Mapping[str, str]) -> None:
        contexts.detach(self.token)
        self.span.update_name(f"{self.method} {route}")
        self.span.set_attributes({"http.route": route, "http.response.status_code": status})
        self.span.set_attributes({f"{SCOPE}.{name}": value for name, value in caller.items()})
        if status >= 500:
            self.span.set_status(Status(StatusCode.ERROR))
        self.span.end()


class OtelTracing:
    def __init__(self, spans: TracerProvider) -> None:
        self._spans = spans
        self._tracer = spans.get_tracer(SCOPE)
        self._adaptations: OrderedDict[str, SpanContext] = OrderedDict()

    def begin(self, method: str, traceparent: str, tracestate: str = "") -> RequestTrace:
        parent = _propagator.extract({"traceparent": traceparent, "tracestate": tracestate}, context=contexts.Context())
        span = self._tracer.start_span(method, parent, kind=SpanKind.SERVER, attributes={"http.request.method": method})
        current = trace.set_span_in_context(span)
        sent: dict[str, str] = {}
        _propagator.inject(sent, current)
        trace_id = trace.format_trace_id(span.get_span_context().trace_id)
        return Traced(span, method, trace_id, sent.get("traceparent", ""), contexts.attach(current))

    def here(self) -> object:
        found = trace.get_current_span().get_span_context()
        return found if found.is_valid and found.trace_flags.sampled else None

    def stage(self, name: str, seconds: float, ended: float) -> None:
        if trace.get_current_span().is_recording() and name != "total":
            end = _wall(ended)
            self._tracer.start_span(name, start_time=end - round(1e9 * seconds)).end(end)

    def batch(self, timing: BatchTiming, callers: Sequence[object]) -> object:
        links = [Link(one) for one in {one.span_id: one for one in callers if isinstance(one, SpanContext)}.values()]
        if not links:
            return None  # nobody in it is traced
        begin = _wall(timing.began)
        root = contexts.Context()
        span = self._tracer.start_span(
            "device batch", root, links=links, start_time=begin, attributes={"size": timing.size}
        )
        inside = trace.set_span_in_context(span, root)
        for name in ("batch", "forward", "head"):
            end = begin + round(1e9 * getattr(timing, name))
            self._tracer.start_span(name, inside, start_time=begin).end(end)
            begin = end
        span.end(begin)
        return span.get_span_context()

    def joined(self, batch: object) -> None:
        if isinstance(batch, SpanContext):
            trace.get_current_span().add_link(batch, {"kind": "batch"})

    @contextmanager
    def adaptation(self, key: str, adapter: str, classes: int) -> Iterator[object]:
        cause = self.here()
        links = [Link(cause)] if isinstance(cause, SpanContext) else []
        attributes: dict[str, str | int] = {"adapter": adapter, "classes": classes}
        span = self._tracer.start_span("adaptation", contexts.Context(), links=links, attributes=attributes)
        with trace.use_span(span, end_on_exit=True):
            yield span
        self._adaptations[key] = span.get_span_context()
        while len(self._adaptations) > ADAPTATIONS_KEPT:
            self._adaptations.popitem(last=False)

    def served(self, key: str) -> None:
        made = self._adaptations.get(key)
        if made is not None:
            trace.get_current_span().add_link(made, {"kind": "adaptation"})

    def close(self) -> None:
        # The SDK's own limits of time are not kept everywhere: an exporter without its collector tries for 10 s.
        closing = threading.Thread(target=self._spans.shutdown, name="tracing-close", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


def _wall(moment: float) -> int:
    """A `time.perf_counter()` as nanoseconds since 1970."""
    return time.time_ns() - round(1e9 * (time.perf_counter() - moment))
