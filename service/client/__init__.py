"""The Python client: `Client` and `AsyncClient` speak the HTTP contract, with types and retries. No model code here."""

from __future__ import annotations

from service.client.aio import AsyncClient
from service.client.calls import ProgressCallback, ServiceProblem
from service.client.images import ImageInput
from service.client.sync import Client

__all__ = ["AsyncClient", "Client", "ImageInput", "ProgressCallback", "ServiceProblem"]
