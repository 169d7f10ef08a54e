"""Prompt templates: data only. `{}` is the class name."""

from __future__ import annotations

PLAIN_TEMPLATE = "a photo of a {}."
CONTEXT_WORDS = "a photo of a"
"""The hand-written start of learnable context, four tokens."""

BACKGROUND_TEXTS = ("a photo.", "a photo of something.", "a picture of an object.", "an image.")
"""Texts about no class in particular: the reference for independent scores."""
