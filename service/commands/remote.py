"""Classifying by a running service: small requests, several at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service.client import Client, ServiceProblem
from service.commands.display import progress
from service.schemas import ImageAnswer, Problem

UNREADABLE = 422
TOO_MUCH = "max_body_bytes"


@dataclass(slots=True, eq=False)
class RemoteClassifier:
    """One label set of a service. `adapted` is whether all answers so far came from adapted prompts."""

    client: Client
    label_set: str
    adapter: str | None
    top_k: int
    wait: float
    adapted: bool = True
    plain: bool = False

    @property
    def pending(self) -> bool:
        return not self.adapted and not self.plain

    def prepare(self, files: Sequence[Path]) -> list[ImageAnswer]:
        """Sends the files that can be read."""
        given = [content_of(path) for path in files]
        sent = [one for one in given if isinstance(one, bytes)]
        answers = iter(self._answers(sent) if sent else [])
        return [next(answers) if isinstance(one, bytes) else one for one in given]

    def finish(self, prepared: list[ImageAnswer]) -> list[ImageAnswer]:
        return prepared

    def close(self) -> None:
        self.client.close()

    def _answers(self, images: Sequence[bytes]) -> list[ImageAnswer]:
        try:
            answer = self.client.classify(
                *images, label_set=self.label_set, adapter=self.adapter, top_k=self.top_k, wait=self.wait
            )
        except ServiceProblem as failure:
            return self._apart(images, failure)
        self.adapted = self.adapted and answer.adapted
        self.plain = answer.adapter == "zero-shot"
        return answer.results

    def _apart(self, images: Sequence[bytes], failure: ServiceProblem) -> list[ImageAnswer]:
        """The error of a single image is its answer; images that are too much together go in halves."""
        too_much = (failure.problem.model_extra or {}).get("limit") == TOO_MUCH
        if len(images) > 1 and too_much:
            half = len(images) // 2
            return [*self._answers(images[:half]), *self._answers(images[half:])]
        if len(images) == 1 and (too_much or failure.concerns_image):
            return [ImageAnswer(error=failure.problem)]
        raise failure


def open_remotely(
    server: str,
    api_key: str | None,
    names: Sequence[str],
    *,
    label_set: str | None,
    adapter: str | None,
    top_k: int,
    wait: float,
) -> RemoteClassifier:
    """Class names become a label set of the service, whose adaptation is shown."""
    client = Client(server, api_key=api_key)
    if label_set is None:
        with progress() as bars:
            task = bars.add_task(f"adapting {len(names)} classes", total=1.0)
            made = client.create_label_set(names, adapter=adapter, wait=min(wait, 1.0))
            if wait > 0:
                client.follow(made.id, lambda status, done: bars.update(task, completed=done))
        label_set, adapter = made.id, None
    return RemoteClassifier(client, label_set, adapter, top_k, wait)


def content_of(path: Path) -> bytes | ImageAnswer:
    try:
        content = path.read_bytes()
    except OSError as failure:
        detail = failure.strerror or str(failure)
        problem = Problem(type="unreadable-file", title="Unreadable file", status=UNREADABLE, detail=detail)
        return ImageAnswer(error=problem)
    return content
