"""Bounds of settings."""

from __future__ import annotations


def check_ranges(settings: object, **ranges: tuple[float, float]) -> None:
    """Raises `ValueError` for a setting outside its bounds, or not a number."""
    for name, (low, high) in ranges.items():
        if not low <= getattr(settings, name) <= high:
            raise ValueError(f"{name} must lie in {low} to {high}")
