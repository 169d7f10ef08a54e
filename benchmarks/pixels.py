"""The service's decoder, for callers that decode on their own thread."""

from __future__ import annotations

from adapters.clip import Backbone
from service.core import build_decoder
from service.images.decode import Decoder
from service.settings import Settings


def decoder_of(settings: Settings, backbone: Backbone, mode: str) -> Decoder:
    """As the service builds it, in one of the modes `exact` and `fast`."""
    return build_decoder(settings.model_copy(update={"preprocess": mode}), backbone)
