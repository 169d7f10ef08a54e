"""Inference requests of the Open Inference Protocol as calls of the classifier, and its answers as tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from service.errors import LimitExceeded, Unprocessable
from service.http.problems import validation_problem
from service.images.inputs import Upload, from_base64
from service.protocols.schemas import InferRequest, TensorMetadata
from service.protocols.tensors import OutputTensor
from service.routes.bodies import split_labels
from service.schemas import ClassifyOptions

IMAGE, LABELS = "image", "labels"
INPUTS = [
    TensorMetadata(name=IMAGE, datatype="BYTES", shape=[-1]),
    TensorMetadata(name=LABELS, datatype="BYTES", shape=[-1]),
]
OUTPUTS = [
    TensorMetadata(name="label", datatype="BYTES", shape=[-1, -1]),
    TensorMetadata(name="score", datatype="FP32", shape=[-1, -1]),
    TensorMetadata(name="cosine", datatype="FP32", shape=[-1, -1]),
]
OPTIONS = ("label_set", "labels", "adapter", "top_k", "scores")
TIMEOUT = "timeout"
"""Triton's request parameter: microseconds, 0 for none."""


def images_of(request: InferRequest, tensors: Mapping[str, list[bytes]], *, max_images: int) -> list[Upload]:
    """In JSON images are base64 texts, since JSON carries no bytes."""
    unknown = sorted(tensors.keys() - {IMAGE, LABELS})
    if unknown:
        raise Unprocessable(f"there is no input {unknown[0]!r}", field=f"inputs.{unknown[0]}")
    images = tensors.get(IMAGE)
    if not images:
        raise Unprocessable(f"the input {IMAGE!r} is needed, with at least one element", field=f"inputs.{IMAGE}")
    if len(images) > max_images:
        raise LimitExceeded("max_images", max_images, actual=len(images), field=f"inputs.{IMAGE}")
    if any(tensor.name == IMAGE and tensor.data is None for tensor in request.inputs):
        return [Upload(image) for image in images]
    return [from_base64(image.decode("utf-8", "replace")) for image in images]


def options_of(request: InferRequest, tensors: Mapping[str, list[bytes]], label_set: str | None) -> ClassifyOptions:
    """From the parameters; the classes also from the input `labels`, or from the model when that is a label set.
    Other parameters are ignored, since clients of other servers send some."""
    given: dict[str, Any] = {name: request.parameters[name] for name in OPTIONS if name in request.parameters}
    if LABELS in given:
        given[LABELS] = split_labels([str(given[LABELS])])
    if LABELS in tensors:
        given[LABELS] = [text(one) for one in tensors[LABELS]]
    if label_set is not None:
        if given.keys() & {"label_set", LABELS}:
            raise Unprocessable("the model is a label set, which has its own classes", field=LABELS)
        given["label_set"] = label_set
    try:
        return ClassifyOptions.model_validate(given)
    except ValidationError as error:
        raise validation_problem(error.errors(include_url=False)) from error


def patience_of(request: InferRequest, patience: float | None) -> float | None:
    """Seconds that the caller has: the shorter of the header field's and those of the parameter `timeout`."""
    timeout = request.parameters.get(TIMEOUT, 0)
    if isinstance(timeout, bool) or not isinstance(timeout, int) or timeout < 0:
        raise Unprocessable("timeout: whole microseconds, 0 for none", field=f"parameters.{TIMEOUT}")
    if not timeout:
        return patience
    return timeout / 1e6 if patience is None else min(timeout / 1e6, patience)


def text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Unprocessable(f"labels: not UTF-8: {error}", field=f"inputs.{LABELS}") from error


def wanted(request: InferRequest) -> list[tuple[str, bool]]:
    """Outputs by name, each with whether it goes in binary form; all of them when none is named."""
    binary = request.parameters.get("binary_data_output") is True
    names = {one.name for one in OUTPUTS}
    if request.outputs is None:
        return [(one.name, binary) for one in OUTPUTS]
    for wish in request.outputs:
        if wish.name not in names:
            raise Unprocessable(f"there is no output {wish.name!r}", field="outputs", served=sorted(names))
        for refused in ("shared_memory_region", "classification"):
            if refused in wish.parameters:
                raise Unprocessable(f"{wish.name}: {refused} is not served", field="outputs")
    return [(wish.name, wish.parameters.get("binary_data", binary) is True) for wish in request.outputs]


def tensors_of(results: Sequence[Mapping[str, Any]]) -> dict[str, OutputTensor]:
    """One row per image, best first. Raises `Unprocessable` for an image that could not be read: a tensor has no
    place for its error."""
    for place, result in enumerate(results):
        if "error" in result:
            raise Unprocessable(f"image[{place}]: {result['error']['detail']}", field=f"inputs.{IMAGE}[{place}]")
    rows = [result["predictions"] for result in results]
    shape = (len(rows), len(rows[0]))

    def column(name: str) -> list[Any]:
        return [prediction[name] for row in rows for prediction in row]

    return {
        "label": OutputTensor("label", "BYTES", shape, column("label")),
        "score": OutputTensor("score", "FP32", shape, column("score")),
        "cosine": OutputTensor("cosine", "FP32", shape, column("cosine")),
    }
