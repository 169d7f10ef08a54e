"""What both clients share: how a call becomes a request, and what an answer means. Sends nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from service.client.images import ImageInput, encoded
from service.images.formats import sniffed_type
from service.schemas import ClassEntry, EvaluationSource, OptionValue, Problem, ScoreKind

Answer = TypeVar("Answer", bound=BaseModel)
Item = TypeVar("Item")

ProgressCallback = Callable[[str, float], None]
"""Is told status and progress (0 to 1) of an adaptation or a fit."""

FINAL = frozenset({"ready", "failed", "awaiting-support"})
WATCH_SILENCE = 60.0
"""Seconds without any word after which a stream of events counts as broken; the service speaks every 15."""

EVALUATION_PATIENCE = 600.0
"""Seconds that an evaluation may take."""


IMAGE_LIMITS = frozenset({"max_image_bytes", "max_pixels", "max_side_ratio"})


class ServiceProblem(Exception):
    """The service answered with a problem document. `problem` has it whole, further members included."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.title} ({problem.status}): {problem.detail}")
        self.problem = problem
        self.status = problem.status
        self.type = problem.type.rsplit("/", 1)[-1]

    @property
    def concerns_image(self) -> bool:
        """Whether the image is at fault: the error of the only image of a request is the answer to the request."""
        limit = (self.problem.model_extra or {}).get("limit")
        return self.type in {"undecodable-image", "unsupported-type"} or limit in IMAGE_LIMITS


