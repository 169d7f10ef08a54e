"""Tensors of the Open Inference Protocol as JSON and as its binary extension. Little-endian, row-major, no HTTP."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

from pydantic import ValidationError

from service.errors import BadRequest, Unprocessable
from service.http.problems import validation_problem
from service.protocols.schemas import InferInput, InferRequest

LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """`data` row-major, with as many elements as `shape` says."""

    name: str
    datatype: Literal["BYTES", "FP32"]
    shape: tuple[int, ...]
    data: Sequence[str] | Sequence[float]


def split_body(body: bytes, header_length: str | None) -> tuple[InferRequest, bytes]:
    """The JSON part, and the binary part behind it. Raises `BadRequest` or `Unprocessable`."""
    size = len(body)
    if header_length is not None:
        if not header_length.isdecimal() or int(header_length) > len(body):
            raise BadRequest(f"Inference-Header-Content-Length is {header_length!r}, of a body of {len(body)} bytes")
        size = int(header_length)
    try:
        return InferRequest.model_validate_json(body[:size]), body[size:]
    except ValidationError as error:
        raise validation_problem(error.errors(include_url=False)) from error


def text_tensors(request: InferRequest, tail: bytes) -> dict[str, list[bytes]]:
    """The elements of every input by name; only BYTES are served. JSON elements come as UTF-8."""
    sizes = [_binary_size(tensor) for tensor in request.inputs]
    ends = list(accumulate(sizes, initial=0))
    if ends[-1] != len(tail):
        raise BadRequest(f"{len(tail)} bytes of tensors came where {ends[-1]} were announced")
    found: dict[str, list[bytes]] = {}
    for tensor, (start, end) in zip(request.inputs, pairwise(ends), strict=True):
        if tensor.name in found:
            raise Unprocessable(f"the input {tensor.name!r} is given twice", field=f"inputs.{tensor.name}")
        binary = tensor.data is None
        elements = list(unpacked(tail[start:end], tensor.name)) if binary else [*_flat(tensor.data, tensor.name)]
        found[tensor.name] = _checked(tensor, elements)
    return found


def unpacked(data: bytes, name: str) -> Iterator[bytes]:
    """Each element is its length in four bytes, and itself."""
    place = 0
    while place < len(data):
        start = place + LENGTH.size
        end = start + LENGTH.unpack_from(data, place)[0] if start <= len(data) else start
        if end > len(data):
            raise BadRequest(f"{name}: an element at byte {place} reaches behind the end of the tensor")
        yield data[start:end]
        place = end


def packed(tensor: OutputTensor) -> bytes:
    if tensor.datatype == "FP32":
        return struct.pack(f"<{len(tensor.data)}f", *tensor.data)
    texts = [str(text).encode() for text in tensor.data]
    return b"".join(LENGTH.pack(len(text)) + text for text in texts)


def answer_body(document: dict[str, object], outputs: Sequence[tuple[OutputTensor, bool]]) -> tuple[bytes, int | None]:
    """The body, and the length of its JSON part when binary tensors follow. `outputs`: each with whether it goes in
    binary form."""
    shown: list[dict[str, object]] = []
    parts: list[bytes] = []
    for tensor, binary in outputs:
        one: dict[str, object] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if binary:
            parts.append(packed(tensor))
            one["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            one["data"] = list(tensor.data)
        shown.append(one)
    head = json.dumps({**document, "outputs": shown}, ensure_ascii=False).encode()
    return (b"".join([head, *parts]), len(head)) if parts else (head, None)


def _binary_size(tensor: InferInput) -> int:
    size = tensor.parameters.get("binary_data_size")
    place = f"inputs.{tensor.name}"
    if "shared_memory_region" in tensor.parameters:
        raise Unprocessable(f"{tensor.name}: shared memory is not served", field=place)
    if (tensor.data is None) == (size is None):
        raise Unprocessable(f"{tensor.name}: give either data or parameters.binary_data_size", field=place)
    if size is None:
        return 0
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise Unprocessable(f"{tensor.name}: binary_data_size is {size!r}", field=place)
    return size


def _flat(data: object, name: str) -> Iterator[bytes]:
    """Iterative, since callers choose how deep lists are nested."""
    waiting = [data]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += reversed(one)
        elif isinstance(one, str):
            yield one.encode("utf-8", "surrogatepass")
        else:
            raise Unprocessable(f"{name}: the elements of BYTES are texts", field=f"inputs.{name}")


def _checked(tensor: InferInput, elements: list[bytes]) -> list[bytes]:
    place = f"inputs.{tensor.name}"
    if tensor.datatype != "BYTES":
        raise Unprocessable(f"{tensor.name} is {tensor.datatype}; BYTES are served", field=place)
    size = 1
    for length in tensor.shape:
        size *= length
    if min(tensor.shape) < 0 or size != len(elements):
        raise Unprocessable(f"{tensor.name}: {len(elements)} elements for shape {tensor.shape}", field=place)
    return elements
