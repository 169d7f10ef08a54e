"""The synchronous client. A `Client` holds connections: use it as a context manager, or close it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType

import httpx
from typing_extensions import Self

from service.client import calls
from service.client.calls import Call, ProgressCallback, ServiceProblem
from service.client.images import ImageInput
from service.client.retries import again, pause
from service.schemas import (
    AdaptersAnswer,
    ClassEntry,
    ClassifyAnswer,
    EvaluationAnswer,
    EvaluationSource,
    ImageAnswer,
    LabelSetAnswer,
    LabelSetPage,
    LabelSetSummary,
    LimitsAnswer,
    ModelsAnswer,
    OptionValue,
    Readiness,
    ScoreKind,
    SupportAnswer,
    SupportClass,
)


class Client:
    """Refused or unavailable (429, 503) and unreachable are tried again up to `retries` times, at the pace that the
    service asks for; a connection that broke off likewise, unless the request was a deletion. Other errors raise
    `ServiceProblem` at once. `timeout` is in seconds, for each step. `sleep` and `transport` are seams for tests."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout: float | httpx.Timeout = 60.0,
        retries: int = 3,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        headers = calls.authorization(api_key)
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)
        self._retries = retries
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def classify(
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
        return calls.parsed(ClassifyAnswer, self._send(call))

    def classify_all(
        self,
        images: Iterable[ImageInput],
        *,
        at_once: int = 16,
        labels: Sequence[str] | None = None,
        label_set: str | None = None,
        adapter: str | None = None,
        top_k: int = 5,
        scores: ScoreKind = "softmax",
        reject_below: float | None = None,
        wait: float = 0.0,
    ) -> Iterator[ImageAnswer]:
        """Any number of images, `at_once` in a request; one answer each, in order, and never an exception for one."""
        for group in calls.groups(images, at_once):
            try:
                answer = self.classify(
                    *group,
                    labels=labels,
                    label_set=label_set,
                    adapter=adapter,
                    top_k=top_k,
                    scores=scores,
                    reject_below=reject_below,
                    wait=wait,
                )
                answers = answer.results
            except ServiceProblem as failure:
                if len(group) > 1 or not failure.concerns_image:
                    raise
                answers = [ImageAnswer(error=failure.problem)]
            yield from answers

    def create_label_set(
        self,
        classes: Iterable[str | ClassEntry],
        *,
        name: str | None = None,
        adapter: str | None = None,
        templates: Iterable[str] = (),
        options: Mapping[str, OptionValue] | None = None,
        wait: float = 0.0,
        progress: ProgressCallback | None = None,
    ) -> LabelSetAnswer:
        """Durable once this returns; posting the same content again is free. With `progress` it returns when the
        label set is ready or failed."""
        call = calls.create_call(classes, name=name, adapter=adapter, templates=templates, options=options, wait=wait)
        made = calls.parsed(LabelSetAnswer, self._send(call))
        return made if progress is None else self.follow(made.id, progress)

    def label_set(self, label_set: str) -> LabelSetAnswer:
        """By id or name."""
        return calls.parsed(LabelSetAnswer, self._send(Call("GET", calls.label_set_path(label_set))))

    def label_sets(self) -> Iterator[LabelSetSummary]:
        """All of them, page by page."""
        after: str | None = ""
        while after is not None:
            page = calls.parsed(LabelSetPage, self._send(Call("GET", "/v1/label-sets", {"after": after})))
            yield from page.label_sets
            after = page.next

    def watch_label_set(self, label_set: str) -> Iterator[tuple[str, float]]:
        """(status, progress) as they change, until the label set is ready or failed."""
        request = calls.watching(self._http, label_set)
        response = self._http.send(request, stream=True)
        try:
            if not response.is_success:
                response.read()
            for line in calls.checked(response).iter_lines():
                if data := calls.event_data(line):
                    yield calls.moment(data)
        finally:
            response.close()

    def follow(self, label_set: str, progress: ProgressCallback | None = None) -> LabelSetAnswer:
        """Returns when the label set is ready or failed; takes up broken streams again."""
        told = progress or calls.unheard
        for attempt in range(self._retries + 1):
            try:
                for status, done in self.watch_label_set(label_set):
                    told(status, done)
            except httpx.TransportError as error:
                if attempt == self._retries:
                    raise
                self._sleep(pause(error, attempt))
            answer = self.label_set(label_set)
            if answer.status in calls.FINAL:
                break
        return answer

    def delete_label_set(self, label_set: str) -> None:
        calls.checked(self._send(Call("DELETE", calls.label_set_path(label_set))))

    def put_support(
        self, label_set: str, label: str, *images: ImageInput, captions: Sequence[str | None] | None = None
    ) -> SupportClass:
        """Replaces the support images of one class; durable once this returns."""
        return calls.parsed(SupportClass, self._send(calls.support_call(label_set, label, images, captions)))

    def support(self, label_set: str) -> SupportAnswer:
        return calls.parsed(SupportAnswer, self._send(Call("GET", calls.label_set_path(label_set, "/support"))))

    def class_support(self, label_set: str, label: str) -> SupportClass:
        """Of one class; none are no error."""
        return calls.parsed(SupportClass, self._send(Call("GET", calls.support_path(label_set, label))))

    def support_image(self, label_set: str, digest: str) -> bytes:
        """The bytes as they were uploaded, by the digest that `support` lists."""
        return calls.checked(self._send(Call("GET", calls.support_image_path(label_set, digest)))).content

    def delete_support(self, label_set: str, label: str) -> None:
        calls.checked(self._send(Call("DELETE", calls.support_path(label_set, label))))

    def fit(
        self,
        label_set: str,
        *,
        adapter: str | None = None,
        options: Mapping[str, OptionValue] | None = None,
        deadline_seconds: float | None = None,
        wait: float = 0.0,
        progress: ProgressCallback | None = None,
    ) -> LabelSetAnswer:
        """Has a few-shot method learn from the support images. With `progress` it returns when that is done."""
        call = calls.fit_call(label_set, adapter=adapter, options=options, deadline_seconds=deadline_seconds, wait=wait)
        noted = calls.parsed(LabelSetAnswer, self._send(call))
        return noted if progress is None else self.follow(noted.id, progress)

    def cancel_fit(self, label_set: str) -> None:
        """Ends a running fit, or drops a finished one."""
        calls.checked(self._send(Call("DELETE", calls.label_set_path(label_set, "/fit"))))

    def add_classes(self, label_set: str, classes: Iterable[str | ClassEntry], *, wait: float = 0.0) -> LabelSetAnswer:
        """Another label set with these classes at its end; it takes over the name and the support images."""
        return calls.parsed(LabelSetAnswer, self._send(calls.classes_call(label_set, classes, wait)))

    def evaluate(
        self,
        label_set: str,
        images: Iterable[tuple[str, ImageInput]] = (),
        *,
        source: EvaluationSource = "upload",
        adapter: str | None = None,
        wait: float = 0.0,
    ) -> EvaluationAnswer:
        """Accuracy and calibration on images given with their class names, or on the label set's support images, beside
        plain zero-shot. `adapter`: another method than the label set's own, on the same images. `wait` is how many
        seconds the service may wait for adapted prompts."""
        call = calls.evaluate_call(label_set, images, source=source, adapter=adapter, wait=wait)
        return calls.parsed(EvaluationAnswer, self._send(call))

    def limits(self) -> LimitsAnswer:
        return calls.parsed(LimitsAnswer, self._send(Call("GET", "/v1/limits")))

    def models(self) -> ModelsAnswer:
        return calls.parsed(ModelsAnswer, self._send(Call("GET", "/v1/models")))

    def adapters(self) -> AdaptersAnswer:
        return calls.parsed(AdaptersAnswer, self._send(Call("GET", "/v1/adapters")))

    def readiness(self) -> Readiness:
        """Asked once; an unready service says so without an exception."""
        return Readiness.model_validate_json((self._http.get("/readyz")).content)

    def get(self, path: str) -> httpx.Response:
        """Any other route, such as /v1/models or /readyz, as it answers."""
        return self._http.get(path)

    def _send(self, call: Call) -> httpx.Response:
        outcome = self._try(call)
        for attempt in range(self._retries):
            if not again(outcome, repeatable=call.repeatable):
                break
            self._sleep(pause(outcome, attempt))
            outcome = self._try(call)
        return calls.answer_of(outcome)

    def _try(self, call: Call) -> httpx.Response | httpx.TransportError:
        try:
            return self._http.send(call.request(self._http))
        except httpx.TransportError as error:
            return error
