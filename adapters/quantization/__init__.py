"""Prompts in few bits: codebooks, training through a quantiser, packed storage (arXiv 2407.10704)."""
