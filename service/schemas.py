"""The bodies of requests and answers as they appear on the wire and in openapi.yaml. Shapes only, no behaviour."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from service.compute.engine_answers import EngineAnswer

ScoreKind = Literal["softmax", "independent"]
EvaluationSource = Literal["upload", "support"]
Status = Literal["queued", "adapting", "ready", "failed", "awaiting-support"]
OptionValue = str | int | float | bool
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Threshold = Annotated[float, Field(ge=0, le=1)]


class Body(BaseModel):
    """What callers send: unknown members are refused, since they are most likely typing errors."""

    model_config = ConfigDict(extra="forbid")


class ClassEntry(Body):
    name: str
    aliases: list[str] = []
    descriptions: list[str] = []


class LabelSetRequest(Body):
    classes: Annotated[list[str | ClassEntry], Field(min_length=1)]
    name: Name | None = None
    adapter: str | None = None
    templates: list[str] = []
    options: dict[str, OptionValue] = {}


class FitRequest(Body):
    """`adapter` is the label set's own if that learns from support images, else auto."""

    adapter: str | None = None
    options: dict[str, OptionValue] = {}
    deadline_seconds: Annotated[float, Field(gt=0)] | None = None


class ClassesRequest(Body):
    classes: Annotated[list[str | ClassEntry], Field(min_length=1)]


class ClassifyOptions(Body):
    """Exactly one of `labels` and `label_set`. `templates` go with `labels`; a label set has its own."""

    labels: Annotated[list[str], Field(min_length=1)] | None = None
    templates: list[str] = []
    label_set: str | None = None
    adapter: str | None = None
    top_k: Annotated[int, Field(ge=1)] = 5
    scores: ScoreKind = "softmax"
    reject_below: Threshold | None = None


class ClassifyRequest(ClassifyOptions):
    """Images are base64 texts or data URIs."""

    images: Annotated[list[str], Field(min_length=1)]


class Problem(BaseModel):
    """RFC 9457 problem document; further members depend on `type`."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    request_id: str | None = None


class Prediction(BaseModel):
    label: str
    score: float
    cosine: float


class ImageAnswer(BaseModel):
    """Either `predictions`, best first, or `error`."""

    predictions: list[Prediction] | None = None
    rejected: bool | None = None
    filename: str | None = None
    error: Problem | None = None


class ClassifyAnswer(BaseModel):
    """`adapter` is the method asked for, `served_by` the one whose class state scored the images."""

    results: list[ImageAnswer]
    adapted: bool
    adapter: str
    served_by: str
    label_set: str
    status: Status
    source_prompts: str
    backbone: str
    timings_ms: dict[str, float]


class LabelSetSummary(BaseModel):
    """`former_name` is the name that it had until other content took it over: it is an earlier version of that."""

    id: str
    name: str | None
    former_name: str | None = None
    status: Status
    progress: float
    adapter: str
    class_count: int
    created: float


class FitAnswer(BaseModel):
    """What was asked for; `support` is the digest of the images it learns from. Progress and outcome are those of the
    label set. `former` is the fit that served before this one, and serves until this one is ready."""

    adapter: str
    options: dict[str, OptionValue]
    support: str
    deadline_seconds: float | None
    created: float
    error: str | None = None
    former: FitAnswer | None = None


class LabelSetAnswer(LabelSetSummary):
    """`seconds`, `bytes` and `info` are of the class state, so they are empty until the label set is ready.
    `estimated_seconds` are left until it is; null if nobody can tell."""

    options: dict[str, OptionValue]
    classes: list[str]
    templates: list[str]
    seconds: float | None
    bytes: int | None
    fingerprint: str
    version: str
    info: dict[str, OptionValue]
    fit: FitAnswer | None = None
    estimated_seconds: float | None = None
    error: str | None = None


class LabelSetPage(BaseModel):
    """`next` is the `after` of the following page, or null on the last one."""

    label_sets: list[LabelSetSummary]
    next: str | None


class SupportImageAnswer(BaseModel):
    """`digest` is the SHA-256 of the bytes as uploaded."""

    digest: str
    bytes: int
    caption: str | None


class SupportClass(BaseModel):
    label: str
    count: int
    images: list[SupportImageAnswer]


class SupportAnswer(BaseModel):
    """`fewest`: images of the class that has the fewest. `digest` changes with the images and captions."""

    label_set: str
    digest: str
    images: int
    fewest: int
    classes: list[SupportClass]


class ClassScore(BaseModel):
    label: str
    images: int
    top1: float


class Mistaken(BaseModel):
    """So many `images` of the class `label` were found to be `found`."""

    label: str
    found: str
    images: int


class ReliabilityBin(BaseModel):
    """Of the images whose best score lies between `lower` and `upper`: how many, their mean score, and the share that
    was right."""

    lower: float
    upper: float
    images: int
    confidence: float
    top1: float


class WrongImage(BaseModel):
    """An image of the class `label` that was found to be `found`, with this score."""

    filename: str
    label: str
    found: str
    score: float


class Report(BaseModel):
    """`top1` and `ece` as shares (0 to 1), null without images. `confusion` has a row per class and a column per
    answer, in label order; null for more than 200 classes. `mistaken` lists the most frequent errors, `worst` the
    images with the surest ones, `reliability` the bins of score that have images."""

    top1: float | None
    ece: float | None
    per_class: list[ClassScore]
    confusion: list[list[int]] | None
    mistaken: list[Mistaken]
    reliability: list[ReliabilityBin] = []
    worst: list[WrongImage] = []


class ImageFailure(BaseModel):
    filename: str
    error: Problem


class EvaluationAnswer(BaseModel):
    """`info` is of the class state that scored the images."""

    label_set: str
    adapter: str
    served_by: str
    adapted: bool
    status: Status
    info: dict[str, OptionValue] = {}
    images: int
    failures: list[ImageFailure]
    served: Report
    zero_shot: Report


class OptionAnswer(BaseModel):
    model_config = ConfigDict(extra="allow")


class AdaptersAnswer(BaseModel):
    default: str
    adapters: list[OptionAnswer]


class ModelAnswer(BaseModel):
    name: str
    fingerprint: str
    embed_dim: int
    image_size: int
    device: str
    precision: str
    engine: EngineAnswer | None
    preprocess: Literal["fast", "exact"]
    source_prompts: str
    logit_scale: float


class ModelsAnswer(BaseModel):
    models: list[ModelAnswer]


class LimitsAnswer(BaseModel):
    """`image_types` are the image formats that are decoded."""

    limits: dict[str, int | float]
    image_types: list[str]
    exif: Literal["ignore", "apply"]


class Alive(BaseModel):
    status: Literal["alive"] = "alive"


class Check(BaseModel):
    name: str
    status: Literal["ok", "degraded", "failed"]
    detail: str = ""


class Readiness(BaseModel):
    """`degraded` serves, but without something it should have (a store, say)."""

    status: Literal["ready", "degraded", "unready"]
    checks: list[Check]