@dataclass(frozen=True, slots=True)
class Call:
    """One request, whole, so that it can be sent again. `patience` is how long the service may take by our own wish.
    `repeatable` holds for all but deletions: uploads and fits are found again by their content."""

    method: str
    path: str
    params: Mapping[str, str | int | float] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    json: object = None
    fields: Mapping[str, str | list[str]] | None = None
    files: Sequence[tuple[str, tuple[str, bytes]]] = ()
    patience: float = 0.0

    @property
    def repeatable(self) -> bool:
        return self.method != "DELETE"

    def request(self, client: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        # httpx reads a timeout per request; waiting that was asked for comes on top of the usual patience.
        usual = client.timeout.read
        timeout = httpx.Timeout(client.timeout.connect, read=None if usual is None else usual + self.patience)
        return client.build_request(
            self.method,
            self.path,
            params=dict(self.params) or None,
            headers=dict(self.headers),
            content=self.content,
            json=self.json,
            data=None if self.fields is None else dict(self.fields),
            files=list(self.files) or None,
            timeout=timeout,
        )


def classify_call(
    images: Sequence[ImageInput],
    *,
    labels: Iterable[str] | None = None,
    label_set: str | None = None,
    adapter: str | None = None,
    top_k: int = 5,
    scores: ScoreKind = "softmax",
    reject_below: float | None = None,
    wait: float = 0.0,
) -> Call:
    if (labels is None) == (label_set is None):
        raise ValueError("give either labels or label_set")
    chosen: dict[str, str | int | float] = {"top_k": top_k, "scores": scores}
    optional = {"label_set": label_set, "adapter": adapter, "reject_below": reject_below}
    chosen.update({name: value for name, value in optional.items() if value is not None})
    named = [encoded(image, place) for place, image in enumerate(images)]
    kind = sniffed_type(named[0][1]) if len(named) == 1 else None
    if labels is None and kind is not None:
        headers = {**preference(wait), "Content-Type": kind}
        return Call("POST", "/v1/classify", chosen, headers, content=named[0][1], patience=wait)
    fields: dict[str, str | list[str]] = {name: str(value) for name, value in chosen.items()}
    if labels is not None:
        fields["labels"] = list(labels)
    files = [("images", item) for item in named]
    return Call("POST", "/v1/classify", headers=preference(wait), fields=fields, files=files, patience=wait)


def create_call(
    classes: Iterable[str | ClassEntry],
    *,
    name: str | None = None,
    adapter: str | None = None,
    templates: Iterable[str] = (),
    options: Mapping[str, OptionValue] | None = None,
    wait: float = 0.0,
) -> Call:
    body = {
        "classes": [entry if isinstance(entry, str) else entry.model_dump() for entry in classes],
        "name": name,
        "adapter": adapter,
        "templates": list(templates),
        "options": dict(options or {}),
    }
    return Call("POST", "/v1/label-sets", headers=preference(wait), json=body, patience=wait)


def support_path(label_set: str, label: str) -> str:
    return label_set_path(label_set, f"/support/{quote(label, safe='')}")


def support_call(
    label_set: str, label: str, images: Sequence[ImageInput], captions: Sequence[str | None] | None
) -> Call:
    files = [("images", encoded(image, place)) for place, image in enumerate(images)]
    fields = None if captions is None else {"captions": json.dumps(list(captions), ensure_ascii=False)}
    return Call("PUT", support_path(label_set, label), fields=fields, files=files)


def support_image_path(label_set: str, digest: str) -> str:
    return label_set_path(label_set, f"/support-images/{quote(digest, safe='')}")


def fit_call(
    label_set: str,
    *,
    adapter: str | None = None,
    options: Mapping[str, OptionValue] | None = None,
    deadline_seconds: float | None = None,
    wait: float = 0.0,
) -> Call:
    body = {"adapter": adapter, "options": dict(options or {}), "deadline_seconds": deadline_seconds}
    return Call("POST", label_set_path(label_set, "/fit"), headers=preference(wait), json=body, patience=wait)


def classes_call(label_set: str, classes: Iterable[str | ClassEntry], wait: float = 0.0) -> Call:
    body = {"classes": [entry if isinstance(entry, str) else entry.model_dump() for entry in classes]}
    return Call("POST", label_set_path(label_set, "/classes"), headers=preference(wait), json=body, patience=wait)


def evaluate_call(
    label_set: str,
    images: Iterable[tuple[str, ImageInput]] = (),
    *,
    source: EvaluationSource = "upload",
    adapter: str | None = None,
    wait: float = 0.0,
) -> Call:
    """The class is the folder in the file name. Raises `ValueError` when `source` and `images` do not go together."""
    given = [(label, encoded(image, place)) for place, (label, image) in enumerate(images)]
    if bool(given) != (source == "upload"):
        raise ValueError("give images, or source='support' and no images")
    files = [("images", (f"{label}/{name}", data)) for label, (name, data) in given]
    path = label_set_path(label_set, "/evaluate")
    params = {"source": source} if adapter is None else {"source": source, "adapter": adapter}
    return Call("POST", path, params, preference(wait), files=files, patience=EVALUATION_PATIENCE + wait)


def answer_of(outcome: httpx.Response | httpx.TransportError) -> httpx.Response:
    """Raises what kept the request from being answered."""
    if isinstance(outcome, httpx.TransportError):
        raise outcome
    return outcome


def unheard(status: str, progress: float) -> None:
    """For those who do not want to be told."""


def groups(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    waiting = iter(items)
    while group := list(islice(waiting, size)):
        yield group


def label_set_path(label_set: str, tail: str = "") -> str:
    return f"/v1/label-sets/{quote(label_set, safe='')}{tail}"


def authorization(api_key: str | None) -> dict[str, str]:
    return {} if api_key is None else {"Authorization": f"Bearer {api_key}"}


def watching(client: httpx.Client | httpx.AsyncClient, label_set: str) -> httpx.Request:
    usual = client.timeout.read
    patience = httpx.Timeout(client.timeout.connect, read=None if usual is None else max(usual, WATCH_SILENCE))
    return client.build_request("GET", label_set_path(label_set, "/events"), timeout=patience)


def preference(wait: float) -> dict[str, str]:
    return {"Prefer": f"wait={wait:g}"} if wait > 0 else {}


def checked(response: httpx.Response) -> httpx.Response:
    """The response itself, or its problem raised."""
    if response.is_success:
        return response
    raise ServiceProblem(problem_of(response))


def problem_of(response: httpx.Response) -> Problem:
    try:
        body = response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        body = None
    if isinstance(body, dict) and {"type", "title", "status", "detail"} <= body.keys():
        return Problem.model_validate(body)
    # Not ours: a proxy in between, most likely.
    return Problem(
        type="about:blank",
        title=response.reason_phrase or "Error",
        status=response.status_code,
        detail=response.text[:200],
    )


def parsed(kind: type[Answer], response: httpx.Response) -> Answer:
    return kind.model_validate_json(checked(response).content)


def event_data(line: str) -> dict[str, object] | None:
    """The data of one line of a server-sent event stream, if it carries any."""
    if not line.startswith("data:"):
        return None
    value = json.loads(line[5:])
    return value if isinstance(value, dict) else None


def moment(data: Mapping[str, object]) -> tuple[str, float]:
    """Status and progress of a progress event."""
    progress = data.get("progress", 0.0)
    return str(data.get("status", "queued")), float(progress) if isinstance(progress, int | float) else 0.0
