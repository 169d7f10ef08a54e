"""Prompt templates: data only. `{}` is the class name."""

from __future__ import annotations

PLAIN_TEMPLATE = "a photo of a {}."
CONTEXT_WORDS = "a photo of a"
"""The hand-written start of learnable context, four tokens."""

VARIED_TEMPLATES = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
"""Seven of CLIP's 80 templates that do nearly as well as all of them, according to its authors' notebook on prompts."""

BACKGROUND_TEXTS = ("a photo.", "a photo of something.", "a picture of an object.", "an image.")
"""Texts about no class in particular: the reference for independent scores."""
