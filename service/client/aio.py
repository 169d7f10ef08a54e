"""The asynchronous client: as the synchronous one, awaited. Use it as a context manager, or close it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType

import httpx
from typing_extensions import Self

from service.client import calls
from service.client.calls import Call, ImageInput
from service.schemas import (
    ClassEntry,
    ClassifyAnswer,
    EvaluationAnswer,
    LabelSetAnswer,
    LabelSetPage,
    LabelSetSummary,
    OptionValue,
    ScoreKind,
    SupportAnswer,
    SupportClass,
)


class AsyncClient:
    """Refused or unavailable (429, 503) and unreachable are tried again up to `retries` times, at the pace that the
    service asks for. Other errors raise `ServiceProblem` at once. `sleep` and `transport` are seams for tests."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        timeout: float = 60.0,
        retries: int = 3,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=timeout, transport=transport)
        self._retries = retries
        self._sleep = sleep

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def classify(
        self,
        *images: ImageInput,
        labels: Iterable[str] | None = None,
        label_set: str | None = None,
        adapter: str | None = None,
        top_k: int = 5,
        scores: ScoreKind = "softmax",
        reject_below: float | None = None,
        wait: float = 0.0,
    ) -> ClassifyAnswer:
        """One result per image, in order; an image that cannot be read has `error` set and does not raise, unless it
        is the only one. `wait` is how many seconds the service may wait for adapted prompts."""
        call = calls.classify_call(
            images,
            labels=labels,
            label_set=label_set,
            adapter=adapter,
            top_k=top_k,
            scores=scores,
            reject_below=reject_below,
            wait=wait,
        )
        return calls.parsed(ClassifyAnswer, await self._send(call))

    async def create_label_set(
        self,
        classes: Iterable[str | ClassEntry],
        *,
        name: str | None = None,
        adapter: str | None = None,
        templates: Iterable[str] = (),
        options: Mapping[str, OptionValue] | None = None,
        wait: float = 0.0,
    ) -> LabelSetAnswer:
        """Durable once this returns; posting the same content again is free."""
        call = calls.create_call(classes, name=name, adapter=adapter, templates=templates, options=options, wait=wait)
        return calls.parsed(LabelSetAnswer, await self._send(call))

    async def label_set(self, label_set: str) -> LabelSetAnswer:
        """By id or name."""
        return calls.parsed(LabelSetAnswer, await self._send(Call("GET", calls.label_set_path(label_set))))

    async def label_sets(self) -> AsyncIterator[LabelSetSummary]:
        """All of them, page by page."""
        after: str | None = ""
        while after is not None:
            page = calls.parsed(LabelSetPage, await self._send(Call("GET", "/v1/label-sets", {"after": after})))
            for summary in page.label_sets:
                yield summary
            after = page.next

    async def watch_label_set(self, label_set: str) -> AsyncIterator[tuple[str, float]]:
        """(status, progress) as they change, until the label set is ready or failed."""
        request = self._http.build_request("GET", calls.label_set_path(label_set, "/events"))
        response = await self._http.send(request, stream=True)
        try:
            if not response.is_success:
                await response.aread()
            async for line in calls.checked(response).aiter_lines():
                if data := calls.event_data(line):
                    yield calls.moment(data)
        finally:
            await response.aclose()

    async def delete_label_set(self, label_set: str) -> None:
        calls.checked(await self._send(Call("DELETE", calls.label_set_path(label_set))))

    async def put_support(
        self, label_set: str, label: str, *images: ImageInput, captions: Sequence[str | None] | None = None
    ) -> SupportClass:
        """Replaces the support images of one class; durable once this returns."""
        return calls.parsed(SupportClass, await self._send(calls.support_call(label_set, label, images, captions)))

    async def support(self, label_set: str) -> SupportAnswer:
        return calls.parsed(SupportAnswer, await self._send(Call("GET", calls.label_set_path(label_set, "/support"))))

    async def delete_support(self, label_set: str, label: str) -> None:
        calls.checked(await self._send(Call("DELETE", calls.support_path(label_set, label))))

    async def fit(
        self,
        label_set: str,
        *,
        adapter: str | None = None,
        options: Mapping[str, OptionValue] | None = None,
        deadline_seconds: float | None = None,
        wait: float = 0.0,
    ) -> LabelSetAnswer:
        """Has a few-shot method learn from the support images; `watch_label_set` follows it."""
        call = calls.fit_call(label_set, adapter=adapter, options=options, deadline_seconds=deadline_seconds, wait=wait)
        return calls.parsed(LabelSetAnswer, await self._send(call))

    async def cancel_fit(self, label_set: str) -> None:
        """Ends a running fit, or drops a finished one."""
        calls.checked(await self._send(Call("DELETE", calls.label_set_path(label_set, "/fit"))))

    async def add_classes(
        self, label_set: str, classes: Iterable[str | ClassEntry], *, wait: float = 0.0
    ) -> LabelSetAnswer:
        """Another label set with these classes at its end; it takes over the name and the support images."""
        return calls.parsed(LabelSetAnswer, await self._send(calls.classes_call(label_set, classes, wait)))

    async def evaluate(
        self, label_set: str, images: Iterable[tuple[str, ImageInput]], *, wait: float = 0.0
    ) -> EvaluationAnswer:
        """Accuracy and calibration on images given with their class names, beside plain zero-shot."""
        return calls.parsed(EvaluationAnswer, await self._send(calls.evaluate_call(label_set, images, wait)))

    async def get(self, path: str) -> httpx.Response:
        """Any other route, such as /v1/models or /readyz, as it answers."""
        return await self._http.get(path)

    async def _send(self, call: Call) -> httpx.Response:
        for attempt in range(self._retries):
            try:
                response = await self._http.send(call.request(self._http))
            except httpx.ConnectError:
                response = None
            if response is not None and response.status_code not in calls.RETRIED:
                return response
            await self._sleep(calls.pause(response, attempt))
        return await self._http.send(call.request(self._http))
