"""The bodies of the foreign protocols, in their own words. Unknown members are ignored, as the originals do."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

Parameters = dict[str, str | int | float | bool]
Texts = Annotated[list[str], Field(min_length=1)]


class HuggingFaceWishes(BaseModel):
    """`candidate_labels` go with the backbone as model; a label set has its own classes."""

    candidate_labels: Texts | str | None = None
    hypothesis_template: str | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    function_to_apply: Literal["softmax", "sigmoid"] | None = None


class HuggingFaceImage(BaseModel):
    image: str


class HuggingFaceRequest(BaseModel):
    """`inputs` is the image as base64 text or data URI, or an object with it."""

    inputs: str | HuggingFaceImage
    parameters: HuggingFaceWishes = HuggingFaceWishes()


class HuggingFaceScore(BaseModel):
    label: str
    score: float


class InferInput(BaseModel):
    """`data` is nested or flat; without it, `parameters.binary_data_size` bytes follow the JSON."""

    name: str
    shape: Annotated[list[int], Field(min_length=1, max_length=8)]
    datatype: str
    parameters: Parameters = {}
    data: list[object] | None = None


class InferOutputWish(BaseModel):
    """`parameters.binary_data` asks for the binary form."""

    name: str
    parameters: Parameters = {}


class InferRequest(BaseModel):
    """Parameters: `label_set`, `labels` (divided by commas), `adapter`, `top_k`, `scores`, `timeout` (microseconds)."""

    id: str | None = None
    parameters: Parameters = {}
    inputs: Annotated[list[InferInput], Field(min_length=1)]
    outputs: list[InferOutputWish] | None = None


class InferOutput(BaseModel):
    """`data` in row-major order, unless `parameters.binary_data_size` bytes of it follow the JSON."""

    name: str
    datatype: Literal["BYTES", "FP32"]
    shape: list[int]
    parameters: Parameters = {}
    data: list[str] | list[float] | None = None


class InferAnswer(BaseModel):
    """`parameters` tell `adapted`, `served_by`, `label_set` and `status`."""

    id: str | None = None
    model_name: str
    model_version: str
    parameters: Parameters
    outputs: list[InferOutput]


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """-1 stands for any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Live(BaseModel):
    live: bool


class Ready(BaseModel):
    name: str
    ready: bool
